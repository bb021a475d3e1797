//! The deposited frames of a child, and typed objects in them.
#![expect(unsafe_code, reason = "the owner of deposited frames")]

use addr::{PAGE_SIZE, Spa};
use paging::{OutOfFrames, TableMemory};
use spin::Mutex;
use vpcore::seam::FrameSource;

use super::phys;

/// Frames that the parent deposited for one partition. The free ones are linked through their first words.
pub struct Pool {
    first: Spa,
    free: u64,
    total: u64,
}

impl Pool {
    /// An empty pool.
    pub const fn new() -> Self {
        Self {
            first: Spa::new(0),
            free: 0,
            total: 0,
        }
    }

    /// Free frames, and all.
    pub const fn usage(&self) -> (u64, u64) {
        (self.free, self.total)
    }

    /// Takes over a frame that [`owners`] says is this pool's, and that no processor reaches through the parent's tables.
    ///
    /// # Safety
    /// It was just deposited for this pool's slot, and its LPs have flushed.
    pub unsafe fn add(&mut self, spa: Spa) {
        self.total += 1;
        // SAFETY: passed on to the caller.
        unsafe { self.free(spa) };
    }

    /// A zeroed frame.
    pub fn alloc(&mut self) -> Option<Spa> {
        if self.free == 0 {
            return None;
        }
        let spa = self.first;
        // SAFETY: a free frame of the pool holds the next one's address in its first word.
        self.first = Spa::new(unsafe { phys::pointer(spa).cast::<u64>().read() });
        self.free -= 1;
        // SAFETY: the frame was just taken out of the free list and belongs to the caller.
        unsafe { phys::pointer(spa).write_bytes(0, PAGE_SIZE as usize) };
        Some(spa)
    }

    /// Zeroed frames, all of them or none.
    pub fn alloc_all<const N: usize>(&mut self) -> Option<[Spa; N]> {
        if self.free < N as u64 {
            return None;
        }
        let mut frames = [Spa::new(0); N];
        for frame in &mut frames {
            *frame = self.alloc()?;
        }
        Some(frames)
    }

    /// Takes a frame back.
    ///
    /// # Safety
    /// It came from [`Pool::alloc`], and nothing uses it any more.
    pub unsafe fn free(&mut self, spa: Spa) {
        // SAFETY: passed on to the caller.
        unsafe { phys::pointer(spa).cast::<u64>().write(self.first.get()) };
        self.first = spa;
        self.free += 1;
    }

    /// Takes a free frame out of the pool, scrubbed. The caller gives it back to the parent.
    pub fn withdraw(&mut self) -> Option<Spa> {
        let spa = self.alloc()?;
        self.total -= 1;
        Some(spa)
    }
}

/// A pool as memory for page tables and control structures.
pub struct PoolFrames<'a>(pub &'a Mutex<Pool>);

impl FrameSource for PoolFrames<'_> {
    fn frames(&mut self, count: usize) -> Option<Spa> {
        // Runs are never needed from a pool.
        (count == 1).then(|| self.0.lock().alloc()).flatten()
    }
}

impl TableMemory for PoolFrames<'_> {
    fn load(&self, spa: Spa) -> u64 {
        super::tables::load(spa)
    }

    fn store(&mut self, spa: Spa, value: u64) {
        super::tables::store(spa, value);
    }

    fn update(&mut self, spa: Spa, clear: u64, set: u64) -> u64 {
        super::tables::update(spa, clear, set)
    }

    fn alloc(&mut self) -> Result<Spa, OutOfFrames> {
        self.0.lock().alloc().ok_or(OutOfFrames)
    }

    fn free(&mut self, table: Spa) {
        // SAFETY: the table came from `alloc`; the caller has flushed.
        unsafe { self.0.lock().free(table) };
    }
}

/// Puts `value` into the frame `spa` and leaves it there until [`take`].
///
/// # Safety
/// The frame is the caller's alone, and stays so until [`take`]; nothing uses the reference after that.
pub unsafe fn place<T>(spa: Spa, value: T) -> &'static T {
    const { assert!(size_of::<T>() <= PAGE_SIZE as usize && align_of::<T>() <= PAGE_SIZE as usize) };
    let target = phys::pointer(spa).cast::<T>();
    // SAFETY: the frame is the caller's, large enough and aligned to a page.
    unsafe { target.write(value) };
    // SAFETY: written above; passed on to the caller.
    unsafe { &*target }
}

/// Moves the value out of its frame, which is then the caller's to free.
///
/// # Safety
/// `value` came from [`place`], and nothing else refers to it.
pub unsafe fn take<T>(value: &'static T) -> (Spa, T) {
    let pointer = &raw const *value;
    // SAFETY: passed on to the caller.
    let moved = unsafe { pointer.read() };
    (phys::spa_of(pointer.cast()), moved)
}
