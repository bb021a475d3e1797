//! From the root pointer to the tables ("Root System Description Pointer", "Extended System Description Table").

use alloc::vec::Vec;

use crate::read::{u8_at, u32_at, u64_at};
use crate::table::{HEADER_LEN, fix_checksum, fix_sum, is_intact, sum};

/// What the root pointer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rsdp {
    /// Physical address of the XSDT, 0 when there is none (ACPI 1.0).
    pub xsdt: u64,
    /// Physical address of the RSDT, 0 when there is none.
    pub rsdt: u32,
}

impl Rsdp {
    /// Bytes of the structure since ACPI 2.0.
    pub const LEN: usize = 36;
    /// Bytes of the part that ACPI 1.0 had.
    const LEN_1: usize = 20;

    /// Reads the root pointer from at least 36 bytes; `None` when signature or checksum are wrong.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let first = bytes.get(..Self::LEN_1)?;
        if !first.starts_with(b"RSD PTR ") || sum(first) != 0 {
            return None;
        }
        let rsdt = u32_at(bytes, 16)?;
        let revision = u8_at(bytes, 15)?;
        if revision < 2 {
            return Some(Self { xsdt: 0, rsdt });
        }
        let whole = bytes.get(..Self::LEN)?;
        (sum(whole) == 0).then_some(Self {
            xsdt: u64_at(bytes, 24)?,
            rsdt,
        })
    }
}

/// Points the root pointer in `rsdp`, of revision 2 or more, to another XSDT. False, with nothing changed, for an
/// older one.
pub fn set_xsdt(rsdp: &mut [u8], xsdt: u64) -> bool {
    if Rsdp::parse(rsdp).is_none_or(|found| found.xsdt == 0) {
        return false;
    }
    let Some(whole) = rsdp.get_mut(..Rsdp::LEN) else {
        return false;
    };
    if let Some(place) = whole.get_mut(24..32) {
        place.copy_from_slice(&xsdt.to_le_bytes());
    }
    // The sum over the first 20 bytes does not change; only the one over all of them does.
    fix_sum(whole, 32);
    true
}

/// The physical addresses that an intact XSDT or RSDT lists, zeros left out.
pub fn table_addresses(table: &[u8]) -> Vec<u64> {
    let Some(entries) = table.get(HEADER_LEN..).filter(|_| is_intact(table)) else {
        return Vec::new();
    };
    let addresses: Vec<u64> = if table.starts_with(b"XSDT") {
        entries
            .as_chunks()
            .0
            .iter()
            .map(|&entry| u64::from_le_bytes(entry))
            .collect()
    } else if table.starts_with(b"RSDT") {
        entries
            .as_chunks()
            .0
            .iter()
            .map(|&entry| u32::from_le_bytes(entry).into())
            .collect()
    } else {
        Vec::new()
    };
    addresses
        .into_iter()
        .filter(|&address| address != 0)
        .collect()
}

/// A copy of the intact `xsdt` that lists `more` tables after its own; `None` when it is not an intact XSDT.
pub fn longer_xsdt(xsdt: &[u8], more: &[u64]) -> Option<Vec<u8>> {
    if !xsdt.starts_with(b"XSDT") || !is_intact(xsdt) {
        return None;
    }
    let mut longer = xsdt.to_vec();
    for address in more {
        longer.extend_from_slice(&address.to_le_bytes());
    }
    let len = u32::try_from(longer.len()).ok()?;
    longer.get_mut(4..8)?.copy_from_slice(&len.to_le_bytes());
    fix_checksum(&mut longer);
    Some(longer)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use proptest::prelude::*;
    use std::vec;

    fn rsdp(revision: u8) -> Vec<u8> {
        let mut bytes = vec![0u8; 36];
        bytes[..8].copy_from_slice(b"RSD PTR ");
        bytes[15] = revision;
        bytes[16..20].copy_from_slice(&0x1111u32.to_le_bytes());
        bytes[20] = 36;
        bytes[24..32].copy_from_slice(&0x2222u64.to_le_bytes());
        fix_sum(&mut bytes[..20], 8);
        fix_sum(&mut bytes, 32);
        bytes
    }

    fn xsdt(addresses: &[u64]) -> Vec<u8> {
        let mut table = vec![0u8; HEADER_LEN];
        table[..4].copy_from_slice(b"XSDT");
        for address in addresses {
            table.extend_from_slice(&address.to_le_bytes());
        }
        let len = table.len() as u32;
        table[4..8].copy_from_slice(&len.to_le_bytes());
        fix_checksum(&mut table);
        table
    }

    #[test]
    fn the_root_pointer_is_checked_in_both_forms() {
        assert_eq!(
            Rsdp::parse(&rsdp(2)),
            Some(Rsdp {
                xsdt: 0x2222,
                rsdt: 0x1111
            })
        );
        assert_eq!(
            Rsdp::parse(&rsdp(0)),
            Some(Rsdp {
                xsdt: 0,
                rsdt: 0x1111
            })
        );
        for at in [0, 17, 25] {
            let mut damaged = rsdp(2);
            damaged[at] ^= 4;
            assert_eq!(Rsdp::parse(&damaged), None);
        }
        assert_eq!(Rsdp::parse(&rsdp(2)[..35]), None);
    }

    #[test]
    fn a_new_xsdt_address_keeps_the_sums() {
        let mut bytes = rsdp(2);
        assert!(set_xsdt(&mut bytes, 0x1234_5678_9ABC));
        assert_eq!(
            Rsdp::parse(&bytes),
            Some(Rsdp {
                xsdt: 0x1234_5678_9ABC,
                rsdt: 0x1111
            })
        );
        let mut old = rsdp(0);
        assert!(!set_xsdt(&mut old, 1));
        assert_eq!(old, rsdp(0));
    }

    #[test]
    fn zeros_in_the_list_are_skipped() {
        assert_eq!(table_addresses(&xsdt(&[0, 0x1000, 0])), [0x1000]);
        assert!(table_addresses(b"XSDT").is_empty());
    }

    proptest! {
        #[test]
        fn a_longer_xsdt_lists_the_old_and_the_new(old in prop::collection::vec(1u64.., 0..8), new in prop::collection::vec(1u64.., 0..8)) {
            let longer = longer_xsdt(&xsdt(&old), &new).unwrap();
            prop_assert!(is_intact(&longer));
            prop_assert_eq!(table_addresses(&longer), [old, new].concat());
        }
    }
}
