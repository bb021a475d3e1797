//! What every image can do.

use std::io;

use crate::{IoVector, IoVectorMut};

/// What [`Image::discard`] is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discard {
    /// Space comes back in pieces of this many bytes, a power of two.
    pub granularity: u32,
}

/// What does not change while an image is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageTraits {
    /// Nothing may be written.
    pub is_read_only: bool,
    /// Smallest unit of a request in bytes, 512 or 4096. Requests of other lengths or places may fail.
    pub logical_block: u32,
    /// Unit that the storage below writes in one piece, in bytes; a power of two, `logical_block` or more.
    pub physical_block: u32,
    /// Whether discarding gives space back.
    pub discard: Option<Discard>,
}

/// A disk image. All places and lengths are bytes.
///
/// # Errors
/// Those of the files below. A failed write may have written any part of its range and nothing outside. A range that
/// does not lie within [`Image::size`] is [`io::ErrorKind::InvalidInput`]; a change of a read-only image is
/// [`io::ErrorKind::ReadOnlyFilesystem`]; both change nothing. No room is [`io::ErrorKind::StorageFull`].
pub trait Image: Send + Sync {
    /// Size of the disk, a multiple of the logical block.
    fn size(&self) -> u64;

    /// What does not change.
    fn traits(&self) -> ImageTraits;

    /// Fills `into` from `at`.
    fn read(&self, at: u64, into: IoVectorMut<'_>) -> io::Result<()>;

    /// Writes `from` to `at`.
    fn write(&self, at: u64, from: IoVector<'_>) -> io::Result<()>;

    /// Makes the range read as zeroes and keeps its space, where the format can.
    fn write_zeroes(&self, at: u64, len: u64) -> io::Result<()>;

    /// Makes the range read as zeroes and gives its space back, as far as the granularity allows. The range reads as
    /// zeroes to its last byte even where its ends are not aligned.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] where [`ImageTraits::discard`] is `None`.
    fn discard(&self, at: u64, len: u64) -> io::Result<()>;

    /// Returns when everything that was written before is durable.
    fn flush(&self) -> io::Result<()>;

    /// Changes the size of the disk. New space reads as zeroes; what shrinking cuts off is lost.
    fn resize(&self, size: u64) -> io::Result<()>;

    /// Looks whether the storage below got another size from outside, such as a grown logical volume, and takes it
    /// over. Returns the size.
    fn refresh(&self) -> io::Result<u64> {
        Ok(self.size())
    }
}

/// Refuses a range that does not lie within `size`.
pub(crate) fn check_range(at: u64, len: u64, size: u64) -> io::Result<()> {
    match at.checked_add(len) {
        Some(end) if end <= size => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the range lies outside of the disk",
        )),
    }
}

/// Refuses to change what is read-only.
pub(crate) fn check_writable(is_read_only: bool) -> io::Result<()> {
    if is_read_only {
        return Err(io::Error::new(
            io::ErrorKind::ReadOnlyFilesystem,
            "the image is read-only",
        ));
    }
    Ok(())
}

/// The source of zeroes.
static ZEROES: [u8; 64 * 1024] = [0; 64 * 1024];

/// `len` zeroes to write, from one small buffer. At most [`ZERO_CHUNK`].
pub(crate) fn zeroes(len: u64) -> IoVector<'static> {
    let mut vector = IoVector::new();
    let mut left = len.min(ZERO_CHUNK);
    while left > 0 {
        let part = left.min(ZEROES.len() as u64);
        vector.push(ZEROES.get(..part as usize).unwrap_or(&ZEROES));
        left -= part;
    }
    vector
}

/// Most zeroes that one call writes.
pub(crate) const ZERO_CHUNK: u64 = 1024 * 1024;

/// Writes zeroes as data.
pub(crate) fn write_full_zeroes(
    image: &(impl Image + ?Sized),
    at: u64,
    len: u64,
) -> io::Result<()> {
    let mut done = 0;
    while done < len {
        let part = (len - done).min(ZERO_CHUNK);
        image.write(at + done, zeroes(part))?;
        done += part;
    }
    Ok(())
}
