//! The parent's own bus.

use alloc::vec::Vec;

use machine::insn;
use machine::verdict::{check, equal};
use tlfs::HvError;
use tlfs::msr;
use vmbus_proto::{GpadlHandle, MessageType, Relid, Version, class, status};

use super::conversation::{self, connect};
use crate::arena::{self, FRAME};
use crate::child::code;
use crate::child::guest::{Guest, Mode};
use crate::child::layout;
use crate::client::partition::children;
use crate::client::{call, synic};
use crate::group::need;
use vmbus_client::{Client, POST, SIGNAL, SINT, Said, Wire, post_input};

/// Offers at the beginning: the control channel and slots.
const OFFERS: usize = 9;
/// Pages of both rings.
const RING_PAGES: u64 = 34;
/// The second ring's first page.
const DOWNSTREAM: u32 = 17;
/// Longest wait for a message, in microseconds.
const PATIENCE: u64 = 100_000;

/// This processor's SynIC.
pub struct Parent {
    events: u64,
}

impl Parent {
    /// Enables SINT 2 and event flags.
    pub fn set_up() -> Self {
        let events = arena::frame();
        insn::wrmsr(msr::SIEFP, events | 1);
        insn::wrmsr(msr::SINT0 + u32::from(SINT), synic::WAKE.into());
        Self { events }
    }

    /// The opposite.
    pub fn take_down(self) {
        insn::wrmsr(msr::SINT0 + u32::from(SINT), 1 << 16);
        insn::wrmsr(msr::SIEFP, 0);
        arena::free(self.events);
    }
}

impl Wire for Parent {
    fn post(&mut self, connection: u32, kind: u32, payload: &[u8]) -> u64 {
        call::code(call::simple(POST, &post_input(connection, kind, payload)))
    }

    fn take(&mut self) -> Option<Said> {
        let slot = synic::page() + u64::from(SINT) * 256;
        if !synic::sleep_until(PATIENCE, || insn::read_mmio32(slot) != 0) {
            return None;
        }
        let mut words = [0; 32];
        for (at, word) in words.iter_mut().enumerate() {
            *word = insn::read_phys64(slot + at as u64 * 8);
        }
        insn::write_mmio32(slot, 0);
        insn::wrmsr(msr::EOM, 0);
        Some(Said::of(&words))
    }

    fn signal(&mut self, connection: u32, flag: u16) -> u64 {
        let input = u64::from(connection) | u64::from(flag) << 32;
        call::code(call::fast(SIGNAL, input, 0))
    }

    fn take_flag(&mut self, number: u16) -> bool {
        let at = self.events + u64::from(SINT) * 256 + u64::from(number / 64) * 8;
        let bit = 1 << (number % 64);
        let word = insn::read_phys64(at);
        insn::write_phys64(at, word & !bit);
        word & bit != 0
    }
}

/// Pages for the rings of one channel.
pub struct Ring {
    frames: Vec<u64>,
}

impl Ring {
    /// Of zeros, scattered.
    pub fn new() -> Self {
        let frames: Vec<u64> = (0..RING_PAGES).map(|_| arena::frame()).collect();
        for frame in &frames {
            insn::fill_phys(*frame, FRAME / 8, 0);
        }
        Self { frames }
    }

    /// Page numbers.
    pub fn pages(&self) -> Vec<u64> {
        self.frames.iter().map(|frame| frame / FRAME).collect()
    }

    /// Gives the pages back.
    pub fn free(self) {
        self.frames.into_iter().for_each(arena::free);
    }
}

/// Runs this part of the group.
pub fn run() {
    let mut client = Client::new(Parent::set_up());
    conversation::versions(&mut client, "parent");
    offers(&mut client);
    conversation::strangers(&mut client, "parent");
    conversation::garbage(&mut client, "parent");
    conversation::full_queue(&mut client, "parent");
    channels(&mut client);
    conversation::unload(&mut client, "parent");
    ends(&mut client);
    client.wire.take_down();
}

fn offers(client: &mut Client<Parent>) {
    let list = client.offers().unwrap_or_default();
    equal("parent: offers", list.len() as u64, OFFERS as u64);
    for (n, offer) in list.iter().enumerate() {
        let (kind, instance) = match n.checked_sub(1) {
            None => (class::CONTROL, class::CONTROL_INSTANCE),
            Some(slot) => (class::SLOT, class::slot_instance(slot as u32)),
        };
        let connection = offer.relid.0 | u32::from(SINT) << 12;
        check(
            format_args!("parent: offer {n}"),
            offer.class == kind
                && offer.instance == instance
                && offer.sub_channel == 0
                && offer.is_dedicated == 1
                && !offer.is_monitored
                && offer.connection == connection
                && offer.relid == Relid(n as u32 + 1),
        );
    }
    check(
        "parent: asking again has no answer",
        client.send(MessageType::REQUEST_OFFERS, &[]) == 0 && client.is_silent(),
    );
}

fn is(name: &str, got: Option<u64>, wanted: u32) {
    equal(
        format_args!("parent: {name}"),
        got.unwrap_or(u64::MAX),
        wanted.into(),
    );
}

