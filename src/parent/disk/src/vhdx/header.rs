//! The two headers, of which the newer one counts.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::{PAGE, damaged};
use crate::bytes::{crc32c, le16, le32, le64, put, random_guid};

/// Where the headers lie.
const PLACES: [u64; 2] = [64 << 10, 128 << 10];
const SIGNATURE: &[u8; 4] = b"head";
const CHECKSUM: usize = 4;

// Offsets in a header.
const SEQUENCE: usize = 8;
const FILE_WRITE_GUID: usize = 16;
const DATA_WRITE_GUID: usize = 32;
const LOG_GUID: usize = 48;
const LOG_VERSION: usize = 64;
const VERSION: usize = 66;
const LOG_LEN: usize = 68;
const LOG_AT: usize = 72;

/// Largest log that we look through.
const MAX_LOG: u64 = 64 << 20;

/// The header that counts.
pub(super) struct Header {
    bytes: [u8; PAGE],
    /// Which of the two places it has.
    place: usize,
    pub log_guid: [u8; 16],
    pub log_at: u64,
    pub log_len: u64,
    /// Number of the next entry of the log.
    pub log_sequence: u64,
}

/// Reads both headers and picks one.
pub(super) fn read(file: &File) -> io::Result<Header> {
    let mut signature = [0; 8];
    file.read_exact_at(&mut signature, 0)?;
    if signature != *b"vhdxfile" {
        return Err(damaged("it does not start like one"));
    }
    let mut best: Option<(u64, usize, [u8; PAGE])> = None;
    for (place, at) in PLACES.into_iter().enumerate() {
        let mut bytes = [0; PAGE];
        file.read_exact_at(&mut bytes, at)?;
        let is_good = bytes.starts_with(SIGNATURE)
            && le32(&bytes, CHECKSUM) == crc32c(&bytes, CHECKSUM)
            && le16(&bytes, VERSION) == 1;
        let sequence = le64(&bytes, SEQUENCE);
        if is_good && best.as_ref().is_none_or(|(best, ..)| sequence > *best) {
            best = Some((sequence, place, bytes));
        }
    }
    let Some((_, place, bytes)) = best else {
        return Err(damaged("both its headers are bad"));
    };
    let log_at = le64(&bytes, LOG_AT);
    let log_len = u64::from(le32(&bytes, LOG_LEN));
    let mib = super::MIB;
    if le16(&bytes, LOG_VERSION) != 0
        || log_at < mib
        || !log_at.is_multiple_of(mib)
        || log_len < mib
        || !log_len.is_multiple_of(mib)
        || log_len > MAX_LOG
        || log_at.checked_add(log_len).is_none()
    {
        return Err(damaged("its log makes no sense"));
    }
    Ok(Header {
        log_guid: crate::bytes::bytes(&bytes, LOG_GUID),
        bytes,
        place,
        log_at,
        log_len,
        log_sequence: 1,
    })
}

/// The page of a header that says this.
pub(super) fn page(sequence: u64, guids: [[u8; 16]; 3], log_at: u64, log_len: u32) -> [u8; PAGE] {
    let mut bytes = [0; PAGE];
    put(&mut bytes, 0, SIGNATURE);
    put(&mut bytes, SEQUENCE, &sequence.to_le_bytes());
    let [file_write, data_write, log] = guids;
    put(&mut bytes, FILE_WRITE_GUID, &file_write);
    put(&mut bytes, DATA_WRITE_GUID, &data_write);
    put(&mut bytes, LOG_GUID, &log);
    put(&mut bytes, VERSION, &1u16.to_le_bytes());
    put(&mut bytes, LOG_LEN, &log_len.to_le_bytes());
    put(&mut bytes, LOG_AT, &log_at.to_le_bytes());
    let sum = crc32c(&bytes, CHECKSUM);
    put(&mut bytes, CHECKSUM, &sum.to_le_bytes());
    bytes
}

impl Header {
    /// Whether the log may hold something.
    pub(super) fn has_log(&self) -> bool {
        self.log_guid != [0; 16]
    }

    /// Changes the other header, which then counts.
    fn next(&mut self, file_write: [u8; 16], data_write: [u8; 16]) -> (u64, [u8; PAGE]) {
        let sequence = le64(&self.bytes, SEQUENCE).wrapping_add(1);
        let guids = [file_write, data_write, self.log_guid];
        self.bytes = page(sequence, guids, self.log_at, self.log_len as u32);
        self.place ^= 1;
        let at = PLACES.get(self.place).copied().unwrap_or(0);
        (at, self.bytes)
    }

    /// Says that the file is open for writing, with a new log.
    pub(super) fn begin(&mut self, file: &File) -> io::Result<()> {
        self.log_guid = random_guid()?;
        // Both headers, so that no reader of the older one takes an old log for a good one.
        for _ in 0..2 {
            let (at, bytes) = self.next(random_guid()?, random_guid()?);
            file.write_all_at(&bytes, at)?;
            file.sync_data()?;
        }
        Ok(())
    }

    /// What to write, and where, to say that the file was closed and its log is empty.
    pub(super) fn end(&mut self) -> (u64, [u8; PAGE]) {
        self.log_guid = [0; 16];
        let file_write = crate::bytes::bytes(&self.bytes, FILE_WRITE_GUID);
        let data_write = crate::bytes::bytes(&self.bytes, DATA_WRITE_GUID);
        self.next(file_write, data_write)
    }
}
