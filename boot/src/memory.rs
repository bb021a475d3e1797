//! The machine's RAM, as the firmware tells it.

use alloc::vec::Vec;

use addr::Spa;
use bootinfo::SpaRange;
use uefi::boot::{self, MemoryType};
use uefi::mem::memory_map::MemoryMap;

use crate::address_space::{self, Space};
use crate::failure::{Failure, firmware};

/// All RAM: sorted, merged, in whole pages.
///
/// From the UEFI memory map come the types that are RAM whatever the platform. Memory of type *reserved* may be
/// RAM or a device's window; the firmware's own map (PI, "Global Coherency Domain") tells them apart.
pub fn ram() -> Result<Vec<SpaRange>, Failure> {
    let map = boot::memory_map(MemoryType::LOADER_DATA).map_err(firmware("memory map"))?;
    let mut ranges: Vec<SpaRange> = map
        .entries()
        .filter(|entry| is_ram(entry.ty))
        .map(|entry| SpaRange {
            start: Spa::new(entry.phys_start),
            len: entry.page_count * placement::PAGE,
        })
        .collect();
    ranges.extend(
        address_space::spaces()
            .into_iter()
            .filter(Space::is_ram)
            .map(|space| placement::align_out(space.range)),
    );
    let count = placement::merge(&mut ranges).len();
    ranges.truncate(count);
    Ok(ranges)
}

/// Sum of the lengths in bytes.
pub fn total(ranges: &[SpaRange]) -> u64 {
    ranges.iter().map(|range| range.len).sum()
}

/// The first address above all of the sorted `ranges`.
pub fn end(ranges: &[SpaRange]) -> u64 {
    ranges.last().map_or(0, |last| last.end().get())
}

fn is_ram(kind: MemoryType) -> bool {
    matches!(
        kind,
        MemoryType::LOADER_CODE
            | MemoryType::LOADER_DATA
            | MemoryType::BOOT_SERVICES_CODE
            | MemoryType::BOOT_SERVICES_DATA
            | MemoryType::RUNTIME_SERVICES_CODE
            | MemoryType::RUNTIME_SERVICES_DATA
            | MemoryType::CONVENTIONAL
            | MemoryType::ACPI_RECLAIM
            | MemoryType::ACPI_NON_VOLATILE
    )
}
