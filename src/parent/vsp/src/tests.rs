//! What children do to the bus.

mod child;

use ring::RingMem;
use ring_proto::Control;
use slot_proto::{Notice, Opening, ResetCause};
use storvsp::Config;
use storvsp_proto::Operation;
use tlfs::wire::Zero;
use vm_memory::{Bytes, GuestAddress};
use vmbus_proto::{GpadlHandle, Relid, UserData};

use child::{Child, DATA, PAGE};

#[test]
fn a_child_reads_its_disk() {
    let mut child = Child::new(Config::default());
    child.open(1, 3);
    child.shake_hands();
    child.read(1, 5, 9);
    assert_eq!(child.completed(1), 5);
    let at = GuestAddress((DATA + 5) * PAGE + 1024);
    let mut block = [0; 512];
    child.memory.read_slice(&mut block, at).unwrap();
    assert_eq!(block, [9; 512]);
    assert_eq!(child.bells.signals.lock().unwrap().last(), Some(&Relid(1)));
}

#[test]
fn nothing_is_lost_when_the_device_or_the_ring_is_full() {
    // A ring of one page holds some thirty completions, and the device takes two requests at a time.
    let limits = Config {
        max_in_flight: 2,
        ..Config::default()
    };
    let mut child = Child::new(limits);
    child.open(1, 2);
    child.shake_hands();
    for round in 0..8 {
        for transaction in 0..20 {
            child.read(1, 1000 + round * 20 + transaction, 1);
        }
        let mut seen: Vec<u64> = (0..20).map(|_| child.completed(1)).collect();
        seen.sort_unstable();
        let expected: Vec<u64> = (0..20).map(|at| 1000 + round * 20 + at).collect();
        assert_eq!(seen, expected);
    }
}

#[test]
fn completions_wait_for_room() {
    let mut child = Child::new(Config::default());
    child.open(1, 2);
    child.shake_hands();
    let mut sent = 0;
    // The child reads nothing until far more is owed than its ring holds.
    while sent < 100 {
        for _ in 0..10 {
            child.read(1, 1 + sent, 1);
            sent += 1;
        }
        child.until(|child| {
            let writer = &mut child.channels.get_mut(&1).unwrap().writer;
            writer.fits(2000).unwrap().then_some(())
        });
    }
    let mut seen: Vec<u64> = (0..100).map(|_| child.completed(1)).collect();
    seen.sort_unstable();
    assert_eq!(seen, (1..=100).collect::<Vec<u64>>());
}

