//! Disk images of children, whatever their format, behind one trait: [`Image`].
//!
//! | module | what it serves |
//! | --- | --- |
//! | `raw` | raw files and block devices, by `preadv` and `pwritev` from and to the child's memory |
//! | `qcow2` | qcow2, by the crate `imago` |
//! | `vhdx`, `vhd` | Hyper-V's formats, by code of our own |
//! | `lock` | who may use a file; waits for the last write of a worker that died |
//! | `open`, `create` | from a path, or a file that somebody opened, to an image |
//! | `pool` | the threads that the calls below run on |
//!
//! Calls block. An image may be used by any number of threads at once; two requests that overlap and run at the same
//! time may have their blocks mixed, as on a disk. Nothing here parses what a child wrote, but for the image files: their
//! structure is the owner's, their content the child's, so a format is never guessed from content.
//!
//! Durability: what a finished [`Image::write`] wrote survives the end of this process and of the machine after a later
//! [`Image::flush`] returned without error, which is `fdatasync` or more. Before that, a raw image loses nothing when only
//! the process ends; the other formats may, as their tables are kept in memory until a flush.
//!
//! `docs/adr/0013-disk-images.md` says why these formats come from where they come from.
#![forbid(unsafe_code)]

mod blocks;
mod bytes;
mod durable;
mod format;
mod image;
mod lock;
mod open;
mod pool;
mod qcow2;
mod raw;
#[cfg(feature = "testing")]
pub mod testing;
mod vhd;
mod vhdx;

pub use format::{Format, UnknownFormat};
pub use image::{Discard, Image, ImageTraits};
pub use imago::io_buffers::{IoVector, IoVectorMut};
pub use lock::{LockError, LockMode, lock};
pub use open::{Backing, OpenError, Options, create, open, open_file};
pub use pool::{Closed, Pool};
