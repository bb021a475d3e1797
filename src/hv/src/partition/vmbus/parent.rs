//! The parent's server: what is offered to the parent, and what the hypervisor answers as its back end.

use core::sync::atomic::{AtomicU32, Ordering};

use addr::{Gpn, VpIndex};
use slot_proto::{ChannelKind, GPADL_PAGES, OfferData};
use spin::Mutex;
use tlfs::HvError;
use vmbus::{Notice, Opening, ResetRule};
use vmbus_proto::{Offer, OfferFlags, Relid, class, status};

use super::{settle, with_bus};
use crate::arch::x86::lp::LpArea;
use crate::partition::{Partition, slots};

/// Frames that the parent's server may use: enough for 200 channels with rings.
const QUOTA: u32 = 64;
/// Slots that are offered from the beginning.
const SLOTS: u32 = 8;

/// State of the hypervisor as the parent's back end.
pub struct BackEnd {
    /// One LP at a time answers notices.
    serving: Mutex<()>,
    /// Index plus one of the VP that undoes what the parent has made, before its server starts anew.
    ending: AtomicU32,
}

impl BackEnd {
    /// Nothing to do.
    pub const fn new() -> Self {
        Self {
            serving: Mutex::new(()),
            ending: AtomicU32::new(0),
        }
    }
}

/// A channel of the parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Control channel or slot.
    pub kind: ChannelKind,
    /// Number of the slot, 0 for the control channel.
    pub number: u32,
}

impl Channel {
    /// The control channel.
    pub const CONTROL: Self = Self {
        kind: ChannelKind::Control,
        number: 0,
    };

    /// Slot `number`.
    pub const fn slot(number: u32) -> Self {
        Self {
            kind: ChannelKind::Slot,
            number,
        }
    }

    /// Channels are offered in the order of their numbers, and get relids in that order.
    pub fn of(relid: Relid) -> Self {
        match relid.0.checked_sub(2) {
            None => Self::CONTROL,
            Some(number) => Self::slot(number),
        }
    }

    /// Its relid.
    pub const fn relid(self) -> Relid {
        match self.kind {
            ChannelKind::Control => Relid(1),
            ChannelKind::Slot => Relid(self.number.saturating_add(2)),
        }
    }

    fn offer(self) -> Offer {
        let (class, instance) = match self.kind {
            ChannelKind::Control => (class::CONTROL, class::CONTROL_INSTANCE),
            ChannelKind::Slot => (class::SLOT, class::slot_instance(self.number)),
        };
        Offer {
            class,
            instance,
            flags: OfferFlags::ENUMERATE,
            user: OfferData::new(self.kind, self.number).user_data(),
            ..Offer::default()
        }
    }
}

/// Starts the server of `parent` and offers the control channel and the first slots. Before any LP is launched.
///
/// # Errors
/// `INSUFFICIENT_MEMORY`.
pub fn start(parent: &dyn Partition) -> Result<(), HvError> {
    let frames = parent.server_frames();
    parent
        .core()
        .vmbus
        .start(frames, QUOTA, ResetRule::Always)?;
    offer(parent, Channel::CONTROL)?;
    (0..SLOTS).try_for_each(|number| offer(parent, Channel::slot(number)))
}

/// Offers `channel`; again, does nothing.
///
/// # Errors
/// `INVALID_PARAMETER`: slots are added one after another. `INSUFFICIENT_MEMORY`: there are as many as can be.
fn offer(parent: &dyn Partition, channel: Channel) -> Result<(), HvError> {
    with_bus(parent, |bus| {
        // The lowest free number is given out: one that the parent has just let go of is not for another channel.
        if !(1..channel.relid().0).all(|below| bus.has_channel(Relid(below))) {
            return Err(HvError::INVALID_PARAMETER);
        }
        bus.offer(&channel.offer()).map(|_| ())
    })?
}

