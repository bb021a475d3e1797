//! Frames, a client as Linux is one, and short forms for what the tests say.

use std::any::Any;
use std::boxed::Box;
use std::collections::BTreeSet;
use std::vec::Vec;

use addr::{Gpn, VpIndex};
use synic::MessageSource;
use vmbus_proto::{GpadlHandle, Guid, Offer, OfferFlags, Relid, UserData, class};

use crate::{Bus, Content, FrameId, Frames, Guest, Notice, Refused, ResetRule, Server};

#[derive(Debug, Default)]
pub struct Pool {
    frames: Vec<Option<Box<dyn Any>>>,
    pub used: BTreeSet<u32>,
    /// Records that were looked at, which is what time is spent on.
    pub looks: usize,
}

impl Frames for Pool {
    fn allocate(&mut self) -> Option<FrameId> {
        self.frames.push(None);
        let id = self.frames.len() as u32;
        self.used.insert(id);
        Some(FrameId(id))
    }

    fn free(&mut self, frame: FrameId) {
        assert!(self.used.remove(&frame.0), "freed twice");
    }

    fn get<T: Content>(&mut self, frame: FrameId) -> Option<&mut T> {
        self.looks += 1;
        if !self.used.contains(&frame.0) {
            return None;
        }
        let slot = self.frames.get_mut(frame.0 as usize - 1)?;
        let contents = slot.get_or_insert_with(|| Box::new(T::default()));
        Some(contents.downcast_mut().expect("always the same type"))
    }
}

/// Pages below 2^20 are RAM; VPs 0 to 3 exist.
pub struct Machine;

impl Guest for Machine {
    fn is_ram(&mut self, page: Gpn) -> bool {
        page.get() < 1 << 20
    }
    fn has_vp(&mut self, vp: VpIndex) -> bool {
        vp.get() < 4
    }
}

pub struct World {
    pub server: Server,
    pub pool: Pool,
    pub quota: u32,
}

pub fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

pub fn words(bytes: &[u8]) -> Vec<u32> {
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|word| u32::from_le_bytes(*word))
        .collect()
}

pub fn offer(instance: u32, sub_channel: u16) -> Offer {
    Offer {
        class: class::SCSI,
        instance: Guid::numbered(Guid([9; 16]), instance),
        flags: OfferFlags::ENUMERATE,
        sub_channel,
        user: UserData([3; 120]),
        ..Offer::default()
    }
}

impl World {
    pub fn new(quota: u32, rule: ResetRule) -> Self {
        Self {
            server: Server::new(quota, rule),
            pool: Pool::default(),
            quota,
        }
    }

    /// A client that speaks 5.3 and knows of `offers` channels.
    pub fn connected(offers: u32) -> Self {
        let mut world = Self::new(64, ResetRule::WhenInUse);
        for number in 1..=offers {
            assert_eq!(world.bus().offer(&offer(number, 0)), Ok(Relid(number)));
        }
        world.say(&contact(0x5_0003));
        world.say(&[3, 0]);
        let sent = world.sent();
        assert_eq!(sent.len() as u32, offers + 2);
        world
    }

    pub fn bus(&mut self) -> Bus<'_, Pool> {
        self.server.with(&mut self.pool)
    }

    /// The client posts; afterwards all rules hold.
    pub fn post(&mut self, payload: &[u8]) -> Result<(), Refused> {
        let outcome = self.bus().receive(payload, &mut Machine);
        self.check();
        outcome
    }

    #[track_caller]
    pub fn say(&mut self, words: &[u32]) {
        assert_eq!(self.post(&bytes(words)), Ok(()));
    }

    /// The next message for the client.
    pub fn next_sent(&mut self) -> Option<Vec<u32>> {
        let (vp, sint) = self.bus().message_target()?;
        let mut bus = self.bus();
        let mut outgoing = bus.outgoing(vp);
        if outgoing.waiting() == 0 {
            return None;
        }
        assert_eq!(outgoing.waiting(), 1 << sint);
        let message = outgoing.first(sint.into());
        outgoing.pop(sint.into());
        self.check();
        message.map(|(message, _)| words(message.payload()))
    }

    pub fn sent(&mut self) -> Vec<Vec<u32>> {
        core::iter::from_fn(|| self.next_sent()).collect()
    }

    pub fn notices(&mut self) -> Vec<Notice> {
        core::iter::from_fn(|| self.bus().next_notice()).collect()
    }

    pub fn check(&mut self) {
        assert!(self.pool.used.len() as u32 <= self.quota);
        let mut bus = self.bus();
        bus.check().unwrap();
        bus.account();
    }

    /// GPADL of `pages` pages from 0x100 on, in as many messages as Linux needs. Gives what is answered.
    pub fn gpadl(&mut self, relid: u32, handle: u32, pages: u32) -> Vec<Vec<u32>> {
        for message in gpadl(relid, handle, pages) {
            self.say(&message);
        }
        self.sent()
    }

    #[track_caller]
    pub fn made(&mut self, relid: u32, handle: u32, pages: u32) {
        assert_eq!(
            self.gpadl(relid, handle, pages),
            [[10, 0, relid, handle, 0]]
        );
    }

    /// Opens a channel with a ring of 64 pages; the back end has its pages.
    #[track_caller]
    pub fn opened(&mut self, relid: u32, handle: u32) {
        self.made(relid, handle, 64);
        self.say(&open(relid, handle, 32));
        assert!(
            matches!(self.notices()[..], [Notice::Open(opening)] if opening.relid == Relid(relid))
        );
        self.hold(relid, handle);
        assert_eq!(self.bus().opened(Relid(relid), 0), Ok(()));
        assert_eq!(self.sent(), [[6, 0, relid, relid, 0]]);
    }

    #[track_caller]
    pub fn hold(&mut self, relid: u32, handle: u32) {
        let mut pages = [Gpn::default(); 64];
        let outcome = self
            .bus()
            .gpadl_pages(Relid(relid), GpadlHandle(handle), 0, &mut pages);
        assert!(outcome.is_ok(), "{outcome:?}");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            while self.bus().release() {}
            assert!(self.pool.used.is_empty(), "frames stay behind");
        }
    }
}

