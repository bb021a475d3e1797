//! VHD, fixed and dynamic.
//!
//! Microsoft, "Virtual Hard Disk Image Format Specification" 1.0. All fields are big-endian. The format has no log: the
//! footer at the end moves when the file grows, and its copy at the start stands in for it if that was not finished.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::IoVector;
use crate::blocks::{Blocks, Shape, Table};
use crate::bytes::{be32, be64, bytes, put, random_guid};
use crate::image::Image;
use crate::raw::{Buffered, Raw};

const SECTOR: u64 = 512;
const FOOTER_LEN: usize = 512;
const HEADER_LEN: usize = 1024;
const COOKIE: &[u8; 8] = b"conectix";
const HEADER_COOKIE: &[u8; 8] = b"cxsparse";
const FIXED: u32 = 2;
const DYNAMIC: u32 = 3;
const NO_PLACE: u32 = u32::MAX;
const CHECKSUM: usize = 64;
const HEADER_CHECKSUM: usize = 36;

/// Size of the blocks that we make, and what a fixed disk is cut into for our own purposes.
const BLOCK: u64 = 2 << 20;

/// Largest disk of the format.
const MAX_SIZE: u64 = 2040 << 30;

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// One's complement of the sum of all bytes but those of the sum.
fn checksum(data: &[u8], skip: usize) -> u32 {
    let sum = data
        .iter()
        .enumerate()
        .filter(|(at, _)| at.wrapping_sub(skip) >= 4)
        .fold(0u32, |sum, (_, byte)| sum.wrapping_add(u32::from(*byte)));
    !sum
}

fn is_footer(footer: &[u8]) -> bool {
    footer.starts_with(COOKIE) && be32(footer, CHECKSUM) == checksum(footer, CHECKSUM)
}

/// Where the blocks are.
pub(crate) struct Map {
    kind: Kind,
}

enum Kind {
    Fixed,
    Dynamic {
        entries: Vec<u32>,
        table_at: u64,
        footer: Box<[u8; FOOTER_LEN]>,
        /// Bytes of the bitmap before the data of each block.
        bitmap: u64,
        block: u64,
        /// Where the footer lies and the next block goes.
        end: u64,
        /// Entries that the file does not have yet.
        fresh: Vec<usize>,
    },
}

/// Opens a file that was locked.
pub(crate) fn open(file: File, is_read_only: bool, is_direct: bool) -> io::Result<Blocks<Map>> {
    let buffered = Buffered::new(&file, is_direct)?;
    let len = file.metadata()?.len();
    if len < SECTOR {
        return Err(damaged("it is too short"));
    }
    let mut footer = [0; FOOTER_LEN];
    // Old makers wrote 511 bytes of footer; the place is still a multiple of 512.
    let footer_at = (len - 1) / SECTOR * SECTOR;
    let tail = usize::try_from(len - footer_at).unwrap_or(FOOTER_LEN);
    file.read_exact_at(footer.get_mut(..tail).unwrap_or_default(), footer_at)?;
    let mut end = footer_at;
    if !is_footer(&footer) {
        file.read_exact_at(&mut footer, 0)?;
        if !is_footer(&footer) {
            return Err(damaged("it has no footer"));
        }
        // The file grew and the footer was not moved.
        end = len.next_multiple_of(SECTOR);
    }
    let size = be64(&footer, 48);
    if size == 0 || size > MAX_SIZE || !size.is_multiple_of(SECTOR) {
        return Err(damaged("its size makes no sense"));
    }
    let (kind, block) = match be32(&footer, 60) {
        FIXED if size <= end => (Kind::Fixed, BLOCK),
        FIXED => return Err(damaged("it is shorter than the disk")),
        DYNAMIC => dynamic(&file, footer, size, end)?,
        _ => return Err(damaged("it is based on another image")),
    };
    let shape = Shape {
        size,
        block,
        logical_block: SECTOR as u32,
        physical_block: 4096,
    };
    buffered.end()?;
    let raw = Raw::for_unit(file, is_read_only, is_direct, SECTOR as u32)?;
    Ok(Blocks::new(raw, Map { kind }, shape))
}

