//! A SCSI target: what answers the commands of a child's SCSI driver, whichever transport brings them.
//!
//! [`Target`] holds up to [`MAX_LUNS`] logical units, each a [`Disk`] or a [`Cdrom`] over a [`::disk::Image`]. A command
//! comes as its descriptor block and a [`Data`] buffer in the child's memory, and ends as a [`Completion`]. Calls block
//! until the command is done; any number may run at once.
//!
//! Nothing is read in place: a descriptor block is a copy before it comes here, parameter lists are copied once, checked
//! and then used. Data of reads and writes goes directly between the image and the child's memory.
//!
//! Documents: SAM-5 (statuses), SPC-4 (INQUIRY, MODE SENSE, sense data), SBC-3 (disks), MMC-6 (CD-ROM). What a refused
//! command gets is in `sense`.
#![forbid(unsafe_code)]

mod attention;
mod cdb;
mod cdrom;
mod completion;
mod disk;
mod inquiry;
mod mode;
mod scatter;
mod sense;
mod target;

pub use attention::Attention;
pub use cdb::{Cdb, MAX_CDB_LEN};
pub use cdrom::Cdrom;
pub use completion::{Completion, Data};
pub use disk::{Disk, DiskOptions};
pub use inquiry::Identity;
pub use scatter::{OutsideMemory, ScatterList};
pub use sense::{SENSE_LEN, Sense};
pub use target::{LogicalUnit, LunTaken, MAX_LUNS, Target};
