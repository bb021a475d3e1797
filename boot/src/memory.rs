//! The machine's RAM, as the firmware tells it.
#![allow(unsafe_code)]

use alloc::vec::Vec;

use addr::Spa;
use bootinfo::SpaRange;
use uefi::boot::{self, MemoryType};
use uefi::mem::memory_map::MemoryMap;
use uefi::system;
use uefi::table::cfg::ConfigTableEntry;

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
        .map(|entry| SpaRange { start: Spa::new(entry.phys_start), len: entry.page_count * placement::PAGE })
        .collect();
    ranges.extend(spaces().into_iter().filter(Space::is_ram).map(|space| placement::align_out(space.range)));
    let count = placement::merge(&mut ranges).len();
    ranges.truncate(count);
    Ok(ranges)
}

/// Sum of the lengths in bytes.
pub fn total(ranges: &[SpaRange]) -> u64 {
    ranges.iter().map(|range| range.len).sum()
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

/// A range of the Global Coherency Domain memory map.
#[derive(Clone, Copy, Debug)]
pub struct Space {
    /// The addresses.
    pub range: SpaRange,
    kind: u32,
    /// Whether a driver has allocated it.
    pub is_allocated: bool,
}

impl Space {
    /// Whether RAM answers there.
    pub const fn is_ram(&self) -> bool {
        const SYSTEM_MEMORY: u32 = 2;
        const MORE_RELIABLE: u32 = 5;
        matches!(self.kind, SYSTEM_MEMORY | MORE_RELIABLE)
    }

    /// Whether no device and no memory is known to be there.
    pub const fn is_vacant(&self) -> bool {
        const NON_EXISTENT: u32 = 0;
        const MEMORY_MAPPED_IO: u32 = 3;
        !self.is_allocated && matches!(self.kind, NON_EXISTENT | MEMORY_MAPPED_IO)
    }
}

/// `EFI_GCD_MEMORY_SPACE_DESCRIPTOR`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Descriptor {
    base: u64,
    len: u64,
    capabilities: u64,
    attributes: u64,
    kind: u32,
    image_handle: usize,
    device_handle: usize,
}

const _: () = assert!(size_of::<Descriptor>() == 56);

type GetMemorySpaceMap = unsafe extern "efiapi" fn(*mut usize, *mut *mut Descriptor) -> uefi::Status;

/// Bytes from the start of the DXE services table to `GetMemorySpaceMap`: a 24-byte header and six functions.
const GET_MEMORY_SPACE_MAP: usize = 24 + 6 * 8;

/// The firmware's map of the address space; empty when it offers none.
pub fn spaces() -> Vec<Space> {
    let Some(table) = system::with_config_table(|entries| {
        entries.iter().find(|entry| entry.guid == ConfigTableEntry::DXE_SERVICES_GUID).map(|entry| entry.address)
    }) else {
        return Vec::new();
    };
    let (mut count, mut list) = (0usize, core::ptr::null_mut());
    // SAFETY: the table under this GUID is EFI_DXE_SERVICES (PI, "DXE Services Table"), whose seventh function is
    // GetMemorySpaceMap.
    let get = unsafe { table.byte_add(GET_MEMORY_SPACE_MAP).cast::<GetMemorySpaceMap>().read() };
    // SAFETY: both arguments are out parameters.
    let status = unsafe { get(&mut count, &mut list) };
    let Some(pool) = core::ptr::NonNull::new(list).filter(|_| status.is_success()) else { return Vec::new() };
    // SAFETY: on success the list holds `count` descriptors.
    let descriptors = unsafe { core::slice::from_raw_parts(pool.as_ptr(), count) };
    let spaces = descriptors
        .iter()
        .map(|d| Space {
            range: SpaRange { start: Spa::new(d.base), len: d.len },
            kind: d.kind,
            is_allocated: d.image_handle != 0,
        })
        .collect();
    // SAFETY: the caller of GetMemorySpaceMap frees the list, which is a pool allocation; nothing refers to it now.
    let _ = unsafe { boot::free_pool(pool.cast()) };
    spaces
}
