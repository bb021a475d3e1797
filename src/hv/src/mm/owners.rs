//! Whose each frame of RAM is: the parent's, with a count of uses, or in the pool of a partition.
#![expect(unsafe_code, reason = "places the table")]

use core::sync::atomic::AtomicU16;

use addr::Spa;
use bootinfo::{BootInfo, Status};
use frames::{FrameError, FrameState, FrameTable};
use spin::Once;
use tlfs::HvError;

use super::frames::{self as allocator, FrameUse};
use super::phys;

static TABLE: Once<FrameTable<'static>> = Once::new();

/// Makes the table of the machine that `info` describes. Once, before any LP is launched.
///
/// # Errors
/// [`Status::NO_MEMORY`].
pub fn init(info: &BootInfo) -> Result<(), Status> {
    let entries = FrameTable::entries(info.phys_map_end);
    let bytes = entries.saturating_mul(size_of::<AtomicU16>() as u64);
    let count = usize::try_from(bytes.div_ceil(4096)).map_err(|_| Status::NO_MEMORY)?;
    let spa = allocator::alloc(FrameUse::Owners, count).ok_or(Status::NO_MEMORY)?;
    // SAFETY: the run was just allocated, zeroed, is large enough, and never given back.
    let words = unsafe {
        core::slice::from_raw_parts(phys::pointer(spa).cast::<AtomicU16>(), entries as usize)
    };
    let table = FrameTable::new(words);
    let ranges = (info.memory_count as usize).min(info.memory.len());
    for range in info.memory.iter().take(ranges) {
        table.add_ram(range.start, range.len);
    }
    table.remove_ram(info.block.start, info.block.len);
    TABLE.call_once(|| table);
    Ok(())
}

/// The table. Before [`init`] an empty one, which refuses everything.
pub fn table() -> FrameTable<'static> {
    TABLE.get().copied().unwrap_or(FrameTable::new(&[]))
}

/// What a call about a frame answers when the frame's state forbids it.
pub const fn status(error: FrameError) -> HvError {
    match error {
        FrameError::NotRam => HvError::INVALID_PARAMETER,
        FrameError::TooManyUses => HvError::NO_RESOURCES,
        FrameError::Deposited | FrameError::InUse | FrameError::NotHeld => {
            HvError::OPERATION_DENIED
        }
    }
}

/// Whether the frame of `spa` is RAM that the parent reads and writes. What is deposited is the hypervisor's.
pub fn is_parents(spa: Spa) -> bool {
    matches!(table().state(spa), FrameState::Parent(_))
}

/// Whether the frame of `spa` is no RAM of the parent's, deposited or not: one of the hypervisor's block.
pub fn is_hypervisors(spa: Spa) -> bool {
    table().state(spa) == FrameState::NotRam
}
