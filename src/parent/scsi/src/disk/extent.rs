//! Which blocks a command is about.

use super::Disk;
use crate::cdb::{Cdb, op};
use crate::completion::Stop;
use crate::sense::Sense;

/// Blocks of a disk: all of them lie on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// First byte.
    pub at: u64,
    /// Bytes.
    pub len: u64,
}

impl Disk {
    /// Checks that `count` blocks from `lba` are there.
    pub(super) fn extent(&self, lba: u64, count: u64) -> Result<Extent, Stop> {
        let end = lba.checked_add(count).ok_or(Sense::LBA_OUT_OF_RANGE)?;
        if end > self.blocks() {
            return Err(Sense::LBA_OUT_OF_RANGE.into());
        }
        let block = u64::from(self.block());
        // No overflow: `end * block` is at most the size of the image.
        Ok(Extent {
            at: lba.checked_mul(block).ok_or(Sense::LBA_OUT_OF_RANGE)?,
            len: count.checked_mul(block).ok_or(Sense::LBA_OUT_OF_RANGE)?,
        })
    }

    /// The blocks of a command that reads, writes or verifies.
    pub(super) fn extent_of(&self, cdb: &Cdb) -> Result<Extent, Stop> {
        let (lba, count) = match cdb.opcode() {
            op::READ_6 | op::WRITE_6 => {
                let lba = cdb.be32::<0>() & 0x1F_FFFF;
                // Zero stands for 256, in this form alone.
                let count = match cdb.byte::<4>() {
                    0 => 256,
                    count => u64::from(count),
                };
                return self.extent(u64::from(lba), count);
            }
            op::READ_12 | op::WRITE_12 => (u64::from(cdb.be32::<2>()), cdb.be32::<6>()),
            op::READ_16
            | op::WRITE_16
            | op::WRITE_AND_VERIFY_16
            | op::VERIFY_16
            | op::SYNCHRONIZE_CACHE_16
            | op::WRITE_SAME_16 => (cdb.be64::<2>(), cdb.be32::<10>()),
            _ => (u64::from(cdb.be32::<2>()), u32::from(cdb.be16::<7>())),
        };
        self.extent(lba, u64::from(count))
    }
}
