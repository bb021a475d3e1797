//! Reference time: the TSC, scaled to units of 100 ns and counted from the creation of the partition.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Release};

use tlfs::time::ReferenceTscPage;

/// A point in the reference time of a partition, or a length of it, in units of 100 ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub struct RefTime(pub u64);

/// Units of reference time in a second.
const UNITS_PER_SECOND: u64 = 10_000_000;

/// The relation of a partition's TSC to its reference time. `now` and the TSC page agree to the unit.
///
/// Any LP reads it at any time, without a lock. Changes are made one at a time, by the caller's lock; after each the
/// reference TSC page is written anew, and the deadline of every VP's timers is computed anew.
#[derive(Debug)]
pub struct RefClock {
    /// Units per tick, as a fraction of 2^64; not 0.
    scale: u64,
    /// Ticks per unit, in units of 2^-64, rounded down.
    ticks: u128,
    /// The scaled TSC at reference time 0; wraps around.
    origin: AtomicU64,
    /// The time at which it stands; [`RUNNING`] while it does not.
    stopped_at: AtomicU64,
    /// Sequence number of the TSC page: changes with every change, and is never 0.
    sequence: AtomicU32,
}

/// No time that a clock could stand at.
const RUNNING: u64 = u64::MAX;

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
            ticks: u128::MAX / scale as u128,
            origin: AtomicU64::new(scaled(tsc, scale)),
            stopped_at: AtomicU64::new(RUNNING),
            sequence: AtomicU32::new(1),
        })
    }

    /// The reference time at `tsc`; 0 for a TSC before the creation.
    pub fn now(&self, tsc: u64) -> RefTime {
        RefTime(self.stopped().unwrap_or_else(|| {
            let since = scaled(tsc, self.scale).wrapping_sub(self.origin.load(Acquire));
            if since as i64 >= 0 { since } else { 0 }
        }))
    }

    /// The first TSC at which the reference time is `time` or later: never early. `u64::MAX` for never: when the
    /// clock stands, and where the TSC would overflow, in thousands of years.
    pub fn tsc_at(&self, time: RefTime) -> u64 {
        if let Some(stopped) = self.stopped() {
            return if time.0 <= stopped { 0 } else { u64::MAX };
        }
        // A clock that was set far ahead began before the TSC did: then its origin is negative.
        let origin = self.origin.load(Acquire) as i64;
        let Ok(units) = u64::try_from(i128::from(origin) + i128::from(time.0)) else {
            return if origin < 0 { 0 } else { u64::MAX };
        };
        self.ticks_of(units)
    }

    /// The fewest ticks that make `units`, `u64::MAX` where it is more: the division, rounded up, by a multiplication.
    fn ticks_of(&self, units: u64) -> u64 {
        let whole = u128::from(units).saturating_mul(self.ticks >> 64);
        let part = (u128::from(units) * u128::from(self.ticks as u64)) >> 64;
        // `self.ticks` is too small by 2^-64 at most, which `units` make less than a tick, and rounding took less than
        // another one: at most two are missing.
        let Ok(mut ticks) = u64::try_from(whole.saturating_add(part)) else {
            return u64::MAX;
        };
        let wanted = u128::from(units) << 64;
        for _ in 0..2 {
            if u128::from(ticks) * u128::from(self.scale) < wanted {
                ticks = ticks.saturating_add(1);
            }
        }
        ticks
    }

    /// Whether the clock stands.
    pub fn is_stopped(&self) -> bool {
        self.stopped().is_some()
    }

    /// Stops the clock at the time of `tsc`, or lets it go on from where it stands (`HvPartitionPropertyTimeFreeze`).
    pub fn set_stopped(&self, stopped: bool, tsc: u64) {
        if stopped != self.is_stopped() {
            let now = self.now(tsc);
            self.change(now, stopped, tsc);
        }
    }

    /// Sets the time (`HvPartitionPropertyReferenceTime`), below 2^63; a clock that stands goes on standing.
    pub fn set(&self, time: RefTime, tsc: u64) {
        self.change(time, self.is_stopped(), tsc);
    }

    fn change(&self, time: RefTime, stopped: bool, tsc: u64) {
        let time = time.0.min(i64::MAX as u64);
        // Who sees the clock running sees the new origin, too.
        self.origin
            .store(scaled(tsc, self.scale).wrapping_sub(time), Release);
        self.stopped_at
            .store(if stopped { time } else { RUNNING }, Release);
        let sequence = self.sequence.load(Acquire).wrapping_add(1);
        self.sequence.store(sequence.max(1), Release);
    }

    fn stopped(&self) -> Option<u64> {
        Some(self.stopped_at.load(Acquire)).filter(|time| *time != RUNNING)
    }

    /// Contents of the reference TSC page: not valid, so that readers turn to the MSR, while the clock stands.
    pub fn tsc_page(&self) -> ReferenceTscPage {
        ReferenceTscPage {
            sequence: if self.is_stopped() {
                0
            } else {
                self.sequence.load(Acquire)
            },
            reserved: 0,
            scale: self.scale,
            offset: (self.origin.load(Acquire) as i64).wrapping_neg(),
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

    #[test]
    fn a_stopped_clock_stands_and_goes_on_where_it_stood() {
        let clock = RefClock::new(1_000_000_000, 0).unwrap();
        let first = clock.tsc_page().sequence;
        clock.set_stopped(true, 5_000);
        clock.set_stopped(true, 6_000);
        assert_eq!(
            (clock.now(9_000), clock.tsc_page().sequence),
            (RefTime(49), 0)
        );
        assert_eq!(
            (clock.tsc_at(RefTime(49)), clock.tsc_at(RefTime(50))),
            (0, u64::MAX)
        );
        clock.set_stopped(false, 1_000_000);
        assert_eq!(clock.now(1_000_000), RefTime(49));
        assert!(clock.tsc_page().sequence != 0 && clock.tsc_page().sequence != first);
    }

    proptest! {
        #[test]
        fn a_clock_that_was_set_goes_on_from_there(
            hz in 10_000_001u64..10_000_000_000, at in 0u64..1 << 50, time in 0u64..1 << 50, after in 1u64..1 << 40, stopped: bool
        ) {
            let clock = RefClock::new(hz, 77).unwrap();
            clock.set_stopped(stopped, at);
            clock.set(RefTime(time), at);
            prop_assert_eq!(clock.now(at), RefTime(time));
            let later = clock.now(at + after);
            prop_assert_eq!(later == RefTime(time), stopped || (later.0 - time) == 0);
            if !stopped {
                prop_assert_eq!(clock.tsc_page().time_100ns(at + after), later.0);
                let tsc = clock.tsc_at(later);
                prop_assert!(tsc <= at + after && clock.now(tsc) >= later);
            }
        }

        #[test]
        fn the_page_and_the_counter_agree(hz in 10_000_001u64..10_000_000_000, start: u64, after in 0u64..1 << 62) {
            let clock = RefClock::new(hz, start).unwrap();
            if let Some(tsc) = start.checked_add(after) {
                prop_assert_eq!(clock.tsc_page().time_100ns(tsc), clock.now(tsc).0);
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
        fn ticks_are_what_a_division_gives(hz in 10_000_001u64.., units: u64) {
            for hz in [hz, hz >> 30 | 1 << 24, 10_000_000 << 20] {
                let clock = RefClock::new(hz, 0).unwrap();
                let divided = (u128::from(units) << 64).div_ceil(clock.scale.into());
                prop_assert_eq!(clock.ticks_of(units), u64::try_from(divided).unwrap_or(u64::MAX));
            }
        }

        #[test]
        fn no_time_overflows(hz in 10_000_001u64.., start: u64, time: u64, tsc: u64) {
            let clock = RefClock::new(hz, start).unwrap();
            let _ = (clock.tsc_at(RefTime(time)), clock.now(tsc));
        }
    }
}
