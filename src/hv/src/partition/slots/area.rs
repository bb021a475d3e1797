//! What others than the session's own LP leave for a worker: events, intercepts, notices; and the interrupt.
//!
//! Any LP comes here from a VP of a child. A place's link is locked for these steps alone, before the child's server, and
//! never while somebody is waited for.

use addr::{PartitionId, VpIndex};
use ring::Contiguous;
use slot_proto::event::Faults;
use slot_proto::{Notice, Opening};
use slots::{Events, NoticeError, NoticeQueue};
use tlfs::wire::Zero;
use vmbus_proto::Relid;

use super::pinned::PinnedWords;
use super::{Place, place};
use crate::arch::x86::lp::LpArea;
use crate::partition::vmbus::parent::Channel;
use crate::partition::vmbus::{self, with_bus};
use crate::partition::{Partition, PartitionCore};

use core::sync::atomic::Ordering;

/// What a channel that is open shows others.
pub struct Link {
    /// The control page of the ring to user space, for the doorbell.
    pub bell: Contiguous<'static>,
    /// Of a slot with a session.
    pub area: Option<Area>,
}

/// The event area of a session.
pub struct Area {
    /// Whose.
    pub partition: PartitionId,
    /// Its pages.
    pub pages: PinnedWords,
    /// Our place in its queue.
    pub queue: NoticeQueue,
    /// The worker broke the queue.
    pub is_broken: bool,
}

impl Area {
    /// The area as the worker sees it.
    pub fn events(&self) -> Events<&[core::sync::atomic::AtomicU64]> {
        Events::resume(self.pages.words())
    }

    /// Queues what the server of `child` has to tell. True when something is new.
    fn fill(&mut self, child: &dyn Partition) -> bool {
        let mut is_new = false;
        while !self.is_broken {
            let events = Events::resume(self.pages.words());
            match self.queue.room(&events) {
                Ok(0) => break,
                Ok(_) => {}
                Err(NoticeError::Full | NoticeError::BadHead) => {
                    self.is_broken = true;
                    events.fault(Faults::RING_STOPPED);
                    return true;
                }
            }
            let Ok(Some(notice)) = with_bus(child, |bus| bus.next_notice()) else {
                break;
            };
            // There is room: it was asked for.
            let _ = self.queue.push(&events, &worded(notice));
            is_new = true;
        }
        is_new
    }
}

/// The notice as the worker gets it.
fn worded(notice: ::vmbus::Notice) -> Notice {
    use ::vmbus::Notice as N;
    let opening = |opening: &::vmbus::Opening, is_open_already| Opening {
        ring: opening.ring,
        downstream_page: opening.downstream_page,
        vp: opening.vp,
        version: opening.version,
        user: opening.user,
        is_open_already,
        reserved: Zero,
    };
    match notice {
        N::Open(open) => Notice::Open(open.relid, opening(&open, false)),
        N::IsOpen(open) => Notice::Open(open.relid, opening(&open, true)),
        N::Close(relid) => Notice::Close(relid),
        N::GpadlTeardown(relid, handle) => Notice::GpadlTeardown(relid, handle),
        N::Released(relid) => Notice::Released(relid),
        N::Reset(::vmbus::Cause::Unload) => Notice::Reset(slot_proto::ResetCause::Unload),
        N::Reset(::vmbus::Cause::Contact) => Notice::Reset(slot_proto::ResetCause::Contact),
    }
}

/// Where the slot of a partition is, if it is attached to one.
fn place_of(core: &PartitionCore) -> Option<(&'static Place, Channel)> {
    let number = core.slot.load(Ordering::SeqCst).checked_sub(1)?;
    let channel = Channel::slot(number);
    Some((place(channel)?, channel))
}

/// Calls `then` with the event area of `child`, and interrupts its worker where that says so. False where there is none.
fn leave(me: &LpArea, child: &dyn Partition, then: &mut dyn FnMut(&mut Area) -> bool) -> bool {
    let Some((place, channel)) = place_of(child.core()) else {
        return false;
    };
    let mut guard = place.link.lock();
    let Some(link) = guard.as_mut() else {
        return false;
    };
    let Some(area) = link
        .area
        .as_mut()
        .filter(|area| area.partition == child.core().id)
    else {
        return false;
    };
    let rings = then(area) && place.doorbell.ring(&link.bell);
    drop(guard);
    if rings {
        vmbus::signal_client(me, child.parent(), channel.relid());
    }
    true
}

/// The server of `child` may have notices for whoever has its slot.
pub fn notices(me: &LpArea, child: &dyn Partition) {
    leave(me, child, &mut |area| area.fill(child));
}

/// `child` signals its channel `relid`, which is open.
pub fn child_signalled(me: &LpArea, child: &dyn Partition, relid: Relid) {
    leave(me, child, &mut |area| {
        area.events().child_signalled(relid);
        true
    });
}

/// Whether the worker broke the queue of notices of `child`.
pub fn is_broken(child: &dyn Partition) -> bool {
    place_of(child.core()).is_some_and(|(place, _)| {
        let link = place.link.lock();
        let area = link.as_ref().and_then(|link| link.area.as_ref());
        area.is_some_and(|area| area.is_broken)
    })
}

/// An intercept message of `vp` lies in its page. False where no worker is told by this.
pub fn intercepted(me: &LpArea, child: &dyn Partition, vp: VpIndex) -> bool {
    leave(me, child, &mut |area| {
        area.events().intercepted(vp);
        true
    })
}

/// Something befell `child`.
pub fn fault(me: &LpArea, child: &dyn Partition, faults: Faults) {
    leave(me, child, &mut |area| {
        area.events().fault(faults);
        true
    });
}
