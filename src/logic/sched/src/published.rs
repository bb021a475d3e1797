//! What an LP tells the others of its queue, without a lock.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

/// A view of a queue that may be out of date by the time it is read; whoever acts on it looks again under the lock.
#[derive(Debug, Default)]
pub struct Published {
    /// Entities that could run elsewhere.
    waiting: AtomicU32,
    /// Lowest virtual time among these, and what a slice is to that entity.
    first: AtomicU64,
    step: AtomicU64,
    is_idle: AtomicBool,
}

impl Published {
    /// Nothing waits; not idle.
    pub const fn new() -> Self {
        Self {
            waiting: AtomicU32::new(0),
            first: AtomicU64::new(0),
            step: AtomicU64::new(0),
            is_idle: AtomicBool::new(false),
        }
    }

    /// Whether the LP has nothing to run.
    pub fn is_idle(&self) -> bool {
        self.is_idle.load(Relaxed)
    }

    pub(crate) fn set_idle(&self, is_idle: bool) {
        if self.is_idle() != is_idle {
            self.is_idle.store(is_idle, Relaxed);
        }
    }

    pub(crate) fn set(&self, waiting: u32, first: u64, step: u64) {
        self.first.store(first, Relaxed);
        self.step.store(step, Relaxed);
        self.waiting.store(waiting, Relaxed);
    }

    /// Virtual time and step of the first that waits.
    pub(crate) fn first(&self) -> Option<(u64, u64)> {
        (self.waiting.load(Relaxed) != 0)
            .then(|| (self.first.load(Relaxed), self.step.load(Relaxed)))
    }
}

/// An LP that has nothing to run, other than `lp`: the one to kick when [`crate::RunQueue::has_surplus`].
pub fn idle_peer<'p>(
    lp: u32,
    lps: u32,
    peer: impl Fn(u32) -> Option<&'p Published>,
) -> Option<u32> {
    (1..lps)
        .filter_map(|step| lp.checked_add(step)?.checked_rem(lps))
        .find(|&other| peer(other).is_some_and(Published::is_idle))
}
