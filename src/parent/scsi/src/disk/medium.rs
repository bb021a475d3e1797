//! Commands that read, write and flush.

use disk::IoVectorMut;

use super::Disk;
use super::extent::Extent;
use crate::cdb::{Cdb, op};
use crate::completion::{Data, Stop};
use crate::sense::Sense;

/// Most blocks of one VERIFY: it moves no data, so nothing else bounds how long it takes.
const MAX_VERIFY_BYTES: u64 = 32 << 20;

impl Disk {
    pub(super) fn read_capacity_10(&self, cdb: &Cdb, data: &Data<'_>) -> Result<u32, Stop> {
        // Partial medium indicator: obsolete, and an address only makes sense with it.
        if cdb.bit::<8>(0) || cdb.be32::<2>() != 0 {
            return Err(Sense::INVALID_FIELD_IN_CDB.into());
        }
        let last = self.blocks().saturating_sub(1);
        let last = u32::try_from(last).unwrap_or(u32::MAX);
        let mut answer = last.to_be_bytes().to_vec();
        answer.extend(self.block().to_be_bytes());
        data.answer(&answer, 8)
    }

    pub(super) fn read_capacity_16(&self, cdb: &Cdb, data: &Data<'_>) -> Result<u32, Stop> {
        let traits = self.image.traits();
        let mut answer = self.blocks().saturating_sub(1).to_be_bytes().to_vec();
        answer.extend(traits.logical_block.to_be_bytes());
        let exponent = (traits.physical_block / traits.logical_block.max(1)).max(1);
        answer.extend([0, exponent.ilog2() as u8]);
        // LBPME and LBPRZ: what was unmapped reads as zeroes, by the contract of the image.
        let provisioning: u16 = if self.can_discard() { 0xC000 } else { 0 };
        answer.extend(provisioning.to_be_bytes());
        answer.resize(32, 0);
        data.answer(&answer, cdb.be32::<10>() as usize)
    }

    /// Protection information and what else no disk of ours has. `FUA` is the caller's.
    fn check_flags(cdb: &Cdb) -> Result<(), Stop> {
        let has_flags = !matches!(cdb.opcode(), op::READ_6 | op::WRITE_6);
        if has_flags && cdb.byte::<1>() >> 5 != 0 {
            return Err(Sense::INVALID_FIELD_IN_CDB.into());
        }
        Ok(())
    }

    fn is_forced(cdb: &Cdb) -> bool {
        match cdb.opcode() {
            op::READ_6 | op::WRITE_6 => false,
            // To verify means to have it on the medium.
            op::WRITE_AND_VERIFY_10 | op::WRITE_AND_VERIFY_16 => true,
            _ => cdb.bit::<1>(3),
        }
    }

    /// The bytes of an extent as a buffer counts them.
    fn buffer_len(extent: Extent) -> Result<(usize, u32), Stop> {
        match (usize::try_from(extent.len), u32::try_from(extent.len)) {
            (Ok(len), Ok(moved)) => Ok((len, moved)),
            // More than a request can carry.
            _ => Err(Stop::Overrun),
        }
    }

    pub(super) fn read(&self, cdb: &Cdb, data: &Data<'_>) -> Result<u32, Stop> {
        Self::check_flags(cdb)?;
        let extent = self.extent_of(cdb)?;
        let (len, moved) = Self::buffer_len(extent)?;
        let buffer = data.to_fill(len)?;
        if Self::is_forced(cdb) {
            // What is read must be what the medium has.
            self.flush()?;
        }
        if len > 0 {
            buffer
                .read_from(&*self.image, extent.at)
                .map_err(|error| Sense::of_read(&error))?;
        }
        Ok(moved)
    }

    pub(super) fn write(&self, cdb: &Cdb, data: &Data<'_>) -> Result<u32, Stop> {
        Self::check_flags(cdb)?;
        self.writable()?;
        let is_verify = matches!(
            cdb.opcode(),
            op::WRITE_AND_VERIFY_10 | op::WRITE_AND_VERIFY_16
        );
        // BYTCHK: comparing with the buffer again would need a second copy of it.
        if is_verify && cdb.bit::<1>(1) {
            return Err(Sense::INVALID_FIELD_IN_CDB.into());
        }
        let extent = self.extent_of(cdb)?;
        let (len, moved) = Self::buffer_len(extent)?;
        let buffer = data.to_take(len)?;
        if len > 0 {
            buffer
                .write_to(&*self.image, extent.at)
                .map_err(|error| Sense::of_write(&error))?;
        }
        if Self::is_forced(cdb) || !self.options.has_write_cache {
            self.flush()?;
        }
        if is_verify {
            self.read_over(extent)?;
        }
        Ok(moved)
    }

    pub(super) fn verify(&self, cdb: &Cdb) -> Result<u32, Stop> {
        Self::check_flags(cdb)?;
        if cdb.byte::<1>() & 0x06 != 0 {
            return Err(Sense::INVALID_FIELD_IN_CDB.into());
        }
        let extent = self.extent_of(cdb)?;
        if extent.len > MAX_VERIFY_BYTES {
            return Err(Sense::INVALID_FIELD_IN_CDB.into());
        }
        self.read_over(extent)?;
        Ok(0)
    }

    /// Reads blocks for the sake of reading.
    fn read_over(&self, extent: Extent) -> Result<(), Stop> {
        const CHUNK: u64 = 256 * 1024;
        let mut buffer = vec![0; extent.len.min(CHUNK) as usize];
        let mut done = 0;
        while done < extent.len {
            let len = (extent.len - done).min(CHUNK) as usize;
            let Some(part) = buffer.get_mut(..len) else {
                break;
            };
            self.image
                .read(extent.at + done, IoVectorMut::from(part))
                .map_err(|error| Sense::of_read(&error))?;
            done += len as u64;
        }
        Ok(())
    }

    pub(super) fn synchronize_cache(&self, cdb: &Cdb) -> Result<u32, Stop> {
        // All of it is flushed; the range must be one all the same. IMMED would let us answer earlier: we do not.
        self.extent_of(cdb)?;
        self.flush()?;
        Ok(0)
    }

    pub(super) fn flush(&self) -> Result<(), Stop> {
        self.image
            .flush()
            .map_err(|error| Sense::of_write(&error).into())
    }
}