/// Opens, signals, moves, closes the first slot.
fn channels(client: &mut Client<Parent>) {
    connect(client, "parent", Version::V5_3);
    let Some(slot) = client.offers().and_then(|list| list.get(1).copied()) else {
        check("parent: there is a slot", false);
        return;
    };
    let relid = slot.relid;
    let (first, second) = (Ring::new(), Ring::new());
    let mut wild = first.pages();
    wild[30] = 1 << 40;
    is(
        "a GPADL beyond memory",
        client.gpadl(relid, GpadlHandle(1), &wild),
        status::FAILURE,
    );
    is(
        "a GPADL",
        client.gpadl(relid, GpadlHandle(1), &first.pages()),
        0,
    );
    is(
        "the same handle",
        client.gpadl(relid, GpadlHandle(1), &second.pages()),
        status::FAILURE,
    );
    is(
        "a GPADL too short for rings",
        client.gpadl(relid, GpadlHandle(2), &second.pages()[..20]),
        0,
    );
    for (name, ring, page, vp) in [
        ("without a ring", 9, DOWNSTREAM, 0),
        ("with a short ring", 2, DOWNSTREAM, 0),
        ("with a ring in the wrong place", 1, 16, 0),
        ("for no VP that there is", 1, DOWNSTREAM, 500),
    ] {
        is(
            name,
            client.open(relid, GpadlHandle(ring), page, vp),
            status::FAILURE,
        );
    }
    equal(
        "parent: a signal to what is closed",
        client.wire.signal(slot.connection, 0),
        0,
    );
    is(
        "opened",
        client.open(relid, GpadlHandle(1), DOWNSTREAM, 0),
        0,
    );
    is(
        "opened twice",
        client.open(relid, GpadlHandle(1), DOWNSTREAM, 0),
        status::FAILURE,
    );
    equal(
        "parent: a signal",
        client.wire.signal(slot.connection, 0),
        0,
    );
    equal(
        "parent: a flag that no channel has",
        client.wire.signal(slot.connection, 1),
        HvError::INVALID_PARAMETER.0.into(),
    );
    check(
        "parent: nobody signals it",
        !client.wire.take_flag(relid.0 as u16),
    );
    is("moved", client.modify(relid, 0), 0);
    is("moved to no VP", client.modify(relid, 500), status::FAILURE);
    check(
        "parent: a ring in use is not given back",
        client.tear_down(relid, GpadlHandle(1)) == 0 && client.is_silent(),
    );
    check(
        "parent: once it is closed, it is",
        client.close(relid) == 0 && client.is_torn_down(GpadlHandle(1)),
    );
    check(
        "parent: the short one, too",
        client.tear_down(relid, GpadlHandle(2)) == 0 && client.is_torn_down(GpadlHandle(2)),
    );
    is(
        "anew: a GPADL",
        client.gpadl(relid, GpadlHandle(3), &second.pages()),
        0,
    );
    is(
        "anew: opened",
        client.open(relid, GpadlHandle(3), DOWNSTREAM, 0),
        0,
    );
    equal(
        "parent: a number in use is not let go",
        client.release(relid),
        0,
    );
    check(
        "parent: and nothing comes of it",
        client.is_silent() && client.close(relid) == 0,
    );
    check(
        "parent: anew: torn down",
        client.tear_down(relid, GpadlHandle(3)) == 0 && client.is_torn_down(GpadlHandle(3)),
    );
    equal("parent: let go", client.release(relid), 0);
    let again = client.wire.take().and_then(|said| said.offer());
    check(
        "parent: what was let go is offered again",
        again.is_some_and(|offer| offer.relid == relid && offer.instance == slot.instance),
    );
    // One that is open when the parent comes anew.
    is(
        "left open: a GPADL",
        client.gpadl(relid, GpadlHandle(4), &first.pages()),
        0,
    );
    is(
        "left open",
        client.open(relid, GpadlHandle(4), DOWNSTREAM, 0),
        0,
    );
    connect(client, "parent", Version::V5_3);
    equal(
        "parent: offers after that",
        client.offers().map_or(0, |list| list.len() as u64),
        OFFERS as u64,
    );
    is(
        "its handle is free",
        client.gpadl(relid, GpadlHandle(4), &second.pages()),
        0,
    );
    is(
        "opened again",
        client.open(relid, GpadlHandle(4), DOWNSTREAM, 0),
        0,
    );
    check("parent: unloaded with it open", client.unload());
    first.free();
    second.free();
    connect(client, "parent", Version::V5_3);
}

/// Children that run when the parent lets go.
const CHILDREN: usize = 8;

/// Children go before the parent is answered.
fn ends(client: &mut Client<Parent>) {
    for how in ["contact", "unload"] {
        connect(client, how, Version::V5_3);
        let mut guests = alloc::vec::Vec::new();
        for _ in 0..CHILDREN {
            let Some(mut guest) = need(format_args!("{how}: a child"), Guest::new(1)) else {
                return;
            };
            need("vmbus: start", guest.start(0, Mode::Long, code::spin, &[]));
            need("vmbus: go", guest.resume(0));
            guests.push(guest);
        }
        synic::sleep(20_000);
        let is_answered = match how {
            "contact" => client.contact(Version::V5_3).is_some(),
            _ => client.unload(),
        };
        check(
            format_args!("parent: {how} is answered with children"),
            is_answered,
        );
        equal(
            format_args!("parent: {how} ends them"),
            children().len() as u64,
            0,
        );
        let counts = || -> u64 {
            let counters = guests.iter().map(|guest| guest.read(layout::SHARED));
            counters.fold(0, u64::wrapping_add)
        };
        let then = counts();
        synic::sleep(20_000);
        check(
            format_args!("parent: after {how} nothing runs any more"),
            counts() == then,
        );
        let dirty = guests
            .iter()
            .flat_map(|guest| &guest.deposited)
            .filter(|frame| !arena::is_filled(**frame, 0))
            .count();
        equal(
            format_args!("parent: {how} gives clean frames back"),
            dirty as u64,
            0,
        );
        guests.into_iter().for_each(Guest::forget);
        synic::drain();
    }
}
