//! Page tables live in the hypervisor's frames and are reached through the physical map.
#![expect(unsafe_code, reason = "the owner of page-table frames")]

use core::sync::atomic::{AtomicU64, Ordering};

use addr::Spa;
use paging::{OutOfFrames, TableMemory};

use super::frames::{self, FrameUse};
use super::phys;

/// Tables for one purpose.
#[derive(Debug)]
pub struct Tables(pub FrameUse);

fn entry(spa: Spa) -> &'static AtomicU64 {
    // SAFETY: the paging crate passes entries of tables that it got from `alloc`, or that the loader built; both are
    // frames of the block or of a pool, mapped, aligned, and written through this type only.
    unsafe { &*phys::pointer(spa).cast::<AtomicU64>() }
}

/// Reads an entry.
pub(super) fn load(spa: Spa) -> u64 {
    entry(spa).load(Ordering::Acquire)
}

/// Writes an entry.
pub(super) fn store(spa: Spa, value: u64) {
    entry(spa).store(value, Ordering::Release);
}

/// Clears and sets bits of an entry; gives what it held.
pub(super) fn update(spa: Spa, clear: u64, set: u64) -> u64 {
    let new = |old| Some((old & !clear) | set);
    let (Ok(old) | Err(old)) = entry(spa).fetch_update(Ordering::AcqRel, Ordering::Acquire, new);
    old
}

impl TableMemory for Tables {
    fn load(&self, spa: Spa) -> u64 {
        load(spa)
    }

    fn store(&mut self, spa: Spa, value: u64) {
        store(spa, value);
    }

    fn update(&mut self, spa: Spa, clear: u64, set: u64) -> u64 {
        update(spa, clear, set)
    }

    fn alloc(&mut self) -> Result<Spa, OutOfFrames> {
        frames::alloc(self.0, 1).ok_or(OutOfFrames)
    }

    fn free(&mut self, table: Spa) {
        // SAFETY: the table came from `alloc`; the caller has flushed.
        unsafe { frames::free(self.0, table) };
    }
}
