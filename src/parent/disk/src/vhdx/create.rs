//! A new file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::header;
use super::metadata::{
    BAT_REGION, DISK_ID, DISK_SIZE, FILE_PARAMETERS, LOGICAL_SECTOR, MAX_SIZE, METADATA_REGION,
    Metadata, PHYSICAL_SECTOR, REGION_TABLES, TABLE_LEN,
};
use super::{MIB, PAGE};
use crate::bytes::{crc32c, put, random_guid};

/// Small blocks keep a thin image thin; Hyper-V's own choice is 32 MiB.
const BLOCK: u64 = 2 * MIB;

const LOG_AT: u64 = MIB;
const LOG_LEN: u32 = 1 << 20;
const METADATA_AT: u64 = 2 * MIB;
const METADATA_LEN: u32 = 1 << 20;
const TABLE_AT: u64 = 3 * MIB;

/// Makes `file` an empty dynamic disk.
pub(crate) fn create(file: &File, size: u64) -> io::Result<()> {
    if size > MAX_SIZE {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a VHDX has at most 64 TiB",
        ));
    }
    let metadata = Metadata {
        size,
        block: BLOCK,
        logical_block: 512,
        physical_block: 4096,
    };
    let blocks = size.div_ceil(BLOCK);
    let entries = blocks + blocks.saturating_sub(1) / metadata.chunk();
    // 64 TiB in blocks of 2 MiB have 257 MiB of entries.
    let table_len = (entries * 8).next_multiple_of(MIB);
    file.set_len(TABLE_AT + table_len)?;
    let mut identifier = vec![0; 512 + 8];
    put(&mut identifier, 0, b"vhdxfile");
    for (index, byte) in b"Verdigris".iter().enumerate() {
        put(&mut identifier, 8 + 2 * index, &[*byte]);
    }
    file.write_all_at(&identifier, 0)?;
    for (sequence, at) in [64u64 << 10, 128 << 10].into_iter().enumerate() {
        let guids = [random_guid()?, random_guid()?, [0; 16]];
        let page: [u8; PAGE] = header::page(sequence as u64 + 1, guids, LOG_AT, LOG_LEN);
        file.write_all_at(&page, at)?;
    }
    let regions = regions(table_len as u32);
    for at in REGION_TABLES {
        file.write_all_at(&regions, at)?;
    }
    file.write_all_at(&metadata_region(&metadata)?, METADATA_AT)
}

fn regions(table_len: u32) -> Vec<u8> {
    let mut table = vec![0; TABLE_LEN];
    put(&mut table, 0, b"regi");
    put(&mut table, 8, &2u32.to_le_bytes());
    let mut region = |place: usize, guid: [u8; 16], at: u64, len: u32| {
        put(&mut table, place, &guid);
        put(&mut table, place + 16, &at.to_le_bytes());
        put(&mut table, place + 24, &len.to_le_bytes());
        put(&mut table, place + 28, &1u32.to_le_bytes());
    };
    region(16, BAT_REGION, TABLE_AT, table_len);
    region(48, METADATA_REGION, METADATA_AT, METADATA_LEN);
    let sum = crc32c(&table, 4);
    put(&mut table, 4, &sum.to_le_bytes());
    table
}

fn metadata_region(metadata: &Metadata) -> io::Result<Vec<u8>> {
    /// The item is about the disk, not the file.
    const VIRTUAL_DISK: u32 = 2;
    const REQUIRED: u32 = 4;
    let mut region = vec![0; 2 * TABLE_LEN];
    let parameters = metadata.block.to_le_bytes();
    let items: [([u8; 16], &[u8], u32); 5] = [
        (FILE_PARAMETERS, &parameters, REQUIRED),
        (
            DISK_SIZE,
            &metadata.size.to_le_bytes(),
            REQUIRED | VIRTUAL_DISK,
        ),
        (DISK_ID, &random_guid()?, REQUIRED | VIRTUAL_DISK),
        (
            LOGICAL_SECTOR,
            &metadata.logical_block.to_le_bytes(),
            REQUIRED | VIRTUAL_DISK,
        ),
        (
            PHYSICAL_SECTOR,
            &metadata.physical_block.to_le_bytes(),
            REQUIRED | VIRTUAL_DISK,
        ),
    ];
    put(&mut region, 0, b"metadata");
    put(&mut region, 10, &(items.len() as u16).to_le_bytes());
    let mut offset = TABLE_LEN;
    for (index, (guid, value, flags)) in items.iter().enumerate() {
        let entry = 32 * (1 + index);
        put(&mut region, entry, guid);
        put(&mut region, entry + 16, &(offset as u32).to_le_bytes());
        put(&mut region, entry + 20, &(value.len() as u32).to_le_bytes());
        put(&mut region, entry + 24, &flags.to_le_bytes());
        put(&mut region, offset, value);
        offset += 16;
    }
    Ok(region)
}
