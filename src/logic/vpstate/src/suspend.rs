//! Why a VP does not run: one word of reasons, any of which is enough.
//!
//! Every transition is one read-modify-write of one word, so of all that take away the last reason exactly one sees
//! that the VP may run now, and puts it on a run queue; and of all that raise an intercept exactly one sends the
//! notification.
//!
//! The parent's order of clearing (intercept, then explicit) and of stopping (set explicit, then look at intercept)
//! works because an intercept is raised by the LP that runs the VP, before it lets go of the VP's core: who holds the
//! core after setting [`Reasons::EXPLICIT`] sees either no intercept, and none will come, or one whose message is
//! written.

use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

/// A set of reasons.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reasons(u32);

impl Reasons {
    /// None: the VP may run.
    pub const NONE: Self = Self(0);
    /// The parent said so (register 0). A new VP has it.
    pub const EXPLICIT: Self = Self(1);
    /// An intercept message waits for the parent (register 1).
    pub const INTERCEPT: Self = Self(1 << 1);
    /// The parent stopped dispatching (register 3).
    pub const DISPATCH: Self = Self(1 << 2);
    /// Waits for a start-up IPI.
    pub const STARTUP: Self = Self(1 << 3);
    /// Executed HLT.
    pub const HALTED: Self = Self(1 << 4);
    /// Read the guest idle register.
    pub const IDLE: Self = Self(1 << 5);
    /// The partition is not initialized, is being finalized, or its time is frozen.
    pub const PARTITION: Self = Self(1 << 6);
    /// It is being deleted. Nothing takes this away.
    pub const ENDING: Self = Self(1 << 7);

    /// The reasons of both.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether one of `other` is here.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether the VP may run.
    pub const fn is_runnable(self) -> bool {
        self.0 == 0
    }

    /// The internal activity register (4): bit 0 waits for SIPI, 1 halted, 2 idle.
    pub const fn activity(self) -> u64 {
        (self.0 >> 3 & 7) as u64
    }

    /// The reasons of a value of the internal activity register; `None` for reserved bits.
    pub const fn from_activity(value: u64) -> Option<Self> {
        if value > 7 {
            None
        } else {
            Some(Self((value as u32) << 3))
        }
    }
}

/// What a transition did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct Change {
    /// The reasons before.
    pub before: Reasons,
    /// The reasons after.
    pub after: Reasons,
}

impl Change {
    /// Nothing changed.
    pub const NONE: Self = Self {
        before: Reasons::NONE,
        after: Reasons::NONE,
    };

    /// The last reason is gone: put the VP on a run queue. One caller is told.
    pub const fn is_started(self) -> bool {
        !self.before.is_runnable() && self.after.is_runnable()
    }

    /// There is a first reason: take the VP off the run queue, and off its LP. One caller is told.
    pub const fn is_stopped(self) -> bool {
        self.before.is_runnable() && !self.after.is_runnable()
    }
}

/// The reasons of one VP. Any LP may use it.
#[derive(Debug)]
pub struct Suspend(AtomicU32);

impl Suspend {
    /// A VP with these reasons.
    pub const fn new(reasons: Reasons) -> Self {
        Self(AtomicU32::new(reasons.0))
    }

    /// A VP as HvCallCreateVp makes it: stopped by the parent and, other than the boot processor, waiting for a SIPI.
    /// `partition` are the reasons of its partition: [`Reasons::PARTITION`] or none.
    pub const fn created(is_bsp: bool, partition: Reasons) -> Self {
        let own = Reasons::EXPLICIT.with(partition);
        Self::new(if is_bsp {
            own
        } else {
            own.with(Reasons::STARTUP)
        })
    }

    /// The reasons now.
    pub fn reasons(&self) -> Reasons {
        Reasons(self.0.load(SeqCst))
    }

    /// Adds `reasons`.
    pub fn set(&self, reasons: Reasons) -> Change {
        let before = self.0.fetch_or(reasons.0, SeqCst);
        Change {
            before: Reasons(before),
            after: Reasons(before | reasons.0),
        }
    }

    /// Takes `reasons` away.
    pub fn clear(&self, reasons: Reasons) -> Change {
        let before = self.0.fetch_and(!reasons.0, SeqCst);
        Change {
            before: Reasons(before),
            after: Reasons(before & !reasons.0),
        }
    }

    /// Makes those of `mask` the ones of `reasons`, in one step.
    pub fn replace(&self, mask: Reasons, reasons: Reasons) -> Change {
        let next = |word: u32| (word & !mask.0) | (reasons.0 & mask.0);
        // The closure never refuses.
        let before = match self.0.fetch_update(SeqCst, SeqCst, |word| Some(next(word))) {
            Ok(word) | Err(word) => word,
        };
        Change {
            before: Reasons(before),
            after: Reasons(next(before)),
        }
    }

    /// The LP that runs the VP wrote an intercept message: nothing runs before the parent has answered. True when
    /// the notification is to be sent; false when one is outstanding already, and the message must not be replaced.
    /// Call it with the VP's core held.
    pub fn raise_intercept(&self) -> bool {
        !self.set(Reasons::INTERCEPT).before.has(Reasons::INTERCEPT)
    }

    /// An interrupt, NMI or INIT was left in the inbox of a VP that may be halted or idle.
    ///
    /// Nothing is slept through: a sender posts, then calls this; a VP that halts sets [`Reasons::HALTED`], then looks at
    /// its inbox, and calls this itself when there is something. Likewise [`Reasons::STARTUP`] and `Inbox::has_start`.
    pub fn wake(&self) -> Change {
        // Looks first: most VPs that get an interrupt run.
        if self.reasons().has(Reasons::HALTED.with(Reasons::IDLE)) {
            self.clear(Reasons::HALTED.with(Reasons::IDLE))
        } else {
            Change::NONE
        }
    }
}
