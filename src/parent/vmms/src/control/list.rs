//! Which partitions there are.

use addr::PartitionId;
use slot_proto::{Generation, List, ListDone, ListEntry, Request};
use tlfs::wire::Zero;

use super::{Calls, ControlError};

/// A partition as the hypervisor lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its id.
    pub partition: PartitionId,
    /// The daemon's number for it; 0 when it was not given one.
    pub tag: u64,
    /// Its slot and the session's generation.
    pub slot: Option<(u32, Generation)>,
}

impl Calls {
    /// All children.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn list(&self) -> Result<Vec<Held>, ControlError> {
        const WHAT: &str = "listing the partitions";
        let mut held = Vec::new();
        let mut start = 0;
        loop {
            let request = Request::List(List {
                start,
                reserved: Zero,
            });
            let body = self.ask(WHAT, &request)?;
            let senseless = |_| ControlError::Senseless(WHAT);
            let done = ListDone::decode(&body).map_err(senseless)?;
            let entries = body.get(ListDone::BYTES..).unwrap_or_default();
            for entry in entries
                .chunks_exact(ListEntry::BYTES)
                .take(done.count.into())
            {
                held.push(Held::of(&ListEntry::decode(entry).map_err(senseless)?));
            }
            if done.next <= start {
                return Ok(held);
            }
            start = done.next;
        }
    }
}

impl Held {
    fn of(entry: &ListEntry) -> Self {
        Self {
            partition: entry.partition,
            tag: entry.tag,
            slot: (entry.slot != slot_proto::NO_SLOT).then_some((entry.slot, entry.generation)),
        }
    }
}
