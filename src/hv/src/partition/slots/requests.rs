//! Requests other than hypercalls: the daemon's, about sessions and partitions, and a worker's, to its child's server.

use core::sync::atomic::Ordering;

use addr::{Gpn, PartitionId};
use slot_proto::{
    Attach, AttachFlags, Attached as AttachDone, Detach, GpadlPagesDone, ListDone, ListEntry,
    MAX_GPADL_PAGES, MAX_LIST_ENTRIES, MAX_STATE_BYTES, NO_SLOT, OfferDone, PartitionState,
    Request, SaveDone, Status, event,
};
use slots::{Events, NoticeQueue};
use tlfs::HvError;
use tlfs::wire::Zero;
use vpstate::Reasons;

use super::area::{self, Area};
use super::pinned::PinnedWords;
use super::session::Attached;
use super::{GENERATIONS, place};
use crate::partition::child::ChildPartition;
use crate::partition::directory::{self, CHILDREN, ChildRef};
use crate::partition::vmbus::parent::{Channel, add_slot};
use crate::partition::vmbus::{Client, settle, with_bus};
use crate::partition::{Partition, Seat};
use crate::vp::parent::ParentVp;

/// What a request is answered: its fixed part, and how many bytes follow in the buffer for output.
pub type Answer = Result<([u8; FIXED], usize, usize), HvError>;

/// Page numbers that are fetched at a time: they lie on the stack.
const NUMBERS: usize = 64;

/// The longest fixed part.
const FIXED: usize = 16;

/// The fixed part of a body, and the number of bytes that follow.
pub fn body(answer: Answer) -> (impl AsRef<[u8]>, usize) {
    let (bytes, fixed, len) = match answer {
        Ok(done) => done,
        Err(error) => of(Status::of(Err(error)).encode(), 0),
    };
    (Fixed { bytes, len: fixed }, len)
}

struct Fixed {
    bytes: [u8; FIXED],
    len: usize,
}

