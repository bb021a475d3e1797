//! The firmware's own map of the address space, RAM or not (PI specification, vol. 2, "Global Coherency Domain
//! Services").
#![expect(unsafe_code, reason = "calls the firmware's DXE services")]

use alloc::vec::Vec;
use core::ffi::c_void;

use addr::Spa;
use bootinfo::SpaRange;
use uefi::table::cfg::ConfigTableEntry;
use uefi::{Status, boot, system};

const NON_EXISTENT: u32 = 0;
const RESERVED: u32 = 1;
const SYSTEM_MEMORY: u32 = 2;
const MEMORY_MAPPED_IO: u32 = 3;
const MORE_RELIABLE: u32 = 5;

/// The uncached attribute.
const UNCACHED: u64 = 1;

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
        matches!(self.kind, SYSTEM_MEMORY | MORE_RELIABLE)
    }

    /// Whether no device and no memory is known to be there.
    pub const fn is_vacant(&self) -> bool {
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

type AddMemorySpace =
    unsafe extern "efiapi" fn(kind: u32, base: u64, len: u64, capabilities: u64) -> Status;
type RemoveMemorySpace = unsafe extern "efiapi" fn(base: u64, len: u64) -> Status;
type GetMemorySpaceMap = unsafe extern "efiapi" fn(*mut usize, *mut *mut Descriptor) -> Status;

/// The head of `EFI_DXE_SERVICES`.
#[repr(C)]
struct Services {
    header: [u64; 3],
    add_memory_space: AddMemorySpace,
    allocate_memory_space: *const c_void,
    free_memory_space: *const c_void,
    remove_memory_space: RemoveMemorySpace,
    get_memory_space_descriptor: *const c_void,
    set_memory_space_attributes: *const c_void,
    get_memory_space_map: GetMemorySpaceMap,
}

fn services() -> Option<&'static Services> {
    let table = system::with_config_table(|entries| {
        entries
            .iter()
            .find(|entry| entry.guid == ConfigTableEntry::DXE_SERVICES_GUID)
            .map(|entry| entry.address)
    })?;
    // SAFETY: the table under this GUID is EFI_DXE_SERVICES, which lives as long as boot services do.
    unsafe { table.cast::<Services>().as_ref() }
}

/// The map; empty when the firmware offers none.
pub fn spaces() -> Vec<Space> {
    let Some(services) = services() else {
        return Vec::new();
    };
    let (mut count, mut list) = (0usize, core::ptr::null_mut());
    // SAFETY: both arguments are out parameters.
    let status = unsafe { (services.get_memory_space_map)(&mut count, &mut list) };
    let Some(pool) = core::ptr::NonNull::new(list).filter(|_| status.is_success()) else {
        return Vec::new();
    };
    // SAFETY: on success the list holds `count` descriptors.
    let descriptors = unsafe { core::slice::from_raw_parts(pool.as_ptr(), count) };
    let spaces = descriptors
        .iter()
        .map(|d| Space {
            range: SpaRange {
                start: Spa::new(d.base),
                len: d.len,
            },
            kind: d.kind,
            is_allocated: d.image_handle != 0,
        })
        .collect();
    // SAFETY: the caller of GetMemorySpaceMap frees the list, which is a pool allocation; nothing refers to it now.
    let _ = unsafe { boot::free_pool(pool.cast()) };
    spaces
}

/// Makes the vacant `range` one of type *reserved*, which the memory map then lists. False when the firmware
/// refuses.
pub fn reserve(range: SpaRange) -> bool {
    let Some(services) = services() else {
        return false;
    };
    for space in spaces() {
        let start = space.range.start.max(range.start);
        let end = space.range.end().min(range.end());
        if start >= end || space.kind == NON_EXISTENT {
            continue;
        }
        // SAFETY: removing checks that the space exists and that nobody has allocated it.
        let _ = unsafe { (services.remove_memory_space)(start.get(), end.get() - start.get()) };
    }
    // SAFETY: adding checks that the space is not in use.
    unsafe { (services.add_memory_space)(RESERVED, range.start.get(), range.len, UNCACHED) }
        .is_success()
}
