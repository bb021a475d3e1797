//! What the bytes of the diagnostics area mean. Nothing in it is trusted.

use std::mem::offset_of;

use anyhow::{Context, Result, bail, ensure};
use diagnostics::{Header, MAGIC, NAME_LEN, ROW_HEADER_LEN, USE_LEN, VERSION};

/// Length of the area's header in bytes.
pub const HEADER_LEN: usize = size_of::<Header>();

/// Bytes of a frame.
const FRAME: u64 = 4096;

/// The counters of virtual processors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counters {
    /// The names, in the hypervisor's order.
    pub names: Vec<String>,
    /// The VPs.
    pub vps: Vec<VpCounters>,
}

/// The counters of one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VpCounters {
    /// The child's partition; `None` for the parent.
    pub partition: Option<u64>,
    /// Its number in the partition.
    pub vp: u64,
    /// As many as there are names.
    pub values: Vec<u64>,
}

/// What the hypervisor uses memory for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryUse {
    /// Its name for it.
    pub name: String,
    /// How much, in bytes.
    pub bytes: u64,
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Reads the header of an area of `len` bytes, and checks that all its parts lie inside.
pub fn header(bytes: &[u8], len: usize) -> Result<Header> {
    let header = decode(bytes).context("the area's header is cut short")?;
    ensure!(
        header.magic == MAGIC,
        "there is no diagnostics area where the ACPI table says: it begins with {:#x}",
        header.magic
    );
    ensure!(
        header.version == VERSION,
        "the hypervisor's layout has version {}, this program knows {VERSION}: take the one that was built with the hypervisor",
        header.version
    );
    ensure!(
        parts_fit(&header, len as u64),
        "the area's header is damaged: {header:?}"
    );
    Ok(header)
}

fn decode(bytes: &[u8]) -> Option<Header> {
    Some(Header {
        magic: u64_at(bytes, offset_of!(Header, magic))?,
        version: u32_at(bytes, offset_of!(Header, version))?,
        vp_count: u32_at(bytes, offset_of!(Header, vp_count))?,
        counter_count: u32_at(bytes, offset_of!(Header, counter_count))?,
        counters_stride: u32_at(bytes, offset_of!(Header, counters_stride))?,
        names_offset: u32_at(bytes, offset_of!(Header, names_offset))?,
        counters_offset: u32_at(bytes, offset_of!(Header, counters_offset))?,
        log_offset: u32_at(bytes, offset_of!(Header, log_offset))?,
        log_len: u32_at(bytes, offset_of!(Header, log_len))?,
        log_written: u64_at(bytes, offset_of!(Header, log_written))?,
        tsc_hz: u64_at(bytes, offset_of!(Header, tsc_hz))?,
        child_rows: u32_at(bytes, offset_of!(Header, child_rows))?,
        children_offset: u32_at(bytes, offset_of!(Header, children_offset))?,
        use_count: u32_at(bytes, offset_of!(Header, use_count))?,
        uses_offset: u32_at(bytes, offset_of!(Header, uses_offset))?,
    })
}

/// All in u64, where the products of two u32 have room.
fn parts_fit(header: &Header, len: u64) -> bool {
    let count = u64::from(header.counter_count);
    let names_end = u64::from(header.names_offset) + count * NAME_LEN as u64;
    let stride = u64::from(header.counters_stride);
    let counters = u64::from(header.counters_offset);
    let children = u64::from(header.children_offset);
    let row = stride + ROW_HEADER_LEN as u64;
    let log = u64::from(header.log_offset);
    let uses = u64::from(header.uses_offset);
    let uses_end = uses + u64::from(header.use_count) * USE_LEN as u64;
    // Words must not straddle the units in which the area is read.
    let is_aligned =
        counters.is_multiple_of(8) && stride.is_multiple_of(8) && uses.is_multiple_of(8);
    is_aligned
        && header.vp_count > 0
        && header.log_len > 0
        && header.names_offset as usize >= HEADER_LEN
        && uses >= HEADER_LEN as u64
        && uses_end <= log
        && names_end <= counters
        && stride >= count * 8
        && counters + stride.saturating_mul(header.vp_count.into()) <= log
        && children.is_multiple_of(8)
        && (header.child_rows == 0 || children >= counters)
        && children + row.saturating_mul(header.child_rows.into()) <= log
        && log + u64::from(header.log_len) <= len
}

/// Names and the parent's counters out of `bytes`, the area up to its log. `header` is [`header`]'s.
pub fn parent(header: &Header, bytes: &[u8]) -> Result<Counters> {
    let stride = header.counters_stride as usize;
    let vps = (0..header.vp_count as usize)
        .map(|vp| {
            let at = header.counters_offset as usize + vp * stride;
            Some(VpCounters {
                partition: None,
                vp: vp as u64,
                values: values(header, bytes, at)?,
            })
        })
        .collect::<Option<_>>();
    Ok(Counters {
        names: names(header, bytes)?,
        vps: vps.context("the counters are cut short")?,
    })
}