fn dynamic(file: &File, footer: [u8; FOOTER_LEN], size: u64, end: u64) -> io::Result<(Kind, u64)> {
    let mut header = [0; HEADER_LEN];
    file.read_exact_at(&mut header, be64(&footer, 16))?;
    if !header.starts_with(HEADER_COOKIE)
        || be32(&header, HEADER_CHECKSUM) != checksum(&header, HEADER_CHECKSUM)
    {
        return Err(damaged("its dynamic header is bad"));
    }
    let table_at = be64(&header, 16);
    let block = u64::from(be32(&header, 32));
    if !block.is_power_of_two() || !(SECTOR..=256 << 20).contains(&block) {
        return Err(damaged("its block size makes no sense"));
    }
    let count = size.div_ceil(block);
    let table_len = count * 4;
    let is_inside = table_at.is_multiple_of(SECTOR)
        && table_at
            .checked_add(table_len.next_multiple_of(SECTOR))
            .is_some_and(|to| to <= end);
    if u64::from(be32(&header, 28)) < count || !is_inside {
        return Err(damaged("its table is too short"));
    }
    let mut table = vec![0; table_len as usize];
    file.read_exact_at(&mut table, table_at)?;
    let entries: Vec<u32> = table
        .chunks_exact(4)
        .map(|entry| u32::from_be_bytes(bytes(entry, 0)))
        .collect();
    let bitmap = (block / SECTOR).div_ceil(8).next_multiple_of(SECTOR);
    check_entries(&entries, bitmap + block, table_at, end)?;
    let kind = Kind::Dynamic {
        entries,
        table_at,
        footer: Box::new(footer),
        bitmap,
        block,
        end,
        fresh: Vec::new(),
    };
    Ok((kind, block))
}

/// Blocks lie behind the headers and before the footer, and none on another.
fn check_entries(entries: &[u32], len: u64, table_at: u64, end: u64) -> io::Result<()> {
    let mut places: Vec<u64> = entries
        .iter()
        .filter(|entry| **entry != NO_PLACE)
        .map(|entry| u64::from(*entry) * SECTOR)
        .collect();
    places.sort_unstable();
    let is_apart = places.windows(2).all(|pair| match pair {
        [one, next] => next - one >= len,
        _ => true,
    });
    let table_end = (table_at + entries.len() as u64 * 4).next_multiple_of(SECTOR);
    let is_behind = places.iter().all(|place| {
        *place >= FOOTER_LEN as u64 && (*place >= table_end || *place + len <= table_at)
    });
    let is_inside = places.last().is_none_or(|last| last + len <= end);
    if is_apart && is_behind && is_inside {
        return Ok(());
    }
    Err(damaged("its blocks lie on one another or outside of it"))
}

impl Table for Map {
    fn place(&self, block: u64) -> Option<u64> {
        match &self.kind {
            Kind::Fixed => block.checked_mul(BLOCK),
            Kind::Dynamic {
                entries, bitmap, ..
            } => {
                let entry = *entries.get(usize::try_from(block).ok()?)?;
                (entry != NO_PLACE).then(|| u64::from(entry) * SECTOR + bitmap)
            }
        }
    }

    fn allocate(&mut self, raw: &Raw, block_number: u64) -> io::Result<u64> {
        let Kind::Dynamic {
            entries,
            footer,
            bitmap,
            block,
            end,
            fresh,
            ..
        } = &mut self.kind
        else {
            return Err(damaged("a block of a fixed disk has no place"));
        };
        let index = usize::try_from(block_number).map_err(io::Error::other)?;
        let slot = entries.get_mut(index).ok_or(io::ErrorKind::InvalidInput)?;
        let place = u32::try_from(*end / SECTOR).map_err(io::Error::other)?;
        let new_end = *end + *bitmap + *block;
        raw.resize(new_end + FOOTER_LEN as u64)?;
        raw.write(new_end, IoVector::from(&footer[..]))?;
        // The bitmap takes the place of the footer: all sectors count as written, and are zeroes as the file grew.
        let ones = vec![0xFF; usize::try_from(*bitmap).map_err(io::Error::other)?];
        raw.write(*end, IoVector::from(&ones[..]))?;
        let data = *end + *bitmap;
        *slot = place;
        *end = new_end;
        fresh.push(index);
        Ok(data)
    }

