//! UNMAP and WRITE SAME.

use disk::IoVector;

use super::Disk;
use super::extent::Extent;
use crate::cdb::{Cdb, op};
use crate::completion::{Data, Stop};
use crate::sense::Sense;

/// Most bytes that one UNMAP may name. Bounds how long it takes, and how long others wait for it.
pub(super) const MAX_UNMAP_BYTES: u64 = 4 << 30;

/// Most ranges in one UNMAP.
pub(super) const MAX_UNMAP_DESCRIPTORS: u32 = 256;

/// Most bytes of one WRITE SAME.
pub(super) const MAX_WRITE_SAME_BYTES: u64 = 32 << 20;

const HEADER_LEN: usize = 8;
const DESCRIPTOR_LEN: usize = 16;

impl Disk {
    pub(super) fn can_discard(&self) -> bool {
        self.image.traits().discard.is_some()
    }

    /// UNMAP (SBC-3). All ranges are checked before the first is discarded.
    pub(super) fn unmap(&self, cdb: &Cdb, data: &Data<'_>) -> Result<u32, Stop> {
        // ANCHOR: nothing can be anchored.
        if cdb.bit::<1>(0) {
            return Err(Sense::INVALID_FIELD_IN_CDB.into());
        }
        self.writable()?;
        let list_len = usize::from(cdb.be16::<7>());
        if list_len == 0 {
            return Ok(0);
        }
        let longest = HEADER_LEN + DESCRIPTOR_LEN * MAX_UNMAP_DESCRIPTORS as usize;
        if list_len < HEADER_LEN || list_len > longest {
            return Err(Sense::PARAMETER_LIST_LENGTH.into());
        }
        let list = data.copy_taken(list_len)?;
        let extents = self.unmap_extents(&list)?;
        for extent in extents {
            self.image
                .discard(extent.at, extent.len)
                .map_err(|error| Sense::of_write(&error))?;
        }
        if !self.options.has_write_cache {
            self.flush()?;
        }
        Ok(list_len as u32)
    }

    fn unmap_extents(&self, list: &[u8]) -> Result<Vec<Extent>, Stop> {
        let Some((header, rest)) = list.split_first_chunk::<HEADER_LEN>() else {
            return Err(Sense::PARAMETER_LIST_LENGTH.into());
        };
        let [_, _, d0, d1, ..] = *header;
        let descriptors_len = usize::from(u16::from_be_bytes([d0, d1]));
        // A list that says more than was sent is cut short; part of a descriptor does not count (SBC-3).
        let descriptors = rest.get(..descriptors_len).unwrap_or(rest);
        let mut extents = Vec::new();
        let mut total: u64 = 0;
        for descriptor in descriptors.chunks_exact(DESCRIPTOR_LEN) {
            let Some((lba, rest)) = descriptor.split_first_chunk::<8>() else {
                break;
            };
            let Some(count) = rest.first_chunk::<4>() else {
                break;
            };
            let count = u64::from(u32::from_be_bytes(*count));
            let extent = self.extent(u64::from_be_bytes(*lba), count)?;
            total = total.saturating_add(extent.len);
            if extent.len > 0 {
                extents.push(extent);
            }
        }
        if total > MAX_UNMAP_BYTES {
            return Err(Sense::INVALID_FIELD_IN_LIST.into());
        }
        Ok(extents)
    }

    /// WRITE SAME (10) and (16). Zeroes with UNMAP are discarded where the image can, other blocks are written.
    pub(super) fn write_same(&self, cdb: &Cdb, data: &Data<'_>) -> Result<u32, Stop> {
        const ANCHOR: u8 = 4;
        const UNMAP: u8 = 3;
        const NDOB: u8 = 0;
        let flags = cdb.byte::<1>();
        let has_protection = flags >> 5 != 0;
        // Physical and logical block data: obsolete.
        let has_block_data = flags & 0x06 != 0;
        let is_16 = cdb.opcode() == op::WRITE_SAME_16;
        let no_data = cdb.bit::<1>(NDOB);
        if has_protection || has_block_data || cdb.bit::<1>(ANCHOR) || no_data && !is_16 {
            return Err(Sense::INVALID_FIELD_IN_CDB.into());
        }
        let wants_unmap = cdb.bit::<1>(UNMAP);
        if wants_unmap && !self.can_discard() {
            return Err(Sense::INVALID_FIELD_IN_CDB.into());
        }
        self.writable()?;
        let extent = self.extent_of(cdb)?;
        if extent.len == 0 || extent.len > MAX_WRITE_SAME_BYTES {
            return Err(Sense::INVALID_FIELD_IN_CDB.into());
        }
        let block = self.block();
        let (pattern, moved) = if no_data {
            (vec![0; block as usize], 0)
        } else {
            (data.copy_taken(block as usize)?, block)
        };
        let done = if pattern.iter().any(|byte| *byte != 0) {
            self.write_pattern(extent, &pattern)
        } else if wants_unmap {
            self.image.discard(extent.at, extent.len)
        } else {
            self.image.write_zeroes(extent.at, extent.len)
        };
        done.map_err(|error| Sense::of_write(&error))?;
        if !self.options.has_write_cache {
            self.flush()?;
        }
        Ok(moved)
    }

    fn write_pattern(&self, extent: Extent, pattern: &[u8]) -> std::io::Result<()> {
        const CHUNK: u64 = 64 * 1024;
        let chunk = pattern.repeat((CHUNK as usize / pattern.len().max(1)).max(1));
        let mut done = 0;
        while done < extent.len {
            let len = (extent.len - done).min(chunk.len() as u64);
            let part = chunk.get(..len as usize).unwrap_or(&chunk);
            self.image.write(extent.at + done, IoVector::from(part))?;
            done += len;
        }
        Ok(())
    }
}
