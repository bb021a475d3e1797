//! What can be scheduled.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::line::Place;

/// Names an [`Entity`]: partition slot << 6 | VP index. Any number but `u32::MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct EntityId(pub u32);

/// The way from an id to the entity. What is linked in a queue must be found until it is removed from there.
pub trait Entities {
    /// The entity, or `None` when there is none.
    fn get(&self, id: EntityId) -> Option<&Entity>;
}

/// What an entity may have of the processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// 1 to 10,000; others count as the nearest of these.
    pub weight: u32,
    /// At most this percentage of one LP; 0 or 100 and more for no cap.
    pub cap_percent: u32,
}

impl Share {
    /// Weight of a VP of whom nothing is said.
    pub const DEFAULT_WEIGHT: u32 = 100;
    /// Default weight, no cap.
    pub const DEFAULT: Self = Self {
        weight: Self::DEFAULT_WEIGHT,
        cap_percent: 0,
    };
}

/// Where an entity is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum State {
    /// Not runnable.
    Off,
    /// Not runnable until a deadline; in the heap of the halted.
    Parked,
    /// Runnable, in the heap from which others may steal.
    Queued,
    /// Runnable, in the heap of those bound to the LP.
    Bound,
    /// Runnable, but its cap is used up; in the heap of the throttled.
    Throttled,
    /// Chosen.
    Running,
    /// Stolen and not adopted yet.
    InTransit,
}

/// A field that is guarded by the lock of the queue, so that plain accesses do.
#[derive(Debug)]
pub(crate) struct Word(AtomicU64);

impl Word {
    pub(crate) const fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// As [`Word`], with 32 bits.
#[derive(Debug)]
pub(crate) struct Half(AtomicU32);

impl Half {
    pub(crate) const fn new(value: u32) -> Self {
        Self(AtomicU32::new(value))
    }

    pub(crate) fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, value: u32) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// A place in a heap. Links are ids; [`Node::NONE`] for no link.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) key: Word,
    pub(crate) parent: Half,
    pub(crate) left: Half,
    pub(crate) right: Half,
    pub(crate) rank: Half,
}

impl Node {
    pub(crate) const NONE: u32 = u32::MAX;
}

/// The scheduler's part of a VP. All but [`Entity::home`], [`Entity::runtime`] and the place in a [`crate::Line`] is guarded by the lock of the home's
/// queue.
#[derive(Debug)]
pub struct Entity {
    state: Half,
    home: AtomicU32,
    bound: Half,
    weight: Half,
    cap_percent: Half,
    /// It was woken while it was running.
    pub(crate) woken: Half,
    pub(crate) virtual_time: Word,
    runtime: Word,
    /// When the current period of the cap ends, and what was used of it.
    pub(crate) period_end: Word,
    used: Word,
    pub(crate) node: Node,
    /// Guarded by the lock of the line.
    pub(crate) place: Place,
}

impl Entity {
    /// An entity that is not runnable, with LP `home`; `bound`: and never leaves it.
    pub const fn new(share: Share, home: u32, bound: bool) -> Self {
        Self {
            state: Half::new(State::Off as u32),
            home: AtomicU32::new(home),
            bound: Half::new(bound as u32),
            weight: Half::new(share.weight),
            cap_percent: Half::new(share.cap_percent),
            woken: Half::new(0),
            virtual_time: Word::new(0),
            runtime: Word::new(0),
            period_end: Word::new(0),
            used: Word::new(0),
            node: Node {
                key: Word::new(0),
                parent: Half::new(Node::NONE),
                left: Half::new(Node::NONE),
                right: Half::new(Node::NONE),
                rank: Half::new(0),
            },
            place: Place::new(),
        }
    }

    /// The LP whose queue the entity belongs to.
    pub fn home(&self) -> u32 {
        self.home.load(Ordering::Acquire)
    }

    /// Ticks that the entity has run.
    pub fn runtime(&self) -> u64 {
        self.runtime.get()
    }

    /// Changes the share, at any time; of use from the next choice on.
    pub fn set_share(&self, share: Share) {
        self.weight.set(share.weight);
        self.cap_percent.set(share.cap_percent);
    }

    pub(crate) fn state(&self) -> State {
        const ALL: [State; 7] = [
            State::Off,
            State::Parked,
            State::Queued,
            State::Bound,
            State::Throttled,
            State::Running,
            State::InTransit,
        ];
        ALL.get(self.state.get() as usize)
            .copied()
            .unwrap_or(State::Off)
    }

    pub(crate) fn set_state(&self, state: State) {
        self.state.set(state as u32);
    }

    /// Hands the entity to the queue of `lp`: what was written before is seen by whoever reads it as home.
    pub(crate) fn move_to(&self, lp: u32) {
        self.home.store(lp, Ordering::Release);
    }

    pub(crate) fn is_bound(&self) -> bool {
        self.bound.get() != 0
    }

    pub(crate) fn set_bound(&self, bound: bool) {
        self.bound.set(bound.into());
    }

    /// What `ticks` of running are in virtual time: at least 1, so that time goes on.
    pub(crate) fn scaled(&self, ticks: u64) -> u64 {
        scaled(ticks, self.weight.get())
    }

    /// Takes down `ticks` of running that end at `now`.
    pub(crate) fn charge(&self, ticks: u64, now: u64, period: u64) {
        self.virtual_time
            .set(self.virtual_time.get().wrapping_add(self.scaled(ticks)));
        self.runtime.set(self.runtime.get().wrapping_add(ticks));
        if self.quota(period).is_some() {
            self.used.set(self.used.get().saturating_add(ticks));
            self.renew(now, period);
        }
    }

    /// Ticks that are left of the cap in the current period; `None` without a cap.
    pub(crate) fn left(&self, now: u64, period: u64) -> Option<u64> {
        let quota = self.quota(period)?;
        self.renew(now, period);
        Some(quota.saturating_sub(self.used.get()))
    }

    /// Starts the period that `now` is in. What was used too much counts in the new one.
    fn renew(&self, now: u64, period: u64) {
        let end = self.period_end.get();
        if now >= end {
            let passed = ((now - end) / period.max(1)).saturating_add(1);
            let quota = self.quota(period).unwrap_or(u64::MAX);
            self.used
                .set(self.used.get().saturating_sub(quota.saturating_mul(passed)));
            self.period_end
                .set(end.saturating_add(passed.saturating_mul(period)));
        }
    }

    fn quota(&self, period: u64) -> Option<u64> {
        let percent = self.cap_percent.get();
        (1..100)
            .contains(&percent)
            .then(|| (period / 100).saturating_mul(percent.into()).max(1))
    }
}

/// What `ticks` of running are in virtual time at `weight`.
pub(crate) fn scaled(ticks: u64, weight: u32) -> u64 {
    let weight = u64::from(weight.clamp(1, 10_000));
    (ticks.saturating_mul(Share::DEFAULT_WEIGHT.into()) / weight).max(1)
}

/// Whether virtual time or deadline `a` comes before `b`. Both wrap around; they are never half the range apart.
pub(crate) const fn before(a: u64, b: u64) -> bool {
    (a.wrapping_sub(b) as i64) < 0
}

/// The later of two virtual times.
pub(crate) const fn later(a: u64, b: u64) -> u64 {
    if before(a, b) { b } else { a }
}
