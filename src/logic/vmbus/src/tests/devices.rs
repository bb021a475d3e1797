//! Drivers that keep the rules, in any order of events: everything that they wait for comes, once.

use std::collections::BTreeMap;
use std::vec::Vec;

use proptest::prelude::*;

use super::backend::BackEnd;
use super::world::*;

#[derive(Debug, Clone, PartialEq)]
enum Driver {
    /// Its channel is not known.
    Absent,
    Idle,
    /// Messages of the GPADL that are still to be posted.
    Describing(Vec<Vec<u32>>),
    WaitsForGpadl,
    WaitsForOpen,
    Open,
    WaitsForMove,
    WaitsForTeardown,
}

#[derive(Debug, PartialEq)]
enum Bus {
    WaitsForVersion,
    WaitsForOffers,
    Up,
}

struct Client {
    bus: Bus,
    drivers: BTreeMap<u32, Driver>,
    /// The GPADL of each.
    handles: BTreeMap<u32, u32>,
    next_handle: u32,
}

impl Client {
    /// Makes one step of a driver, unless it waits.
    fn step(&mut self, world: &mut World, relid: u32, pages: u32) {
        let driver = self.drivers.entry(relid).or_insert(Driver::Absent);
        let handle = *self.handles.entry(relid).or_default();
        match driver {
            Driver::Idle => {
                self.next_handle += 1;
                self.handles.insert(relid, self.next_handle);
                let mut messages = gpadl(relid, self.next_handle, pages);
                messages.reverse();
                *driver = Driver::Describing(messages);
            }
            Driver::Describing(messages) => {
                // Bodies for a channel that was taken back meanwhile are nobody's.
                let outcome = world.post(&bytes(&messages.pop().unwrap()));
                assert!(outcome.is_ok() || is_gone(world, relid));
                if messages.is_empty() {
                    *driver = Driver::WaitsForGpadl;
                }
            }
            Driver::Open if pages.is_multiple_of(3) => {
                world.say(&[22, 0, relid, pages % 4]);
                *driver = Driver::WaitsForMove;
            }
            Driver::Open => {
                world.say(&close(relid));
                world.say(&teardown(relid, handle));
                *driver = Driver::WaitsForTeardown;
            }
            _ => {}
        }
    }

    /// Takes a message: it must be what somebody waits for, or about a channel that is gone, whether or not the
    /// driver has heard.
    fn take(&mut self, world: &mut World, back: &BackEnd, message: &[u32]) {
        let by_handle = |client: &Self, handle| {
            let owner = client.handles.iter().find(|(_, other)| **other == handle);
            *owner.expect("a handle of ours").0
        };
        let about = match *message {
            [6 | 10 | 24, 0, relid, ..] => Some(relid),
            [12, 0, handle] => {
                back.expect_off(handle);
                Some(by_handle(self, handle))
            }
            _ => None,
        };
        let is_absent =
            |relid: u32| matches!(self.drivers.get(&relid), None | Some(Driver::Absent));
        if about.is_some_and(|relid| is_gone(world, relid) || is_absent(relid)) {
            return;
        }
        match (message, &self.bus) {
            ([15, 0, 1, 4], Bus::WaitsForVersion) => {
                assert!(
                    back.held.is_empty() && back.rings.is_empty(),
                    "of the kernel before"
                );
                self.bus = Bus::WaitsForOffers;
                world.say(&[3, 0]);
            }
            ([4, 0], Bus::WaitsForOffers) => self.bus = Bus::Up,
            ([1, ..], _) => {
                let before = self.drivers.insert(message[46], Driver::Idle);
                assert!(matches!(before, None | Some(Driver::Absent)), "{before:?}");
            }
            (&[2, 0, relid], _) => {
                let before = self.drivers.insert(relid, Driver::Absent);
                assert!(before.is_some_and(|driver| driver != Driver::Absent));
                world.say(&[13, 0, relid]);
            }
            (&[6, 0, relid, _, status], _) => {
                let driver = self.drivers.get_mut(&relid).unwrap();
                assert_eq!(*driver, Driver::WaitsForOpen);
                *driver = Driver::Open;
                if status != 0 {
                    world.say(&teardown(relid, self.handles[&relid]));
                    *driver = Driver::WaitsForTeardown;
                }
            }
            (&[10, 0, relid, handle, 0], _) => {
                assert_eq!(relid, by_handle(self, handle));
                let driver = self.drivers.get_mut(&relid).unwrap();
                assert_eq!(*driver, Driver::WaitsForGpadl);
                world.say(&open(relid, handle, 4));
                *driver = Driver::WaitsForOpen;
            }
            (&[12, 0, handle], _) => {
                let driver = self.drivers.get_mut(&by_handle(self, handle)).unwrap();
                assert_eq!(*driver, Driver::WaitsForTeardown);
                *driver = Driver::Idle;
            }
            (&[24, 0, relid, 0], _) => {
                let driver = self.drivers.get_mut(&relid).unwrap();
                assert_eq!(*driver, Driver::WaitsForMove);
                *driver = Driver::Open;
            }
            _ => panic!("{message:?} in {:?}", self.bus),
        }
    }
}

