//! Headers that name data outside the ring.
//!
//! A header is checked as a whole when it is decoded; walking through its ranges cannot fail after that. What the
//! pages are is for their owner to say: a page number here is only a number.

use crate::Malformed;

const PAGE_BYTES: u64 = 4096;

/// Pages that `byte_count` bytes touch which begin at `byte_offset` in the first page.
pub const fn page_count(byte_offset: u32, byte_count: u32) -> usize {
    (byte_offset as u64 + byte_count as u64).div_ceil(PAGE_BYTES) as usize
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|b| u32::from_le_bytes(*b))
}

/// Header of a packet of type [`GPA_DIRECT`](crate::PacketType::GPA_DIRECT): ranges of the sender's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpaDirect<'a> {
    ranges: &'a [u8],
    count: u32,
}

impl<'a> GpaDirect<'a> {
    /// Bytes before the first range: 4 reserved, then the number of ranges.
    pub const FIXED_BYTES: usize = 8;

    /// Reads the header: the bytes between descriptor and payload, from a copy of the packet.
    ///
    /// # Errors
    /// [`Malformed`] when there are no ranges or more than `max_ranges`, a range begins behind the first page, or its
    /// page numbers are not all there.
    pub fn decode(header: &'a [u8], max_ranges: u32) -> Result<Self, Malformed> {
        let count = u32_at(header, 4).ok_or(Malformed)?;
        if count == 0 || count > max_ranges {
            return Err(Malformed);
        }
        let ranges = header.get(Self::FIXED_BYTES..).ok_or(Malformed)?;
        let mut rest = ranges;
        for _ in 0..count {
            (_, rest) = GpaRange::split(rest).ok_or(Malformed)?;
        }
        Ok(Self { ranges, count })
    }

    /// Number of ranges, from 1 on.
    pub const fn range_count(&self) -> u32 {
        self.count
    }

    /// The ranges in order.
    pub fn ranges(&self) -> impl Iterator<Item = GpaRange<'a>> + use<'a> {
        let mut rest = self.ranges;
        (0..self.count).map_while(move |_| {
            let range;
            (range, rest) = GpaRange::split(rest)?;
            Some(range)
        })
    }

    /// The fixed part in front of `count` ranges.
    pub const fn encode(count: u32) -> [u8; 8] {
        ((count as u64) << 32).to_le_bytes()
    }
}

/// One range of a sender's memory (`GPA_RANGE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpaRange<'a> {
    /// Length in bytes.
    pub byte_count: u32,
    /// Where the range begins in its first page, 0 to 4095.
    pub byte_offset: u32,
    /// As many as [`page_count`] says.
    pub pages: Pages<'a>,
}

impl<'a> GpaRange<'a> {
    /// Bytes before the page numbers.
    pub const FIXED_BYTES: usize = 8;

    /// Takes the range that `bytes` begin with, and what follows it. `None` when its page numbers are not all there
    /// or its offset is 4096 or more.
    pub fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (byte_count, byte_offset) = (u32_at(bytes, 0)?, u32_at(bytes, 4)?);
        if u64::from(byte_offset) >= PAGE_BYTES {
            return None;
        }
        let (numbers, _) = bytes.get(Self::FIXED_BYTES..)?.as_chunks();
        let pages = numbers.get(..page_count(byte_offset, byte_count))?;
        let rest = bytes.get(Self::FIXED_BYTES + pages.len() * 8..)?;
        let range = Self {
            byte_count,
            byte_offset,
            pages: Pages(pages),
        };
        Some((range, rest))
    }

    /// The fixed part in front of the page numbers.
    pub const fn encode(byte_count: u32, byte_offset: u32) -> [u8; 8] {
        (byte_count as u64 | (byte_offset as u64) << 32).to_le_bytes()
    }
}

/// Page numbers of one range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pages<'a>(&'a [[u8; 8]]);

impl Pages<'_> {
    /// How many there are.
    pub const fn count(&self) -> usize {
        self.0.len()
    }

    /// Page number `index`.
    pub fn get(&self, index: usize) -> Option<u64> {
        self.0.get(index).map(|number| u64::from_le_bytes(*number))
    }

    /// The page numbers in order.
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|number| u64::from_le_bytes(*number))
    }
}

/// Header of a packet of type [`TRANSFER_PAGES`](crate::PacketType::TRANSFER_PAGES): parts of a buffer that the
/// receiver gave to the sender before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferPages<'a> {
    /// Which buffer.
    pub set: u16,
    /// Whether the sender owns it.
    pub is_owned_by_sender: bool,
    ranges: &'a [[u8; 8]],
}

impl<'a> TransferPages<'a> {
    /// Bytes before the first range.
    pub const FIXED_BYTES: usize = 8;

