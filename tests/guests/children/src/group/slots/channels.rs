//! Channels of a child between a worker and a guest that says what it is told: offers while it runs, openings that are
//! refused, moves, pages that are held, channels that are taken back, clients that come anew, quotas, saved state.

use alloc::vec::Vec;

use machine::verdict::{check, equal, note};
use slot_proto::{
    AttachFlags, GpadlName, GpadlPagesFrom, MAX_STATE_BYTES, Notice, OfferDone, RelidOnly, Request,
    ResetCause, RestorePart, SaveDone, SaveFrom,
};
use tlfs::HvError;
use tlfs::property::PropertyCode;
use tlfs::register::RegisterName as N;
use tlfs::wire::Zero;
use vmbus_proto::{
    GpadlHandle, Guid, MessageType, Offer, OfferFlags, Relid, Version, class, status,
};

use super::World;
use super::worker::{Worker, attach};
use crate::child::code;
use crate::child::guest::Guest;
use crate::child::layout;
use crate::client::intercept::Intercept;
use crate::client::line::Line;
use crate::client::synic;
use crate::group::vmbus::child::{Hand, Obedient, teach, with_quota};
use crate::group::vmbus::conversation::connect;
use crate::group::{destroy, need, refused};
use vmbus_client::{Client, SINT, Wire};

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

/// Offers before and after the guest asks: the first, and its connection.
fn offers(child: &mut Child) -> Option<(Relid, u32)> {
    let worker = &mut child.wire.hand;
    let first = need("channels: an offer", worker.offer_of(plain(1, 0)))?;
    let wrong = HvError::INVALID_PARAMETER;
    let bad = [
        ("a sub-channel of nobody", plain(9, 1)),
        ("one of a channel that is not known", plain(1, 1)),
        (
            "an instance of another class",
            Offer {
                class: class::NETWORK,
                ..plain(1, 0)
            },
        ),
        (
            "flags",
            Offer {
                flags: OfferFlags::CONFIDENTIAL_RING,
                ..plain(3, 0)
            },
        ),
    ];
    for (name, offer) in bad {
        refused(
            format_args!("channels: {name}"),
            worker.offer_of(offer),
            wrong,
        );
    }
    connect(child, "channels", Version::V5_3);
    let list = child.offers().unwrap_or_default();
    let connection = first.0 | u32::from(SINT) << 12;
    check(
        "channels: the guest is offered it",
        list.len() == 1
            && list.iter().all(|offer| {
                offer.relid == first
                    && offer.instance == instance(1)
                    && offer.connection == connection
                    && offer.is_dedicated == 1
            }),
    );
    let second = need(
        "channels: an offer while it runs",
        child.wire.hand.offer_of(plain(2, 0)),
    );
    let come = child.wire.take().and_then(|said| said.offer());
    check(
        "channels: it comes unasked",
        come.is_some_and(|offer| Some(offer.relid) == second && offer.instance == instance(2)),
    );
    let sub = need(
        "channels: a sub-channel",
        child.wire.hand.offer_of(plain(1, 1)),
    );
    let come = child.wire.take().and_then(|said| said.offer());
    check(
        "channels: it comes, too",
        come.is_some_and(|offer| {
            Some(offer.relid) == sub && offer.sub_channel == 1 && offer.instance == instance(1)
        }),
    );
    Some((first, connection))
}

