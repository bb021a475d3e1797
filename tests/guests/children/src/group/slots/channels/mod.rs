//! Channels of a child between a worker and a guest that says what it is told: offers while it runs, openings that are
//! refused, moves, pages that are held, channels that are taken back, clients that come anew, quotas, saved state.

mod offers;
mod openings;
mod quota;
mod saved;
mod taken_back;

use alloc::vec::Vec;

use machine::verdict::{check, equal};
use slot_proto::{AttachFlags, GpadlName, GpadlPagesFrom, Notice, OfferDone, RelidOnly, Request};
use tlfs::HvError;
use tlfs::register::RegisterName as N;
use tlfs::wire::Zero;
use vmbus_client::Client;
use vmbus_proto::{GpadlHandle, Guid, Offer, OfferFlags, Relid, class};

use super::World;
use super::worker::{Worker, attach};
use crate::child::code;
use crate::child::guest::Guest;
use crate::child::layout;
use crate::client::intercept::Intercept;
use crate::client::line::Line;
use crate::client::synic;
use crate::group::vmbus::child::{Hand, Obedient, teach, with_quota};
use crate::group::{destroy, need};
use offers::offers;
use openings::{held_pages, openings, signals};
use quota::quota;
use saved::saved;
use taken_back::{resets, taken_back};

/// Frames for the server: enough for one or two of everything.
const QUOTA: u64 = 10;
/// Pages of a ring pair, and the second one's first.
const RING_PAGES: u64 = 8;
const DOWNSTREAM: u32 = 4;
/// The status of a worker that refuses.
const REFUSED: u32 = 0x8000_4005;
/// Ticks, in microseconds, in which a signal comes.
const PATIENCE: u64 = 500_000;

impl Hand for Worker {
    fn go_on(&mut self, guest: &Guest, rip: u64) -> Option<Intercept> {
        self.set(&[(N::RIP, rip.into())]).ok()?;
        self.resume().ok()?;
        self.stop(guest)
    }
}

type Child = Client<Obedient<Worker>>;

fn instance(number: u32) -> Guid {
    Guid::numbered(class::SCSI, number)
}

/// An offer of a disk controller.
pub fn plain(number: u32, sub_channel: u16) -> Offer {
    Offer {
        class: class::SCSI,
        instance: instance(number),
        flags: OfferFlags::ENUMERATE,
        sub_channel,
        ..Offer::default()
    }
}

impl Worker {
    pub(super) fn offer_of(&mut self, offer: Offer) -> Result<Relid, HvError> {
        let body = self.line.ask(&Request::Offer(offer))?;
        OfferDone::decode(&body).map(|done| done.relid)
    }

    pub(super) fn plainly(&mut self, request: &Request<'_>) -> Result<(), HvError> {
        self.line.ask(request).map(drop)
    }

    pub(super) fn rescind(&mut self, relid: Relid) -> Result<(), HvError> {
        self.plainly(&Request::Rescind(only(relid)))
    }

    pub(super) fn close_done(&mut self, relid: Relid) -> Result<(), HvError> {
        self.plainly(&Request::CloseDone(only(relid)))
    }

    pub(super) fn reset_done(&mut self) -> Result<(), HvError> {
        self.plainly(&Request::ResetDone)
    }

    pub(super) fn hold(&mut self, relid: Relid, handle: GpadlHandle) -> Result<(), HvError> {
        self.plainly(&Request::GpadlPages(GpadlPagesFrom {
            relid,
            handle,
            first: 0,
            reserved: Zero,
        }))
    }

    pub(super) fn gpadl_done(&mut self, relid: Relid, handle: GpadlHandle) -> Result<(), HvError> {
        self.plainly(&Request::GpadlDone(GpadlName { relid, handle }))
    }

    /// Whether the child signals `relid`, within a time.
    fn is_signalled(&mut self, relid: Relid) -> bool {
        let mut found = false;
        synic::sleep_until(PATIENCE, || {
            self.watcher
                .take_signals(|signalled| found |= signalled == relid);
            found
        });
        found
    }

    /// Whether there is nothing that it is told.
    fn hears_nothing(&mut self) -> bool {
        synic::sleep(5_000);
        matches!(self.watcher.next_notice(), Ok(None))
    }
}

fn only(relid: Relid) -> RelidOnly {
    RelidOnly {
        relid,
        reserved: Zero,
    }
}

/// Pages of ring `number` in the child.
fn ring(number: u64) -> Vec<u64> {
    let first = layout::DATA / 4096 + number * RING_PAGES;
    (first..first + RING_PAGES).collect()
}

fn is(name: &str, got: Option<u64>, wanted: u32) -> bool {
    equal(
        format_args!("channels: {name}"),
        got.unwrap_or(u64::MAX),
        wanted.into(),
    )
}

fn hears(child: &mut Child, name: &str, wanted: Notice) -> bool {
    let notice = child.wire.hand.notice();
    check(
        format_args!("channels: {name} # {notice:?}"),
        notice == Some(wanted),
    )
}

/// Opens a channel with ring `number`, whose handle is that number, both sides willing.
fn open(child: &mut Child, relid: Relid, number: u32) -> bool {
    let handle = GpadlHandle(number);
    let created = child.gpadl(relid, handle, &ring(number.into()));
    let status = child.ask_to_open(relid, handle, DOWNSTREAM, 0);
    let notice = child.wire.hand.notice();
    let is_asked =
        matches!(notice, Some(Notice::Open(of, opening)) if of == relid && opening.ring == handle);
    need("channels: OPEN_RESULT", child.wire.hand.opened(relid, 0));
    let opened = child.is_open(relid);
    check(
        format_args!("channels: open # {created:?} {status:#x} {notice:?} {opened:?}"),
        created == Some(0) && status == 0 && is_asked && opened == Some(0),
    )
}

/// A child with its worker.
fn begin(world: &World, control: &mut Line, quota: u64) -> Option<Child> {
    let mut guest = need("channels: a child", with_quota(quota))?;
    teach(&mut guest)?;
    let worker = attach(world, control, &guest, AttachFlags::default());
    match worker {
        Some(mut hand) => {
            // It has waited for orders since before there was a worker.
            let stop = hand.stop(&guest);
            check(
                "channels: the worker sees that it waits",
                stop.is_some_and(|stop| stop.is_out(code::PORT)),
            );
            Some(Client::new(Obedient { guest, hand }))
        }
        None => {
            destroy("channels", guest);
            None
        }
    }
}

/// Takes a child apart whose channels are as they are.
fn end(world: &World, child: Child) {
    end_of(world, child.wire.guest, child.wire.hand);
}

/// The same for a child and its worker.
pub fn end_of(world: &World, guest: Guest, mut hand: Worker) {
    destroy("channels", guest);
    hand.line.look();
    check("channels: the worker is told", hand.line.over.is_some());
    check("channels: the slot closes", hand.line.close(&world.bus));
    hand.pages.free();
}

/// Runs this part of the group.
pub fn run(world: &World) {
    let Some(mut control) = world.control() else {
        return;
    };
    if let Some(mut child) = begin(world, &mut control, QUOTA) {
        if let Some((relid, connection)) = offers(&mut child) {
            openings(&mut child, relid);
            signals(&mut child, relid, connection);
            held_pages(&mut child, relid);
            taken_back(&mut child, relid, connection);
            resets(&mut child);
        }
        quota(&mut child);
        end(world, child);
    }
    saved(world, &mut control);
    check(
        "channels: the control channel closes",
        control.close(&world.bus),
    );
}