/// SLOT_ADD: offers slot `number` to the parent, the next one or one that there is.
///
/// # Errors
/// `INVALID_PARAMETER`: slots are added one after another. `INSUFFICIENT_MEMORY`: there are as many as can be.
pub fn add_slot(me: &LpArea, parent: &dyn Partition, number: u32) -> Result<(), HvError> {
    offer(parent, Channel::slot(number))?;
    settle(me, parent);
    Ok(())
}

/// Answers the notices of the parent's server, from `vp`. True when the parent starts anew and `vp` is to undo what it has
/// made: then [`finish`].
pub fn serve(me: &'static LpArea, parent: &dyn Partition, vp: VpIndex) -> bool {
    let own = &parent.core().vmbus.own;
    let serving = own.serving.lock();
    while let Ok(Some(notice)) = with_bus(parent, |bus| bus.next_notice()) {
        match notice {
            Notice::Open(opening) => open(me, parent, &opening),
            Notice::Close(relid) => {
                slots::closed(me, Channel::of(relid));
                // Refused where the parent starts anew: then all is closed once more.
                let _ = with_bus(parent, |bus| bus.closed(relid));
            }
            // Who was in the ring left it when the channel was closed.
            Notice::GpadlTeardown(relid, handle) => {
                let _ = with_bus(parent, |bus| bus.gpadl_done(relid, handle));
            }
            // It had no memory for it. The number is the first to be given out again.
            Notice::Released(relid) => {
                let _ = offer(parent, Channel::of(relid));
            }
            Notice::Reset(_) => {
                close_all(me, parent);
                own.ending.store(vp.get() + 1, Ordering::SeqCst);
            }
            // Only of a state that was restored.
            Notice::IsOpen(_) => {}
        }
    }
    let ending = own.ending.load(Ordering::SeqCst);
    if ending != 0 {
        // Whoever posts last goes on: the one who began may be stopped for ever.
        own.ending.store(vp.get() + 1, Ordering::SeqCst);
    }
    drop(serving);
    settle(me, parent);
    ending != 0
}

/// Whether `vp` undoes what the parent has made: its call is executed again until all is undone.
pub fn is_ending(parent: &dyn Partition, vp: VpIndex) -> bool {
    parent.core().vmbus.own.ending.load(Ordering::SeqCst) == vp.get() + 1
}

/// All is undone: the parent is answered.
pub fn finish(me: &LpArea, parent: &dyn Partition) {
    parent.core().vmbus.own.ending.store(0, Ordering::SeqCst);
    let _ = with_bus(parent, |bus| bus.reset_done(false));
    settle(me, parent);
}

/// The parent is reset, or its kernel has gone without a word to the server.
pub fn forget(me: &'static LpArea, parent: &dyn Partition) {
    let own = &parent.core().vmbus.own;
    let _serving = own.serving.lock();
    close_all(me, parent);
    own.ending.store(0, Ordering::SeqCst);
    let _ = with_bus(parent, |bus| bus.reset_done(true));
}

fn open(me: &'static LpArea, parent: &dyn Partition, opening: &Opening) {
    let channel = Channel::of(opening.relid);
    let mut pages = [Gpn::new(0); GPADL_PAGES];
    let ring = with_bus(parent, |bus| {
        bus.gpadl_pages(opening.relid, opening.ring, 0, &mut pages)
    });
    let status = match ring {
        Ok(Ok(ring)) if usize::from(ring.pages) == pages.len() => {
            slots::opened(channel, opening, &pages)
        }
        _ => status::FAILURE,
    };
    let answered = with_bus(parent, |bus| bus.opened(opening.relid, status));
    if status == status::SUCCESS && !matches!(answered, Ok(Ok(()))) {
        slots::closed(me, channel);
    }
}

fn close_all(me: &'static LpArea, parent: &dyn Partition) {
    let mut channel = Channel::CONTROL;
    while with_bus(parent, |bus| bus.has_channel(channel.relid())) == Ok(true) {
        slots::closed(me, channel);
        channel = Channel::of(Relid(channel.relid().0 + 1));
    }
}