fn openings(child: &mut Child, relid: Relid) {
    is("a GPADL", child.gpadl(relid, GpadlHandle(1), &ring(1)), 0);
    // The program's code is read-only, and the rest of the address space is nothing.
    is(
        "a GPADL beyond RAM",
        child.gpadl(relid, GpadlHandle(2), &[layout::DATA / 4096, 0x9_0000]),
        status::FAILURE,
    );
    let status = child.ask_to_open(relid, GpadlHandle(1), DOWNSTREAM, 0);
    equal("channels: to open is posted", status, 0);
    let notice = child.wire.hand.notice();
    check(
        format_args!("channels: the worker is asked # {notice:?}"),
        matches!(notice, Some(Notice::Open(of, opening)) if of == relid && opening.downstream_page == DOWNSTREAM),
    );
    check(
        "channels: until it says so nothing happens",
        child.is_silent(),
    );
    need(
        "channels: it refuses",
        child.wire.hand.opened(relid, REFUSED),
    );
    is("the guest is told", child.is_open(relid), REFUSED);
    check(
        "channels: its ring goes back",
        child.tear_down(relid, GpadlHandle(1)) == 0 && child.is_torn_down(GpadlHandle(1)),
    );
    // Closed before the worker answers.
    is(
        "a GPADL again",
        child.gpadl(relid, GpadlHandle(1), &ring(1)),
        0,
    );
    child.ask_to_open(relid, GpadlHandle(1), DOWNSTREAM, 0);
    let asked = child.wire.hand.notice();
    check(
        "channels: given up, as the worker is asked",
        matches!(asked, Some(Notice::Open(of, _)) if of == relid) && child.close(relid) == 0,
    );
    need("channels: which opens it", child.wire.hand.opened(relid, 0));
    hears(child, "and is to close it", Notice::Close(relid));
    check(
        "channels: the ring waits for that",
        child.tear_down(relid, GpadlHandle(1)) == 0 && child.is_silent(),
    );
    need("channels: done", child.wire.hand.close_done(relid));
    check(
        "channels: it comes back",
        child.is_torn_down(GpadlHandle(1)),
    );
}

fn signals(child: &mut Child, relid: Relid, connection: u32) {
    open(child, relid, 1);
    equal(
        "channels: the guest signals",
        child.wire.signal(connection, 0),
        0,
    );
    check(
        "channels: the worker sees it",
        child.wire.hand.is_signalled(relid),
    );
    equal(
        "channels: a flag that channels do not have",
        child.wire.signal(connection, 1),
        HvError::INVALID_PARAMETER.0.into(),
    );
    for (vp, status, name) in [
        (5, status::FAILURE, "moved to no VP"),
        (0, status::SUCCESS, "moved to a VP"),
    ] {
        is(name, child.modify(relid, vp), status);
    }
    let worker = &mut child.wire.hand;
    worker.signals.signal(relid);
    // Of channels that are not open, or not there.
    worker.signals.signal(Relid(relid.0 + 1));
    worker.signals.signal(Relid(2000));
    need("channels: the worker signals", worker.line.signal());
    synic::sleep(5_000);
    check(
        "channels: the guest sees it",
        child.wire.take_flag(relid.0 as u16),
    );
    check(
        "channels: and nothing else",
        !child.wire.take_flag(relid.0 as u16 + 1) && !child.wire.take_flag(2000),
    );
}

fn held_pages(child: &mut Child, relid: Relid) {
    let (held, free) = (GpadlHandle(7), GpadlHandle(8));
    is("one to hold", child.gpadl(relid, held, &ring(7)), 0);
    is("one to leave", child.gpadl(relid, free, &ring(8)), 0);
    need("channels: held", child.wire.hand.hold(relid, held));
    check(
        "channels: what nobody holds goes back at once",
        child.tear_down(relid, free) == 0 && child.is_torn_down(free),
    );
    check(
        "channels: what is held does not",
        child.tear_down(relid, held) == 0 && child.is_silent(),
    );
    hears(
        child,
        "the worker is asked for it",
        Notice::GpadlTeardown(relid, held),
    );
    refused(
        "channels: not for another",
        child.wire.hand.gpadl_done(relid, free),
        HvError::INVALID_PARAMETER,
    );
    need("channels: gives", child.wire.hand.gpadl_done(relid, held));
    check("channels: it goes back", child.is_torn_down(held));
}