/// The same of children that there are, sorted.
pub fn children(header: &Header, bytes: &[u8]) -> Result<Counters> {
    let row_len = header.counters_stride as usize + ROW_HEADER_LEN;
    let mut vps = Vec::new();
    for row in 0..header.child_rows as usize {
        let at = header.children_offset as usize + row * row_len;
        let owner = u64_at(bytes, at).zip(u64_at(bytes, at + 8));
        let values = values(header, bytes, at + ROW_HEADER_LEN);
        let (Some((partition, vp)), Some(values)) = (owner, values) else {
            bail!("the counters of children are cut short");
        };
        if partition != 0 {
            vps.push(VpCounters {
                partition: Some(partition),
                vp,
                values,
            });
        }
    }
    vps.sort_by_key(|row| (row.partition, row.vp));
    Ok(Counters {
        names: names(header, bytes)?,
        vps,
    })
}

/// What memory is used for, from the same `bytes`.
pub fn memory(header: &Header, bytes: &[u8]) -> Result<Vec<MemoryUse>> {
    let uses = (0..header.use_count as usize).map(|index| {
        let at = header.uses_offset as usize + index * USE_LEN;
        Some(MemoryUse {
            name: name_at(bytes, at)?,
            bytes: u64_at(bytes, at + NAME_LEN)?.saturating_mul(FRAME),
        })
    });
    uses.collect::<Option<_>>()
        .context("the uses of memory are cut short")
}

fn values(header: &Header, bytes: &[u8], at: usize) -> Option<Vec<u64>> {
    (0..header.counter_count as usize)
        .map(|index| u64_at(bytes, at + index * 8))
        .collect()
}

fn names(header: &Header, bytes: &[u8]) -> Result<Vec<String>> {
    let names = (0..header.counter_count as usize)
        .map(|index| name_at(bytes, header.names_offset as usize + index * NAME_LEN))
        .collect::<Option<_>>();
    names.context("the counters' names are cut short")
}

fn name_at(bytes: &[u8], at: usize) -> Option<String> {
    let name = bytes.get(at..at + NAME_LEN)?;
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(NAME_LEN);
    Some(String::from_utf8_lossy(&name[..end]).into_owned())
}

#[cfg(test)]
pub mod tests {
    use diagnostics::Contents;
    use proptest::prelude::*;

    use super::*;

    const LEN: usize = 64 * 1024;

    /// The header's bytes as the hypervisor lays them down.
    pub fn encode(header: &Header) -> Vec<u8> {
        let mut bytes = header.magic.to_le_bytes().to_vec();
        for word in [
            header.version,
            header.vp_count,
            header.counter_count,
            header.counters_stride,
            header.names_offset,
            header.counters_offset,
            header.log_offset,
            header.log_len,
        ] {
            bytes.extend(word.to_le_bytes());
        }
        for word in [header.log_written, header.tsc_hz] {
            bytes.extend(word.to_le_bytes());
        }
        for word in [
            header.child_rows,
            header.children_offset,
            header.use_count,
            header.uses_offset,
        ] {
            bytes.extend(word.to_le_bytes());
        }
        bytes
    }

    fn area(vps: u32, names: &[&str]) -> (Header, Vec<u8>) {
        let contents = Contents {
            vps,
            counters: names.len() as u32,
            uses: 2,
        };
        let header = diagnostics::layout(LEN as u64, &contents, 1).unwrap();
        let mut bytes = encode(&header);
        bytes.resize(LEN, 0);
        for (index, (name, frames)) in [("slat", 3_u64), ("frame owners", 0)]
            .into_iter()
            .enumerate()
        {
            let at = header.uses_offset as usize + index * USE_LEN;
            bytes[at..at + name.len()].copy_from_slice(name.as_bytes());
            bytes[at + NAME_LEN..at + USE_LEN].copy_from_slice(&frames.to_le_bytes());
        }
        for (index, name) in names.iter().enumerate() {
            let at = header.names_offset as usize + index * NAME_LEN;
            bytes[at..at + name.len()].copy_from_slice(name.as_bytes());
            for vp in 0..vps as usize {
                let at = header.counters_offset as usize
                    + vp * header.counters_stride as usize
                    + index * 8;
                let value = (vp as u64) << 40 | index as u64;
                bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            }
        }
        (header, bytes)
    }

