//! Formats with a table that says where in the file each block of the disk lies: VHDX and VHD.
//!
//! A block that has no place reads as zeroes and gets one at its first write, at the end of the file. Its entry is
//! written at the next flush, after the data: a process that is killed before leaves a hole behind that nothing names,
//! never an entry without a block. Discarding punches holes into blocks and moves none, so a place that was looked up
//! stays good without a lock.

use std::io;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::durable::Flushes;
use crate::image::{Image, ImageTraits, check_range, check_writable};
use crate::raw::Raw;
use crate::{IoVector, IoVectorMut};

/// The table of one format.
pub(crate) trait Table: Send + Sync {
    /// Where the data of `block` starts in the file.
    fn place(&self, block: u64) -> Option<u64>;

    /// Gives `block`, which has none, a place that holds zeroes.
    fn allocate(&mut self, raw: &Raw, block: u64) -> io::Result<u64>;

    /// Makes the table durable, and what was written before.
    fn commit(&mut self, raw: &Raw) -> io::Result<()>;

    /// Leaves the file as one that nobody has open. What was committed is there already.
    fn close(&mut self, raw: &Raw) -> io::Result<()>;
}

/// What a format found out about the disk.
pub(crate) struct Shape {
    /// Bytes of the disk.
    pub size: u64,
    /// Bytes of a block, a multiple of the logical block.
    pub block: u64,
    /// 512 or 4096.
    pub logical_block: u32,
    /// Power of two, `logical_block` or more.
    pub physical_block: u32,
}

/// A disk in blocks.
pub(crate) struct Blocks<T: Table> {
    raw: Raw,
    pub(crate) table: RwLock<T>,
    shape: Shape,
    flushes: Flushes,
    traits: ImageTraits,
}

/// A part of a request that lies in one block.
struct Part {
    block: u64,
    /// Bytes from the start of the block.
    offset: u64,
    len: u64,
}

impl<T: Table> Blocks<T> {
    pub(crate) fn new(raw: Raw, table: T, shape: Shape) -> Self {
        let traits = ImageTraits {
            logical_block: shape.logical_block,
            physical_block: shape.physical_block,
            ..raw.traits()
        };
        Self {
            raw,
            table: RwLock::new(table),
            shape,
            flushes: Flushes::default(),
            traits,
        }
    }

    // The table changes under the lock only by calls that cannot panic half-way.
    fn table(&self) -> RwLockReadGuard<'_, T> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn table_mut(&self) -> RwLockWriteGuard<'_, T> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn part(&self, at: u64, len: u64) -> Part {
        let offset = at % self.shape.block;
        Part {
            block: at / self.shape.block,
            offset,
            len: len.min(self.shape.block - offset),
        }
    }

    fn place_or_allocate(&self, block: u64) -> io::Result<u64> {
        if let Some(place) = self.table().place(block) {
            return Ok(place);
        }
        let mut table = self.table_mut();
        match table.place(block) {
            Some(place) => Ok(place),
            None => table.allocate(&self.raw, block),
        }
    }

    /// Calls `change` for the places of a range that have one: the others read as zeroes already.
    fn for_places(
        &self,
        at: u64,
        len: u64,
        change: impl Fn(u64, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        check_writable(self.traits.is_read_only)?;
        check_range(at, len, self.shape.size)?;
        let mut done = 0;
        while done < len {
            let part = self.part(at + done, len - done);
            let place = self.table().place(part.block);
            if let Some(place) = place {
                change(place + part.offset, part.len)?;
            }
            done += part.len;
        }
        Ok(())
    }
}

impl<T: Table> Image for Blocks<T> {
    fn size(&self) -> u64 {
        self.shape.size
    }

    fn traits(&self) -> ImageTraits {
        self.traits
    }

    fn read(&self, at: u64, into: IoVectorMut<'_>) -> io::Result<()> {
        check_range(at, into.len(), self.shape.size)?;
        let (mut at, mut left) = (at, into);
        while !left.is_empty() {
            let part = self.part(at, left.len());
            let (mut now, later) = left.split_at(part.len);
            let place = self.table().place(part.block);
            match place {
                Some(place) => self.raw.read(place + part.offset, now)?,
                None => now.fill(0),
            }
            at += part.len;
            left = later;
        }
        Ok(())
    }

    fn write(&self, at: u64, from: IoVector<'_>) -> io::Result<()> {
        check_writable(self.traits.is_read_only)?;
        check_range(at, from.len(), self.shape.size)?;
        let (mut at, mut left) = (at, from);
        while !left.is_empty() {
            let part = self.part(at, left.len());
            let (now, later) = left.split_at(part.len);
            let place = self.place_or_allocate(part.block)?;
            self.raw.write(place + part.offset, now)?;
            at += part.len;
            left = later;
        }
        Ok(())
    }

    fn write_zeroes(&self, at: u64, len: u64) -> io::Result<()> {
        self.for_places(at, len, |place, len| self.raw.write_zeroes(place, len))
    }

    fn discard(&self, at: u64, len: u64) -> io::Result<()> {
        if self.traits.discard.is_none() {
            check_writable(self.traits.is_read_only)?;
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.for_places(at, len, |place, len| self.raw.discard(place, len))
    }

    fn flush(&self) -> io::Result<()> {
        if self.traits.is_read_only {
            return Ok(());
        }
        self.flushes.run(|| self.table_mut().commit(&self.raw))
    }

    fn resize(&self, _: u64) -> io::Result<()> {
        check_writable(self.traits.is_read_only)?;
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "images of this format keep their size: convert it to raw or qcow2",
        ))
    }
}

impl<T: Table> Drop for Blocks<T> {
    fn drop(&mut self) {
        if self.traits.is_read_only {
            return;
        }
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        // What the owner flushed is safe whatever comes of this; the file then says that it was not closed.
        if table.commit(&self.raw).is_ok() {
            let _ = table.close(&self.raw);
        }
    }
}
