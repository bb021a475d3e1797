//! The APIC timer: one-shot, periodic and TSC-deadline.
//!
//! Deadlines are kept in host TSC ticks with a fraction, so that a period that is no whole number of
//! ticks does not drift. Every rounding is upward: an interrupt is never early.

use crate::registers::DIVIDE_WRITABLE;
use crate::scale::{Timing, ceil};

/// LVT timer, bits 18:17.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TimerMode {
    OneShot,
    Periodic,
    TscDeadline,
    /// Both bits set: the timer stands still.
    Reserved,
}

impl TimerMode {
    pub(crate) const fn from_lvt(value: u32) -> Self {
        match (value >> 17) & 3 {
            0 => Self::OneShot,
            1 => Self::Periodic,
            2 => Self::TscDeadline,
            _ => Self::Reserved,
        }
    }

    /// Whether the timer counts down from the initial count.
    const fn counts(self) -> bool {
        matches!(self, Self::OneShot | Self::Periodic)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Timer {
    timing: Timing,
    mode: TimerMode,
    /// The divide configuration register.
    divide: u32,
    /// The divisor as a power of two, 0 to 7.
    divide_shift: u32,
    initial: u32,
    /// When the count reaches zero, with `timing.tsc_per_count.shift()` fractional bits. Of a
    /// running count only.
    end: u128,
    /// When the timer fires next, in host TSC ticks; `None` when it stands still.
    due: Option<u64>,
    /// IA32_TSC_DEADLINE, in the guest's TSC; 0 when not armed.
    guest_deadline: u64,
    /// Guest TSC less host TSC, modulo 2^64.
    tsc_offset: u64,
}

impl Timer {
    pub(crate) const fn new(timing: Timing) -> Self {
        Self {
            timing,
            mode: TimerMode::OneShot,
            divide: 0,
            divide_shift: 1,
            initial: 0,
            end: 0,
            due: None,
            guest_deadline: 0,
            tsc_offset: 0,
        }
    }

    /// The state after INIT or reset. The guest's TSC runs on.
    pub(crate) fn reset(&mut self) {
        *self = Self {
            tsc_offset: self.tsc_offset,
            ..Self::new(self.timing)
        };
    }

    pub(crate) const fn divide(&self) -> u32 {
        self.divide
    }

    pub(crate) const fn initial(&self) -> u32 {
        self.initial
    }

    pub(crate) const fn due(&self) -> Option<u64> {
        self.due
    }

    /// IA32_TSC_DEADLINE as the guest reads it.
    pub(crate) const fn guest_deadline(&self) -> u64 {
        self.guest_deadline
    }

    /// Host TSC `tsc`, in the unit of [`Timer::end`].
    fn fixed(&self, tsc: u64) -> u128 {
        u128::from(tsc) << (self.timing.tsc_per_count.shift() & 127)
    }

    /// The duration of `count` divided counts, in the unit of [`Timer::end`]; below 2^103.
    fn span(&self, count: u32) -> u128 {
        self.timing
            .tsc_per_count
            .fixed(u64::from(count) << (self.divide_shift & 7))
    }

    fn set_end(&mut self, end: u128) {
        self.end = end;
        self.due = Some(ceil(end, self.timing.tsc_per_count.shift()));
    }

    /// Starts counting down `count` at `now`; zero stops.
    fn count_down(&mut self, count: u32, now: u64) {
        if count == 0 {
            self.due = None;
        } else {
            self.set_end(self.fixed(now).saturating_add(self.span(count)));
        }
    }

    /// Fires if due: true at most once for all that was missed. Periods keep their phase.
    pub(crate) fn expire(&mut self, now: u64) -> bool {
        if self.due.is_none_or(|due| now < due) {
            return false;
        }
        match self.mode {
            TimerMode::Periodic => self.reload(now),
            TimerMode::OneShot => self.due = None,
            TimerMode::TscDeadline | TimerMode::Reserved => {
                self.guest_deadline = 0;
                self.due = None;
            }
        }
        true
    }

    /// Moves the end of a period that has ended to the first one after `now`.
    fn reload(&mut self, now: u64) {
        let period = self.span(self.initial);
        let mut end = self.end.saturating_add(period);
        let late = self.fixed(now).checked_sub(end);
        // Only when whole periods were missed is there a division. A period is never zero here: the
        // initial count is not, or the timer would stand still.
        if let Some(missed) = late.and_then(|late| late.checked_div(period)) {
            end = end.saturating_add(missed.saturating_add(1).saturating_mul(period));
        }
        self.set_end(end);
    }

    /// The current count register. The caller has let the timer expire first.
    pub(crate) fn current(&self, now: u64) -> u32 {
        if !self.mode.counts() || self.due.is_none() {
            return 0;
        }
        let counts = self.timing.counts(self.end.saturating_sub(self.fixed(now)));
        let shift = self.divide_shift & 7;
        let divided = counts.saturating_add((1 << shift) - 1) >> shift;
        // Not zero before the interrupt, for a guest that waits for the zero.
        u32::try_from(divided).map_or(self.initial, |count| count.min(self.initial).max(1))
    }

    /// Writes the initial count: starts a new count, or stops. No effect in the other modes (SDM
    /// vol. 3A, "TSC-Deadline Mode").
    pub(crate) fn write_initial(&mut self, value: u32, now: u64) {
        if self.mode.counts() {
            self.initial = value;
            self.count_down(value, now);
        }
    }

    /// Writes the divide configuration. A running count keeps its value and goes on at the new rate.
    pub(crate) fn write_divide(&mut self, value: u32, now: u64) {
        let current = self.current(now);
        self.set_divide(value);
        if self.mode.counts() && self.due.is_some() {
            self.count_down(current, now);
        }
    }

    /// Sets the divide configuration of a timer that stands still.
    pub(crate) fn set_divide(&mut self, value: u32) {
        self.divide = value & DIVIDE_WRITABLE;
        // 000 divides by 2, 110 by 128, 111 by 1.
        let code = ((value >> 1) & 4) | (value & 3);
        self.divide_shift = (code + 1) & 7;
    }

    /// Changes the mode. Between one-shot and periodic a count runs on; every other change stops the
    /// timer (SDM vol. 3A, "TSC-Deadline Mode").
    pub(crate) fn set_mode(&mut self, mode: TimerMode) {
        if mode != self.mode && !(mode.counts() && self.mode.counts()) {
            self.due = None;
            self.initial = 0;
            self.guest_deadline = 0;
        }
        self.mode = mode;
    }

    /// Writes IA32_TSC_DEADLINE, in the guest's TSC. No effect outside TSC-deadline mode.
    pub(crate) fn write_deadline(&mut self, value: u64, now: u64) {
        if self.mode == TimerMode::TscDeadline {
            self.guest_deadline = value;
            self.aim(now);
        }
    }

    /// The guest's TSC is now the host's plus `offset`, modulo 2^64.
    pub(crate) fn set_tsc_offset(&mut self, offset: u64, now: u64) {
        self.tsc_offset = offset;
        if self.mode == TimerMode::TscDeadline {
            self.aim(now);
        }
    }

    /// Translates the guest's deadline. A deadline in the past is due at once.
    fn aim(&mut self, now: u64) {
        let guest_now = now.wrapping_add(self.tsc_offset);
        self.due = (self.guest_deadline != 0)
            .then(|| now.saturating_add(self.guest_deadline.saturating_sub(guest_now)));
    }

    /// Continues a count found elsewhere: `current` of `initial` is left at `now`.
    pub(crate) fn resume(&mut self, initial: u32, current: u32, now: u64) {
        if !self.mode.counts() {
            return;
        }
        self.initial = initial;
        // A periodic timer seen at zero is about to reload.
        let left = match self.mode {
            TimerMode::Periodic if current == 0 => initial,
            _ => current.min(initial),
        };
        self.count_down(left, now);
    }
}
