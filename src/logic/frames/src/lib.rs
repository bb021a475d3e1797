//! Who holds each frame of RAM: the parent, with a count of uses, or a partition's pool.
//!
//! A frame that a child maps, or that holds a ring, a state page or an event area, is in use and cannot be deposited;
//! a deposited one cannot be used. Each state is one [`AtomicU16`], changed by compare-and-exchange, so any LP may
//! ask at any time without a lock, and of two that want the same frame one is refused. Nothing here panics.
//!
//! The states lie in a slice indexed by page number. A zeroed slice says that nothing is RAM.
#![no_std]
#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicU16, Ordering};

use addr::{PAGE_SIZE, Spa};

/// The state of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameState {
    /// No RAM, the hypervisor's, or beyond the table.
    NotRam,
    /// The parent's, with this many uses, at most [`MAX_USES`].
    Parent(u16),
    /// In the pool of a partition.
    Deposited(Slot),
}

/// Names the pool that holds a frame: a partition's slot, or [`Slot::PARENT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(u16);

impl Slot {
    /// The parent's own pool.
    pub const PARENT: Self = Self(SLOT_MASK);

    /// Partition slot `number`, 0 to 32,766; `None` beyond.
    pub const fn new(number: u16) -> Option<Self> {
        if number < SLOT_MASK {
            Some(Self(number))
        } else {
            None
        }
    }
}

/// Why a transition was refused. The frame is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The frame is no RAM that a partition may hold: the caller named a device, a hole or the hypervisor.
    NotRam,
    /// It lies in a pool: it cannot be used, or not be deposited again.
    Deposited,
    /// It is in use, so it cannot be deposited.
    InUse,
    /// It has as many uses as can be counted.
    TooManyUses,
    /// There is no use to end, or the frame is not in that pool: a fault of the hypervisor, not of a guest.
    NotHeld,
}

/// Most uses of one frame.
pub const MAX_USES: u16 = 0x7FFE;

const DEPOSITED: u16 = 1 << 15;
const SLOT_MASK: u16 = DEPOSITED - 1;

impl FrameState {
    /// 0 is not RAM, 1 + n the parent's with n uses, bit 15 and a slot deposited.
    const fn pack(self) -> u16 {
        match self {
            Self::NotRam => 0,
            Self::Parent(uses) => uses.saturating_add(1),
            Self::Deposited(slot) => DEPOSITED | slot.0,
        }
    }

    const fn unpack(word: u16) -> Self {
        match word {
            0 => Self::NotRam,
            word if word & DEPOSITED != 0 => Self::Deposited(Slot(word & SLOT_MASK)),
            word => Self::Parent(word - 1),
        }
    }
}

/// The states of all frames below the end of the physical map.
#[derive(Clone, Copy, Debug)]
pub struct FrameTable<'a>(&'a [AtomicU16]);

impl<'a> FrameTable<'a> {
    /// Entries of a table for the memory below `end`, in bytes.
    pub const fn entries(end: u64) -> u64 {
        end.div_ceil(PAGE_SIZE)
    }

    /// A table over `words`, which keep the states they have: zeroed ones say not RAM.
    pub const fn new(words: &'a [AtomicU16]) -> Self {
        Self(words)
    }

    /// Gives the whole frames in `len` bytes at `start` to the parent, unused, whatever they were; what lies beyond
    /// the table is left out. For the launch, before anything else is asked.
    pub fn add_ram(&self, start: Spa, len: u64) {
        let end = start.get().saturating_add(len);
        self.fill(
            start.get().div_ceil(PAGE_SIZE),
            end / PAGE_SIZE,
            FrameState::Parent(0),
        );
    }

    /// Takes the frames that `len` bytes at `start` touch out of RAM: the hypervisor's block. For the launch.
    pub fn remove_ram(&self, start: Spa, len: u64) {
        let end = start.get().saturating_add(len);
        self.fill(
            start.page().get(),
            end.div_ceil(PAGE_SIZE),
            FrameState::NotRam,
        );
    }

    /// Pages `first` to `end`, without `end`.
    fn fill(&self, first: u64, end: u64, state: FrameState) {
        let limit = self.0.len() as u64;
        let range = first.min(limit) as usize..end.min(limit) as usize;
        for word in self.0.get(range).unwrap_or_default() {
            word.store(state.pack(), Ordering::Release);
        }
    }

    /// The state of the frame that holds `spa`.
    pub fn state(&self, spa: Spa) -> FrameState {
        self.word(spa).map_or(FrameState::NotRam, |word| {
            FrameState::unpack(word.load(Ordering::Acquire))
        })
    }

