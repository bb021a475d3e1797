//! The header that every table but RSDP and FACS begins with ("System Description Table Header").

use crate::read::{bytes, u32_at};

/// Bytes of the header.
pub const HEADER_LEN: usize = 36;

const SIGNATURE: usize = 0;
const LENGTH: usize = 4;
const CHECKSUM: usize = 9;

/// The four letters that name a table.
pub fn signature(table: &[u8]) -> Option<[u8; 4]> {
    bytes(table, SIGNATURE)
}

/// The length of the table whose header `header` holds, if it is possible: 36 bytes to 16 MiB.
pub fn table_len(header: &[u8]) -> Option<usize> {
    const MOST: usize = 16 << 20;
    let len = usize::try_from(u32_at(header, LENGTH)?).ok()?;
    (HEADER_LEN..=MOST).contains(&len).then_some(len)
}

/// Whether `table` is as long as its header says and its bytes sum up to zero.
pub fn is_intact(table: &[u8]) -> bool {
    table_len(table) == Some(table.len()) && sum(table) == 0
}

/// Sum of all bytes, modulo 256.
pub(crate) fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, &byte| sum.wrapping_add(byte))
}

/// Makes the byte at `checksum` such that all bytes sum up to zero.
pub(crate) fn fix_sum(bytes: &mut [u8], checksum: usize) {
    let Some(&old) = bytes.get(checksum) else {
        return;
    };
    let new = old.wrapping_sub(sum(bytes));
    if let Some(byte) = bytes.get_mut(checksum) {
        *byte = new;
    }
}

/// Makes the table's checksum right.
pub(crate) fn fix_checksum(table: &mut [u8]) {
    fix_sum(table, CHECKSUM);
}

/// Gives `table` another signature, which hides it from whoever looks for the old one.
pub fn rename(table: &mut [u8], to: [u8; 4]) {
    if let Some(place) = table.first_chunk_mut() {
        *place = to;
        fix_checksum(table);
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use proptest::prelude::*;
    use std::vec;

    #[test]
    fn a_table_is_intact_when_length_and_sum_are_right() {
        let mut table = vec![0u8; 40];
        table[..8].copy_from_slice(b"TEST\x28\0\0\0");
        fix_checksum(&mut table);
        assert!(is_intact(&table));
        rename(&mut table, *b"ZEST");
        assert!(is_intact(&table));
        assert_eq!(signature(&table), Some(*b"ZEST"));
        assert!(!is_intact(&table[..39]));
        table[20] ^= 1;
        assert!(!is_intact(&table));
    }

    #[test]
    fn impossible_lengths_are_none() {
        for len in [0u32, 35, (16 << 20) + 1, u32::MAX] {
            let mut header = [0u8; HEADER_LEN];
            header[4..8].copy_from_slice(&len.to_le_bytes());
            assert_eq!(table_len(&header), None);
        }
        assert_eq!(table_len(&[0; 7]), None);
    }

    proptest! {
        #[test]
        fn fixing_makes_any_bytes_sum_to_zero(mut bytes in prop::collection::vec(any::<u8>(), 10..100)) {
            fix_checksum(&mut bytes);
            prop_assert_eq!(sum(&bytes), 0);
        }
    }
}
