//! One synthetic timer (TLFS, "Timers", "Synthetic Timers").

use tlfs::msr::StimerConfig;
use tlfs::state::TimerState;

use crate::{GpFault, RefTime};

/// Shortest period that is honoured, in units of 100 ns: 100 µs. A shorter one would keep the LP in the
/// hypervisor. The count reads back as written.
const MIN_PERIOD: u64 = 1_000;

/// First vector that an interrupt can have.
pub(crate) const FIRST_VECTOR: u8 = 16;

/// A timer. Laziness is not used: a lazy timer expires as the others do.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Timer {
    config: StimerConfig,
    count: u64,
    /// When it expires next, if it is running.
    due: Option<RefTime>,
    /// When it expired, while its message has not been written yet.
    undelivered: Option<RefTime>,
}

impl Timer {
    pub(crate) const fn config(&self) -> StimerConfig {
        self.config
    }

    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    pub(crate) const fn due(&self) -> Option<RefTime> {
        self.due
    }

    pub(crate) const fn undelivered(&self) -> Option<RefTime> {
        self.undelivered
    }

    /// The message was written.
    pub(crate) const fn delivered(&mut self) {
        self.undelivered = None;
    }

    /// Writes the configuration, which also withdraws a message not written yet.
    pub(crate) fn set_config(
        &mut self,
        config: StimerConfig,
        is_direct_offered: bool,
        now: RefTime,
    ) -> Result<(), GpFault> {
        if config.0 & StimerConfig::RESERVED != 0
            || (config.is_direct() && !is_direct_offered)
            || (config.is_enabled() && config.is_direct() && config.vector() < FIRST_VECTOR)
        {
            return Err(GpFault);
        }
        self.config = config;
        self.undelivered = None;
        self.set_enabled(config.is_enabled(), now);
        Ok(())
    }

    /// Writes the count: 0 stops the timer, another value starts it when it is automatic.
    pub(crate) fn set_count(&mut self, count: u64, now: RefTime) {
        self.count = count;
        self.undelivered = None;
        let enabled = count != 0 && (self.config.is_enabled() || self.config.is_auto_enable());
        self.set_enabled(enabled, now);
    }

    /// The timer as it is saved.
    pub(crate) fn state(&self, now: RefTime) -> TimerState {
        let to_expiry = self.due.filter(|_| self.config.is_periodic());
        TimerState {
            undelivered: self.undelivered.is_some().into(),
            config: self.config.0,
            count: self.count,
            adjustment: to_expiry.map_or(0, |due| due.0.saturating_sub(now.0).max(1)),
            undelivered_expiry: self.undelivered.map_or(0, |time| time.0),
        }
    }

    /// Makes a new timer what `state` says.
    pub(crate) fn load(&mut self, state: &TimerState, now: RefTime) -> Result<(), GpFault> {
        self.count = state.count;
        self.set_config(StimerConfig(state.config), true, now)?;
        if self.config.is_periodic() && (1..self.period()).contains(&state.adjustment) {
            let due = RefTime(now.0.saturating_add(state.adjustment));
            self.due = self.due.map(|_| due);
        }
        self.undelivered = (state.undelivered & 1 != 0 && !self.config.is_direct())
            .then_some(RefTime(state.undelivered_expiry));
        Ok(())
    }

    /// Starts from `now` or stops. In message mode SINT 0, which is for intercepts, does not take timers; in
    /// direct mode the vectors below 16, which a configuration may carry while it is off, cannot be raised.
    fn set_enabled(&mut self, enabled: bool, now: RefTime) {
        let has_target = if self.config.is_direct() {
            self.config.vector() >= FIRST_VECTOR
        } else {
            self.config.sint() != 0
        };
        self.config = self.config.with_enabled(enabled && has_target);
        self.due = if !self.config.is_enabled() || self.count == 0 {
            None
        } else if self.config.is_periodic() {
            Some(RefTime(now.0.saturating_add(self.period())))
        } else {
            Some(RefTime(self.count))
        };
    }

    const fn period(&self) -> u64 {
        if self.count < MIN_PERIOD {
            MIN_PERIOD
        } else {
            self.count
        }
    }

