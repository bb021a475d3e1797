//! The diagnostics area: memory of the hypervisor that the parent may read.
//!
//! It holds the log ring, the exit counters of every VP, and what the hypervisor's memory is used for. The ACPI table `VDGS` names its place (base and length,
//! two little-endian u64 after the 36-byte header). `docs/diagnostics.md` tells how to read it from Linux.
//!
//! | offset | bytes | content |
//! | --- | --- | --- |
//! | 0 | 72 | [`Header`] |
//! | `uses_offset` | [`USE_LEN`] each | uses of memory: name as below, then frames of 4 KiB, u64 |
//! | `names_offset` | 32 each | names of the counters, UTF-8, padded with zeroes |
//! | `counters_offset` | `counters_stride` per VP | `counter_count` u64 each, the VP's number is the index |
//! | `children_offset` | [`ROW_HEADER_LEN`] + `counters_stride` each | `child_rows` VPs of children: partition's number (0: nobody), VP's number, both u64; then, at [`ROW_HEADER_LEN`], the counters |
//! | `log_offset` | `log_len` | log ring: byte n of the log lies at n modulo `log_len` |
#![no_std]
#![forbid(unsafe_code)]

/// Signature of the ACPI table that names the area.
pub const ACPI_SIGNATURE: [u8; 4] = *b"VDGS";

/// First field of [`Header`]: "VGDIAG\0\0".
pub const MAGIC: u64 = u64::from_le_bytes(*b"VGDIAG\0\0");

/// Version of the layout.
pub const VERSION: u32 = 2;

/// Bytes of one counter name.
pub const NAME_LEN: usize = 32;

/// Bytes of one use of memory: its name and its frames.
pub const USE_LEN: usize = NAME_LEN + 8;

/// Smallest size of the area in bytes that [`layout`] accepts.
pub const MIN_LEN: u64 = 64 * 1024;

/// What lies at the start of the area. All fields little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`VERSION`].
    pub version: u32,
    /// Number of VPs whose counters follow.
    pub vp_count: u32,
    /// Number of counters of each VP.
    pub counter_count: u32,
    /// Bytes from one VP's counters to the next one's.
    pub counters_stride: u32,
    /// Offset of the names in bytes.
    pub names_offset: u32,
    /// Offset of the first VP's counters in bytes.
    pub counters_offset: u32,
    /// Offset of the log ring in bytes.
    pub log_offset: u32,
    /// Size of the log ring in bytes.
    pub log_len: u32,
    /// Bytes ever written to the log; changes while the hypervisor runs.
    pub log_written: u64,
    /// Frequency of the time-stamp counter in Hz.
    pub tsc_hz: u64,
    /// Number of rows for VPs of children.
    pub child_rows: u32,
    /// Offset of the first of these rows in bytes.
    pub children_offset: u32,
    /// Number of uses of memory.
    pub use_count: u32,
    /// Offset of the first of these in bytes.
    pub uses_offset: u32,
}

/// Rows for VPs of children, where the area is large enough; those that find none are counted nowhere.
pub const CHILD_ROWS: u32 = 256;

/// Bytes at the start of a row of a child's VP, before its counters.
pub const ROW_HEADER_LEN: usize = 64;

/// Offset of [`Header::log_written`].
pub const LOG_WRITTEN_OFFSET: usize = core::mem::offset_of!(Header, log_written);

const _: () = assert!(size_of::<Header>() == 72);

/// How much of everything an area holds.
#[derive(Clone, Copy, Debug)]
pub struct Contents {
    /// VPs of the parent.
    pub vps: u32,
    /// Counters of each VP.
    pub counters: u32,
    /// Uses of memory.
    pub uses: u32,
}

/// Divides an area of `len` bytes. `None` where it is too small for a log of at least a page.
pub fn layout(len: u64, contents: &Contents, tsc_hz: u64) -> Option<Header> {
    let Contents {
        vps: vp_count,
        counters: counter_count,
        uses: use_count,
    } = *contents;
    let len = u32::try_from(len).ok()?;
    let uses_offset = size_of::<Header>() as u32;
    let names_offset = use_count
        .checked_mul(USE_LEN as u32)?
        .checked_add(uses_offset)?;
    let names_len = counter_count.checked_mul(NAME_LEN as u32)?;
    // One cache line apart, so that VPs do not share any.
    let counters_offset = names_offset
        .checked_add(names_len)?
        .checked_next_multiple_of(64)?;
    let counters_stride = counter_count.checked_mul(8)?.checked_next_multiple_of(64)?;
    let children_offset = counters_offset.checked_add(counters_stride.checked_mul(vp_count)?)?;
    let row_len = counters_stride.checked_add(ROW_HEADER_LEN as u32)?;
    // The log is worth more where there is little room.
    let child_rows = CHILD_ROWS.min(len / 4 / row_len);
    let log_offset = children_offset
        .checked_add(row_len * child_rows)?
        .checked_next_multiple_of(4096)?;
    let log_len = len.checked_sub(log_offset)?;
    (log_len >= 4096).then_some(Header {
        magic: MAGIC,
        version: VERSION,
        vp_count,
        counter_count,
        counters_stride,
        names_offset,
        counters_offset,
        log_offset,
        log_len,
        log_written: 0,
        tsc_hz,
        child_rows,
        children_offset,
        use_count,
        uses_offset,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout_of(len: u64, vps: u32, counters: u32, uses: u32) -> Option<Header> {
        let contents = Contents {
            vps,
            counters,
            uses,
        };
        layout(len, &contents, 1)
    }

    #[test]
    fn parts_follow_each_other_and_fill_the_area() {
        let header = layout_of(1 << 20, 4, 50, 8).unwrap();
        assert!(header.uses_offset as usize >= size_of::<Header>());
        assert!(header.uses_offset + 8 * USE_LEN as u32 <= header.names_offset);
        assert!(header.names_offset + 50 * 32 <= header.counters_offset);
        assert!(header.counters_offset + 4 * header.counters_stride <= header.children_offset);
        assert_eq!(header.child_rows, CHILD_ROWS);
        let row = header.counters_stride + ROW_HEADER_LEN as u32;
        assert!(header.children_offset + header.child_rows * row <= header.log_offset);
        assert_eq!(header.log_offset + header.log_len, 1 << 20);
    }

    #[test]
    fn a_small_area_has_fewer_rows_for_children() {
        let header = layout_of(MIN_LEN, 2, 50, 8).unwrap();
        assert!(header.child_rows > 0 && header.child_rows < CHILD_ROWS);
        assert!(header.log_len > MIN_LEN as u32 / 2);
    }

    #[test]
    fn an_area_without_room_for_a_log_is_refused() {
        assert_eq!(layout_of(8192, 64, 64, 1), None);
        assert_eq!(layout_of(u64::MAX, 1, 1, 1), None);
        assert_eq!(layout_of(1 << 20, u32::MAX, u32::MAX, 1), None);
        assert_eq!(layout_of(1 << 20, 1, 1, u32::MAX), None);
    }
}
