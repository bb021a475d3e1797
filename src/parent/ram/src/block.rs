//! A block: made, pinned, read.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, ftruncate, memfd_create};
use uio::Mapping;

use crate::{FRAMES, HUGE_PAGE, hugepages, pagemap, udmabuf};

/// Why there is no block, and what helps.
#[derive(Debug, thiserror::Error)]
pub enum RamError {
    /// Too few huge pages.
    #[error(
        "memory: {wanted} huge pages of 2 MiB are wanted and {free} are free: give the child less memory, stop \
         another one, or reserve more with `sysctl vm.nr_hugepages`"
    )]
    TooLittle {
        /// Pages of the block.
        wanted: u64,
        /// Pages that nobody has.
        free: u64,
    },
    /// The kernel has no huge pages.
    #[error("the kernel has no huge pages of 2 MiB (hugetlbfs): {0}")]
    NoHugePages(#[source] io::Error),
    /// Not a multiple of a huge page, or 0.
    #[error("{0} bytes are not a multiple of 2 MiB")]
    Size(u64),
    /// The pages cannot be pinned.
    #[error(
        "the pages cannot be pinned through /dev/udmabuf: {0}; the kernel must have CONFIG_UDMABUF"
    )]
    Pin(#[source] io::Error),
    /// The frames cannot be read.
    #[error("the frames cannot be read from /proc/self/pagemap: {0}; run it as root")]
    Frames(#[source] io::Error),
    /// A page has no frame, or one that is not aligned.
    #[error("page {0} of the memory file has no proper frame")]
    Absent(usize),
    /// Something else failed.
    #[error("memory file: {0}")]
    Io(#[from] io::Error),
}

/// Pinned memory.
#[derive(Debug)]
pub struct Block {
    // Dropped in this order.
    pin: OwnedFd,
    file: OwnedFd,
    bytes: u64,
    /// Number of the first frame of each huge page, in the order of the file.
    frames: Vec<u64>,
}

impl Block {
    /// A new block of `bytes`, filled with zeros. `name` shows in `/proc`.
    ///
    /// # Errors
    /// See [`RamError`]; nothing stays allocated.
    pub fn allocate(name: &str, bytes: u64) -> Result<Self, RamError> {
        if bytes == 0 || !bytes.is_multiple_of(HUGE_PAGE) {
            return Err(RamError::Size(bytes));
        }
        let flags = MemfdFlags::CLOEXEC
            | MemfdFlags::ALLOW_SEALING
            | MemfdFlags::HUGETLB
            | MemfdFlags::HUGE_2MB;
        let file = memfd_create(name, flags).map_err(|e| RamError::NoHugePages(e.into()))?;
        ftruncate(&file, bytes).map_err(io::Error::from)?;
        let mapping = populate(&file, bytes)?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        fcntl_add_seals(&file, seals).map_err(io::Error::from)?;
        // Pinning may move pages: the frames are read after it.
        let pin = udmabuf::pin(file.as_fd(), bytes).map_err(RamError::Pin)?;
        let frames = frames(&mapping)?;
        Ok(Self {
            pin,
            file,
            bytes,
            frames,
        })
    }

    /// The block whose files another process left with a holder.
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate).
    pub fn adopt(file: OwnedFd, pin: OwnedFd) -> Result<Self, RamError> {
        let bytes = fstat(&file).map_err(io::Error::from)?.st_size;
        let bytes = u64::try_from(bytes).unwrap_or(0);
        let mapping = populate(&file, bytes)?;
        let frames = frames(&mapping)?;
        Ok(Self {
            pin,
            file,
            bytes,
            frames,
        })
    }

    /// Its size.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The memory file. Whoever gets it can read and write the block, and neither free nor move a frame.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The dma-buf that pins the frames.
    pub fn pin(&self) -> BorrowedFd<'_> {
        self.pin.as_fd()
    }

    /// The number of the first frame (4 KiB) of each huge page.
    pub fn frames(&self) -> &[u64] {
        &self.frames
    }
}

/// Maps and touches all pages. The kernel sets them aside when it maps them, so that touching cannot fail.
fn populate(file: &OwnedFd, bytes: u64) -> Result<Mapping, RamError> {
    let len = usize::try_from(bytes).map_err(|_| RamError::Size(bytes))?;
    let wanted = bytes / HUGE_PAGE;
    let is_full =
        |error: &io::Error| error.raw_os_error() == Some(rustix::io::Errno::NOMEM.raw_os_error());
    match Mapping::new(file, 0, len) {
        Err(error) if is_full(&error) => {}
        other => return Ok(other?),
    }
    hugepages::allow(wanted);
    Mapping::new(file, 0, len).map_err(|error| {
        if is_full(&error) {
            let free = hugepages::free().unwrap_or(0);
            RamError::TooLittle { wanted, free }
        } else {
            error.into()
        }
    })
}

fn frames(mapping: &Mapping) -> Result<Vec<u64>, RamError> {
    let pages = mapping.bytes() as u64 / HUGE_PAGE;
    let frames = pagemap::frames(mapping.address(), pages, HUGE_PAGE).map_err(RamError::Frames)?;
    match frames
        .iter()
        .position(|frame| *frame == 0 || !frame.is_multiple_of(FRAMES))
    {
        Some(page) => Err(RamError::Absent(page)),
        None => Ok(frames),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_whole_huge_pages() {
        assert!(matches!(Block::allocate("x", 0), Err(RamError::Size(0))));
        assert!(matches!(
            Block::allocate("x", 4096),
            Err(RamError::Size(4096))
        ));
    }

    #[test]
    fn what_cannot_be_had_is_named_with_its_cure() {
        // 2^45 bytes: no machine has them as huge pages.
        match Block::allocate("x", 1 << 45) {
            Err(error @ (RamError::TooLittle { .. } | RamError::NoHugePages(_))) => {
                assert!(error.to_string().contains("huge pages"), "{error}");
            }
            Err(RamError::Io(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}
