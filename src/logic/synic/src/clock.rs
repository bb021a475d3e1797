//! Reference time: the TSC, scaled to units of 100 ns and counted from the creation of the partition.

use tlfs::time::ReferenceTscPage;

/// A point in the reference time of a partition, or a length of it, in units of 100 ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub struct RefTime(pub u64);

/// Units of reference time in a second.
const UNITS_PER_SECOND: u64 = 10_000_000;

/// The relation of a partition's TSC to its reference time. `now` and the TSC page agree to the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefClock {
    /// Units per tick, as a fraction of 2^64; not 0.
    scale: u64,
    /// The scaled TSC at reference time 0.
    origin: u64,
}

impl RefClock {
    /// A clock that reads 0 at `tsc`, on a TSC of `tsc_hz`. `None` when the TSC is not faster than the reference
    /// time itself (10 MHz): the scale of the TSC page could not express it.
    pub const fn new(tsc_hz: u64, tsc: u64) -> Option<Self> {
        if tsc_hz <= UNITS_PER_SECOND {
            return None;
        }
        let scale = (((UNITS_PER_SECOND as u128) << 64) / tsc_hz as u128) as u64;
        Some(Self {
            scale,
            origin: scaled(tsc, scale),
        })
    }

    /// The reference time at `tsc`; 0 for a TSC before the creation.
    pub const fn now(&self, tsc: u64) -> RefTime {
        RefTime(scaled(tsc, self.scale).saturating_sub(self.origin))
    }

    /// The first TSC at which the reference time is `time` or later: never early. Saturates where the TSC would
    /// overflow, in thousands of years.
    pub const fn tsc_at(&self, time: RefTime) -> u64 {
        let Some(units) = time.0.checked_add(self.origin) else {
            return u64::MAX;
        };
        let tsc = ((units as u128) << 64).div_ceil(self.scale as u128);
        if tsc > u64::MAX as u128 {
            u64::MAX
        } else {
            tsc as u64
        }
    }

    /// Contents of the reference TSC page under `sequence`, which is not 0.
    pub const fn tsc_page(&self, sequence: u32) -> ReferenceTscPage {
        ReferenceTscPage {
            sequence,
            reserved: 0,
            scale: self.scale,
            offset: (self.origin as i64).wrapping_neg(),
        }
    }
}

const fn scaled(tsc: u64, scale: u64) -> u64 {
    ((tsc as u128 * scale as u128) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_second_has_ten_million_units() {
        let clock = RefClock::new(2_400_000_000, 5_000).unwrap();
        assert_eq!(clock.now(5_000), RefTime(0));
        let after = clock.now(5_000 + 2_400_000_000).0;
        assert!((9_999_999..=10_000_000).contains(&after), "{after}");
    }

    #[test]
    fn a_tsc_of_ten_megahertz_has_no_clock() {
        assert!(RefClock::new(10_000_000, 0).is_none());
        assert!(RefClock::new(0, 0).is_none());
        assert!(RefClock::new(10_000_001, 0).is_some());
    }

    #[test]
    fn a_tsc_before_the_creation_reads_zero() {
        assert_eq!(
            RefClock::new(1_000_000_000, 1 << 40).unwrap().now(7),
            RefTime(0)
        );
    }

    proptest! {
        #[test]
        fn the_page_and_the_counter_agree(hz in 10_000_001u64..10_000_000_000, start: u64, after in 0u64..1 << 62) {
            let clock = RefClock::new(hz, start).unwrap();
            if let Some(tsc) = start.checked_add(after) {
                prop_assert_eq!(clock.tsc_page(1).time_100ns(tsc), clock.now(tsc).0);
            }
        }

        #[test]
        fn a_deadline_is_the_first_tick_that_is_not_early(
            hz in 10_000_001u64..10_000_000_000, start in 0u64..1 << 50, time in 0u64..1 << 48
        ) {
            let clock = RefClock::new(hz, start).unwrap();
            let tsc = clock.tsc_at(RefTime(time));
            prop_assert!(clock.now(tsc) >= RefTime(time));
            if time > 0 {
                prop_assert!(clock.now(tsc - 1) < RefTime(time));
            }
        }

        #[test]
        fn no_time_overflows(hz in 10_000_001u64.., start: u64, time: u64, tsc: u64) {
            let clock = RefClock::new(hz, start).unwrap();
            let _ = (clock.tsc_at(RefTime(time)), clock.now(tsc));
        }
    }
}
