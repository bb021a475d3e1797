//! A child whose time stands still, and what sessions ask of a child.

use core::sync::atomic::Ordering;

use addr::VpIndex;
use slot_proto::PartitionState;
use vpstate::Reasons;

use super::{ChildPartition, State};
use crate::arch::x86::insn;
use crate::arch::x86::lp::LpArea;
use crate::partition::Partition;
use crate::scheduler;
use crate::vp::fill_overlay;

impl ChildPartition {
    /// Lets its clocks stand still, and its VPs with them, or go on. Inside [`ChildPartition::exclusively`].
    pub fn freeze(&self, me: &LpArea, is_frozen: bool) {
        if self.is_frozen.swap(is_frozen, Ordering::SeqCst) == is_frozen {
            return;
        }
        let clock = &self.core().clock;
        if !is_frozen {
            clock.set_stopped(false, insn::rdtsc());
            self.show_time();
        }
        for vp in self.vps() {
            let Some(scheduled) = vp.scheduled() else {
                continue;
            };
            if is_frozen {
                let _ = scheduled.suspend.set(Reasons::PARTITION);
                // Not running when the call returns.
                drop(vp.core(me));
            } else {
                let _ = scheduled.suspend.clear(Reasons::PARTITION);
                // Also one that is halted: its timers were not served meanwhile.
                vp.shared.rescan.store(true, Ordering::SeqCst);
                vp.shared.attention.store(true, Ordering::SeqCst);
                scheduler::wake(me, &vp.shared);
            }
        }
        if is_frozen {
            clock.set_stopped(true, insn::rdtsc());
            self.show_time();
        }
    }

    /// Writes the reference TSC page after the clock has changed.
    pub fn show_time(&self) {
        let kind = synic::Overlay::ReferenceTsc;
        if let Some(frame) = self.overlay_frame(kind, VpIndex::new(0)) {
            fill_overlay(kind, frame, &self.core().clock, &self.parent.facts);
        }
    }
}

/// How a child is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Where it is in its life.
    pub state: PartitionState,
    /// Its time stands still.
    pub is_frozen: bool,
    /// A VP of it has run.
    pub has_run: bool,
    /// Frames in its pool, used or not.
    pub deposited: u64,
    /// Those of them that are used.
    pub used: u64,
    /// Pages mapped into it.
    pub mapped: u64,
}

impl ChildPartition {
    /// How it is now.
    pub fn standing(&self) -> Standing {
        let state = match self.properties.lock().state {
            State::Created => PartitionState::CREATED,
            State::Active => PartitionState::ACTIVE,
            State::Finalizing => PartitionState::FINALIZING,
            State::Finalized | State::Deleted => PartitionState::FINALIZED,
        };
        let mapped = self
            .memory
            .lock()
            .as_ref()
            .map_or(0, |memory| memory.mapped);
        let (free, deposited) = self.pool.lock().usage();
        Standing {
            state,
            is_frozen: self.is_frozen.load(Ordering::SeqCst),
            has_run: self.has_run.load(Ordering::SeqCst),
            deposited,
            used: deposited.saturating_sub(free),
            mapped,
        }
    }

    /// The same as [`ChildPartition::freeze`]. None of its VPs runs any more when this returns. Waits for calls that change
    /// what the partition is made of.
    pub fn set_frozen(&self, me: &LpArea, is_frozen: bool) {
        while self.exclusively(|| self.freeze(me, is_frozen)).is_none() {
            crate::panic::stop_if_asked();
            core::hint::spin_loop();
        }
    }
}
