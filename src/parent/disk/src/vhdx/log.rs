//! The log: what was to be changed when the file was left.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::header::Header;
use super::{PAGE, damaged};
use crate::bytes::{bytes, crc32c, le32, le64, put};

const ENTRY_SIGNATURE: &[u8; 4] = b"loge";
const DATA_DESCRIPTOR: &[u8; 4] = b"desc";
const ZERO_DESCRIPTOR: &[u8; 4] = b"zero";
const DATA_SECTOR: &[u8; 4] = b"data";
const HEADER_LEN: usize = 64;
const DESCRIPTOR_LEN: usize = 32;
const CHECKSUM: usize = 4;

// Offsets in an entry's header.
const ENTRY_LEN: usize = 8;
const TAIL: usize = 12;
const SEQUENCE: usize = 16;
const COUNT: usize = 24;
const GUID: usize = 32;
const FLUSHED: usize = 48;
const LAST: usize = 56;

/// Bytes of a page that stand in its descriptor, at its start and its end.
const LEADING: usize = 8;
const TRAILING: usize = 4;

/// Most pages of one entry of ours: their descriptors fit one page, and the entry the smallest log.
pub(super) const MAX_PAGES: usize = 64;

/// Makes an entry that writes `pages`, each with its place in the file, which has `file_len` bytes.
pub(super) fn entry(
    header: &mut Header,
    pages: &[(u64, Vec<u8>)],
    file_len: u64,
) -> io::Result<Vec<u8>> {
    if pages.len() > MAX_PAGES || pages.iter().any(|(_, page)| page.len() != PAGE) {
        return Err(damaged("an entry of the log would be too long"));
    }
    let sequence = header.log_sequence;
    header.log_sequence = sequence.wrapping_add(1);
    let mut entry = vec![0; PAGE * (1 + pages.len())];
    let len = entry.len() as u32;
    put(&mut entry, 0, ENTRY_SIGNATURE);
    put(&mut entry, ENTRY_LEN, &len.to_le_bytes());
    // Tail 0: all our entries start the log, as what they hold is in its place before the next one is made.
    put(&mut entry, SEQUENCE, &sequence.to_le_bytes());
    put(&mut entry, COUNT, &(pages.len() as u32).to_le_bytes());
    put(&mut entry, GUID, &header.log_guid);
    put(&mut entry, FLUSHED, &file_len.to_le_bytes());
    put(&mut entry, LAST, &file_len.to_le_bytes());
    for (index, (at, page)) in pages.iter().enumerate() {
        let descriptor = HEADER_LEN + DESCRIPTOR_LEN * index;
        put(&mut entry, descriptor, DATA_DESCRIPTOR);
        let trailing: [u8; TRAILING] = bytes(page, PAGE - TRAILING);
        let leading: [u8; LEADING] = bytes(page, 0);
        put(&mut entry, descriptor + 4, &trailing);
        put(&mut entry, descriptor + 8, &leading);
        put(&mut entry, descriptor + 16, &at.to_le_bytes());
        put(&mut entry, descriptor + 24, &sequence.to_le_bytes());
        let sector = PAGE * (1 + index);
        put(&mut entry, sector, DATA_SECTOR);
        let [low, high] = halves(sequence);
        put(&mut entry, sector + 4, &high);
        put(
            &mut entry,
            sector + LEADING,
            page.get(LEADING..PAGE - TRAILING).unwrap_or_default(),
        );
        put(&mut entry, sector + PAGE - TRAILING, &low);
    }
    let sum = crc32c(&entry, CHECKSUM);
    put(&mut entry, CHECKSUM, &sum.to_le_bytes());
    Ok(entry)
}

/// Lower and upper half.
fn halves(number: u64) -> [[u8; 4]; 2] {
    let all = number.to_le_bytes();
    [bytes(&all, 0), bytes(&all, 4)]
}

/// An entry that is whole.
struct Found {
    sequence: u64,
    tail: u64,
    bytes: Vec<u8>,
}

/// Carries out what the log holds, if it holds something, and makes it durable.
pub(super) fn replay(file: &File, header: &Header) -> io::Result<()> {
    let len = usize::try_from(header.log_len).map_err(io::Error::other)?;
    let mut log = vec![0; len];
    file.read_exact_at(&mut log, header.log_at)?;
    let Some(entries) = newest(&log, header) else {
        return Ok(());
    };
    let Some(last) = entries.last() else {
        return Ok(());
    };
    if file.metadata()?.len() < le64(&last.bytes, FLUSHED) {
        return Err(damaged("it is shorter than its log says"));
    }
    for entry in &entries {
        apply(file, entry)?;
    }
    let wanted = le64(&last.bytes, LAST);
    if file.metadata()?.len() < wanted {
        file.set_len(wanted)?;
    }
    file.sync_all()
}

