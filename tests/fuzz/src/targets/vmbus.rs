//! A child that says anything to the VMBus server, and a back end that answers anything.

use std::any::Any;
use std::collections::BTreeMap;

use addr::{Gpn, VpIndex};
use arbitrary::Arbitrary;
use synic::MessageSource;
use tlfs::call::ConnectionId;
use vmbus::{Bus, Content, FrameId, Frames, Guest, ResetRule, Server};
use vmbus_proto::{GpadlHandle, Guid, Offer, OfferFlags, Relid, class};

use crate::target;

#[derive(Arbitrary, Debug)]
enum Step {
    Bytes(Vec<u8>),
    /// Type and words of a message.
    Say(u8, Vec<u16>),
    /// Channel, handle, pages.
    Gpadl(u8, u8, u16),
    Body(u8, u8),
    Open(u8, u8, u8),
    Close(u8),
    Teardown(u8, u8),
    Contact(u8),
    Requests,
    Deliver,
    Notice,
    Opened(u8, bool),
    Closed(u8),
    GpadlDone(u8, u8),
    ResetDone(bool),
    Pages(u8, u8, u8),
    Attach,
    Offer(u8, u8),
    Rescind(u8),
    Signal(u32),
    /// Saves and restores into a new server.
    Migrate(u16),
    /// Restores what nobody saved.
    Restore(u16, Vec<u8>),
}

#[derive(Default)]
struct Pool {
    used: BTreeMap<u32, Option<Box<dyn Any>>>,
    last: u32,
}

impl Frames for Pool {
    fn allocate(&mut self) -> Option<FrameId> {
        self.last += 1;
        self.used.insert(self.last, None);
        Some(FrameId(self.last))
    }

    fn free(&mut self, frame: FrameId) {
        assert!(self.used.remove(&frame.0).is_some(), "freed twice");
    }

    fn get<T: Content>(&mut self, frame: FrameId) -> Option<&mut T> {
        let slot = self.used.get_mut(&frame.0)?;
        let content = slot.get_or_insert_with(|| Box::new(T::default()));
        Some(content.downcast_mut().expect("always the same type"))
    }
}

struct Machine;

impl Guest for Machine {
    fn is_ram(&mut self, page: Gpn) -> bool {
        page.get() < 1 << 20
    }

    fn has_vp(&mut self, vp: VpIndex) -> bool {
        vp.get() < 4
    }
}

struct World {
    server: Server,
    pool: Pool,
    quota: u32,
}

impl World {
    fn new(quota: u32) -> Self {
        Self {
            server: Server::new(quota, ResetRule::WhenInUse),
            pool: Pool::default(),
            quota,
        }
    }

    fn bus(&mut self) -> Bus<'_, Pool> {
        self.server.with(&mut self.pool)
    }

    fn say(&mut self, words: &[u32]) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let _ = self.bus().receive(&bytes, &mut Machine);
    }

    fn deliver(&mut self) -> bool {
        let Some((vp, sint)) = self.bus().message_target() else {
            return false;
        };
        let mut bus = self.bus();
        let mut outgoing = bus.outgoing(vp);
        if outgoing.waiting() == 0 {
            return false;
        }
        assert_eq!(outgoing.waiting(), 1 << sint);
        outgoing.first(sint.into());
        outgoing.pop(sint.into());
        true
    }

    fn migrate(self, part: usize) -> Self {
        let mut world = self;
        let part = part.max(1);
        let mut state = Vec::new();
        loop {
            let mut room = vec![0; part];
            let total = world.bus().save(state.len() as u32, &mut room) as usize;
            let len = part.min(total.saturating_sub(state.len()));
            state.extend_from_slice(&room[..len]);
            if state.len() >= total {
                break;
            }
        }
        let quota = world.quota;
        world.release();
        let mut new = Self::new(quota);
        let total = state.len() as u32;
        let mut at = 0;
        for bytes in state.chunks(part) {
            match new.bus().restore(total, at, bytes, &mut Machine) {
                Ok(_) => at += bytes.len() as u32,
                Err(error) => panic!("what was saved is refused: {error:?}"),
            }
        }
        new
    }

    fn release(&mut self) {
        while self.bus().release() {}
        assert!(self.pool.used.is_empty(), "frames stay behind");
    }
}

fn offer(instance: u8, sub_channel: u8) -> Offer {
    Offer {
        class: class::SCSI,
        instance: Guid::numbered(Guid([9; 16]), (instance % 6).into()),
        flags: OfferFlags::ENUMERATE,
        sub_channel: (sub_channel % 3).into(),
        ..Offer::default()
    }
}