#[test]
fn a_child_that_reads_no_answers_gets_no_more() {
    let mut child = Child::new(Config::default());
    child.open(1, 2);
    child.shake_hands();
    let mut sent = 0;
    let mut idle = 0;
    while idle < 50 && sent < 1000 {
        let writer = &mut child.channels.get_mut(&1).unwrap().writer;
        if writer.fits(200).unwrap() {
            sent += 1;
            idle = 0;
            child.read(1, sent, 1);
        } else {
            idle += 1;
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        while child.bus.run(&mut child.server).unwrap() {}
    }
    // Those in its two rings, those that wait, and those that were on their way meanwhile.
    assert!(sent < 256 + 64 + 64 + 64, "{sent} were taken");
    let mut seen: Vec<u64> = (0..sent).map(|_| child.completed(1)).collect();
    seen.sort_unstable();
    assert_eq!(seen, (1..=sent).collect::<Vec<u64>>());
}

#[test]
fn a_channel_closes_when_its_requests_have_ended() {
    let mut child = Child::new(Config::default());
    child.open(1, 2);
    child.shake_hands();
    child.gate.shut(true);
    child.read(1, 1, 0);
    while child.bus.run(&mut child.server).unwrap() {}
    child.notice(&Notice::Close(Relid(1)));
    child.notice(&Notice::GpadlTeardown(Relid(1), GpadlHandle(101)));
    while child.bus.run(&mut child.server).unwrap() {}
    assert!(child.said().is_empty(), "a disk still writes to the child");
    child.gate.shut(false);
    child.until(|child| (child.server.said.len() == 2).then_some(()));
    assert_eq!(child.said(), ["close 1", "gpadl 1 101"]);
    assert!(child.receive(1).is_none());
    child.open(1, 2);
    child.shake_hands();
}

#[test]
fn a_reset_answers_everything_older() {
    let mut child = Child::new(Config::default());
    child.open(1, 2);
    child.shake_hands();
    child.gate.shut(true);
    child.read(1, 1, 0);
    while child.bus.run(&mut child.server).unwrap() {}
    child.notice(&Notice::Close(Relid(1)));
    child.notice(&Notice::Reset(ResetCause::Unload));
    while child.bus.run(&mut child.server).unwrap() {}
    assert!(child.said().is_empty());
    child.gate.shut(false);
    child.until(|child| child.server.said.contains(&"reset".into()).then_some(()));
    child.said();
    child.open(1, 2);
    child.shake_hands();
}

#[test]
fn sub_channels_come_and_go_with_the_primary_one() {
    let limits = Config {
        max_sub_channels: 2,
        ..Config::default()
    };
    let mut child = Child::new(limits);
    child.open(1, 2);
    child.shake_hands();
    child.ask(Operation::CREATE_SUB_CHANNELS, 2);
    child.until(|child| (child.server.offers.len() == 3).then_some(()));
    let [_, first, second] = child.server.offers[..] else {
        panic!("three offers");
    };
    assert_eq!((first.sub_channel, second.sub_channel), (1, 2));
    assert_eq!(first.instance, second.instance);
    child.open(2, 2);
    child.open(3, 2);
    child.read(3, 9, 4);
    assert_eq!(child.completed(3), 9);
    child.notice(&Notice::Close(Relid(1)));
    child.until(|child| (child.server.said.len() == 3).then_some(()));
    assert_eq!(child.said(), ["close 1", "rescind 2", "rescind 3"]);
    // The child comes back before it has let go of them.
    child.server.is_unreleased = true;
    child.open(1, 2);
    child.shake_hands();
    child.ask(Operation::CREATE_SUB_CHANNELS, 1);
    while child.bus.run(&mut child.server).unwrap() {}
    assert_eq!(child.server.offers.len(), 3);
    child.server.is_unreleased = false;
    child.notice(&Notice::Released(Relid(2)));
    assert_eq!(child.server.offers.len(), 4);
}

#[test]
fn a_pause_ends_when_nothing_is_on_its_way() {
    let mut child = Child::new(Config::default());
    child.open(1, 2);
    child.shake_hands();
    child.gate.shut(true);
    child.read(1, 1, 0);
    while child.bus.run(&mut child.server).unwrap() {}
    child.bus.pause();
    while child.bus.run(&mut child.server).unwrap() {}
    assert!(!child.bus.is_settled());
    child.gate.shut(false);
    child.until(|child| child.bus.is_settled().then_some(()));
    assert_eq!(child.completed(1), 1);
    child.read(1, 2, 0);
    assert!(!child.bus.run(&mut child.server).unwrap());
    assert!(child.receive(1).is_none(), "packets wait in the ring");
    child.bus.resume();
    assert_eq!(child.completed(1), 2);
}

#[test]
fn a_broken_ring_costs_the_child_that_channel() {
    let mut child = Child::new(Config::default());
    child.open(1, 2);
    child.shake_hands();
    let writer = &child.channels.get(&1).unwrap().writer;
    writer.mem().set_control(Control::WriteIndex, 13);
    child.bus.signalled(Relid(1));
    while child.bus.run(&mut child.server).unwrap() {}
    child.bus.signalled(Relid(1));
    while child.bus.run(&mut child.server).unwrap() {}
    child.notice(&Notice::Close(Relid(1)));
    child.until(|child| (child.server.said.len() == 1).then_some(()));
    child.said();
    child.open(1, 2);
    child.shake_hands();
}

#[test]
fn rings_outside_of_memory_are_refused() {
    let mut child = Child::new(Config::default());
    let pages = [vec![1, 2, 3, 256], vec![], vec![1], vec![u64::MAX; 4]];
    for (number, pages) in pages.into_iter().enumerate() {
        let handle = number as u32;
        child.server.gpadls.insert((1, handle), pages);
        for downstream_page in [0, 2, 4, u32::MAX] {
            let opening = Opening {
                ring: GpadlHandle(handle),
                downstream_page,
                vp: 0,
                version: vmbus_proto::Version::V5_3,
                user: UserData::default(),
                is_open_already: false,
                reserved: Zero,
            };
            child.notice(&Notice::Open(Relid(1), opening));
            assert_eq!(child.said(), ["open 1 0xc0000001"]);
        }
    }
    child.open(1, 2);
}

#[test]
fn a_device_that_the_child_let_go_of_is_offered_anew() {
    let mut child = Child::new(Config::default());
    child.notice(&Notice::Released(Relid(1)));
    let [first, second] = child.server.offers[..] else {
        panic!("two offers");
    };
    assert_eq!(first, second);
    child.open(2, 2);
    // What is open was not let go of, and what is gone is not let go of again.
    for relid in [1, 2, 3] {
        child.notice(&Notice::Released(Relid(relid)));
    }
    assert_eq!(child.server.offers.len(), 2);
}
