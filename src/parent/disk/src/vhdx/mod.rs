//! VHDX, fixed and dynamic, without parent images.
//!
//! Microsoft, \[MS-VHDX\], "Virtual Hard Disk v2 (VHDX) File Format". All fields are little-endian. The table of blocks
//! changes by the log: at a flush the changed pages go to the log, then to their place, each made durable before the
//! next, so that a file is whole after any end.

mod create;
mod header;
mod log;
mod metadata;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::IoVector;
use crate::blocks::{Blocks, Shape, Table};
use crate::bytes::bytes;
use crate::image::Image;
use crate::raw::{Buffered, Raw};
use header::Header;
use metadata::{Metadata, Region};

pub(crate) use create::create;

const MIB: u64 = 1 << 20;

/// Pages are the unit of the log.
const PAGE: usize = 4096;

/// States of a block in the table.
const PRESENT: u64 = 6;
const PARTIAL: u64 = 7;
const STATE: u64 = 7;

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// Where the blocks are.
pub(crate) struct Map {
    /// The table as it should be in the file, bitmap entries among the others.
    entries: Vec<u64>,
    /// Blocks between two bitmap entries.
    chunk: u64,
    region: Region,
    block: u64,
    /// Where the next block goes.
    end: u64,
    /// Pages of the table that the file does not have yet, by their number.
    dirty: Vec<usize>,
    header: Header,
}

/// Opens a file that was locked, after carrying out what its log holds.
pub(crate) fn open(file: File, is_read_only: bool, is_direct: bool) -> io::Result<Blocks<Map>> {
    let buffered = Buffered::new(&file, is_direct)?;
    let mut header = header::read(&file)?;
    if header.has_log() {
        if is_read_only {
            return Err(damaged(
                "it was not closed properly: open it for writing once",
            ));
        }
        log::replay(&file, &header)?;
    }
    let (table, regions) = metadata::regions(&file)?;
    let metadata = metadata::read(&file, &regions)?;
    let entries = entries(&file, &table, &metadata)?;
    let len = file.metadata()?.len();
    let chunk = metadata.chunk();
    check_entries(&entries, &metadata, len)?;
    if !is_read_only {
        header.begin(&file)?;
    }
    let shape = Shape {
        size: metadata.size,
        block: metadata.block,
        logical_block: metadata.logical_block,
        physical_block: metadata.physical_block,
    };
    buffered.end()?;
    let raw = Raw::for_unit(file, is_read_only, is_direct, 512)?;
    let map = Map {
        entries,
        chunk,
        region: table,
        block: metadata.block,
        end: len.next_multiple_of(MIB),
        dirty: Vec::new(),
        header,
    };
    Ok(Blocks::new(raw, map, shape))
}

/// Reads the table: an entry for each block, and one after each chunk for a bitmap that only images with a parent use.
fn entries(file: &File, table: &Region, metadata: &Metadata) -> io::Result<Vec<u64>> {
    let blocks = metadata.size.div_ceil(metadata.block);
    let bitmaps = blocks.saturating_sub(1) / metadata.chunk();
    let count = blocks + bitmaps;
    if count * 8 > table.len {
        return Err(damaged("its table of blocks is too short"));
    }
    // Whole pages, as they are what is written: `table.len` is a multiple of 1 MiB.
    let len = (count * 8).next_multiple_of(PAGE as u64);
    let mut table_bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    file.read_exact_at(&mut table_bytes, table.at)?;
    Ok(table_bytes
        .chunks_exact(8)
        .map(|entry| u64::from_le_bytes(bytes(entry, 0)))
        .collect())
}

/// Blocks lie inside of the file, behind the header section, and none on another.
fn check_entries(entries: &[u64], metadata: &Metadata, len: u64) -> io::Result<()> {
    if entries.iter().any(|entry| entry & STATE == PARTIAL) {
        return Err(damaged("it has blocks of an image with a parent"));
    }
    let mut places: Vec<u64> = entries
        .iter()
        .filter(|entry| *entry & STATE == PRESENT)
        .map(|entry| (entry >> 20).saturating_mul(MIB))
        .collect();
    places.sort_unstable();
    let is_apart = places.windows(2).all(|pair| match pair {
        [one, next] => next - one >= metadata.block,
        _ => true,
    });
    let is_behind = places.first().is_none_or(|first| *first >= MIB);
    let is_inside = places.last().is_none_or(|last| {
        last.checked_add(metadata.block)
            .is_some_and(|end| end <= len)
    });
    if is_apart && is_behind && is_inside {
        return Ok(());
    }
    Err(damaged("its blocks lie on one another or outside of it"))
}

impl Map {
    fn index(&self, block: u64) -> Option<usize> {
        usize::try_from(block.checked_add(block / self.chunk)?).ok()
    }
}

impl Table for Map {
    fn place(&self, block: u64) -> Option<u64> {
        let entry = *self.entries.get(self.index(block)?)?;
        (entry & STATE == PRESENT).then(|| (entry >> 20) * MIB)
    }

