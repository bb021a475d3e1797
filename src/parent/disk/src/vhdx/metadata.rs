//! Regions and metadata: how large the disk is and where its table lies.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::{MIB, damaged};
use crate::bytes::{bytes, crc32c, le16, le32, le64};

/// A GUID as it lies in a file.
pub(super) const fn guid(first: u32, second: u16, third: u16, rest: [u8; 8]) -> [u8; 16] {
    let [a0, a1, a2, a3] = first.to_le_bytes();
    let [b0, b1] = second.to_le_bytes();
    let [c0, c1] = third.to_le_bytes();
    let [d0, d1, d2, d3, d4, d5, d6, d7] = rest;
    [
        a0, a1, a2, a3, b0, b1, c0, c1, d0, d1, d2, d3, d4, d5, d6, d7,
    ]
}

pub(super) const BAT_REGION: [u8; 16] = guid(
    0x2DC2_7766,
    0xF623,
    0x4200,
    [0x9D, 0x64, 0x11, 0x5E, 0x9B, 0xFD, 0x4A, 0x08],
);
pub(super) const METADATA_REGION: [u8; 16] = guid(
    0x8B7C_A206,
    0x4790,
    0x4B9A,
    [0xB8, 0xFE, 0x57, 0x5F, 0x05, 0x0F, 0x88, 0x6E],
);
pub(super) const FILE_PARAMETERS: [u8; 16] = guid(
    0xCAA1_6737,
    0xFA36,
    0x4D43,
    [0xB3, 0xB6, 0x33, 0xF0, 0xAA, 0x44, 0xE7, 0x6B],
);
pub(super) const DISK_SIZE: [u8; 16] = guid(
    0x2FA5_4224,
    0xCD1B,
    0x4876,
    [0xB2, 0x11, 0x5D, 0xBE, 0xD8, 0x3B, 0xF4, 0xB8],
);
pub(super) const DISK_ID: [u8; 16] = guid(
    0xBECA_12AB,
    0xB2E6,
    0x4523,
    [0x93, 0xEF, 0xC3, 0x09, 0xE0, 0x00, 0xC7, 0x46],
);
pub(super) const LOGICAL_SECTOR: [u8; 16] = guid(
    0x8141_BF1D,
    0xA96F,
    0x4709,
    [0xBA, 0x47, 0xF2, 0x33, 0xA8, 0xFA, 0xAB, 0x5F],
);
pub(super) const PHYSICAL_SECTOR: [u8; 16] = guid(
    0xCDA3_48C7,
    0x445D,
    0x4471,
    [0x9C, 0xC9, 0xE9, 0x88, 0x52, 0x51, 0xC5, 0x56],
);

/// Where the region tables lie; both say the same.
pub(super) const REGION_TABLES: [u64; 2] = [192 << 10, 256 << 10];
pub(super) const TABLE_LEN: usize = 64 << 10;
const MAX_ENTRIES: usize = 2047;
const ENTRY_LEN: usize = 32;

/// Largest disk of the format.
pub(super) const MAX_SIZE: u64 = 64 << 40;

/// A part of the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Region {
    pub at: u64,
    pub len: u64,
}

/// Finds the table of blocks and the metadata.
pub(super) fn regions(file: &File) -> io::Result<(Region, Region)> {
    for at in REGION_TABLES {
        let mut table = vec![0; TABLE_LEN];
        file.read_exact_at(&mut table, at)?;
        if table.starts_with(b"regi") && le32(&table, 4) == crc32c(&table, 4) {
            return find_regions(&table);
        }
    }
    Err(damaged("both its region tables are bad"))
}

