//! Raw files and block devices.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use imago::io_buffers::IoBuffer;
use imago::{StorageExt, StorageOpenOptions};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, OFlag, fallocate, fcntl};
use nix::sys::stat::{major, minor};

use crate::durable::Flushes;
use crate::image::{Discard, Image, ImageTraits, check_range, check_writable, write_full_zeroes};
use crate::{IoVector, IoVectorMut};

/// Unit of requests where the storage below names none.
const SECTOR: u32 = 512;

/// A raw file or a block device.
pub(crate) struct Raw {
    /// The same open file as `storage`, for what `imago` does not do the way we need it.
    file: File,
    storage: imago::file::File,
    size: AtomicU64,
    flushes: Flushes,
    traits: ImageTraits,
    is_device: bool,
    /// What memory and pieces of a buffer must be multiples of: `O_DIRECT` is strict.
    alignment: usize,
}

impl Raw {
    /// Serves `file`, which must be open for writing unless `is_read_only`.
    pub(crate) fn new(file: File, is_read_only: bool, is_direct: bool) -> io::Result<Self> {
        let kind = file.metadata()?.file_type();
        let is_device = kind.is_block_device();
        if !is_device && !kind.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "neither a file nor a block device",
            ));
        }
        let mut traits = if is_device {
            device_traits(&file)?
        } else {
            file_traits(&file, is_read_only)?
        };
        traits.is_read_only = is_read_only;
        if is_read_only {
            traits.discard = None;
        }
        // Alignment is our affair: the driver would make requests longer, which fails at the end of a device.
        let options = StorageOpenOptions::new().write(!is_read_only).direct(false);
        let storage = imago::file::File::from_open_file(file.try_clone()?, options)?;
        let mut alignment = 1;
        if is_direct {
            let unit = direct_unit(&storage, traits.logical_block)?;
            traits.logical_block = unit;
            traits.physical_block = traits.physical_block.max(unit);
            alignment = unit as usize;
        }
        let raw = Self {
            storage,
            file,
            size: AtomicU64::new(0),
            flushes: Flushes::default(),
            traits,
            is_device,
            alignment,
        };
        raw.refresh()?;
        Ok(raw)
    }

    /// [`Raw::new`] for a format whose requests are multiples of `unit`: where `O_DIRECT` wants more, without it.
    pub(crate) fn for_unit(
        file: File,
        is_read_only: bool,
        is_direct: bool,
        unit: u32,
    ) -> io::Result<Self> {
        let raw = Self::new(file.try_clone()?, is_read_only, is_direct)?;
        if !is_direct || raw.traits.logical_block <= unit {
            return Ok(raw);
        }
        // Never ended.
        let _buffered = Buffered::new(&file, true)?;
        Self::new(file, is_read_only, false)
    }

    fn check(&self, at: u64, len: u64) -> io::Result<()> {
        check_range(at, len, self.size())
    }

    fn check_change(&self, at: u64, len: u64) -> io::Result<()> {
        check_writable(self.traits.is_read_only)?;
        self.check(at, len)
    }

    /// A buffer to go through where the child's memory is not aligned as the storage wants it. Places and lengths are:
    /// they are multiples of the logical block.
    fn bounce(
        &self,
        len: u64,
        is_aligned: impl Fn(usize, usize) -> bool,
    ) -> io::Result<Option<IoBuffer>> {
        if len == 0 || self.alignment == 1 || is_aligned(self.alignment, self.alignment) {
            return Ok(None);
        }
        let len = usize::try_from(len).map_err(io::Error::other)?;
        IoBuffer::new(len, self.alignment).map(Some)
    }

    /// `fallocate` for a range that was checked; `false` where the storage below has no such thing.
    fn allocate(&self, flags: FallocateFlags, at: u64, len: u64) -> io::Result<bool> {
        let at = i64::try_from(at).map_err(io::Error::other)?;
        let len = i64::try_from(len).map_err(io::Error::other)?;
        loop {
            match fallocate(&self.file, flags, at, len) {
                Ok(()) => return Ok(true),
                Err(Errno::EINTR) => {}
                Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::ENODEV) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Image for Raw {
    fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    fn traits(&self) -> ImageTraits {
        self.traits
    }

    fn read(&self, at: u64, into: IoVectorMut<'_>) -> io::Result<()> {
        self.check(at, into.len())?;
        match self.bounce(into.len(), |memory, unit| into.is_aligned(memory, unit))? {
            None => self.storage.readv(into, at),
            Some(mut buffer) => {
                let mut into = into;
                self.storage.readv((&mut buffer).into(), at)?;
                into.copy_from_slice(buffer.as_ref().into_slice());
                Ok(())
            }
        }
    }

    fn write(&self, at: u64, from: IoVector<'_>) -> io::Result<()> {
        self.check_change(at, from.len())?;
        match self.bounce(from.len(), |memory, unit| from.is_aligned(memory, unit))? {
            None => self.storage.writev(from, at),
            Some(mut buffer) => {
                from.copy_into_slice(buffer.as_mut().into_slice());
                self.storage.writev((&buffer).into(), at)
            }
        }
    }

    fn write_zeroes(&self, at: u64, len: u64) -> io::Result<()> {
        self.check_change(at, len)?;
        let flags = FallocateFlags::FALLOC_FL_ZERO_RANGE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        if len == 0 || self.allocate(flags, at, len)? {
            return Ok(());
        }
        write_full_zeroes(self, at, len)
    }

    fn discard(&self, at: u64, len: u64) -> io::Result<()> {
        self.check_change(at, len)?;
        // Holes are exact: the kernel zeroes what is less than a block at the ends.
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        if len == 0 || (self.traits.discard.is_some() && self.allocate(flags, at, len)?) {
            return Ok(());
        }
        Err(io::ErrorKind::Unsupported.into())
    }

    fn flush(&self) -> io::Result<()> {
        if self.traits.is_read_only {
            return Ok(());
        }
        self.flushes.run(|| self.file.sync_data())
    }

    fn resize(&self, size: u64) -> io::Result<()> {
        check_writable(self.traits.is_read_only)?;
        if self.is_device {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the size of a device is not ours to change",
            ));
        }
        if !size.is_multiple_of(u64::from(self.traits.logical_block)) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the size is no multiple of the block size",
            ));
        }
        self.file.set_len(size)?;
        self.refresh()?;
        Ok(())
    }

    fn refresh(&self) -> io::Result<u64> {
        let bytes = if self.is_device {
            // All I/O names its place, so nobody minds where the file's own position is.
            (&self.file).seek(SeekFrom::End(0))?
        } else {
            self.file.metadata()?.len()
        };
        // A block that is not whole is not there.
        let size = bytes - bytes % u64::from(self.traits.logical_block);
        self.size.store(size, Ordering::Release);
        Ok(size)
    }
}