    fn allocate(&mut self, raw: &Raw, block: u64) -> io::Result<u64> {
        let index = self.index(block).ok_or(io::ErrorKind::InvalidInput)?;
        let place = self.end;
        let end = place
            .checked_add(self.block)
            .ok_or(io::ErrorKind::StorageFull)?;
        let slot = self
            .entries
            .get_mut(index)
            .ok_or(io::ErrorKind::InvalidInput)?;
        raw.resize(end)?;
        *slot = place | PRESENT;
        self.end = end;
        let page = index / (PAGE / 8);
        if self.dirty.last() != Some(&page) {
            self.dirty.push(page);
        }
        Ok(place)
    }

    fn commit(&mut self, raw: &Raw) -> io::Result<()> {
        raw.flush()?;
        self.dirty.sort_unstable();
        self.dirty.dedup();
        while !self.dirty.is_empty() {
            let round = self.dirty.len().min(log::MAX_PAGES);
            let mut pages = Vec::with_capacity(round);
            for number in self.dirty.iter().take(round) {
                let first = number * (PAGE / 8);
                let entries = self
                    .entries
                    .get(first..first + PAGE / 8)
                    .unwrap_or_default();
                let page: Vec<u8> = entries
                    .iter()
                    .flat_map(|entry| entry.to_le_bytes())
                    .collect();
                pages.push((self.region.at + (number * PAGE) as u64, page));
            }
            let entry = log::entry(&mut self.header, &pages, self.end)?;
            raw.write(self.header.log_at, IoVector::from(&entry[..]))?;
            raw.flush()?;
            for (at, page) in &pages {
                raw.write(*at, IoVector::from(&page[..]))?;
            }
            raw.flush()?;
            self.dirty.drain(..round);
        }
        Ok(())
    }

    fn close(&mut self, raw: &Raw) -> io::Result<()> {
        let (at, bytes) = self.header.end();
        raw.write(at, IoVector::from(&bytes[..]))?;
        raw.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_at(path: &std::path::Path) -> io::Result<Blocks<Map>> {
        let file = File::options().read(true).write(true).open(path)?;
        open(file, false, false)
    }

    /// An image whose writer ended after it had written the log, before the table; `spoil` may change the entry.
    fn left_with_log(spoil: impl Fn(&mut Vec<u8>)) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        create(file.as_file(), 64 * MIB).unwrap();
        let mut header = header::read(file.as_file()).unwrap();
        header.begin(file.as_file()).unwrap();
        let data_at = file.as_file().metadata().unwrap().len();
        file.as_file().set_len(data_at + 4 * MIB).unwrap();
        file.as_file().write_all_at(&[0xAB; 512], data_at).unwrap();
        let (table, _) = metadata::regions(file.as_file()).unwrap();
        for number in 0..2u8 {
            let mut page = vec![0; PAGE];
            // The first entry of the log names another place, which the second one puts right.
            let place = if number == 0 {
                data_at + 2 * MIB
            } else {
                data_at
            };
            page[24..32].copy_from_slice(&(place | PRESENT).to_le_bytes());
            let mut entry = log::entry(&mut header, &[(table.at, page)], data_at).unwrap();
            if number == 1 {
                spoil(&mut entry);
            }
            let at = header.log_at + u64::from(number) * entry.len() as u64;
            file.as_file().write_all_at(&entry, at).unwrap();
        }
        file
    }

    fn fourth_block(image: &Blocks<Map>) -> Vec<u8> {
        let mut bytes = vec![0; 512];
        image
            .read(6 * MIB, crate::IoVectorMut::from(&mut bytes))
            .unwrap();
        bytes
    }

    /// Gives an entry that starts the second sector pair of the log a tail.
    fn set_tail(entry: &mut [u8], tail: u32) {
        entry[12..16].copy_from_slice(&tail.to_le_bytes());
        let sum = crate::bytes::crc32c(entry, 4);
        entry[4..8].copy_from_slice(&sum.to_le_bytes());
    }

    #[test]
    fn the_log_is_carried_out() {
        // The second entry names the first one as its tail: both count, in their order.
        let file = left_with_log(|entry| set_tail(entry, 0));
        let image = open_at(file.path()).unwrap();
        assert_eq!(fourth_block(&image), [0xAB; 512]);
        drop(image);
        assert!(!header::read(file.as_file()).unwrap().has_log());
        // The second entry stands alone.
        let file = left_with_log(|entry| set_tail(entry, 2 * PAGE as u32));
        assert_eq!(fourth_block(&open_at(file.path()).unwrap()), [0xAB; 512]);
    }

    #[test]
    fn an_entry_that_was_not_finished_does_not_count() {
        let file = left_with_log(|entry| entry[PAGE + 100] ^= 1);
        let image = open_at(file.path()).unwrap();
        // The first entry does: its place holds zeroes.
        assert_eq!(fourth_block(&image), [0; 512]);
        assert!(image.table.read().unwrap().place(3).is_some());
    }

    #[test]
    fn a_log_is_not_carried_out_for_a_reader() {
        let file = left_with_log(|_| ());
        let read_only = File::open(file.path()).unwrap();
        let refusal = open(read_only, true, false).err().unwrap();
        assert!(refusal.to_string().contains("not closed"));
    }
}