    /// Reads the header: the bytes between descriptor and payload, from a copy of the packet.
    ///
    /// # Errors
    /// [`Malformed`] when the ranges are not all there.
    pub fn decode(header: &'a [u8]) -> Result<Self, Malformed> {
        let (fixed, rest) = header.split_first_chunk::<8>().ok_or(Malformed)?;
        let [s0, s1, owned, _, c0, c1, c2, c3] = *fixed;
        let count = u32::from_le_bytes([c0, c1, c2, c3]) as usize;
        Ok(Self {
            set: u16::from_le_bytes([s0, s1]),
            is_owned_by_sender: owned != 0,
            ranges: rest.as_chunks().0.get(..count).ok_or(Malformed)?,
        })
    }

    /// The ranges in order.
    pub fn ranges(&self) -> impl Iterator<Item = TransferRange> + use<'a> {
        self.ranges
            .iter()
            .map(|bytes| TransferRange::decode(*bytes))
    }

    /// The fixed part in front of `count` ranges of buffer `set`, which the receiver owns.
    pub const fn encode(set: u16, count: u32) -> [u8; 8] {
        (set as u64 | (count as u64) << 32).to_le_bytes()
    }
}

/// One part of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferRange {
    /// Length in bytes.
    pub byte_count: u32,
    /// Offset in the buffer in bytes.
    pub byte_offset: u32,
}

impl TransferRange {
    const fn decode(bytes: [u8; 8]) -> Self {
        let value = u64::from_le_bytes(bytes);
        Self {
            byte_count: value as u32,
            byte_offset: (value >> 32) as u32,
        }
    }

    /// The bytes.
    pub const fn encode(&self) -> [u8; 8] {
        (self.byte_count as u64 | (self.byte_offset as u64) << 32).to_le_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn header(ranges: &[(u32, u32, Vec<u64>)]) -> Vec<u8> {
        let mut bytes = GpaDirect::encode(ranges.len() as u32).to_vec();
        for (count, offset, pages) in ranges {
            bytes.extend(GpaRange::encode(*count, *offset));
            pages
                .iter()
                .for_each(|page| bytes.extend(page.to_le_bytes()));
        }
        bytes
    }

    #[test]
    fn a_range_that_crosses_pages_has_a_number_for_each() {
        let bytes = header(&[(4096, 4, [7, 9].into()), (8, 4088, [1].into())]);
        let decoded = GpaDirect::decode(&bytes, 2).unwrap();
        let ranges: Vec<_> = decoded.ranges().collect();
        assert_eq!(ranges.len(), 2);
        assert_eq!((ranges[0].byte_count, ranges[0].byte_offset), (4096, 4));
        assert_eq!(ranges[0].pages.iter().collect::<Vec<_>>(), [7, 9]);
        assert_eq!(ranges[1].pages.get(0), Some(1));
        assert_eq!(ranges[1].pages.get(1), None);
        assert_eq!(GpaDirect::decode(&bytes, 1), Err(Malformed));
    }

    #[test]
    fn missing_pages_and_far_offsets_are_refused() {
        let refused = |ranges: &[_]| GpaDirect::decode(&header(ranges), 32).unwrap_err();
        refused(&[]);
        refused(&[(4097, 0, [7].into())]);
        refused(&[(8, 4096, [7, 8].into())]);
        refused(&[(u32::MAX, 4095, [7, 8].into())]);
        assert_eq!(GpaDirect::decode(&[0; 7], 32), Err(Malformed));
    }

    #[test]
    fn transfer_pages_have_ranges() {
        let range = TransferRange {
            byte_count: 60,
            byte_offset: 4096,
        };
        let mut bytes = TransferPages::encode(0xCAFE, 1).to_vec();
        bytes.extend(range.encode());
        let pages = TransferPages::decode(&bytes).unwrap();
        assert_eq!(pages.set, 0xCAFE);
        assert!(!pages.is_owned_by_sender);
        assert_eq!(pages.ranges().collect::<Vec<_>>(), [range]);
        assert_eq!(TransferPages::decode(&bytes[..15]), Err(Malformed));
    }

    proptest! {
        #[test]
        fn what_decodes_can_be_walked_to_its_end(bytes in proptest::collection::vec(0u8..4, 0..200)) {
            if let Ok(direct) = GpaDirect::decode(&bytes, 8) {
                prop_assert_eq!(direct.ranges().count(), direct.range_count() as usize);
                for range in direct.ranges() {
                    prop_assert_eq!(range.pages.count(), page_count(range.byte_offset, range.byte_count));
                }
            }
            let _ = TransferPages::decode(&bytes);
        }
    }
}
