//! Sets of memory ranges as sorted lists.

use addr::Spa;
use bootinfo::SpaRange;

use crate::PAGE;

/// The smallest range of whole pages that holds `range`.
pub const fn align_out(range: SpaRange) -> SpaRange {
    let start = range.start.align_down(PAGE);
    let end = match range.end().get().checked_next_multiple_of(PAGE) {
        Some(end) => end,
        None => range.end().align_down(PAGE).get(),
    };
    SpaRange {
        start,
        len: end - start.get(),
    }
}

/// Sorts `ranges` and joins those that touch or overlap. The result is the returned prefix: sorted, apart from
/// each other, none empty. The rest of the slice has no meaning.
pub fn merge(ranges: &mut [SpaRange]) -> &mut [SpaRange] {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut count = 0usize;
    for i in 0..ranges.len() {
        let range = ranges[i];
        if range.len == 0 {
            continue;
        }
        match count.checked_sub(1).map(|last| &mut ranges[last]) {
            Some(last) if range.start <= last.end() => {
                last.len = last.end().max(range.end()).get() - last.start.get();
            }
            _ => {
                ranges[count] = range;
                count += 1;
            }
        }
    }
    &mut ranges[..count]
}

/// What is left of `range` without `hole`: a part before it and a part after it, each empty when there is none.
pub fn subtract(range: SpaRange, hole: SpaRange) -> [SpaRange; 2] {
    let between = |start: Spa, end: Spa| SpaRange {
        start,
        len: end.get().saturating_sub(start.get()),
    };
    if hole.len == 0 {
        return [
            range,
            SpaRange {
                start: range.end(),
                len: 0,
            },
        ];
    }
    [
        between(range.start, range.end().min(hole.start).max(range.start)),
        between(range.start.max(hole.end()).min(range.end()), range.end()),
    ]
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

    fn covers(ranges: &[SpaRange], at: u64) -> bool {
        ranges.iter().any(|r| r.contains(Spa::new(at)))
    }

    #[test]
    fn pages_that_are_touched_count_whole() {
        assert_eq!(align_out(range(0x1001, 1)), range(0x1000, 0x1000));
        assert_eq!(align_out(range(0x1000, 0x1000)), range(0x1000, 0x1000));
        assert_eq!(align_out(range(u64::MAX - 10, 10)).start, Spa::new(!0xFFF));
    }

    proptest! {
        #[test]
        fn merging_keeps_the_set_and_orders_it(list in prop::collection::vec((0u64..60, 0u64..12), 0..12)) {
            let before: Vec<SpaRange> = list.iter().map(|&(s, l)| range(s, l)).collect();
            let mut after = before.clone();
            let after = merge(&mut after);
            for at in 0..80 {
                prop_assert_eq!(covers(&before, at), covers(after, at));
            }
            prop_assert!(after.windows(2).all(|pair| pair[0].end() < pair[1].start));
            prop_assert!(after.iter().all(|r| r.len > 0));
        }

        #[test]
        fn subtraction_takes_out_the_hole_and_nothing_else(s in 0u64..40, l in 0u64..20, hs in 0u64..60, hl in 0u64..20) {
            let (from, hole) = (range(s, l), range(hs, hl));
            let left = subtract(from, hole);
            for at in 0..90 {
                let at_spa = Spa::new(at);
                prop_assert_eq!(covers(&left, at), from.contains(at_spa) && !hole.contains(at_spa));
            }
        }
    }
}
