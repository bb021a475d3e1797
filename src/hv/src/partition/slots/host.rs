//! What sessions ask of the machine, whose code differs by vendor: theirs does not.

use addr::PartitionId;
use hypercall::Outcome;
use slot_proto::PartitionState;
use tlfs::{Control, HvError};

use crate::arch::x86::lp::LpArea;
use crate::partition::{Partition, directory};

/// A child as sessions see it.
pub trait Attachable: Partition {
    /// How it is now.
    fn standing(&self) -> Standing;
    /// Lets its clocks stand still, and its VPs with them, or go on. None runs any more when this returns. Waits for
    /// calls that change what the partition is made of.
    fn set_frozen(&self, me: &LpArea, is_frozen: bool);
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

/// The VP of the parent for which requests are carried out, between two runs of its guest.
pub trait Host {
    /// Its LP.
    fn lp(&self) -> &'static LpArea;
    /// The parent.
    fn parent(&self) -> &'static dyn Partition;
    /// Carries out a piece of a hypercall, as if the VP had made it.
    fn call(&mut self, control: Control, input: &[u8], output: &mut [u8]) -> (Outcome, usize);
    /// Calls `then` with the child in place `at` of the directory, if there is one.
    fn child_at(&self, at: usize, then: &mut dyn FnMut(&dyn Attachable));
}

/// Calls `then` with child `id`.
///
/// # Errors
/// `INVALID_PARTITION_ID`.
pub fn with_child<T>(
    host: &dyn Host,
    id: PartitionId,
    then: impl FnOnce(&dyn Attachable) -> T,
) -> Result<T, HvError> {
    let (mut then, mut result) = (Some(then), None);
    host.child_at(directory::slot_of(id), &mut |child| {
        if child.core().id == id
            && let Some(then) = then.take()
        {
            result = Some(then(child));
        }
    });
    result.ok_or(HvError::INVALID_PARTITION_ID)
}
