//! Remapping hardware: where its units are and whether the firmware left them on (Intel VT-d Architecture,
//! "DMA Remapping Hardware Unit Definition"; AMD I/O Virtualization Technology, "I/O Virtualization Hardware
//! Definition (IVHD) Block").

use alloc::vec::Vec;

use crate::read::{u8_at, u16_at, u64_at};
use crate::table::is_intact;

/// A unit and the register that tells whether it is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemappingUnit {
    /// Physical address of a 32-bit register.
    pub status: u64,
    /// Bits of it that are set while the unit remaps anything.
    pub active: u32,
}

/// The units that an intact DMAR or IVRS lists; empty for any other table.
pub fn remapping_units(table: &[u8]) -> Vec<RemappingUnit> {
    if !is_intact(table) {
        return Vec::new();
    }
    match table.first_chunk() {
        Some(b"DMAR") => blocks(table, 48, |at| u16_at(table, at))
            .filter_map(|at| intel_unit(table, at))
            .collect(),
        Some(b"IVRS") => blocks(table, 48, |at| u8_at(table, at).map(u16::from))
            .filter_map(|at| amd_unit(table, at))
            .collect(),
        _ => Vec::new(),
    }
}

/// Offsets of the blocks from `first` on. The type is read by `kind`; the length is the second 16-bit field.
fn blocks(
    table: &[u8],
    first: usize,
    kind: impl Fn(usize) -> Option<u16>,
) -> impl Iterator<Item = usize> {
    let mut next = Some(first);
    core::iter::from_fn(move || {
        let at = next?;
        kind(at)?;
        let len = usize::from(u16_at(table, at.checked_add(2)?)?);
        // A block shorter than its own header would be met for ever.
        next = (len >= 4).then(|| at.checked_add(len)).flatten();
        Some(at)
    })
}

/// A DRHD block: type 0, register base at 8. Global Status is at 0x1C; bit 31 is DMA remapping, bit 25 interrupt
/// remapping.
fn intel_unit(table: &[u8], at: usize) -> Option<RemappingUnit> {
    if u16_at(table, at)? != 0 {
        return None;
    }
    let base = u64_at(table, at.checked_add(8)?)?;
    Some(RemappingUnit {
        status: base.checked_add(0x1C)?,
        active: 1 << 31 | 1 << 25,
    })
}

/// An IVHD block: type 0x10, 0x11 or 0x40, register base at 8. The control register is at 0x18; bit 0 is the
/// unit's enable.
fn amd_unit(table: &[u8], at: usize) -> Option<RemappingUnit> {
    if !matches!(u8_at(table, at)?, 0x10 | 0x11 | 0x40) {
        return None;
    }
    let base = u64_at(table, at.checked_add(8)?)?;
    Some(RemappingUnit {
        status: base.checked_add(0x18)?,
        active: 1,
    })
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::table::fix_checksum;
    use proptest::prelude::*;

    fn table(signature: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let mut table = std::vec![0u8; 48];
        table[..4].copy_from_slice(signature);
        table.extend_from_slice(body);
        let len = table.len() as u32;
        table[4..8].copy_from_slice(&len.to_le_bytes());
        fix_checksum(&mut table);
        table
    }

    #[test]
    fn intel_units_are_listed_and_other_blocks_skipped() {
        let mut body = std::vec![1, 0, 8, 0, 9, 9, 9, 9];
        body.extend_from_slice(&[0, 0, 16, 0, 1, 0, 0, 0]);
        body.extend_from_slice(&0xFED9_0000u64.to_le_bytes());
        let units = remapping_units(&table(b"DMAR", &body));
        assert_eq!(
            units,
            [RemappingUnit {
                status: 0xFED9_001C,
                active: 0x8200_0000
            }]
        );
    }

    #[test]
    fn amd_units_are_listed() {
        let mut body = std::vec![0x10, 0, 24, 0, 0, 0, 0x40, 0];
        body.extend_from_slice(&0xFEB8_0000u64.to_le_bytes());
        body.extend_from_slice(&[0; 8]);
        let units = remapping_units(&table(b"IVRS", &body));
        assert_eq!(
            units,
            [RemappingUnit {
                status: 0xFEB8_0018,
                active: 1
            }]
        );
    }

    #[test]
    fn a_block_without_length_ends_the_list() {
        assert!(remapping_units(&table(b"DMAR", &[1, 0, 0, 0, 0, 0, 16, 0])).is_empty());
        assert!(remapping_units(b"DMAR").is_empty());
    }

    proptest! {
        #[test]
        fn any_body_ends(body in prop::collection::vec(any::<u8>(), 0..200), amd in any::<bool>()) {
            let table = table(if amd { b"IVRS" } else { b"DMAR" }, &body);
            prop_assert!(remapping_units(&table).len() <= 50);
        }
    }
}