fn find_regions(table: &[u8]) -> io::Result<(Region, Region)> {
    let count = (le32(table, 8) as usize).min(MAX_ENTRIES);
    let (mut blocks, mut metadata) = (None, None);
    let entries = table.get(16..).unwrap_or_default();
    for entry in entries.chunks_exact(ENTRY_LEN).take(count) {
        let region = Region {
            at: le64(entry, 16),
            len: u64::from(le32(entry, 24)),
        };
        let is_placed = region.at >= MIB
            && region.at.is_multiple_of(MIB)
            && region.len.is_multiple_of(MIB)
            && region.at.checked_add(region.len).is_some();
        match bytes::<16>(entry, 0) {
            _ if !is_placed => return Err(damaged("one of its regions makes no sense")),
            BAT_REGION => blocks = Some(region),
            METADATA_REGION => metadata = Some(region),
            _ if le32(entry, 28) & 1 == 0 => {}
            _ => return Err(damaged("it needs a region that is not known here")),
        }
    }
    match (blocks, metadata) {
        (Some(blocks), Some(metadata)) => Ok((blocks, metadata)),
        _ => Err(damaged("it lacks a region")),
    }
}

/// What the metadata says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Metadata {
    pub size: u64,
    pub block: u64,
    pub logical_block: u32,
    pub physical_block: u32,
}

impl Metadata {
    /// Blocks between two bitmap entries of the table.
    pub(super) fn chunk(&self) -> u64 {
        // 2^23 sectors have their bits in a bitmap of 1 MiB. At least 8: a block has 256 MiB at most.
        ((u64::from(self.logical_block) << 23) / self.block).max(1)
    }
}

/// Reads the metadata of `region`.
pub(super) fn read(file: &File, region: &Region) -> io::Result<Metadata> {
    let mut table = vec![0; TABLE_LEN];
    file.read_exact_at(&mut table, region.at)?;
    if !table.starts_with(b"metadata") {
        return Err(damaged("its metadata are bad"));
    }
    let count = usize::from(le16(&table, 10)).min(MAX_ENTRIES);
    let (mut block, mut size, mut logical, mut physical) = (None, None, None, None);
    let entries = table.get(ENTRY_LEN..).unwrap_or_default();
    for entry in entries.chunks_exact(ENTRY_LEN).take(count) {
        let offset = u64::from(le32(entry, 16));
        let item = || -> io::Result<[u8; 8]> {
            let len = (le32(entry, 20) as usize).min(8);
            if offset < TABLE_LEN as u64 || offset + 8 > region.len {
                return Err(damaged("an item of its metadata lies outside"));
            }
            let mut item = [0; 8];
            if let Some(part) = item.get_mut(..len) {
                file.read_exact_at(part, region.at + offset)?;
            }
            Ok(item)
        };
        match bytes::<16>(entry, 0) {
            FILE_PARAMETERS => {
                let item = item()?;
                if le32(&item, 4) & 2 != 0 {
                    return Err(damaged("it is based on another image"));
                }
                block = Some(u64::from(le32(&item, 0)));
            }
            DISK_SIZE => size = Some(le64(&item()?, 0)),
            LOGICAL_SECTOR => logical = Some(le32(&item()?, 0)),
            PHYSICAL_SECTOR => physical = Some(le32(&item()?, 0)),
            DISK_ID => {}
            // Bit 2: who does not know the item must not open the file.
            _ if le32(entry, 24) & 4 == 0 => {}
            _ => return Err(damaged("it needs metadata that are not known here")),
        }
    }
    let (Some(block), Some(size), Some(logical_block), Some(physical_block)) =
        (block, size, logical, physical)
    else {
        return Err(damaged("it lacks metadata"));
    };
    let is_sane = block.is_power_of_two()
        && (MIB..=256 * MIB).contains(&block)
        && matches!(logical_block, 512 | 4096)
        && matches!(physical_block, 512 | 4096)
        && size > 0
        && size <= MAX_SIZE
        && size.is_multiple_of(u64::from(logical_block));
    if !is_sane {
        return Err(damaged("its sizes make no sense"));
    }
    Ok(Metadata {
        size,
        block,
        logical_block,
        physical_block: physical_block.max(logical_block),
    })
}