/// Rescinds the open channel and its sub-channel, as the guest runs.
fn taken_back(child: &mut Child, relid: Relid, connection: u32) {
    let sub = need(
        "channels: the sub-channel",
        child.wire.hand.offer_of(plain(1, 1)),
    )
    .unwrap_or_default();
    let state = HvError::INVALID_PARTITION_STATE;
    refused(
        "channels: sub-channels go first",
        child.wire.hand.rescind(relid),
        state,
    );
    for relid in [sub, relid] {
        need("channels: taken back", child.wire.hand.rescind(relid));
        let said = child.expect(MessageType::RESCIND_CHANNEL_OFFER);
        equal(
            "channels: the guest is told which",
            said.map_or(u64::MAX, |said| said.word(0)),
            relid.0.into(),
        );
        refused(
            "channels: not free yet",
            child.wire.hand.offer_of(plain(1, u16::from(relid == sub))),
            state,
        );
        equal(
            "channels: a signal goes nowhere",
            child.wire.signal(connection, 0),
            0,
        );
        if relid != sub {
            check(
                "channels: closing it has no answer, tearing down has",
                child.close(relid) == 0
                    && child.tear_down(relid, GpadlHandle(1)) == 0
                    && child.is_torn_down(GpadlHandle(1)),
            );
        }
        equal("channels: let go", child.release(relid), 0);
        hears(child, "the worker is told", Notice::Released(relid));
    }
    let again = need(
        "channels: offered anew",
        child.wire.hand.offer_of(plain(1, 0)),
    );
    let come = child.wire.take().and_then(|said| said.offer());
    check(
        "channels: the guest gets it",
        come.is_some_and(|offer| Some(offer.relid) == again),
    );
}

/// A guest that comes anew, or goes, with a channel open: it waits for the worker.
fn resets(child: &mut Child) {
    for cause in [ResetCause::Contact, ResetCause::Unload] {
        connect(child, "channels", Version::V5_3);
        let list = child.offers().unwrap_or_default();
        equal("channels: both are offered", list.len() as u64, 2);
        let Some(relid) = list.last().map(|offer| offer.relid) else {
            return;
        };
        open(child, relid, 3);
        match cause {
            ResetCause::Contact => child.ask_for_contact(Version::V5_3),
            ResetCause::Unload => child.send(MessageType::UNLOAD, &[]),
        };
        hears(child, "the worker is asked", Notice::Reset(cause));
        check("channels: the guest waits", child.is_silent());
        refused(
            "channels: meanwhile nothing else is answered",
            child.wire.hand.close_done(relid),
            HvError::INVALID_PARTITION_STATE,
        );
        need("channels: RESET_DONE", child.wire.hand.reset_done());
        let is_answered = match cause {
            ResetCause::Contact => child.version().is_some_and(|said| said.payload[8] == 1),
            ResetCause::Unload => child.expect(MessageType::UNLOAD_RESPONSE).is_some(),
        };
        check("channels: it is answered", is_answered);
        refused(
            "channels: once",
            child.wire.hand.reset_done(),
            HvError::INVALID_PARTITION_STATE,
        );
    }
    connect(child, "channels", Version::V5_3);
    check(
        "channels: with nothing open nobody is asked",
        child.wire.hand.hears_nothing(),
    );
}

/// What GPADLs can use up, and get back.
fn quota(child: &mut Child) {
    const PAGES: u64 = 60;
    let Some(relid) = child
        .offers()
        .and_then(|list| list.first().map(|offer| offer.relid))
    else {
        check("channels: something is offered", false);
        return;
    };
    let pages: Vec<u64> = (0..PAGES).map(|n| layout::DATA / 4096 + n).collect();
    let mut before = None;
    for round in 0..3 {
        let mut made = 0;
        while made < 1000 && child.gpadl(relid, GpadlHandle(100 + made), &pages) == Some(0) {
            made += 1;
        }
        check(
            format_args!("channels: the quota has an end # {made}"),
            (8..1000).contains(&made),
        );
        check(
            "channels: it is the same again",
            before.is_none_or(|before| before == made),
        );
        before = Some(made);
        let mut offered = Vec::new();
        let refusal = (10..200).find_map(|n| match child.wire.hand.offer_of(plain(n, 0)) {
            Ok(relid) => {
                offered.push(relid);
                None
            }
            Err(error) => Some(error),
        });
        check(
            format_args!(
                "channels: nor is there room for all offers # {} {refusal:?}",
                offered.len()
            ),
            refusal == Some(HvError::INSUFFICIENT_MEMORY),
        );
        if round == 2 {
            break;
        }
        // Those offers go, so that each round has the same.
        take_offers_back(child, &offered);
        let gone = (0..made).all(|n| {
            child.tear_down(relid, GpadlHandle(100 + n)) == 0
                && child.is_torn_down(GpadlHandle(100 + n))
        });
        check("channels: all go back", gone);
    }
    note(format_args!(
        "channels: {before:?} GPADLs of {PAGES} pages in {QUOTA} frames"
    ));
}

