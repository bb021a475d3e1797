//! A buffer in a child's memory that lies in pieces.

use std::io;

use disk::{Image, IoVector, IoVectorMut};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, VolatileSlice};

/// A piece lies outside of the child's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutsideMemory;

/// A list of pieces of a child's memory, one after the other. The child may change what is in them at any time.
#[derive(Clone, Debug, Default)]
pub struct ScatterList<'a> {
    pieces: Vec<VolatileSlice<'a>>,
    len: usize,
}

impl<'a> ScatterList<'a> {
    /// The pieces `(address, bytes)` of `memory`; neighbours are joined.
    pub fn new(
        memory: &'a GuestMemoryMmap,
        ranges: impl IntoIterator<Item = (GuestAddress, usize)>,
    ) -> Result<Self, OutsideMemory> {
        let mut joined: Vec<(u64, usize)> = Vec::new();
        for (GuestAddress(address), len) in ranges {
            match joined.last_mut() {
                Some((start, bytes)) if start.checked_add(*bytes as u64) == Some(address) => {
                    *bytes = bytes.checked_add(len).ok_or(OutsideMemory)?;
                }
                _ => joined.push((address, len)),
            }
        }
        let mut pieces = Vec::with_capacity(joined.len());
        for (address, len) in joined {
            for piece in memory.get_slices(GuestAddress(address), len) {
                pieces.push(piece.map_err(|_| OutsideMemory)?);
            }
        }
        Self::of_pieces(pieces).ok_or(OutsideMemory)
    }

    fn of_pieces(pieces: Vec<VolatileSlice<'a>>) -> Option<Self> {
        let len = pieces
            .iter()
            .try_fold(0usize, |sum, piece| sum.checked_add(piece.len()))?;
        Some(Self { pieces, len })
    }

    /// Bytes in all pieces.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes from `start`, `len` of them; `None` where there are not so many.
    pub fn part(&self, start: usize, len: usize) -> Option<ScatterList<'a>> {
        if start.checked_add(len)? > self.len {
            return None;
        }
        let (mut skip, mut left) = (start, len);
        let mut pieces = Vec::with_capacity(self.pieces.len());
        for piece in &self.pieces {
            let from = skip.min(piece.len());
            skip -= from;
            let bytes = left.min(piece.len() - from);
            if bytes > 0 {
                pieces.push(piece.subslice(from, bytes).ok()?);
                left -= bytes;
            }
        }
        Self::of_pieces(pieces)
    }

    /// Copies the first bytes to `into`; returns how many there were.
    pub fn copy_out(&self, into: &mut [u8]) -> usize {
        let mut done = 0;
        for piece in &self.pieces {
            let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) else {
                break;
            };
            done += piece.copy_to(rest);
        }
        done
    }

    /// Copies `from` to the first bytes; returns how many there was room for.
    pub fn copy_in(&self, from: &[u8]) -> usize {
        let mut done = 0;
        for piece in &self.pieces {
            let Some(rest) = from.get(done..).filter(|rest| !rest.is_empty()) else {
                break;
            };
            let bytes = rest.len().min(piece.len());
            piece.copy_from(rest.get(..bytes).unwrap_or_default());
            done += bytes;
        }
        done
    }

    /// Fills all pieces from `image`, from its byte `at` on, without a copy in between.
    pub fn read_from(&self, image: &dyn Image, at: u64) -> io::Result<()> {
        let (vector, guard) = IoVectorMut::from_volatile_slice(self.pieces.iter());
        let read = image.read(at, vector);
        drop(guard);
        read
    }

    /// Writes all pieces to `image`, from its byte `at` on, without a copy in between.
    pub fn write_to(&self, image: &dyn Image, at: u64) -> io::Result<()> {
        let (vector, guard) = IoVector::from_volatile_slice(self.pieces.iter());
        let written = image.write(at, vector);
        drop(guard);
        written
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vm_memory::Bytes;

    use super::*;

    fn memory() -> GuestMemoryMmap {
        GuestMemoryMmap::from_ranges(&[
            (GuestAddress(0), 0x3000),
            (GuestAddress(0x3000), 0x1000),
            (GuestAddress(0x10_0000), 0x1000),
        ])
        .unwrap()
    }

    #[test]
    fn pieces_outside_are_refused() {
        let memory = memory();
        let list = |address, len| ScatterList::new(&memory, [(GuestAddress(address), len)]);
        assert_eq!(list(0x2F00, 0x200).unwrap().len(), 0x200);
        assert_eq!(list(0x3F00, 0x101).unwrap_err(), OutsideMemory);
        assert_eq!(list(u64::MAX, 2).unwrap_err(), OutsideMemory);
        assert_eq!(list(0, usize::MAX).unwrap_err(), OutsideMemory);
        let twice = [
            (GuestAddress(0), usize::MAX),
            (GuestAddress(usize::MAX as u64), usize::MAX),
        ];
        assert!(ScatterList::new(&memory, twice).is_err());
    }

    #[test]
    fn copies_follow_the_pieces() {
        let memory = memory();
        let list = ScatterList::new(
            &memory,
            [(GuestAddress(0x10_0000), 3), (GuestAddress(0x2FFE), 4)],
        )
        .unwrap();
        assert_eq!(list.copy_in(b"abcdefghij"), 7);
        let mut bytes = [0; 4];
        memory.read_slice(&mut bytes, GuestAddress(0x2FFE)).unwrap();
        assert_eq!(&bytes, b"defg");
        let mut back = [0; 10];
        assert_eq!(list.copy_out(&mut back), 7);
        assert_eq!(&back[..7], b"abcdefg");
        let mut part = [0; 3];
        assert_eq!(list.part(2, 3).unwrap().copy_out(&mut part), 3);
        assert_eq!(&part, b"cde");
        assert!(list.part(5, 3).is_none());
    }

    proptest! {
        #[test]
        fn a_part_is_what_it_says(
            ranges in proptest::collection::vec((0u64..0x2000, 0usize..0x300), 0..5),
            start in 0usize..0x900,
            len in 0usize..0x900,
        ) {
            let memory = memory();
            let ranges = ranges.into_iter().map(|(at, len)| (GuestAddress(at), len));
            let list = ScatterList::new(&memory, ranges).unwrap();
            let part = list.part(start, len);
            prop_assert_eq!(part.is_some(), start + len <= list.len());
            if let Some(part) = part {
                prop_assert_eq!(part.len(), len);
            }
        }
    }
}
