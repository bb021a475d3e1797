//! The control channel and the slots at work: sessions with the parent's user space.
//!
//! The rules are the crate [`slots`](::slots)'s and the bytes `slot_proto`'s; here is what they need of the machine. Each
//! channel of the parent that the hypervisor serves has a [`Place`]:
//!
//! - its *session* (`session`): rings, and the requests out of them. The LP whose VP of the parent signalled works at it
//!   between two runs of that VP's guest, in stretches of bounded length ([`Work`]); one LP at a time.
//! - its *link* (`area`): where VPs of the child leave events and notices, from any LP.
//!
//! Locks: the control channel's session, a slot's session, a link, the child's server. A request may wait for a VP of a
//! child to leave its LP; that VP's LP takes links only.

mod area;
mod pinned;
mod requests;
mod session;
mod work;

use addr::Gpn;
use slot_proto::{ChannelKind, GPADL_PAGES, RING_PAGES, SLOTS};
use slots::{Doorbell, Generations};
use spin::{Mutex, Once};
use tlfs::HvError;
use vmbus::Opening;
use vmbus_proto::status;

use self::area::Link;
use self::session::Session;
use super::vmbus::parent::Channel;
use super::{Partition, directory};
use crate::arch::x86::insn;
use crate::arch::x86::lp::LpArea;
use crate::mm::frames::{self, FrameUse};

pub use area::{child_signalled, fault, intercepted, notices};
pub use work::Work;

/// A channel of the parent's that the hypervisor serves.
struct Place {
    /// Made when the channel is opened for the first time, for ever.
    session: Once<&'static Mutex<Session>>,
    link: Mutex<Option<Link>>,
    doorbell: Doorbell,
}

/// All places: the control channel's, then those of the slots.
struct Places {
    all: &'static [Place],
    /// Chosen when the hypervisor started.
    boot_id: u64,
}

static PLACES: Once<Places> = Once::new();

/// Of all sessions there are.
static GENERATIONS: Mutex<Generations> = Mutex::new(Generations::new());

/// Makes room for the channels. Once, before any LP is launched.
///
/// # Errors
/// `INSUFFICIENT_MEMORY`.
pub fn init() -> Result<(), HvError> {
    let all = frames::place_slice(FrameUse::Partition, SLOTS as usize + 1, |_| Place {
        session: Once::new(),
        link: Mutex::new(None),
        doorbell: Doorbell::new(false.into()),
    });
    let all = all.ok_or(HvError::INSUFFICIENT_MEMORY)?;
    // Two starts of one machine are far apart, and those of two machines need not differ.
    let boot_id = insn::rdtsc();
    PLACES.call_once(|| Places { all, boot_id });
    Ok(())
}

fn place(channel: Channel) -> Option<&'static Place> {
    PLACES.get()?.all.get(index_of(channel))
}

const fn index_of(channel: Channel) -> usize {
    match channel.kind {
        ChannelKind::Control => 0,
        ChannelKind::Slot => (channel.number as usize).saturating_add(1),
    }
}

/// The session of `channel`, which is made if it never was.
fn session(place: &Place) -> Option<&'static Mutex<Session>> {
    place
        .session
        .try_call_once(|| {
            // Its buffers last: they are a run of frames, which would not come back.
            let new = || Session::new().map(Mutex::new);
            frames::place_if(FrameUse::Partition, new).ok_or(())
        })
        .ok()
        .copied()
}

/// The parent opens `channel`, on a ring in `pages`. The status for it.
pub fn opened(channel: Channel, opening: &Opening, pages: &[Gpn; GPADL_PAGES]) -> u32 {
    let opened = || {
        let place = place(channel)?;
        let mut session = session(place)?.lock();
        if opening.downstream_page as usize != RING_PAGES {
            return None;
        }
        let bell = session.open(channel, PLACES.get()?.boot_id, pages)?;
        *place.link.lock() = Some(Link { bell, area: None });
        place.doorbell.reset();
        Some(())
    };
    opened().map_or(status::FAILURE, |()| status::SUCCESS)
}

/// The parent has closed `channel`, or starts anew. Nobody is in its ring when this returns, and the partition that was
/// attached to it stands still. Also of one that is not open.
pub fn closed(me: &'static LpArea, channel: Channel) {
    let Some((place, session)) =
        place(channel).and_then(|place| Some((place, place.session.get()?)))
    else {
        return;
    };
    let mut session = session.lock();
    if let Some(id) = session.partition() {
        let child = directory::find(id);
        if let Some(child) = &child {
            child.set_frozen(me, true);
        }
        session.detach(place, child.as_ref().map(|child| child.core()));
    }
    *place.link.lock() = None;
    session.close();
}

/// The parent signals `channel`, which is open: there is [`Work`] in it.
pub fn signalled(channel: Channel) {
    if let Some(place) = place(channel)
        && let Some(link) = place.link.lock().as_ref()
    {
        place.doorbell.signalled(&link.bell);
    }
}

/// `child` is being taken apart: its session ends.
pub fn partition_ends(me: &LpArea, child: &dyn Partition) {
    let Some(number) = child
        .core()
        .slot
        .load(core::sync::atomic::Ordering::SeqCst)
        .checked_sub(1)
    else {
        return;
    };
    let channel = Channel::slot(number);
    if let Some(place) = place(channel)
        && let Some(session) = place.session.get()
    {
        let mut session = session.lock();
        if session.partition() == Some(child.core().id) {
            session.detach(place, Some(child.core()));
            session.say_goodbye(me, child.parent(), place, channel);
        }
    }
}
