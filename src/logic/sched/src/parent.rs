//! The parent's VP of an LP, as the LP's queue sees it.

use crate::entity::{before, later, scaled};

/// What the parent's VP could do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParentState {
    /// Halted, without anything that would wake it.
    Idle,
    /// It could run.
    Runnable {
        /// An interrupt or event waits that it would take at once.
        has_pending: bool,
    },
}

/// Weight when it computes beside children: as ten of these.
const WEIGHT: u32 = 1000;
/// Time that goes before children can be saved up, in slices.
const ALLOWANCE_SLICES: u64 = 10;

#[derive(Debug)]
pub(crate) struct Parent {
    pub(crate) virtual_time: u64,
    state: ParentState,
    /// Until when it goes before children.
    first_until: u64,
    /// Ticks that it may still go before children: grows by three quarters of the time.
    allowance: u64,
}

impl Parent {
    pub(crate) const fn new() -> Self {
        Self {
            virtual_time: 0,
            state: ParentState::Idle,
            first_until: 0,
            allowance: 0,
        }
    }

    /// What a slice is in its virtual time.
    pub(crate) fn step(slice: u64) -> u64 {
        scaled(slice, WEIGHT)
    }

    pub(crate) fn is_runnable(&self) -> bool {
        self.state != ParentState::Idle
    }

    pub(crate) fn is_first(&self, now: u64) -> bool {
        self.is_runnable() && now < self.first_until
    }

    /// `elapsed` ticks passed until `now`; the parent ran if `ran`.
    pub(crate) fn charge(&mut self, elapsed: u64, now: u64, ran: bool, slice: u64) {
        if ran {
            self.virtual_time = self.virtual_time.wrapping_add(scaled(elapsed, WEIGHT));
            let spent = self
                .first_until
                .min(now)
                .saturating_sub(now.saturating_sub(elapsed));
            self.allowance = self.allowance.saturating_sub(spent);
        }
        self.allowance = self
            .allowance
            .saturating_add(elapsed / 4 * 3)
            .min(slice.saturating_mul(ALLOWANCE_SLICES));
    }

    /// Takes its new state. A whole slice goes before children after a halt, a quarter for an interrupt. `floor` is the
    /// virtual time of the LP: a halt saves up no time, and going first makes for no great debt.
    pub(crate) fn observe(&mut self, state: ParentState, floor: u64, now: u64, slice: u64) {
        let step = Self::step(slice);
        let ticks = match (self.state, state) {
            (_, ParentState::Idle) => 0,
            (ParentState::Idle, _) => {
                self.virtual_time = later(self.virtual_time, floor.wrapping_sub(step));
                slice
            }
            (_, ParentState::Runnable { has_pending: true }) => slice / 4,
            _ => 0,
        };
        let most = floor.wrapping_add(step.saturating_mul(4));
        if before(most, self.virtual_time) {
            self.virtual_time = most;
        }
        self.state = state;
        if ticks != 0 && self.allowance >= slice / 2 {
            self.first_until = self.first_until.max(now.saturating_add(ticks));
        }
    }
}