    /// Whether the timer has expired by `now`; if so it is stopped, or set to the next multiple of its period
    /// after `now`: periods that passed unseen are not made up for. In message mode a message is owed.
    pub(crate) fn expire(&mut self, now: RefTime) -> bool {
        let Some(due) = self.due.filter(|due| *due <= now) else {
            return false;
        };
        if self.config.is_periodic() {
            let into_period = (now.0 - due.0) % self.period();
            self.due = Some(RefTime((now.0 - into_period).saturating_add(self.period())));
        } else {
            self.due = None;
            self.config = self.config.with_enabled(false);
        }
        if !self.config.is_direct() {
            self.undelivered = self.undelivered.or(Some(due));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LINUX: StimerConfig = StimerConfig(0x1ED9);

    fn timer(config: u64) -> Timer {
        let mut timer = Timer::default();
        timer
            .set_config(StimerConfig(config), true, RefTime(0))
            .unwrap();
        timer
    }

    #[test]
    fn enabled_with_count_zero_does_not_fire() {
        let mut timer = timer(LINUX.0);
        assert!(timer.config().is_enabled());
        assert_eq!(timer.due(), None);
        assert!(!timer.expire(RefTime(u64::MAX)));
    }

    #[test]
    fn a_one_shot_fires_once_and_is_disabled() {
        let mut timer = timer(LINUX.0);
        timer.set_count(500, RefTime(100));
        assert_eq!(timer.due(), Some(RefTime(500)));
        assert!(!timer.expire(RefTime(499)));
        assert!(timer.expire(RefTime(500)));
        assert!(!timer.config().is_enabled());
        assert!(!timer.expire(RefTime(501)));
    }

    #[test]
    fn a_count_in_the_past_fires_at_once() {
        let mut timer = timer(LINUX.0);
        timer.set_count(1, RefTime(100));
        assert!(timer.expire(RefTime(100)));
    }

    #[test]
    fn a_count_rearms_only_with_auto_enable() {
        let mut auto = timer(LINUX.0 & !1);
        auto.set_count(5, RefTime(0));
        assert!(auto.config().is_enabled() && auto.due().is_some());
        let mut manual = timer(LINUX.0 & !9);
        manual.set_count(5, RefTime(0));
        assert!(!manual.config().is_enabled() && manual.due().is_none());
    }

    #[test]
    fn count_zero_stops() {
        let mut timer = timer(LINUX.0);
        timer.set_count(500, RefTime(0));
        timer.set_count(0, RefTime(0));
        assert_eq!((timer.due(), timer.config().is_enabled()), (None, false));
    }

    #[test]
    fn reserved_bits_and_exception_vectors_fault_and_change_nothing() {
        let mut timer = timer(LINUX.0);
        for bad in [1 << 13, 1 << 15, 1 << 20, 1 << 63, 0x1001 | 15 << 4] {
            assert_eq!(
                timer.set_config(StimerConfig(bad), true, RefTime(0)),
                Err(GpFault),
                "{bad:#x}"
            );
            assert_eq!(timer.config(), LINUX);
        }
        assert_eq!(timer.set_config(LINUX, false, RefTime(0)), Err(GpFault));
    }

    #[test]
    fn a_timer_does_not_send_to_sint_0() {
        assert!(!timer(1).config().is_enabled());
        assert!(timer(1 | 3 << 16).config().is_enabled());
        let mut auto = timer(1 << 3);
        auto.set_count(7, RefTime(0));
        assert_eq!(auto.due(), None);
    }

    #[test]
    fn auto_enable_does_not_raise_an_exception_vector() {
        let mut auto = timer(1 << 3 | 1 << 12 | 14 << 4);
        auto.set_count(7, RefTime(0));
        assert_eq!(auto.due(), None);
    }

    #[test]
    fn an_undelivered_message_keeps_its_first_expiration() {
        let mut timer = timer(3 | 4 << 16);
        timer.set_count(2_000, RefTime(0));
        assert!(timer.expire(RefTime(2_100)));
        assert!(timer.expire(RefTime(4_000)));
        assert_eq!(timer.undelivered(), Some(RefTime(2_000)));
    }

    #[test]
    fn a_timer_set_anew_owes_no_message_of_before() {
        for rewrite in [
            |timer: &mut Timer| timer.set_count(9_000, RefTime(3_000)),
            |timer: &mut Timer| {
                timer
                    .set_config(timer.config(), true, RefTime(3_000))
                    .unwrap()
            },
        ] {
            let mut timer = timer(9 | 4 << 16);
            timer.set_count(2_000, RefTime(0));
            assert!(timer.expire(RefTime(2_100)));
            assert!(timer.undelivered().is_some());
            rewrite(&mut timer);
            assert_eq!(timer.undelivered(), None);
        }
    }

    proptest! {
        #[test]
        fn a_periodic_timer_stays_on_its_grid(
            period in 1u64..1 << 40, start in 0u64..1 << 40, waits in proptest::collection::vec(0u64..1 << 42, 1..20)
        ) {
            let mut timer = timer(LINUX.0 | 2);
            timer.set_count(period, RefTime(start));
            let effective = period.max(MIN_PERIOD);
            let mut now = start;
            for wait in waits {
                now += wait;
                let due = timer.due().unwrap();
                prop_assert_eq!(timer.expire(RefTime(now)), due.0 <= now);
                let next = timer.due().unwrap();
                prop_assert!(next.0 > now && next.0 - now <= effective);
                prop_assert_eq!((next.0 - start) % effective, 0);
                prop_assert_eq!(timer.count(), period);
            }
        }

        #[test]
        fn no_write_overflows(writes: std::vec::Vec<(bool, u64, u64)>) {
            let mut timer = Timer::default();
            for (is_config, value, now) in writes {
                if is_config {
                    let _ = timer.set_config(StimerConfig(value & !StimerConfig::RESERVED), true, RefTime(now));
                } else {
                    timer.set_count(value, RefTime(now));
                }
                let _ = timer.expire(RefTime(now));
                prop_assert!(timer.due().is_none_or(|due| due > RefTime(now) || due.0 == u64::MAX));
            }
        }
    }
}
