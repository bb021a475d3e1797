//! A look at the header before the driver sees it.
//!
//! The driver takes a table that lies behind the end of the file for an empty one, and then goes astray (0.2.6: it
//! looks for free clusters until its stack ends). So the tables that it starts from must be there.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::bytes::{be32, be64, bytes};

const MAGIC: &[u8; 4] = b"QFI\xFB";

// Offsets in the header (QEMU, docs/interop/qcow2.txt, "Header").
const VERSION: usize = 4;
const CLUSTER_BITS: usize = 20;
const L1_ENTRIES: usize = 36;
const L1_AT: usize = 40;
const REFCOUNT_AT: usize = 48;
const REFCOUNT_CLUSTERS: usize = 56;
const HEADER_LEN: usize = 104;

/// Entries of the refcount table: what is not the place of a block is reserved.
const PLACE: u64 = !0x1FF;

/// Most bytes of a refcount table that is looked at; QEMU makes no larger ones.
const MAX_REFCOUNT_TABLE: u64 = 8 << 20;

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// Checks the places of both tables. Returns the version.
pub(super) fn check(file: &File) -> io::Result<u32> {
    let len = file.metadata()?.len();
    let mut header = [0; HEADER_LEN];
    if len < HEADER_LEN as u64 {
        return Err(damaged("it is too short"));
    }
    file.read_exact_at(&mut header, 0)?;
    if !header.starts_with(MAGIC) {
        return Err(damaged("it does not start like one"));
    }
    let bits = be32(&header, CLUSTER_BITS);
    if !(9..=21).contains(&bits) {
        return Err(damaged("its cluster size makes no sense"));
    }
    let cluster = 1u64 << bits;
    let is_inside = |at: u64, bytes: u64| {
        at >= cluster
            && at.is_multiple_of(cluster)
            && at.checked_add(bytes).is_some_and(|end| end <= len)
    };
    let l1_len = u64::from(be32(&header, L1_ENTRIES)) * 8;
    if l1_len > 0 && !is_inside(be64(&header, L1_AT), l1_len) {
        return Err(damaged("its table of clusters lies outside"));
    }
    let table_at = be64(&header, REFCOUNT_AT);
    let table_len = u64::from(be32(&header, REFCOUNT_CLUSTERS)) * cluster;
    let is_sane = table_len > 0 && table_len <= MAX_REFCOUNT_TABLE;
    if !is_sane || !is_inside(table_at, table_len) {
        return Err(damaged("its table of reference counts lies outside"));
    }
    let mut table = vec![0; table_len as usize];
    file.read_exact_at(&mut table, table_at)?;
    let mut blocks = table
        .chunks_exact(8)
        .map(|entry| u64::from_be_bytes(bytes(entry, 0)) & PLACE)
        .filter(|place| *place != 0);
    if !blocks.all(|place| is_inside(place, cluster)) {
        return Err(damaged("a block of its reference counts lies outside"));
    }
    Ok(be32(&header, VERSION))
}