impl AsRef<[u8]> for Fixed {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

fn of<const N: usize>(fixed: [u8; N], len: usize) -> ([u8; FIXED], usize, usize) {
    const { assert!(N <= FIXED) };
    let mut bytes = [0; FIXED];
    if let Some(head) = bytes.first_chunk_mut() {
        *head = fixed;
    }
    (bytes, N, len)
}

fn done() -> ([u8; FIXED], usize, usize) {
    of(Status::of(Ok(())).encode(), 0)
}

/// The child that a request names.
fn named(id: PartitionId) -> Result<ChildRef, HvError> {
    directory::find(id).ok_or(HvError::INVALID_PARTITION_ID)
}

/// Carries out a request of the control channel.
///
/// # Errors
/// The status for it; nothing was done.
pub fn of_daemon(host: &ParentVp, request: &Request<'_>, output: &mut [u8]) -> Answer {
    match request {
        Request::SlotAdd(add) if add.number >= slot_proto::SLOTS => {
            Err(HvError::INSUFFICIENT_MEMORY)
        }
        Request::SlotAdd(add) => {
            add_slot(host.lp(), host.parent(), add.number)?;
            Ok(done())
        }
        Request::Attach(request) => attach(host, &*named(request.partition)?, request),
        Request::Detach(request) => detach(host, request),
        Request::List(list) => Ok(self::list(list.start, output)),
        Request::Tag(tag) => {
            let child = named(tag.partition)?;
            child.core().tag.store(tag.tag, Ordering::SeqCst);
            Ok(done())
        }
        _ => Err(HvError::INVALID_HYPERCALL_CODE),
    }
}

fn attach(host: &ParentVp, child: &ChildPartition, request: &Attach) -> Answer {
    let busy = HvError::INVALID_PARTITION_STATE;
    let channel = Channel::slot(request.slot);
    let place = place(channel).ok_or(HvError::INVALID_PARAMETER)?;
    let mut session = place.session.get().ok_or(busy)?.lock();
    let is_free = session.partition().is_none();
    if !is_free || child.standing().state != PartitionState::ACTIVE {
        return Err(busy);
    }
    let pages = PinnedWords::new(request.event_area, event::AREA_PAGES)?;
    let signals = PinnedWords::new(request.signal_page, 1)?;
    let core = child.core();
    core.slot
        .compare_exchange(0, request.slot + 1, Ordering::SeqCst, Ordering::SeqCst)
        .map_err(|_| busy)?;
    // Whoever takes it apart from here on finds the slot; who began before did not.
    if child.standing().state != PartitionState::ACTIVE {
        core.slot.store(0, Ordering::SeqCst);
        return Err(busy);
    }
    let generation = GENERATIONS.lock().fresh();
    let begun = generation.is_some_and(|generation| {
        session.attach(Attached {
            partition: core.id,
            generation,
            signals,
        })
    });
    let Some(generation) = generation.filter(|_| begun) else {
        core.slot.store(0, Ordering::SeqCst);
        return Err(busy);
    };
    let _ = Events::attach(pages.words(), generation);
    // What is left from here on is told by those who leave it; what was there before, here.
    if let Some(link) = place.link.lock().as_mut() {
        link.area = Some(Area {
            partition: core.id,
            queue: NoticeQueue::new(),
            is_broken: false,
            pages,
        });
    }
    place.doorbell.reset();
    for vp in core.vps.iter() {
        if let Seat::Scheduled(scheduled) = &vp.seat
            && scheduled.suspend.reasons().has(Reasons::INTERCEPT)
        {
            area::intercepted(host.lp(), child, vp.index);
        }
    }
    // A child without a server has no notices.
    let _ = with_bus(child, |bus| bus.attach());
    area::notices(host.lp(), child);
    if !request.flags.contains(AttachFlags::STAYS_SUSPENDED) {
        child.set_frozen(host.lp(), false);
    }
    let done = AttachDone {
        status: 0,
        reserved: Zero,
        generation,
    };
    Ok(of(done.encode(), 0))
}

fn detach(host: &ParentVp, request: &Detach) -> Answer {
    let channel = Channel::slot(request.slot);
    let place = place(channel).ok_or(HvError::INVALID_PARAMETER)?;
    let wrong = HvError::INVALID_PARTITION_STATE;
    let mut session = place.session.get().ok_or(wrong)?.lock();
    let attached = session.attached().ok_or(wrong)?;
    if attached.generation != request.generation {
        return Err(wrong);
    }
    let id = attached.partition;
    let child = named(id);
    if let Ok(child) = &child {
        child.set_frozen(host.lp(), true);
        let standing = child.standing();
        log::info!(
            "partition {:#x} ends with {} of its {} frames in use and {} pages mapped",
            id.get(),
            standing.used,
            standing.deposited,
            standing.mapped
        );
    }
    session.detach(place, child.as_ref().ok().map(|child| child.core()));
    session.say_goodbye(host.lp(), host.parent(), place, channel);
    Ok(done())
}

/// Partitions from place `start` of the directory on.
fn list(start: u32, output: &mut [u8]) -> ([u8; FIXED], usize, usize) {
    let (mut count, mut len, mut next) = (0, 0, 0);
    for at in start as usize..CHILDREN {
        let Some(child) = directory::at(at) else {
            continue;
        };
        let room = output.get_mut(len..);
        let room = room.and_then(|room| room.first_chunk_mut());
        match room.filter(|_| usize::from(count) < MAX_LIST_ENTRIES) {
            Some(room) => {
                *room = entry(&child).encode();
                count += 1;
                len += ListEntry::BYTES;
            }
            None => {
                next = at as u32;
                break;
            }
        }
    }
    let done = ListDone {
        status: 0,
        count,
        next,
    };
    of(done.encode(), len)
}

fn entry(child: &ChildPartition) -> ListEntry {
    let (core, standing) = (child.core(), child.standing());
    let number = core.slot.load(Ordering::SeqCst).checked_sub(1);
    let generation = number.and_then(|number| {
        let session = place(Channel::slot(number))?.session.get()?.lock();
        session.attached().map(|attached| attached.generation)
    });
    ListEntry {
        partition: core.id,
        tag: core.tag.load(Ordering::SeqCst),
        state: standing.state,
        slot: number.unwrap_or(NO_SLOT),
        generation: generation.unwrap_or_default(),
        reserved: Zero,
        deposited_pages: standing.deposited,
        mapped_pages: standing.mapped,
    }
}

/// Carries out a request of the slot of child `id`.
///
/// # Errors
/// The status for it; nothing was done.
pub fn of_worker(
    host: &ParentVp,
    id: PartitionId,
    request: &Request<'_>,
    output: &mut [u8],
) -> Answer {
    let child = named(id)?;
    let answer = to_server(&child, request, output);
    settle(host.lp(), &*child);
    answer
}

fn to_server(child: &ChildPartition, request: &Request<'_>, output: &mut [u8]) -> Answer {
    let must_stand = || {
        if child.standing().is_frozen {
            Ok(())
        } else {
            Err(HvError::INVALID_PARTITION_STATE)
        }
    };
    match request {
        Request::Offer(offer) => {
            let done = OfferDone {
                status: 0,
                reserved: Zero,
                relid: with_bus(child, |bus| bus.offer(offer))??,
            };
            return Ok(of(done.encode(), 0));
        }
        Request::GpadlPages(pages) => {
            let first = u16::try_from(pages.first).map_err(|_| HvError::INVALID_PARAMETER)?;
            let mut count = 0u16;
            let room = output.as_chunks_mut().0;
            loop {
                let mut numbers = [Gpn::new(0); NUMBERS];
                let wanted = NUMBERS.min(MAX_GPADL_PAGES.saturating_sub(count.into()));
                let numbers = numbers.get_mut(..wanted).unwrap_or_default();
                let found = with_bus(child, |bus| {
                    let first = first.saturating_add(count);
                    bus.gpadl_pages(pages.relid, pages.handle, first, numbers)
                })??;
                for (to, from) in room.iter_mut().skip(count.into()).zip(numbers) {
                    *to = from.get().to_le_bytes();
                }
                count = count.saturating_add(found.count);
                let is_all = first.saturating_add(count) >= found.pages;
                if is_all || usize::from(count) >= MAX_GPADL_PAGES || found.count == 0 {
                    let done = GpadlPagesDone {
                        status: 0,
                        count,
                        pages: found.pages.into(),
                        byte_count: found.byte_count,
                        byte_offset: found.byte_offset.into(),
                    };
                    return Ok(of(done.encode(), usize::from(count) * 8));
                }
            }
        }
        Request::VmbusSave(part) => {
            must_stand()?;
            let room = output.get_mut(..MAX_STATE_BYTES).unwrap_or_default();
            let room_bytes = room.len();
            let bytes = with_bus(child, |bus| bus.save(part.offset, room))?;
            let len = (bytes.saturating_sub(part.offset) as usize).min(room_bytes);
            let done = SaveDone {
                status: 0,
                reserved: Zero,
                bytes,
            };
            return Ok(of(done.encode(), len));
        }
        Request::VmbusRestore(part, bytes) => {
            // One that has never run has nothing that it could have told its server.
            if child.standing().has_run {
                must_stand()?;
            }
            let mut guest = Client(child);
            with_bus(child, |bus| {
                bus.restore(part.bytes, part.offset, bytes, &mut guest)
            })??;
        }
        Request::Rescind(channel) => with_bus(child, |bus| bus.rescind(channel.relid))??,
        Request::OpenResult(result) => {
            with_bus(child, |bus| bus.opened(result.relid, result.status))??;
        }
        Request::CloseDone(channel) => with_bus(child, |bus| bus.closed(channel.relid))??,
        Request::GpadlDone(gpadl) => {
            with_bus(child, |bus| bus.gpadl_done(gpadl.relid, gpadl.handle))??;
        }
        Request::ResetDone => {
            let answered = with_bus(child, |bus| bus.reset_done(false))?;
            if answered.is_err() {
                // The worker has reset the partition, whose VPs stand still.
                must_stand()?;
                with_bus(child, |bus| bus.reset_done(true))??;
            }
        }
        _ => return Err(HvError::INVALID_HYPERCALL_CODE),
    }
    Ok(done())
}