/// Offers what is not offered yet or any more.
fn offer_all(world: &mut World) {
    for instance in 1..=4 {
        let outcome = world.bus().offer(&offer(instance, 0));
        assert!(matches!(
            outcome,
            Ok(_) | Err(tlfs::HvError::INVALID_PARTITION_STATE)
        ));
        world.check();
    }
}

fn is_gone(world: &mut World, relid: u32) -> bool {
    let mut bus = world.bus();
    let channel = bus.channel(vmbus_proto::Relid(relid));
    channel.is_none_or(|(_, channel)| channel.state == crate::channel::ChannelState::Revoked)
}

proptest! {
    #![proptest_config(super::cases(60))]
    #[test]
    fn all_that_drivers_wait_for_comes_once(steps in proptest::collection::vec(any::<u16>(), 0..400)) {
        let mut world = World::new(64, crate::ResetRule::WhenInUse);
        offer_all(&mut world);
        let mut client = Client {
            bus: Bus::WaitsForVersion,
            drivers: BTreeMap::new(),
            handles: BTreeMap::new(),
            next_handle: 0xE1E10,
        };
        world.say(&contact(0x5_0003));
        let mut back = BackEnd::default();
        for step in steps {
            let (what, which) = (step % 64, u32::from(step >> 6));
            let relid = which % 4 + 1;
            match what {
                0..24 => client.step(&mut world, relid, 6 + which % 100),
                24..36 => {
                    if let Some(message) = world.next_sent() {
                        client.take(&mut world, &back, &message);
                    }
                }
                36..46 => back.fetch(&mut world),
                46..56 => back.answer(&mut world, which as usize, which % 8 != 0),
                56..58 => back.attach(&mut world),
                58 => back.migrate(&mut world, [100 + which as usize * 5, 1 + which as usize]),
                59 => back.rescind(&mut world, relid),
                60 => {
                    offer_all(&mut world);
                }
                61 if which % 4 == 0 => {
                    world.say(&contact(0x5_0003));
                    client.bus = Bus::WaitsForVersion;
                    client.drivers.clear();
                    client.handles.clear();
                }
                _ => {}
            }
        }
        // From here on everybody does his part.
        for _ in 0..1000 {
            let is_idle = |relid| client.drivers.get(&relid) == Some(&Driver::Idle);
            if client.bus == Bus::Up && (1..=4).all(is_idle) && !world.bus().has_message() {
                break;
            }
            back.fetch(&mut world);
            back.answer(&mut world, 0, true);
            if let Some(message) = world.next_sent() {
                client.take(&mut world, &back, &message);
            }
            offer_all(&mut world);
            for relid in 1..=4 {
                if client.drivers.get(&relid) != Some(&Driver::Idle) {
                    client.step(&mut world, relid, 7);
                }
            }
        }
        prop_assert_eq!(client.bus, Bus::Up);
        prop_assert!(client.drivers.values().all(|driver| *driver == Driver::Idle), "{:?}", client.drivers);
        prop_assert!(back.unanswered.is_empty() && back.held.is_empty() && back.rings.is_empty());
    }
}