    fn commit(&mut self, raw: &Raw) -> io::Result<()> {
        raw.flush()?;
        let Kind::Dynamic {
            entries,
            table_at,
            fresh,
            ..
        } = &mut self.kind
        else {
            return Ok(());
        };
        if fresh.is_empty() {
            return Ok(());
        }
        fresh.sort_unstable();
        let mut sectors: Vec<usize> = fresh.iter().map(|index| index / 128).collect();
        sectors.dedup();
        for sector in sectors {
            let part = entries.get(sector * 128..).unwrap_or_default();
            let mut table: Vec<u8> = part
                .iter()
                .take(128)
                .flat_map(|entry| entry.to_be_bytes())
                .collect();
            // The table fills its last sector with entries of nothing.
            table.resize(SECTOR as usize, 0xFF);
            raw.write(
                *table_at + sector as u64 * SECTOR,
                IoVector::from(&table[..]),
            )?;
        }
        raw.flush()?;
        fresh.clear();
        Ok(())
    }

    fn close(&mut self, raw: &Raw) -> io::Result<()> {
        if let Kind::Dynamic { footer, end, .. } = &self.kind {
            // Where it belongs, should it have been missing when the file was opened.
            raw.resize(*end + FOOTER_LEN as u64)?;
            raw.write(*end, IoVector::from(&footer[..]))?;
        }
        raw.flush()
    }
}

/// Cylinders, heads and sectors (specification, "Appendix: CHS Calculation").
fn geometry(size: u64) -> [u8; 4] {
    let total = (size / SECTOR).min(65535 * 16 * 255);
    let (mut sectors, mut heads, mut tracks);
    if total > 65535 * 16 * 63 {
        (sectors, heads) = (255, 16);
        tracks = total / sectors;
    } else {
        sectors = 17;
        tracks = total / sectors;
        heads = tracks.div_ceil(1024).max(4);
        if tracks >= heads * 1024 || heads > 16 {
            (sectors, heads) = (31, 16);
            tracks = total / sectors;
        }
        if tracks >= heads * 1024 {
            (sectors, heads) = (63, 16);
            tracks = total / sectors;
        }
    }
    let [c0, c1] = ((tracks / heads) as u16).to_be_bytes();
    [c0, c1, heads as u8, sectors as u8]
}

/// Makes `file` an empty dynamic disk.
pub(crate) fn create(file: &File, size: u64) -> io::Result<()> {
    if size > MAX_SIZE {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a VHD has at most 2040 GiB",
        ));
    }
    let count = size.div_ceil(BLOCK);
    let table_at = (FOOTER_LEN + HEADER_LEN) as u64;
    let end = (table_at + count * 4).next_multiple_of(SECTOR);
    let mut footer = [0; FOOTER_LEN];
    put(&mut footer, 0, COOKIE);
    put(&mut footer, 8, &2u32.to_be_bytes());
    put(&mut footer, 12, &0x0001_0000u32.to_be_bytes());
    put(&mut footer, 16, &(FOOTER_LEN as u64).to_be_bytes());
    // The application decides for QEMU whether size or geometry counts: for this one it is the size.
    put(&mut footer, 28, b"win \0\x0A\0\0Wi2k");
    put(&mut footer, 40, &size.to_be_bytes());
    put(&mut footer, 48, &size.to_be_bytes());
    put(&mut footer, 56, &geometry(size));
    put(&mut footer, 60, &DYNAMIC.to_be_bytes());
    put(&mut footer, 68, &random_guid()?);
    let sum = checksum(&footer, CHECKSUM);
    put(&mut footer, CHECKSUM, &sum.to_be_bytes());
    let mut header = [0; HEADER_LEN];
    put(&mut header, 0, HEADER_COOKIE);
    put(&mut header, 8, &u64::MAX.to_be_bytes());
    put(&mut header, 16, &table_at.to_be_bytes());
    put(&mut header, 24, &0x0001_0000u32.to_be_bytes());
    put(&mut header, 28, &(count as u32).to_be_bytes());
    put(&mut header, 32, &(BLOCK as u32).to_be_bytes());
    let sum = checksum(&header, HEADER_CHECKSUM);
    put(&mut header, HEADER_CHECKSUM, &sum.to_be_bytes());
    let table = vec![0xFF; (end - table_at) as usize];
    file.write_all_at(&footer, 0)?;
    file.write_all_at(&header, FOOTER_LEN as u64)?;
    file.write_all_at(&table, table_at)?;
    file.write_all_at(&footer, end)
}
