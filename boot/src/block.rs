//! The hypervisor's block: one piece of reserved memory, and pages taken from it in order.
#![expect(unsafe_code, reason = "fills and frees reserved memory")]

use addr::Spa;
use bootinfo::{BLOCK_ALIGN, SpaRange};
use placement::{PAGE, TableMemory};
use uefi::Status;
use uefi::boot::{self, AllocateType, MemoryType};
use uefi::mem::memory_map::MemoryMap;

use crate::failure::{Failure, firmware};

/// Reserved memory that goes back to the firmware when it is dropped, unless [`Block::keep`] was called.
pub struct Block {
    range: SpaRange,
    is_kept: bool,
}

impl Block {
    /// Reserves `len` bytes, a multiple of 2 MiB, on a 2 MiB boundary: as high as possible below 4 GiB, or above.
    pub fn reserve(len: u64) -> Result<Self, Failure> {
        const FOUR_GIB: u64 = 1 << 32;
        let map = boot::memory_map(MemoryType::LOADER_DATA).map_err(firmware("memory map"))?;
        let highest_start = |limit: u64| {
            let free = map
                .entries()
                .filter(|entry| entry.ty == MemoryType::CONVENTIONAL);
            free.filter_map(|entry| {
                let end = (entry.phys_start + entry.page_count * PAGE).min(limit);
                let start = end.checked_sub(len)? & !(BLOCK_ALIGN - 1);
                (start >= entry.phys_start.max(1 << 20)).then_some(start)
            })
            .max()
        };
        let Some(start) = highest_start(FOUR_GIB).or_else(|| highest_start(u64::MAX)) else {
            return Err(Failure::new(
                Status::OUT_OF_RESOURCES,
                format_args!(
                    "no {} MiB of free memory in one piece for the hypervisor; add memory or lower hypervisor.memory_reserve_mib",
                    len >> 20
                ),
            ));
        };
        let pages = (len / PAGE) as usize;
        boot::allocate_pages(AllocateType::Address(start), MemoryType::RESERVED, pages)
            .map_err(firmware("memory for the hypervisor"))?;
        Ok(Self {
            range: SpaRange {
                start: Spa::new(start),
                len,
            },
            is_kept: false,
        })
    }

    /// Where it lies.
    pub const fn range(&self) -> SpaRange {
        self.range
    }

    /// The block stays reserved for good.
    pub const fn keep(&mut self) {
        self.is_kept = true;
    }

    /// Zeroes `part` of the block and copies `bytes` to its start.
    ///
    /// # Panics
    /// If `part` is not in the block or `bytes` does not fit.
    pub fn fill(&mut self, part: SpaRange, bytes: &[u8]) {
        assert!(
            part.start >= self.range.start
                && part.end() <= self.range.end()
                && bytes.len() as u64 <= part.len
        );
        let start = part.start.get() as *mut u8;
        // SAFETY: the firmware maps all memory at its physical address, the part lies in the block, and the block
        // is ours alone.
        unsafe { start.write_bytes(0, part.len as usize) };
        // SAFETY: as above; `bytes` lies elsewhere, since nobody has a reference into the block.
        unsafe { start.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        if let Some(start) = core::ptr::NonNull::new(self.range.start.get() as *mut u8) {
            // SAFETY: allocated in `reserve`, and the hypervisor was not launched, or the block would be kept.
            // An error leaves the memory reserved, which harms nobody.
            let _ = unsafe { boot::free_pages(start, (self.range.len / PAGE) as usize) };
        }
    }
}

/// Pages of a block, handed out from its start.
pub struct Pages<'a> {
    block: &'a mut Block,
    free: SpaRange,
}

impl<'a> Pages<'a> {
    /// Hands out pages of `free`, a part of `block`.
    pub const fn new(block: &'a mut Block, free: SpaRange) -> Self {
        Self { block, free }
    }

    /// `len` zeroed bytes, rounded up to pages; `None` when there are not so many left.
    pub fn take(&mut self, len: u64) -> Option<SpaRange> {
        let len = len.checked_next_multiple_of(PAGE)?;
        let left = self.free.len.checked_sub(len)?;
        let part = SpaRange {
            start: self.free.start,
            len,
        };
        self.free = SpaRange {
            start: part.end(),
            len: left,
        };
        self.block.fill(part, &[]);
        Some(part)
    }

    /// What was not handed out.
    pub const fn free(&self) -> SpaRange {
        self.free
    }
}

impl TableMemory for Pages<'_> {
    fn allocate(&mut self) -> Option<Spa> {
        self.take(PAGE).map(|page| page.start)
    }

    fn read(&self, table: Spa, index: usize) -> u64 {
        assert!(index < 512);
        let entry = (table.get() as *const u64).wrapping_add(index);
        // SAFETY: `table` is a page from `allocate`, mapped at its physical address, and `index` lies in it.
        unsafe { entry.read() }
    }

    fn write(&mut self, table: Spa, index: usize, entry: u64) {
        assert!(index < 512);
        let place = (table.get() as *mut u64).wrapping_add(index);
        // SAFETY: as in `read`; the page is ours alone.
        unsafe { place.write(entry) };
    }
}