pub fn contact(version: u32) -> Vec<u32> {
    std::vec![14, 0, version, 1, 2, 0, 0x1000, 0, 0x2000, 0]
}

pub fn gpadl(relid: u32, handle: u32, pages: u32) -> Vec<Vec<u32>> {
    let numbers: Vec<u32> = (0..pages).flat_map(|page| [0x100 + page, 0]).collect();
    let head = numbers.len().min(26 * 2);
    let mut first = std::vec![
        8,
        0,
        relid,
        handle,
        (8 + 8 * pages) | 1 << 16,
        pages * 4096,
        0
    ];
    first.extend(&numbers[..head]);
    let bodies = numbers[head..].chunks(28 * 2);
    let bodies = bodies.map(|numbers| [&[9, 0, 0, handle][..], numbers].concat());
    core::iter::once(first).chain(bodies).collect()
}

pub fn open(relid: u32, ring: u32, downstream: u32) -> Vec<u32> {
    let mut words = std::vec![5, 0, relid, relid, ring, 2, downstream];
    words.resize(37, 0);
    words
}

pub fn close(relid: u32) -> [u32; 3] {
    [7, 0, relid]
}

pub fn teardown(relid: u32, handle: u32) -> [u32; 4] {
    [11, 0, relid, handle]
}

impl Bus<'_, Pool> {
    /// Every record and block is either in use or free, once; what waits for room does so because there is none.
    pub fn account(&mut self) {
        use crate::channel::{Channel, ChannelState, Due};
        use crate::gpadl::{Gpadl, GpadlState};
        let server = &mut *self.server;
        let in_use = |channel: &Channel| channel.state != ChannelState::Free;
        let mut keys = BTreeSet::new();
        let mut used = BTreeSet::new();
        let is_full = server.answers.len == 256;
        for number in 1..=server.channels.room {
            let channel = *server.channels.get(number, self.frames).unwrap();
            if in_use(&channel) {
                used.insert(number);
                assert!(
                    keys.insert((channel.offer.instance, channel.offer.sub_channel)),
                    "an instance twice"
                );
                assert!(channel.due == Due::Nothing || is_full || !server.connection.wants_offers);
            }
        }
        assert_eq!(
            server.channels.free_numbers(self.frames).len() + used.len(),
            server.channels.room.into()
        );
        let mut blocks = server.blocks.free_numbers(self.frames);
        let mut handles = BTreeSet::new();
        let mut gpadls = server.gpadls.free_numbers(self.frames);
        for number in 1..=server.gpadls.room {
            let gpadl: Gpadl = *server.gpadls.get(number, self.frames).unwrap();
            if gpadl.state == GpadlState::Free {
                continue;
            }
            assert!(gpadls.insert(number), "a GPADL both free and not");
            assert!(handles.insert(gpadl.handle), "a handle twice");
            assert!(gpadl.state != GpadlState::Torn || is_full);
            let mut block = gpadl.first;
            let mut count = 0;
            while block != 0 {
                assert!(blocks.insert(block), "a block both free and not");
                block = server.blocks.get(block, self.frames).unwrap().next();
                count += 1;
            }
            if gpadl.state != GpadlState::Torn {
                assert_eq!(count, gpadl.got.div_ceil(31));
            }
        }
        assert_eq!(gpadls.len(), server.gpadls.room.into());
        assert_eq!(blocks.len(), server.blocks.room.into());
    }
}

impl<T: crate::table::Record, const N: usize> crate::table::Table<T, N> {
    fn free_numbers(&self, frames: &mut impl Frames) -> BTreeSet<u16> {
        let mut numbers = BTreeSet::new();
        let mut next = self.first_free();
        while next != 0 {
            assert!(numbers.insert(next), "the chain of free records goes round");
            next = *self.get(next, frames).unwrap().link();
        }
        numbers
    }
}

impl World {
    /// As [`World::check`], of a state whose instances need not differ: that would harm its own client.
    pub fn check_restored(&mut self) {
        self.bus().check().unwrap();
    }
}
