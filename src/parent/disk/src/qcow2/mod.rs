//! qcow2, by `imago`.

mod header;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use imago::file::File as Storage;
use imago::format::PreallocateMode;
use imago::qcow2::Qcow2 as Driver;
use imago::{
    DenyImplicitOpenGate, FormatAccess, FormatCreateBuilder, FormatDriverBuilder,
    PermissiveImplicitOpenGate, ShallowMapping, StorageOpenOptions,
};
use nix::fcntl::{FallocateFlags, fallocate};

use crate::durable::Flushes;
use crate::image::{Discard, Image, ImageTraits, check_range, check_writable, write_full_zeroes};
use crate::open::Backing;
use crate::raw::Buffered;
use crate::{IoVector, IoVectorMut};

const SECTOR: u32 = 512;

/// A qcow2 image, with the images that it is based on.
pub(crate) struct Qcow2 {
    /// The same open file as the driver's, for the holes that discarding leaves.
    file: File,
    /// Version 2 cannot say that a cluster is zero.
    has_zero_clusters: bool,
    /// Reads and writes share it. Freeing clusters must be alone: a request on its way may still use one.
    access: RwLock<FormatAccess<Storage>>,
    flushes: Flushes,
    traits: ImageTraits,
}

impl Qcow2 {
    /// Serves `file`. `path` is where relative names of backing files start from.
    pub(crate) fn new(
        file: File,
        path: Option<&Path>,
        is_read_only: bool,
        is_direct: bool,
        backing: Backing,
    ) -> io::Result<Self> {
        let mut options = StorageOpenOptions::new()
            .write(!is_read_only)
            .direct(is_direct);
        if let Some(path) = path {
            options = options.filename(path);
        }
        let buffered = Buffered::new(&file, is_direct)?;
        let has_zero_clusters = header::check(&file)? >= 3;
        buffered.end()?;
        let storage = Storage::from_open_file(file.try_clone()?, options.clone())?;
        let builder = Driver::<Storage>::builder(storage)
            .storage_open_options(options)
            .write(!is_read_only);
        let driver = match backing {
            Backing::Refuse => builder.open(DenyImplicitOpenGate::default())?,
            Backing::Follow => builder.open(PermissiveImplicitOpenGate::default())?,
        };
        let access = FormatAccess::new(driver);
        if !access.size().is_multiple_of(u64::from(SECTOR)) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the disk's size is no multiple of 512",
            ));
        }
        let granularity = access
            .inner()
            .zero_granularity()
            .and_then(|bytes| u32::try_from(bytes).ok())
            .unwrap_or(64 * 1024);
        let can_discard = !is_read_only && has_zero_clusters;
        Ok(Self {
            file,
            has_zero_clusters,
            access: RwLock::new(access),
            flushes: Flushes::default(),
            traits: ImageTraits {
                is_read_only,
                logical_block: SECTOR,
                physical_block: 4096,
                discard: can_discard.then_some(Discard { granularity }),
            },
        })
    }

    /// Makes `file` an empty image.
    pub(crate) fn create(file: File, size: u64) -> io::Result<()> {
        let storage = Storage::from_open_file(file, StorageOpenOptions::new().write(true))?;
        Driver::<Storage>::create_builder(storage)
            .size(size)
            .create()
    }

    // A thread that panicked inside `imago` left at worst a lock of its own poisoned; ours guards no data that it could
    // have left half changed.
    fn shared(&self) -> RwLockReadGuard<'_, FormatAccess<Storage>> {
        self.access.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn alone(&self) -> RwLockWriteGuard<'_, FormatAccess<Storage>> {
        self.access.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where in the file the whole clusters of a range lie that belong to nothing else, such as a snapshot.
fn holes(
    access: &FormatAccess<Storage>,
    at: u64,
    len: u64,
    cluster: u64,
) -> io::Result<Vec<Range<u64>>> {
    let end = (at + len) / cluster * cluster;
    let mut here = at.next_multiple_of(cluster);
    let mut holes: Vec<Range<u64>> = Vec::new();
    while here < end {
        let (mapping, mapped) = access.get_shallow_mapping(here, end - here)?;
        if mapped == 0 {
            break;
        }
        if let ShallowMapping::Raw {
            offset,
            writable: true,
            ..
        } = mapping
        {
            holes.push(offset..offset.saturating_add(mapped));
        }
        here += mapped;
    }
    Ok(holes)
}

impl Image for Qcow2 {
    fn size(&self) -> u64 {
        self.shared().size()
    }

    fn traits(&self) -> ImageTraits {
        self.traits
    }

    fn read(&self, at: u64, into: IoVectorMut<'_>) -> io::Result<()> {
        let access = self.shared();
        check_range(at, into.len(), access.size())?;
        access.readv(into, at)
    }

    fn write(&self, at: u64, from: IoVector<'_>) -> io::Result<()> {
        check_writable(self.traits.is_read_only)?;
        let access = self.shared();
        check_range(at, from.len(), access.size())?;
        access.writev(from, at)
    }

    fn write_zeroes(&self, at: u64, len: u64) -> io::Result<()> {
        check_writable(self.traits.is_read_only)?;
        let access = self.shared();
        check_range(at, len, access.size())?;
        if self.has_zero_clusters {
            return access.write_zeroes(at, len);
        }
        drop(access);
        write_full_zeroes(self, at, len)
    }

    fn discard(&self, at: u64, len: u64) -> io::Result<()> {
        check_writable(self.traits.is_read_only)?;
        let mut access = self.alone();
        check_range(at, len, access.size())?;
        let Some(Discard { granularity }) = self.traits.discard else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let holes = holes(&access, at, len, u64::from(granularity))?;
        access.discard_to_zero(at, len)?;
        // The driver gives clusters back to the image only. Nobody can have taken them again yet.
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        for hole in holes {
            let (Ok(at), Ok(len)) = (
                i64::try_from(hole.start),
                i64::try_from(hole.end - hole.start),
            ) else {
                continue;
            };
            // Where there can be no holes, the clusters are still free for the image.
            let _ = fallocate(&self.file, flags, at, len);
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        if self.traits.is_read_only {
            return Ok(());
        }
        self.flushes.run(|| {
            let access = self.shared();
            // The tables first go to the file, then the file to the disk.
            access.flush()?;
            access.sync()
        })
    }

    fn resize(&self, size: u64) -> io::Result<()> {
        check_writable(self.traits.is_read_only)?;
        if !size.is_multiple_of(u64::from(SECTOR)) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the size is no multiple of 512",
            ));
        }
        let mut access = self.alone();
        access.resize(size, PreallocateMode::Zero)?;
        access.flush()?;
        access.sync()
    }
}
