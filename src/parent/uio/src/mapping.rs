//! Memory that this process shares with others, as atomic words.
#![expect(unsafe_code, reason = "maps memory and hands it out as atomics")]

use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use slots::SharedWords;

/// A part of a file or device, mapped for reading and writing. Page-aligned; others may change all of it at any time,
/// so it is seen as atomics only.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping is reached through atomics alone, and lives until the last owner drops it. It would break if it
// handed out plain references.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `bytes` of `file` from `offset` on; both are multiples of the page size. All pages are touched at once, so
    /// that a lack of memory is an error here and not a signal later.
    ///
    /// # Errors
    /// What the kernel says; nothing is mapped. `InvalidInput` when `bytes` is 0 or no multiple of 4,096.
    pub fn new(file: impl AsFd, offset: u64, bytes: usize) -> io::Result<Self> {
        Self::with(file, offset, bytes, MapFlags::SHARED | MapFlags::POPULATE)
    }

    /// The same, without touching the pages: for large memory that is populated already.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn lazily(file: impl AsFd, offset: u64, bytes: usize) -> io::Result<Self> {
        Self::with(file, offset, bytes, MapFlags::SHARED)
    }

    fn with(file: impl AsFd, offset: u64, bytes: usize, flags: MapFlags) -> io::Result<Self> {
        if bytes == 0 || !bytes.is_multiple_of(4096) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let base = unsafe { mmap(ptr::null_mut(), bytes, access, flags, file, offset) }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { base, bytes })
    }

    /// Its length in bytes.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The address of its first byte in this process.
    pub fn address(&self) -> usize {
        self.base.as_ptr().addr()
    }

    /// All of it, as words of 64 bits.
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page-aligned, `bytes` long, and lives as long as `self`; every pattern of bits is an
        // atomic, and nobody in this process has it as anything else.
        unsafe { slice::from_raw_parts(self.base.as_ptr().cast(), self.bytes / 8) }
    }

    /// All of it, as words of 32 bits.
    pub fn halves(&self) -> &[AtomicU32] {
        // SAFETY: as for `words`. Accesses of either size to the same place are all atomic and none is torn on this
        // architecture; the two views of one ring do not overlap.
        unsafe { slice::from_raw_parts(self.base.as_ptr().cast(), self.bytes / 4) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no reference into it outlives `self`.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

/// A range of words of a [`Mapping`], with a share in its life: an event area, a signal page.
#[derive(Clone, Debug)]
pub struct Words {
    mapping: Arc<Mapping>,
    range: Range<usize>,
}

impl Words {
    /// The words in `range`, as far as the mapping has them.
    pub fn new(mapping: Arc<Mapping>, range: Range<usize>) -> Self {
        let end = range.end.min(mapping.words().len());
        let range = range.start.min(end)..end;
        Self { mapping, range }
    }

    /// The words.
    pub fn as_slice(&self) -> &[AtomicU64] {
        self.mapping
            .words()
            .get(self.range.clone())
            .unwrap_or_default()
    }
}

impl SharedWords for Words {
    fn load(&self, index: usize) -> u64 {
        self.as_slice().load(index)
    }
    fn store(&self, index: usize, value: u64) {
        self.as_slice().store(index, value);
    }
    fn set_bits(&self, index: usize, bits: u64) {
        self.as_slice().set_bits(index, bits);
    }
    fn take(&self, index: usize) -> u64 {
        self.as_slice().take(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn two_mappings_of_a_file_are_the_same_memory() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8192).unwrap();
        let first = Arc::new(Mapping::new(&file, 0, 8192).unwrap());
        let second = Arc::new(Mapping::new(&file, 4096, 4096).unwrap());
        first.words()[513].store(0x1_0000_0002, Ordering::Relaxed);
        assert_eq!(second.words()[1].load(Ordering::Relaxed), 0x1_0000_0002);
        assert_eq!(second.halves()[2].load(Ordering::Relaxed), 2);
        let words = Words::new(first, 513..10_000);
        assert_eq!(words.as_slice().len(), 511);
        assert_eq!(words.take(0), 0x1_0000_0002);
        assert_eq!(words.load(0), 0);
        assert!(Mapping::new(&file, 0, 100).is_err());
    }
}
