//! The few ACPI tables the tests look at (ACPI Specification, "ACPI Software Programming Model").

use super::insn::{read_phys8, read_phys64};

/// An ACPI table in memory.
#[derive(Clone, Copy, Debug)]
pub struct AcpiTable {
    address: u64,
    len: u32,
}

impl AcpiTable {
    fn at(address: u64) -> Self {
        let word = read_phys64(address);
        Self {
            address,
            len: (word >> 32) as u32,
        }
    }

    fn signature(&self) -> u32 {
        read_phys64(self.address) as u32
    }

    /// Length in bytes, header included.
    pub fn size(&self) -> u32 {
        self.len
    }

    /// The byte at `offset`, 0 beyond the end.
    pub fn u8(&self, offset: u32) -> u8 {
        if offset < self.len {
            read_phys8(self.address + u64::from(offset))
        } else {
            0
        }
    }

    /// The little-endian word of four bytes at `offset`, 0 beyond the end.
    pub fn u32(&self, offset: u32) -> u32 {
        u32::from_le_bytes([0, 1, 2, 3].map(|byte| self.u8(offset + byte)))
    }

    /// The little-endian word of eight bytes at `offset`, 0 beyond the end.
    pub fn u64(&self, offset: u32) -> u64 {
        u64::from(self.u32(offset)) | (u64::from(self.u32(offset + 4)) << 32)
    }

    /// Whether all bytes add up to zero.
    pub fn checksum_holds(&self) -> bool {
        (0..self.len).fold(0_u8, |sum, offset| sum.wrapping_add(self.u8(offset))) == 0
    }
}

/// Finds the table with `signature` from the RSDP at physical address `rsdp`.
pub fn find(rsdp: u64, signature: &[u8; 4]) -> Option<AcpiTable> {
    // XsdtAddress is at byte 24 of the RSDP.
    let address = read_phys64(rsdp + 24);
    if rsdp == 0 || address == 0 {
        return None;
    }
    let xsdt = AcpiTable::at(address);
    let wanted = u32::from_le_bytes(*signature);
    let entries = xsdt.size().saturating_sub(36) / 8;
    (0..entries)
        .map(|entry| AcpiTable::at(xsdt.u64(36 + entry * 8)))
        .find(|table| table.signature() == wanted)
}

/// The APIC ids of the enabled processors in the MADT, in its order; at most `ids.len()` are written, and the
/// number of all is returned.
pub fn enabled_processors(madt: &AcpiTable, ids: &mut [u32]) -> usize {
    let mut found = 0;
    let mut offset = 44;
    while offset + 2 <= madt.size() {
        let (kind, len) = (madt.u8(offset), u32::from(madt.u8(offset + 1)));
        let processor = match kind {
            0 => Some((u32::from(madt.u8(offset + 3)), madt.u32(offset + 4))),
            9 => Some((madt.u32(offset + 4), madt.u32(offset + 8))),
            _ => None,
        };
        if let Some((id, flags)) = processor
            && flags & 1 != 0
        {
            if let Some(slot) = ids.get_mut(found) {
                *slot = id;
            }
            found += 1;
        }
        if len < 2 {
            break;
        }
        offset += len;
    }
    found
}
