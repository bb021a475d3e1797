//! The end of all children and of the parent's own ports, when the parent's kernel goes: nobody would tell the next one which memory is not its own.

use frames::Slot;
use hypercall::Progress;

use super::super::ParentVp;
use super::BURST;
use crate::mm::frames as allocator;
use crate::partition::child::{ChildPartition, State};
use crate::partition::directory::{self, CHILDREN, ChildRef};
use crate::partition::{Partition, statistics};

impl ParentVp {
    /// One piece of stopping and deleting every child and giving back every deposited frame. True when that is done.
    pub(in crate::vp::parent) fn end_children(&mut self) -> bool {
        let Some(child) = (0..CHILDREN).find_map(directory::at) else {
            statistics::clear();
            // Its ports lie in frames that it deposited, too.
            let links = &self.partition.core.links;
            let is_more = links.release(&mut self.partition.chunks(), BURST, true);
            return !is_more && self.give_back(None);
        };
        let state = child.properties.lock().state;
        match state {
            State::Active | State::Finalizing => {
                // A piece of it; nothing of it fails for a partition in these states.
                let _: Result<Progress, _> = child.finalize(self.lp);
            }
            // Another LP has it nearly out of the directory.
            State::Deleted => {}
            State::Created | State::Finalized => {
                let given = child.exclusively(|| self.give_back(Some(&child)));
                if given == Some(true) {
                    // Refused where another LP is at it; then the next piece sees it gone.
                    let _ = ChildPartition::delete(child);
                }
            }
        }
        false
    }

    /// Shows some frames of a pool, or of those that the parent deposited for itself, to the parent again. True when none
    /// is left.
    fn give_back(&mut self, child: Option<&ChildRef>) -> bool {
        let slot = match child {
            Some(child) => Slot::new(child.slot as u16).unwrap_or(Slot::PARENT),
            None => Slot::PARENT,
        };
        let next = || match child {
            Some(child) => child.pool.lock().withdraw(),
            None => allocator::reclaim(),
        };
        let mut is_empty = false;
        let edited = self.edit_slat(|slat| {
            let mut all = paging::Cleanup::default();
            for _ in 0..BURST {
                let Some(spa) = next() else {
                    is_empty = true;
                    break;
                };
                let cleanup = slat.withdraw(spa, slot);
                slat.absorb(&mut all, cleanup);
            }
            Ok(all)
        });
        is_empty && edited.is_ok()
    }
}
