//! What VPs of children have to tell the parent: for each VP of the parent a list of those with an intercept that it has
//! not been told of. The list goes through the VPs themselves, so it has room for all of them.

use core::sync::atomic::{AtomicU32, Ordering};

use addr::VpIndex;
use sched::EntityId;
use spin::{Mutex, MutexGuard, Once};
use synic::MessageSource;
use tlfs::Message;
use tlfs::call::CreateFlags;
use tlfs::intercept::OpaqueIntercept;

use super::child::Scheduled;
use super::{Seat, VpShared, directory};
use crate::arch::x86::lp::LpArea;
use crate::shootdown;

/// Link of a VP that is in no list.
const NOT_LISTED: u32 = 0;
/// Link of the last in a list.
const END: u32 = u32::MAX;

const fn link(id: EntityId) -> u32 {
    id.0 + 1
}

fn linked(link: u32) -> Option<&'static Scheduled> {
    match (link, directory::vp(EntityId(link.wrapping_sub(1)))) {
        (NOT_LISTED | END, _) | (_, None) => None,
        (_, Some(vp)) => match &vp.seat {
            Seat::Scheduled(scheduled) => Some(scheduled),
            Seat::Fixed(_) => None,
        },
    }
}

/// First and last link.
pub struct List {
    first: u32,
    last: u32,
}

impl List {
    /// An empty list.
    pub const fn new() -> Self {
        Self {
            first: END,
            last: END,
        }
    }
}

/// How many VPs stand in lists. Changed under the lock of the lists; who finds none need not take it.
static LISTED: AtomicU32 = AtomicU32::new(0);

/// All lists, under one lock: a VP may be let run by another VP of the parent while it stands in a list.
type Lists = &'static mut [List];

/// Whether a VP stands in any of the lists.
pub fn are_waiting() -> bool {
    LISTED.load(Ordering::SeqCst) != 0
}

/// The VPs of the parent and their lists, by index.
struct Parents {
    vps: &'static [VpShared],
    lists: Mutex<Lists>,
}

static PARENTS: Once<Parents> = Once::new();

/// Makes the parent's VPs known, with a list for each. Once, before any LP is launched.
pub fn init(vps: &'static [VpShared], lists: &'static mut [List]) {
    PARENTS.call_once(|| Parents {
        vps,
        lists: Mutex::new(lists),
    });
}

/// VP `index` of the parent.
pub fn parent_vp(index: u32) -> Option<&'static VpShared> {
    PARENTS.get()?.vps.get(index as usize)
}

/// Puts `scheduled` at the end of the list of the parent's VP that let it run last, and makes that VP look.
pub fn post(me: &LpArea, scheduled: &Scheduled) {
    let told = scheduled.told.load(Ordering::SeqCst);
    let Some(parents) = PARENTS.get() else { return };
    let Some(vp) = parents.vps.get(told as usize) else {
        return;
    };
    {
        let mut lists = parents.lists.lock();
        let Some(list) = lists.get_mut(told as usize) else {
            return;
        };
        if scheduled.next_notice.load(Ordering::Relaxed) != NOT_LISTED {
            return;
        }
        scheduled.next_notice.store(END, Ordering::Relaxed);
        scheduled.listed_at.store(told, Ordering::Relaxed);
        match linked(list.last) {
            Some(last) => last
                .next_notice
                .store(link(scheduled.id), Ordering::Relaxed),
            None => list.first = link(scheduled.id),
        }
        list.last = link(scheduled.id);
        LISTED.fetch_add(1, Ordering::SeqCst);
    }
    vp.rescan.store(true, Ordering::SeqCst);
    vp.attention.store(true, Ordering::SeqCst);
    if let Seat::Fixed(lp) = &vp.seat {
        shootdown::nudge(me, lp);
    }
}

/// Takes `scheduled`, which posts nothing any more, out of the list it is in.
pub fn forget(scheduled: &Scheduled) {
    let Some(parents) = PARENTS.get() else { return };
    let mut lists = parents.lists.lock();
    let at = scheduled.listed_at.load(Ordering::Relaxed);
    let Some(list) = lists.get_mut(at as usize) else {
        return;
    };
    let own = link(scheduled.id);
    let next = scheduled.next_notice.swap(NOT_LISTED, Ordering::Relaxed);
    if next == NOT_LISTED {
        return;
    }
    LISTED.fetch_sub(1, Ordering::SeqCst);
    if list.first == own {
        list.first = next;
        if next == END {
            list.last = END;
        }
        return;
    }
    let mut at = list.first;
    while let Some(before) = linked(at) {
        let following = before.next_notice.load(Ordering::Relaxed);
        if following == own {
            before.next_notice.store(next, Ordering::Relaxed);
            if next == END {
                list.last = at;
            }
            return;
        }
        at = following;
    }
}

/// As [`crate::scheduler::settle`], for what is looked up in lists.
pub fn settle() {
    if let Some(parents) = PARENTS.get() {
        drop(parents.lists.lock());
    }
}

/// The list of one VP of the parent, as messages. From the look at the first to its taking the list stays locked: another
/// LP may take the first one out.
pub struct Source {
    index: VpIndex,
    held: Option<MutexGuard<'static, Lists>>,
}

impl Source {
    /// For VP `index` of the parent.
    pub const fn new(index: VpIndex) -> Self {
        Self { index, held: None }
    }

    fn list(&mut self) -> Option<&mut List> {
        let index = self.index.get() as usize;
        if self.held.is_none() {
            self.held = Some(PARENTS.get()?.lists.lock());
        }
        self.held.as_mut()?.get_mut(index)
    }
}

impl MessageSource for Source {
    fn waiting(&mut self) -> u16 {
        if !are_waiting() {
            return 0;
        }
        let is_empty = self.list().is_none_or(|list| list.first == END);
        self.held = None;
        u16::from(!is_empty)
    }

    fn first(&mut self, sint: usize) -> Option<(Message, bool)> {
        if sint != 0 {
            return None;
        }
        let scheduled = linked(self.list()?.first)?;
        let more = scheduled.next_notice.load(Ordering::Relaxed) != END;
        let child = directory::at(directory::slot_of_entity(scheduled.id))?;
        let vp = directory::vp_of_entity(scheduled.id);
        let message = if child.flags.contains(CreateFlags::INTERCEPT_PAGE) {
            let opaque = OpaqueIntercept { vp };
            let id = super::Partition::core(&*child).id.get();
            Message::new(tlfs::MessageType::OPAQUE_INTERCEPT, id, &opaque.encode())?
        } else {
            *child.vp(vp)?.message.lock()
        };
        Some((message, more))
    }

    fn pop(&mut self, sint: usize) {
        if sint == 0
            && let Some(list) = self.list()
            && let Some(first) = linked(list.first)
        {
            list.first = first.next_notice.swap(NOT_LISTED, Ordering::Relaxed);
            LISTED.fetch_sub(1, Ordering::SeqCst);
            if list.first == END {
                list.last = END;
            }
        }
        self.held = None;
    }
}