fn relid(number: u8) -> Relid {
    Relid((number % 8).into())
}

fn handle(number: u8) -> GpadlHandle {
    GpadlHandle((number % 8).into())
}

target!(|input: (u8, Vec<Step>)| {
    let (quota, steps) = input;
    let mut world = World::new(u32::from(quota % 24) + 3);
    for number in 1..=3 {
        let _ = world.bus().offer(&offer(number, 0));
    }
    let mut open_id = 0;
    for step in steps.iter().take(256) {
        match step {
            Step::Bytes(bytes) => {
                let bytes = &bytes[..bytes.len().min(240)];
                let _ = world.bus().receive(bytes, &mut Machine);
            }
            Step::Say(kind, words) => {
                let mut message = vec![u32::from(kind % 32), 0];
                message.extend(words.iter().take(58).map(|word| u32::from(*word)));
                world.say(&message);
            }
            Step::Gpadl(channel, name, pages) => {
                let pages = u32::from(*pages) % 8192;
                let range = (8 + 8 * pages) & 0xFFFF | 1 << 16;
                let mut message = vec![
                    8,
                    0,
                    relid(*channel).0,
                    handle(*name).0,
                    range,
                    pages << 12,
                    0,
                ];
                message.extend((0..pages.min(26)).flat_map(|page| [0x100 + page, 0]));
                world.say(&message);
            }
            Step::Body(name, pages) => {
                let mut message = vec![9, 0, 0, handle(*name).0];
                message.extend((0..u32::from(pages % 29)).flat_map(|page| [0x200 + page, 0]));
                world.say(&message);
            }
            Step::Open(channel, ring, downstream) => {
                open_id += 1;
                let mut message = vec![
                    5,
                    0,
                    relid(*channel).0,
                    open_id,
                    handle(*ring).0,
                    0,
                    u32::from(*downstream),
                ];
                message.resize(37, 3);
                world.say(&message);
            }
            Step::Close(channel) => world.say(&[7, 0, relid(*channel).0]),
            Step::Teardown(channel, name) => {
                world.say(&[11, 0, relid(*channel).0, handle(*name).0]);
            }
            Step::Contact(version) => {
                let version =
                    [0x4_0000, 0x4_0001, 0x5_0000, 0x5_0003, 0x6_0000][usize::from(version % 5)];
                world.say(&[14, 0, version, 0, 2, 0, 0, 0, 0, 0]);
            }
            Step::Requests => world.say(&[3, 0]),
            Step::Deliver => while world.deliver() {},
            Step::Notice => {
                let _ = world.bus().next_notice();
            }
            Step::Opened(channel, is_willing) => {
                let _ = world.bus().opened(relid(*channel), u32::from(!is_willing));
            }
            Step::Closed(channel) => {
                let _ = world.bus().closed(relid(*channel));
            }
            Step::GpadlDone(channel, name) => {
                let _ = world.bus().gpadl_done(relid(*channel), handle(*name));
            }
            Step::ResetDone(is_reset) => {
                let _ = world.bus().reset_done(*is_reset);
            }
            Step::Pages(channel, name, first) => {
                let mut room = [Gpn::default(); 64];
                let first = u16::from(*first);
                let pages =
                    world
                        .bus()
                        .gpadl_pages(relid(*channel), handle(*name), first, &mut room);
                if pages.is_ok() {
                    assert!(room.iter().all(|page| page.get() < 1 << 20), "not RAM");
                }
            }
            Step::Attach => world.bus().attach(),
            Step::Offer(instance, sub_channel) => {
                let _ = world.bus().offer(&offer(*instance, *sub_channel));
            }
            Step::Rescind(channel) => {
                let _ = world.bus().rescind(relid(*channel));
            }
            Step::Signal(connection) => {
                let _ = world.bus().signalled(ConnectionId(*connection));
                if let Some(target) = world.bus().event_target(Relid(connection % 8)) {
                    assert!(target.vp.get() < 4);
                }
            }
            Step::Migrate(part) => world = world.migrate(usize::from(*part)),
            Step::Restore(part, bytes) => {
                let mut other = World::new(world.quota);
                let total = bytes.len() as u32;
                let part = usize::from(*part).max(1);
                let mut at = 0;
                for bytes in bytes.chunks(part) {
                    if other.bus().restore(total, at, bytes, &mut Machine).is_err() {
                        break;
                    }
                    at += bytes.len() as u32;
                }
                assert!(other.pool.used.len() as u32 <= other.quota);
                other.release();
            }
        }
        assert!(
            world.pool.used.len() as u32 <= world.quota,
            "beyond its quota"
        );
    }
    world.release();
});
