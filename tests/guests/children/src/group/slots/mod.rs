//! Control channel and slots: what the parent's user space does through them, by hand.

mod channels;
mod control;
mod ends;
mod frames;
mod noise;
pub mod worker;

use alloc::vec::Vec;

use addr::Gpa;
use machine::platform::Platform;
use machine::verdict::{check, equal};
use slot_proto::{
    Attach, AttachFlags, Attached, Detach, Generation, HelloDone, List, ListDone, ListEntry,
    Request, Tag,
};
use slots::Client;
use tlfs::HvError;
use tlfs::property::PropertyCode;
use tlfs::wire::Zero;
use vmbus_proto::{OfferChannel, class};

use super::need;
use crate::child::guest::Guest;
use crate::client::bus::Bus;
use crate::client::line::{LATE, Line, Ring, WorkerPages};
use crate::client::partition::USUAL;
use crate::options::Options;

/// Channels that the parent is offered: the control channel and eight slots.
const CHANNELS: usize = 9;
/// Frames for a child's server.
const QUOTA: u64 = 32;

/// The parent's connection and what it was offered.
pub struct World {
    /// Its bus.
    pub bus: Bus,
    offers: Vec<OfferChannel>,
}

impl World {
    /// Connects and looks at the offers.
    pub fn new() -> Option<Self> {
        let bus = Bus::connect();
        check("the server takes the parent's contact", bus.is_some());
        let bus = bus?;
        let offers = bus.offers();
        equal("channels are offered", offers.len() as u64, CHANNELS as u64);
        let is_control = |offer: &OfferChannel| offer.class == class::CONTROL;
        let is_slot = |offer: &OfferChannel| offer.class == class::SLOT;
        check(
            "the control channel is the first, slots follow",
            offers.first().is_some_and(is_control)
                && offers.iter().skip(1).all(is_slot)
                && offers.len() == CHANNELS,
        );
        (offers.len() == CHANNELS).then_some(Self { bus, offers })
    }

    /// Opens the control channel and greets.
    pub fn control(&self) -> Option<Line> {
        let opened = Line::open(&self.bus, &self.offers[0]);
        let mut line = opened
            .map_err(|status| {
                check(
                    format_args!("the control channel opens # {status:#x}"),
                    false,
                )
            })
            .ok()?;
        need("control: HELLO", line.hello())?;
        Some(line)
    }

    /// Opens slot `number`.
    fn slot(&self, number: usize) -> Option<Line> {
        let opened = Line::open(&self.bus, &self.offers[1 + number]);
        opened
            .map_err(|status| check(format_args!("a slot opens # {status:#x}"), false))
            .ok()
    }

    /// Unloads.
    pub fn leave(self) {
        check("the server takes the parent's unload", self.bus.unload());
        self.bus.leave();
    }
}

impl Line {
    /// HELLO.
    fn hello(&mut self) -> Result<HelloDone, HvError> {
        let body = self.ask(&Client::<Ring>::hello(4))?;
        HelloDone::decode(&body)
    }

    /// ATTACH of slot `slot` to `guest`.
    fn attach(
        &mut self,
        slot: u32,
        guest: &Guest,
        pages: &WorkerPages,
        flags: AttachFlags,
    ) -> Result<Generation, HvError> {
        let body = self.ask(&Request::Attach(Attach {
            slot,
            flags,
            partition: guest.id,
            event_area: Gpa::new(pages.at),
            signal_page: Gpa::new(pages.signal_page()),
        }))?;
        Attached::decode(&body).map(|done| done.generation)
    }

    /// DETACH.
    pub fn detach(&mut self, slot: u32, generation: Generation) -> Result<(), HvError> {
        self.ask(&Request::Detach(Detach { slot, generation }))
            .map(drop)
    }

    /// All of LIST.
    fn list(&mut self) -> Result<Vec<ListEntry>, HvError> {
        let mut entries = Vec::new();
        let mut start = 0;
        loop {
            let reserved = Zero;
            let body = self.ask(&Request::List(List { start, reserved }))?;
            let done = ListDone::decode(&body)?;
            let bytes = body.get(ListDone::BYTES..).unwrap_or_default();
            let found = bytes
                .chunks_exact(ListEntry::BYTES)
                .map(ListEntry::decode)
                .collect::<Result<Vec<_>, _>>()?;
            if found.len() != usize::from(done.count) {
                return Err(LATE);
            }
            entries.extend(found);
            start = done.next;
            if start == 0 {
                return Ok(entries);
            }
        }
    }

    /// The entry of `guest` in LIST.
    fn entry(&mut self, guest: &Guest) -> Option<ListEntry> {
        let list = self.list().ok()?;
        list.into_iter().find(|entry| entry.partition == guest.id)
    }

    /// TAG.
    fn tag(&mut self, guest: &Guest, tag: u64) -> Result<(), HvError> {
        let partition = guest.id;
        self.ask(&Request::Tag(Tag { partition, tag })).map(drop)
    }
}

/// A child with a server.
pub fn child() -> Option<Guest> {
    need(
        "a child with a server",
        Guest::with(USUAL, 1, |child| {
            child.set_property(PropertyCode::VMBUS, QUOTA)?;
            // The server's frames come out of the pool.
            child.deposit(QUOTA as usize)
        }),
    )
}

/// Runs the group.
pub fn run(options: &Options, platform: &Platform) {
    let Some(world) = World::new() else { return };
    control::run(&world);
    worker::run(&world);
    ends::run(&world);
    channels::run(&world);
    frames::run(&world, platform);
    noise::run(&world, options.seed);
    world.leave();
    ends::death();
}