/// The newest run of entries that is complete: from the tail that its last entry names to that entry.
fn newest(log: &[u8], header: &Header) -> Option<Vec<Found>> {
    let mut best: Option<Vec<Found>> = None;
    for start in (0..log.len()).step_by(PAGE) {
        let mut run: Vec<Found> = Vec::new();
        let (mut at, mut used) = (start, 0);
        while let Some(found) = entry_at(log, at, header) {
            let is_next = run
                .last()
                .is_none_or(|last| last.sequence.checked_add(1) == Some(found.sequence));
            used += found.bytes.len();
            if !is_next || used > log.len() {
                break;
            }
            at = (at + found.bytes.len()) % log.len();
            run.push(found);
        }
        let is_complete = run.last().is_some_and(|last| last.tail == start as u64);
        let sequence = |run: &[Found]| run.last().map(|last| last.sequence);
        if is_complete
            && best
                .as_deref()
                .is_none_or(|best| sequence(best) < sequence(&run))
        {
            best = Some(run);
        }
    }
    best
}

fn entry_at(log: &[u8], at: usize, header: &Header) -> Option<Found> {
    let head = log.get(at..at + PAGE)?;
    let len = usize::try_from(le32(head, ENTRY_LEN)).ok()?;
    let is_ours = head.starts_with(ENTRY_SIGNATURE)
        && bytes::<16>(head, GUID) == header.log_guid
        && len >= PAGE
        && len.is_multiple_of(PAGE)
        && len <= log.len();
    if !is_ours {
        return None;
    }
    // Entries go round the end of the log.
    let mut entry = log.get(at..(at + len).min(log.len()))?.to_vec();
    entry.extend_from_slice(log.get(..len - entry.len())?);
    let sequence = le64(&entry, SEQUENCE);
    if sequence == 0 || le32(&entry, CHECKSUM) != crc32c(&entry, CHECKSUM) {
        return None;
    }
    Some(Found {
        sequence,
        tail: u64::from(le32(&entry, TAIL)),
        bytes: entry,
    })
}

fn apply(file: &File, entry: &Found) -> io::Result<()> {
    let bad = || damaged("an entry of its log is bad");
    let count = le32(&entry.bytes, COUNT) as usize;
    let descriptors_len = HEADER_LEN
        .checked_add(count.checked_mul(DESCRIPTOR_LEN).ok_or_else(bad)?)
        .ok_or_else(bad)?;
    let mut sector_at = descriptors_len.next_multiple_of(PAGE);
    let descriptors = entry
        .bytes
        .get(HEADER_LEN..descriptors_len)
        .ok_or_else(bad)?;
    for descriptor in descriptors.chunks_exact(DESCRIPTOR_LEN) {
        let at = le64(descriptor, 16);
        if le64(descriptor, 24) != entry.sequence || !at.is_multiple_of(PAGE as u64) {
            return Err(bad());
        }
        if descriptor.starts_with(DATA_DESCRIPTOR) {
            let sector = entry
                .bytes
                .get(sector_at..sector_at + PAGE)
                .ok_or_else(bad)?;
            let [low, high] = halves(entry.sequence);
            let is_whole = sector.starts_with(DATA_SECTOR)
                && bytes::<4>(sector, 4) == high
                && bytes::<4>(sector, PAGE - 4) == low;
            if !is_whole {
                return Err(bad());
            }
            let mut page = sector.to_vec();
            put(&mut page, 0, &bytes::<LEADING>(descriptor, 8));
            put(
                &mut page,
                PAGE - TRAILING,
                &bytes::<TRAILING>(descriptor, 4),
            );
            file.write_all_at(&page, at)?;
            sector_at += PAGE;
        } else if descriptor.starts_with(ZERO_DESCRIPTOR) {
            zero(file, at, le64(descriptor, 8))?;
        } else {
            return Err(bad());
        }
    }
    Ok(())
}

/// Writes zeroes to what the file has of a range.
fn zero(file: &File, at: u64, len: u64) -> io::Result<()> {
    let end = at.saturating_add(len).min(file.metadata()?.len());
    let zeroes = vec![0; 64 * 1024];
    let mut here = at;
    while here < end {
        let part = (end - here).min(zeroes.len() as u64);
        file.write_all_at(zeroes.get(..part as usize).unwrap_or(&zeroes), here)?;
        here += part;
    }
    Ok(())
}
