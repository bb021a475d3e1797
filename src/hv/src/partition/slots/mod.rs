//! The control channel and the slots.

use addr::Gpn;
use vmbus::Opening;
use vmbus_proto::{Relid, status};

use super::Partition;
use super::vmbus::parent::Channel;
use crate::arch::x86::lp::LpArea;
use crate::virt::Virt;

/// The parent opens `channel`, on a ring in `pages`. The status for it.
pub fn opened(_: &LpArea, _: Channel, _: &Opening, _: &[Gpn; slot_proto::GPADL_PAGES]) -> u32 {
    status::FAILURE
}

/// The parent has closed `channel`, or starts anew. Nobody is in its ring when this returns. Also of one that is not open.
pub fn closed<V: Virt>(_: &'static LpArea, _: Channel) {}

/// The parent signals `channel`, which is open, from its VP of this LP.
pub fn signalled(_: &LpArea, _: Channel) {}

/// The server of `child` may have notices for whoever has its slot.
pub fn notices(_: &LpArea, _: &dyn Partition) {}

/// `child` signals its channel `relid`, which is open.
pub fn child_signalled(_: &LpArea, _: &dyn Partition, _: Relid) {}