    /// Whether the frame is the parent's and has no use.
    pub fn is_unused(&self, spa: Spa) -> bool {
        self.state(spa) == FrameState::Parent(0)
    }

    /// Adds a use.
    ///
    /// # Errors
    /// [`FrameError::NotRam`], [`FrameError::Deposited`], [`FrameError::TooManyUses`].
    pub fn pin(&self, spa: Spa) -> Result<(), FrameError> {
        self.change(spa, |state| match state {
            FrameState::NotRam => Err(FrameError::NotRam),
            FrameState::Deposited(_) => Err(FrameError::Deposited),
            FrameState::Parent(MAX_USES) => Err(FrameError::TooManyUses),
            FrameState::Parent(uses) => Ok(FrameState::Parent(uses.saturating_add(1))),
        })
    }

    /// Adds a use to each of `count` frames from `spa` on, or to none of them.
    ///
    /// # Errors
    /// As [`FrameTable::pin`], for the first frame that refused.
    pub fn pin_range(&self, spa: Spa, count: u64) -> Result<(), FrameError> {
        for done in 0..count {
            if let Err(error) = nth(spa, done).and_then(|spa| self.pin(spa)) {
                // Ours to take back: each was pinned just now.
                let _ = self.unpin_range(spa, done);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Ends a use.
    ///
    /// # Errors
    /// [`FrameError::NotHeld`]: it has none.
    pub fn unpin(&self, spa: Spa) -> Result<(), FrameError> {
        self.change(spa, |state| match state {
            FrameState::Parent(uses) => uses
                .checked_sub(1)
                .map(FrameState::Parent)
                .ok_or(FrameError::NotHeld),
            FrameState::NotRam | FrameState::Deposited(_) => Err(FrameError::NotHeld),
        })
    }

    /// Ends a use of each of `count` frames from `spa` on.
    ///
    /// # Errors
    /// [`FrameError::NotHeld`]: one of them had none; the others are done all the same.
    pub fn unpin_range(&self, spa: Spa, count: u64) -> Result<(), FrameError> {
        let mut result = Ok(());
        for index in 0..count {
            result = nth(spa, index).and_then(|spa| self.unpin(spa)).and(result);
        }
        result
    }

    /// Puts an unused frame of the parent into the pool of `slot`.
    ///
    /// # Errors
    /// [`FrameError::NotRam`], [`FrameError::Deposited`], [`FrameError::InUse`].
    pub fn deposit(&self, spa: Spa, slot: Slot) -> Result<(), FrameError> {
        self.change(spa, |state| match state {
            FrameState::NotRam => Err(FrameError::NotRam),
            FrameState::Deposited(_) => Err(FrameError::Deposited),
            FrameState::Parent(0) => Ok(FrameState::Deposited(slot)),
            FrameState::Parent(_) => Err(FrameError::InUse),
        })
    }

    /// Gives a frame in the pool of `slot` back to the parent, unused.
    ///
    /// # Errors
    /// [`FrameError::NotHeld`]: it is not in that pool.
    pub fn withdraw(&self, spa: Spa, slot: Slot) -> Result<(), FrameError> {
        self.change(spa, |state| {
            if state == FrameState::Deposited(slot) {
                Ok(FrameState::Parent(0))
            } else {
                Err(FrameError::NotHeld)
            }
        })
    }

    fn change(
        &self,
        spa: Spa,
        step: impl Fn(FrameState) -> Result<FrameState, FrameError>,
    ) -> Result<(), FrameError> {
        // What is not in the table is not RAM, and `step` refuses that.
        let Some(word) = self.word(spa) else {
            return step(FrameState::NotRam).map(|_| ());
        };
        let mut old = word.load(Ordering::Acquire);
        loop {
            let new = step(FrameState::unpack(old))?.pack();
            match word.compare_exchange_weak(old, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(()),
                Err(now) => old = now,
            }
        }
    }

    fn word(&self, spa: Spa) -> Option<&AtomicU16> {
        usize::try_from(spa.page().get())
            .ok()
            .and_then(|index| self.0.get(index))
    }
}

/// The frame `index` frames after `spa`.
fn nth(spa: Spa, index: u64) -> Result<Spa, FrameError> {
    index
        .checked_mul(PAGE_SIZE)
        .and_then(|bytes| spa.checked_add(bytes))
        .ok_or(FrameError::NotRam)
}