/// The guest hears of offers, and that they are no more, and lets go of each.
fn take_offers_back(child: &mut Child, offered: &[Relid]) {
    let come = offered
        .iter()
        .filter(|relid| {
            let said = child.wire.take().and_then(|said| said.offer());
            said.is_some_and(|offer| offer.relid == **relid)
        })
        .count();
    equal(
        "channels: all offers come",
        come as u64,
        offered.len() as u64,
    );
    let gone = offered.iter().all(|relid| {
        child.wire.hand.rescind(*relid).is_ok()
            && child.expect(MessageType::RESCIND_CHANNEL_OFFER).is_some()
            && child.release(*relid) == 0
            && child.wire.hand.notice() == Some(Notice::Released(*relid))
    });
    check("channels: and go", gone);
}

/// The server's state of a child with an open channel, in another child.
fn saved(world: &World, control: &mut Line) {
    let Some(mut child) = begin(world, control, QUOTA) else {
        return;
    };
    let Some(relid) = need("saved: an offer", child.wire.hand.offer_of(plain(1, 0))) else {
        return;
    };
    connect(&mut child, "saved", Version::V5_3);
    child.offers();
    open(&mut child, relid, 1);
    let save = |worker: &mut Worker, offset| {
        let reserved = Zero;
        worker
            .line
            .ask(&Request::VmbusSave(SaveFrom { offset, reserved }))
    };
    refused(
        "saved: not while it runs",
        save(&mut child.wire.hand, 0),
        HvError::INVALID_PARTITION_STATE,
    );
    let freeze = |guest: &Guest, value| {
        need(
            "saved: time",
            guest.set_property(PropertyCode::TIME_FREEZE, value),
        )
    };
    freeze(&child.wire.guest, 1);
    let mut state = Vec::new();
    loop {
        let body = save(&mut child.wire.hand, state.len() as u32).unwrap_or_default();
        let bytes = SaveDone::decode(&body).map_or(0, |done| done.bytes as usize);
        state.extend_from_slice(body.get(SaveDone::BYTES..).unwrap_or_default());
        if state.len() >= bytes || body.len() <= SaveDone::BYTES {
            check(
                format_args!("saved: all of it # {} of {bytes}", state.len()),
                bytes != 0 && state.len() == bytes,
            );
            break;
        }
    }
    end(world, child);
    let Some(mut child) = begin(world, control, QUOTA) else {
        return;
    };
    let whole = RestorePart {
        bytes: state.len() as u32,
        offset: 0,
    };
    let part = state.get(..MAX_STATE_BYTES).unwrap_or(&state);
    refused(
        "saved: not into one that runs",
        child.wire.hand.plainly(&Request::VmbusRestore(whole, part)),
        HvError::INVALID_PARTITION_STATE,
    );
    freeze(&child.wire.guest, 1);
    let mut restored = Ok(());
    for (n, part) in state.chunks(MAX_STATE_BYTES).enumerate() {
        let header = RestorePart {
            bytes: state.len() as u32,
            offset: (n * MAX_STATE_BYTES) as u32,
        };
        let asked = child
            .wire
            .hand
            .plainly(&Request::VmbusRestore(header, part));
        restored = restored.and(asked);
    }
    need("saved: restored", restored);
    let notice = child.wire.hand.notice();
    check(
        format_args!("saved: the worker hears what is open # {notice:?}"),
        matches!(notice, Some(Notice::Open(of, opening)) if of == relid && opening.is_open_already),
    );
    freeze(&child.wire.guest, 0);
    child.connection = 4;
    let connection = relid.0 | u32::from(SINT) << 12;
    check(
        "saved: signals pass as before",
        child.wire.signal(connection, 0) == 0 && child.wire.hand.is_signalled(relid),
    );
    equal("saved: the guest closes", child.close(relid), 0);
    hears(&mut child, "the worker is asked", Notice::Close(relid));
    need("saved: done", child.wire.hand.close_done(relid));
    check(
        "saved: the ring goes back",
        child.tear_down(relid, GpadlHandle(1)) == 0 && child.is_torn_down(GpadlHandle(1)),
    );
    end(world, child);
}