    #[test]
    fn what_was_laid_down_is_read() {
        let long = "a name of thirty-two bytes, full";
        assert_eq!(long.len(), NAME_LEN);
        let (laid, bytes) = area(3, &["exit.hlt", long, "entries"]);
        let header = header(&bytes, LEN).unwrap();
        assert_eq!(header, laid);
        let counters = parent(&header, &bytes[..header.log_offset as usize]).unwrap();
        assert_eq!(counters.names, ["exit.hlt", long, "entries"]);
        assert_eq!(counters.vps[2].values, [2 << 40, 2 << 40 | 1, 2 << 40 | 2]);
        assert_eq!(counters.vps.len(), 3);
    }

    #[test]
    fn memory_is_told_in_bytes() {
        let (laid, bytes) = area(1, &["a"]);
        let uses = memory(&laid, &bytes[..laid.log_offset as usize]).unwrap();
        let uses: Vec<_> = uses.iter().map(|one| (&*one.name, one.bytes)).collect();
        assert_eq!(uses, [("slat", 3 * 4096), ("frame owners", 0)]);
    }

    #[test]
    fn rows_of_children_are_found_by_their_owners() {
        let (laid, mut bytes) = area(2, &["exit.hlt", "entries"]);
        for (row, partition, vp) in [(0, 3, 0), (2, 2, 1), (5, 2, 0)] {
            let at = laid.children_offset as usize
                + row * (laid.counters_stride as usize + ROW_HEADER_LEN);
            for (offset, value) in [(0, partition), (8, vp), (ROW_HEADER_LEN + 8, 7_u64)] {
                bytes[at + offset..at + offset + 8].copy_from_slice(&value.to_le_bytes());
            }
        }
        let header = header(&bytes, LEN).unwrap();
        let found = children(&header, &bytes[..header.log_offset as usize]).unwrap();
        let owners: Vec<_> = found
            .vps
            .iter()
            .map(|row| (row.partition, row.vp))
            .collect();
        assert_eq!(owners, [(Some(2), 0), (Some(2), 1), (Some(3), 0)]);
        assert!(found.vps.iter().all(|row| row.values == [0, 7]));
    }

    #[test]
    fn foreign_and_newer_areas_are_told_apart() {
        let (laid, _) = area(1, &["a"]);
        let refusal = |laid: Header| header(&encode(&laid), LEN).unwrap_err().to_string();
        assert!(refusal(Header { magic: 1, ..laid }).contains("no diagnostics area"));
        assert!(refusal(Header { version: 3, ..laid }).contains("version 3"));
        assert!(
            header(&encode(&laid)[..60], LEN)
                .unwrap_err()
                .to_string()
                .contains("cut short")
        );
    }

    #[test]
    fn parts_outside_the_area_are_refused() {
        let (laid, _) = area(2, &["a", "b"]);
        for bad in [
            Header {
                log_len: laid.log_len + 1,
                ..laid
            },
            Header { log_len: 0, ..laid },
            Header {
                vp_count: 0,
                ..laid
            },
            Header {
                vp_count: u32::MAX,
                counters_stride: !7,
                ..laid
            },
            Header {
                counter_count: u32::MAX,
                ..laid
            },
            Header {
                counters_stride: 8,
                ..laid
            },
            Header {
                counters_offset: laid.counters_offset + 4,
                ..laid
            },
            Header {
                names_offset: 0,
                ..laid
            },
            Header {
                child_rows: u32::MAX,
                ..laid
            },
            Header {
                use_count: u32::MAX,
                ..laid
            },
            Header {
                uses_offset: laid.log_offset,
                ..laid
            },
            Header {
                uses_offset: 0,
                ..laid
            },
            Header {
                uses_offset: laid.uses_offset + 4,
                ..laid
            },
            Header {
                children_offset: laid.log_offset,
                ..laid
            },
            Header {
                log_offset: laid.counters_offset,
                ..laid
            },
        ] {
            assert!(header(&encode(&bad), LEN).is_err(), "{bad:?}");
        }
        assert!(header(&encode(&laid), LEN - 1).is_err());
    }

    proptest! {
        #[test]
        fn no_header_that_is_taken_reaches_outside(words in proptest::array::uniform8(0u32..100_000), rest: [u8; 24]) {
            let mut bytes = MAGIC.to_le_bytes().to_vec();
            for (index, word) in words.into_iter().enumerate() {
                let word = if index == 0 { VERSION } else { word };
                bytes.extend(word.to_le_bytes());
            }
            bytes.extend(rest);
            bytes.extend([0; 8]);
            if let Ok(header) = header(&bytes, LEN) {
                prop_assert!(header.log_offset as usize + header.log_len as usize <= LEN);
                let bytes = vec![0; header.log_offset as usize];
                prop_assert!(parent(&header, &bytes).is_ok());
                prop_assert!(children(&header, &bytes).is_ok());
                prop_assert!(memory(&header, &bytes).is_ok());
            }
        }
    }
}
