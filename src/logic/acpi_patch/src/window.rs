//! A place in the address space where nothing answers.

use addr::Spa;
use bootinfo::SpaRange;

/// The highest range of `len` bytes in `within`, aligned to `len` (a power of two), that meets none of
/// `occupied`. `None` when there is none.
pub fn vacant_window(occupied: &[SpaRange], within: SpaRange, len: u64) -> Option<SpaRange> {
    if !len.is_power_of_two() {
        return None;
    }
    let mut start = within.end().get().checked_sub(len)? & !(len - 1);
    while start >= within.start.get() {
        let candidate = SpaRange {
            start: Spa::new(start),
            len,
        };
        let in_the_way = occupied.iter().filter(|range| {
            range.len > 0 && range.start < candidate.end() && candidate.start < range.end()
        });
        // Below the lowest of them is the next place worth a look.
        match in_the_way.map(|range| range.start.get()).min() {
            None => return Some(candidate),
            Some(lowest) => start = lowest.checked_sub(len)? & !(len - 1),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn range(start: u64, len: u64) -> SpaRange {
        SpaRange {
            start: Spa::new(start),
            len,
        }
    }

    const HOLE: SpaRange = SpaRange {
        start: Spa::new(0x8000_0000),
        len: 0x7C00_0000,
    };

    #[test]
    fn the_highest_aligned_place_is_taken() {
        assert_eq!(
            vacant_window(&[], HOLE, 256 << 20),
            Some(range(0xE000_0000, 256 << 20))
        );
        let bars = [range(0xE100_0000, 0x1000), range(0xC000_0000, 0x100_0000)];
        assert_eq!(
            vacant_window(&bars, HOLE, 256 << 20),
            Some(range(0xD000_0000, 256 << 20))
        );
    }

    #[test]
    fn a_full_hole_has_none() {
        assert_eq!(vacant_window(&[HOLE], HOLE, 1 << 20), None);
        assert_eq!(vacant_window(&[], range(0, 0x1000), 0x2000), None);
        assert_eq!(vacant_window(&[], HOLE, 3 << 20), None);
        assert_eq!(vacant_window(&[], range(0, 0), 1), None);
    }

    proptest! {
        /// What is found is aligned, inside and free; and when nothing is found, no aligned place was free.
        #[test]
        fn the_answer_is_right(list in prop::collection::vec((0u64..64, 0u64..16), 0..8), start in 0u64..32, len in 0u64..64, order in 0u32..4) {
            let occupied: Vec<SpaRange> = list.iter().map(|&(s, l)| range(s, l)).collect();
            let (within, len_wanted) = (range(start, len), 1u64 << order);
            let free = |at: u64| {
                let candidate = range(at, len_wanted);
                at >= start && candidate.end() <= within.end()
                    && (at..at + len_wanted).all(|byte| !occupied.iter().any(|o| o.contains(Spa::new(byte))))
            };
            let best = (0..128u64).step_by(len_wanted as usize).filter(|&at| free(at)).max();
            prop_assert_eq!(vacant_window(&occupied, within, len_wanted).map(|found| found.start.get()), best);
        }
    }
}