/// A file without `O_DIRECT` for a while: headers and tables are read into buffers that are aligned to nothing.
pub(crate) struct Buffered {
    file: Option<File>,
}

impl Buffered {
    pub(crate) fn new(file: &File, is_direct: bool) -> io::Result<Self> {
        let file = if is_direct {
            Some(file.try_clone()?)
        } else {
            None
        };
        let buffered = Self { file };
        buffered.set(false)?;
        Ok(buffered)
    }

    /// Back to `O_DIRECT`. Not called where opening failed: the file is closed then.
    pub(crate) fn end(self) -> io::Result<()> {
        self.set(true)
    }

    fn set(&self, is_direct: bool) -> io::Result<()> {
        if let Some(file) = &self.file {
            // The flags belong to the open file, so those of the clone are those of the original.
            let mut flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?);
            flags.set(OFlag::O_DIRECT, is_direct);
            fcntl(file, FcntlArg::F_SETFL(flags))?;
        }
        Ok(())
    }
}

/// What `O_DIRECT` wants places, lengths and memory to be multiples of, found out by reading; at least `logical_block`.
fn direct_unit(storage: &imago::file::File, logical_block: u32) -> io::Result<u32> {
    const LARGEST: u32 = 4096;
    let mut unit = logical_block;
    loop {
        // Aligned to `unit` and to nothing more.
        let mut buffer = IoBuffer::new(2 * unit as usize, 2 * unit as usize)?;
        let half = buffer.as_mut_range(unit as usize..2 * unit as usize);
        match storage.readv(half.into(), u64::from(unit)) {
            Ok(()) => return Ok(unit),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput && unit < LARGEST => {
                unit *= 2;
            }
            Err(error) => return Err(error),
        }
    }
}

fn file_traits(file: &File, is_read_only: bool) -> io::Result<ImageTraits> {
    let metadata = file.metadata()?;
    let block = u32::try_from(metadata.blksize())
        .ok()
        .filter(|block| block.is_power_of_two())
        .map_or(4096, |block| block.clamp(SECTOR, 64 * 1024));
    let can_punch = !is_read_only && {
        // A hole behind the end changes nothing and tells whether there can be holes.
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let behind = metadata.len().next_multiple_of(u64::from(block));
        i64::try_from(behind).is_ok_and(|at| fallocate(file, flags, at, i64::from(block)).is_ok())
    };
    Ok(ImageTraits {
        is_read_only,
        logical_block: SECTOR,
        physical_block: block.min(4096),
        discard: can_punch.then_some(Discard { granularity: block }),
    })
}

/// What the kernel tells about a block device, or about the disk that it is a partition of.
fn device_traits(file: &File) -> io::Result<ImageTraits> {
    let device = file.metadata()?.rdev();
    let mut place = PathBuf::from(format!(
        "/sys/dev/block/{}:{}",
        major(device),
        minor(device)
    ));
    if place.join("partition").exists() {
        place = place.canonicalize()?;
        place.pop();
    }
    let number = |name: &str| -> Option<u64> {
        fs::read_to_string(place.join("queue").join(name))
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    let block = |name| {
        number(name)
            .and_then(|bytes| u32::try_from(bytes).ok())
            .filter(|bytes| bytes.is_power_of_two() && *bytes >= SECTOR)
    };
    let logical_block = block("logical_block_size").unwrap_or(SECTOR);
    // A hole in a device is a write of zeroes that may unmap: without it there is none that reads as zeroes.
    let can_punch = number("write_zeroes_max_bytes").is_some_and(|bytes| bytes > 0)
        && number("discard_max_bytes").is_some_and(|bytes| bytes > 0);
    Ok(ImageTraits {
        is_read_only: false,
        logical_block,
        physical_block: block("physical_block_size")
            .unwrap_or(logical_block)
            .max(logical_block),
        discard: can_punch.then(|| Discard {
            granularity: block("discard_granularity").unwrap_or(logical_block),
        }),
    })
}
