//! The end of VPs and partitions.
#![expect(unsafe_code, reason = "frees the frames of VPs and partitions")]

use core::sync::atomic::Ordering;

use hypercall::Progress;
use tlfs::HvError;
use vpstate::Reasons;

use super::{ChildPartition, ChildVp, State};
use crate::arch::x86::lp::LpArea;
use crate::mm::owners;
use crate::mm::pool::PoolFrames;
use crate::partition::directory::{self, ChildRef};
use crate::partition::state_page::StatePages;
use crate::partition::{Partition, notices, slots};
use crate::scheduler;

/// Leaves and tables of the address space that one piece of finalizing frees.
const BUDGET: u32 = 256;

impl ChildPartition {
    /// Stops `vp` for ever and takes away what it shares with the parent. Its frames stay until the partition is
    /// finalized. Inside [`ChildPartition::exclusively`].
    pub fn delete_vp(&self, me: &LpArea, vp: &'static ChildVp) {
        self.silence(me, vp);
        self.forget_vp(vp.shared.index);
        let _guard = self.properties.lock();
        vp.next_deleted
            .store(self.deleted.load(Ordering::Relaxed), Ordering::Relaxed);
        self.deleted
            .store((&raw const *vp).cast_mut(), Ordering::Release);
    }

    fn silence(&self, me: &LpArea, vp: &'static ChildVp) {
        if let Some(scheduled) = vp.scheduled() {
            let _ = scheduled.suspend.set(Reasons::ENDING);
            scheduler::remove(me, &vp.shared);
            // It has left its LP when this returns, and posts nothing any more.
            drop(vp.core(me));
            scheduler::remove(me, &vp.shared);
            notices::forget(scheduled);
        }
        *vp.pages.lock() = StatePages::new();
        vp.statistics.clear();
        self.remove_vp_overlays(me, vp);
    }

    /// Takes the partition apart, a piece at a time: [`Progress::Yield`] asks to be called again. Never fails.
    ///
    /// # Errors
    /// None.
    pub fn finalize(&self, me: &LpArea) -> Result<Progress, HvError> {
        let before = {
            let mut properties = self.properties.lock();
            let before = properties.state;
            match before {
                State::Created | State::Active => {
                    properties.state = State::Finalizing;
                    self.core.links.close();
                    self.core.vmbus.close();
                }
                State::Finalizing => {}
                State::Finalized => return Ok(Progress::Done),
                State::Deleted => return Err(HvError::INVALID_PARTITION_STATE),
            }
            before
        };
        if before != State::Finalizing {
            slots::partition_ends(me, self);
        }
        let piece = self.exclusively(|| self.finalize_piece(me));
        Ok(piece.unwrap_or(Progress::Yield))
    }

    fn finalize_piece(&self, me: &LpArea) -> Progress {
        if let Some(vp) = self.vps().next() {
            // One at a time; none of them runs or is woken after the first round.
            for other in self.vps() {
                if let Some(scheduled) = other.scheduled() {
                    let _ = scheduled.suspend.set(Reasons::ENDING);
                }
            }
            self.delete_vp(me, vp);
            return Progress::Yield;
        }
        // Whoever found a VP before it was taken out of the table uses it no longer.
        if self.core.users.load(Ordering::Acquire) > 1 {
            return Progress::Yield;
        }
        if let Some(vp) = self.take_deleted() {
            // The LP that looked it up last may still hold its core, for a moment.
            while vp.try_core().is_none() {
                crate::panic::stop_if_asked();
                core::hint::spin_loop();
            }
            scheduler::settle();
            notices::settle();
            // SAFETY: it is in no table, list or queue, and nobody has its core.
            unsafe { ChildVp::destroy(vp, &self.pool) };
            return Progress::Yield;
        }
        if self
            .core
            .links
            .release(&mut self.chunks(), BUDGET as usize, false)
        {
            return Progress::Yield;
        }
        if self.core.vmbus.release(self.chunks(), BUDGET as usize) {
            return Progress::Yield;
        }
        self.remove_partition_overlays(me);
        let mut guard = self.memory.lock();
        if let Some(memory) = guard.as_mut() {
            let is_empty =
                memory
                    .space
                    .release_all(&mut PoolFrames(&self.pool), BUDGET, &mut |spa, count| {
                        if owners::table().unpin_range(spa, count).is_err() {
                            log::error!("frames at {spa:?} were not in use");
                        }
                    });
            if !is_empty {
                return Progress::Yield;
            }
        }
        if let Some(memory) = guard.take() {
            // SAFETY: no VP is left, so no LP uses the tables.
            unsafe { memory.destroy(&self.pool) };
        }
        drop(guard);
        self.overrides.lock().clear(&mut self.pool.lock());
        self.statistics.clear();
        self.properties.lock().state = State::Finalized;
        Progress::Done
    }

    fn take_deleted(&self) -> Option<&'static ChildVp> {
        let _guard = self.properties.lock();
        // SAFETY: what is in the list lies in its frame until `destroy`.
        let vp: &'static ChildVp = unsafe { self.deleted.load(Ordering::Acquire).as_ref() }?;
        self.deleted
            .store(vp.next_deleted.load(Ordering::Relaxed), Ordering::Release);
        Some(vp)
    }

    /// Deletes a partition that is finalized, or was never initialized, and has no deposited frame left.
    ///
    /// # Errors
    /// `INVALID_PARTITION_STATE`; `OPERATION_DENIED`: its pool is to be withdrawn first, or another call is at it.
    pub fn delete(child: ChildRef) -> Result<(), HvError> {
        let checked = child.exclusively(|| {
            let mut properties = child.properties.lock();
            if !matches!(properties.state, State::Created | State::Finalized) {
                return Err(HvError::INVALID_PARTITION_STATE);
            }
            if child.pool.lock().usage().1 != 0 {
                return Err(HvError::OPERATION_DENIED);
            }
            // From here on nothing is deposited, and nobody else deletes it.
            properties.state = State::Deleted;
            Ok(())
        });
        checked.unwrap_or(Err(HvError::OPERATION_DENIED))?;
        child.statistics.clear();
        let partition = child.forever();
        drop(child);
        directory::remove(partition);
        scheduler::settle();
        notices::settle();
        // SAFETY: out of the directory, without users, and empty.
        unsafe { Self::free(partition) };
        Ok(())
    }
}
