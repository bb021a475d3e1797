//! Clients and back ends that break the rules, and clients that want too much.

use std::vec::Vec;

use tlfs::HvError;
use vmbus_proto::{GpadlHandle, OfferFlags, Relid};

use super::world::*;
use crate::{Refused, ResetRule};

const FAILURE: u32 = 0x8000_FFFF;

#[test]
fn an_opening_that_cannot_be_is_answered() {
    let mut world = World::connected(2);
    world.made(1, 10, 64);
    world.made(2, 11, 64);
    let mut no_vp = open(1, 10, 32);
    no_vp[5] = 4;
    for wrong in [
        open(3, 10, 32),
        open(0, 10, 32),
        open(1, 9, 32),
        open(1, 11, 32),
        open(1, 10, 0),
        open(1, 10, 1),
        open(1, 10, 63),
        open(1, 10, 64),
        open(1, 10, u32::MAX),
        no_vp,
    ] {
        world.say(&wrong);
        assert_eq!(world.sent(), [[6, 0, wrong[2], wrong[3], FAILURE]]);
        assert!(world.notices().is_empty());
    }
    world.say(&open(1, 10, 32));
    world.say(&open(1, 10, 32));
    assert_eq!(world.sent(), [[6, 0, 1, 1, FAILURE]]);
    assert_eq!(world.notices().len(), 1);
}

#[test]
fn a_gpadl_that_cannot_be_is_answered() {
    let mut world = World::connected(1);
    world.made(1, 10, 8);
    let wrong = [
        gpadl(2, 11, 8),
        gpadl(0, 11, 8),
        gpadl(1, 0, 8),
        gpadl(1, 10, 8),
        std::vec![std::vec![8, 0, 1, 11, 16 | 2 << 16, 4096, 0, 5, 0]],
        // More numbers than announced.
        std::vec![std::vec![8, 0, 1, 11, 16 | 1 << 16, 4096, 0, 5, 0, 6, 0]],
        // No RAM.
        std::vec![std::vec![8, 0, 1, 11, 16 | 1 << 16, 4096, 0, 1 << 20, 0]],
        std::vec![std::vec![8, 0, 1, 11, 16 | 1 << 16, 4096, 0, 0, 1]],
    ];
    for messages in wrong {
        world.say(&messages[0]);
        assert_eq!(
            world.sent(),
            [[10, 0, messages[0][2], messages[0][3], FAILURE]]
        );
    }
    // Wrong in the middle: one answer, and what follows is nobody's.
    let mut messages = gpadl(1, 11, 90);
    messages[1][10] = 1 << 30;
    world.say(&messages[0]);
    world.say(&messages[1]);
    assert_eq!(world.post(&bytes(&messages[2])), Err(Refused::OutOfOrder));
    assert_eq!(world.sent(), [[10, 0, 1, 11, FAILURE]]);
    // Too many in the end.
    let mut messages = gpadl(1, 11, 40);
    messages[1].extend([7, 0]);
    world.say(&messages[0]);
    world.say(&messages[1]);
    assert_eq!(world.sent(), [[10, 0, 1, 11, FAILURE]]);
}

#[test]
fn a_teardown_is_always_answered() {
    let mut world = World::connected(1);
    world.say(&teardown(7, 99));
    assert_eq!(world.sent(), [[12, 0, 99]]);
    // While it is being put together.
    world.say(&gpadl(1, 10, 90)[0]);
    world.say(&teardown(1, 10));
    assert_eq!(world.sent(), [[12, 0, 10]]);
    // Of an open ring: when it is closed.
    world.opened(1, 11);
    world.say(&teardown(1, 11));
    assert!(world.sent().is_empty() && world.notices().is_empty());
    assert_eq!(
        world.post(&bytes(&teardown(1, 11))),
        Err(Refused::OutOfOrder)
    );
    world.say(&close(1));
    assert_eq!(world.notices().len(), 1);
    assert_eq!(world.bus().closed(Relid(1)), Ok(()));
    assert_eq!(world.notices().len(), 1);
    assert_eq!(world.bus().gpadl_done(Relid(1), GpadlHandle(11)), Ok(()));
    assert_eq!(world.sent(), [[12, 0, 11]]);
}

#[test]
fn a_channel_is_opened_anew_once() {
    let mut world = World::connected(1);
    world.opened(1, 10);
    world.say(&close(1));
    world.say(&open(1, 10, 32));
    world.say(&open(1, 10, 32));
    assert_eq!(world.sent(), [[6, 0, 1, 1, FAILURE]]);
}

#[test]
fn what_waits_for_room_in_the_queue_goes_with_a_reset() {
    let mut world = World::connected(1);
    world.opened(1, 10);
    world.made(1, 11, 90);
    world.hold(1, 11);
    world.say(&teardown(1, 11));
    assert_eq!(world.notices().len(), 1);
    while world.post(&bytes(&teardown(1, 99))).is_ok() {}
    assert_eq!(world.bus().gpadl_done(Relid(1), GpadlHandle(11)), Ok(()));
    assert_eq!(world.bus().rescind(Relid(1)), Ok(()));
    world.check();
    world.say(&contact(0x5_0003));
    assert_eq!(world.sent(), [[15, 0, 1, 4]]);
    assert_eq!(world.notices(), [crate::Notice::Released(Relid(1))]);
}

#[test]
fn a_pending_answer_survives_a_full_queue() {
    let mut world = World::connected(1);
    world.opened(1, 10);
    world.made(1, 11, 90);
    world.hold(1, 11);
    world.say(&teardown(1, 11));
    assert_eq!(world.notices().len(), 1);
    while world.post(&bytes(&teardown(1, 99))).is_ok() {}
    assert_eq!(world.bus().gpadl_done(Relid(1), GpadlHandle(11)), Ok(()));
    world.check();
    assert_eq!(world.sent().last().unwrap()[..], [12, 0, 11]);
}

#[test]
fn before_contact_nothing_is_heard() {
    let mut world = World::new(64, ResetRule::WhenInUse);
    assert_eq!(world.bus().offer(&offer(1, 0)), Ok(Relid(1)));
    for message in [
        &[3, 0][..],
        &[16, 0],
        &close(1),
        &open(1, 1, 2),
        &gpadl(1, 1, 8)[0],
        &[21; 10],
    ] {
        assert_eq!(world.post(&bytes(message)), Err(Refused::OutOfOrder));
    }
    for wrong in [[99, 0, 2, 0], [1, 0, 0, 0], [1, 0, 16, 0], [1, 0, 0x102, 0]] {
        // No such VP, no SINT of that number, another trust level.
        let mut contact = contact(0x5_0003);
        (contact[3], contact[4]) = (wrong[0], wrong[2]);
        assert_eq!(world.post(&bytes(&contact)), Err(Refused::Malformed));
    }
    assert!(world.sent().is_empty());
}

#[test]
fn an_untold_channel_does_not_exist_for_the_client() {
    let mut world = World::new(64, ResetRule::WhenInUse);
    assert_eq!(world.bus().offer(&offer(1, 0)), Ok(Relid(1)));
    world.say(&contact(0x5_0003));
    world.sent();
    assert_eq!(world.gpadl(1, 10, 8), [[10, 0, 1, 10, FAILURE]]);
    world.say(&open(1, 10, 4));
    assert_eq!(world.sent(), [[6, 0, 1, 1, FAILURE]]);
    assert_eq!(world.post(&bytes(&[13, 0, 1])), Err(Refused::OutOfOrder));
}

#[test]
fn old_versions_get_no_answer_that_they_do_not_know() {
    let mut world = World::connected(1);
    for (version, answers) in [(0x4_0000, 0), (0x4_0001, 0), (0x5_0002, 0), (0x5_0003, 1)] {
        world.say(&contact(version));
        world.say(&[3, 0]);
        world.sent();
        let outcome = world.post(&bytes(&[22, 0, 1, 0]));
        assert_eq!(outcome.is_ok(), version > 0x4_0000);
        assert_eq!(world.sent().len(), answers);
        let outcome = world.post(&bytes(&[21, 0, 1, 1, 1, 1, 2, 2, 2, 2]));
        assert_eq!(outcome.is_ok(), version > 0x4_0000);
        world.sent();
    }
}

#[test]
fn the_queue_holds_256_answers_and_contact_goes_through_a_full_one() {
    let mut world = World::connected(1);
    for handle in 0..256 {
        world.say(&teardown(1, 1000 + handle));
    }
    let refused = world.post(&bytes(&teardown(1, 5000)));
    assert_eq!(refused, Err(Refused::QueueFull));
    assert_eq!(
        Refused::QueueFull.status(),
        Err(HvError::INSUFFICIENT_BUFFERS)
    );
    assert_eq!(world.next_sent().unwrap(), [12, 0, 1000]);
    world.say(&teardown(1, 5000));
    // What a back end says waits elsewhere, and nothing of it is lost.
    for number in 2..400 {
        assert_eq!(world.bus().offer(&offer(number, 0)), Ok(Relid(number)));
    }
    world.check();
    let sent = world.sent();
    assert_eq!(sent.len(), 256 + 398);
    let mut offered: Vec<_> = sent
        .iter()
        .filter(|message| message[0] == 1)
        .map(|message| message[46])
        .collect();
    offered.sort_unstable();
    assert!(offered.into_iter().eq(2..400));

    for handle in 0..256 {
        world.say(&teardown(1, 1000 + handle));
    }
    world.say(&contact(0x5_0003));
    assert_eq!(world.sent(), [[15, 0, 1, 4]]);
    world.say(&[3, 0]);
    let sent = world.sent();
    assert_eq!(sent.len(), 400);
    assert_eq!(sent[399], [4, 0]);
}

#[test]
fn beyond_the_quota_there_are_failures_and_room_comes_back() {
    let mut world = World::new(7, ResetRule::WhenInUse);
    world.say(&contact(0x5_0003));
    world.say(&[3, 0]);
    for number in 1..=12 {
        assert_eq!(world.bus().offer(&offer(number, 0)), Ok(Relid(number)));
    }
    world.sent();
    // 3 frames for answers, 1 for channels, 1 for GPADLs: 2 are left for 992 page numbers.
    for round in 0..3 {
        world.made(1, 10 + round, 992);
        assert_eq!(world.gpadl(1, 20, 8), [[10, 0, 1, 20, FAILURE]]);
        assert_eq!(
            world.bus().offer(&offer(13, 0)),
            Err(HvError::INSUFFICIENT_MEMORY)
        );
        assert_eq!(world.pool.used.len(), 7);
        world.say(&teardown(1, 10 + round));
        assert_eq!(world.sent().len(), 1);
        assert_eq!(world.post(&bytes(&gpadl(1, 30, 993)[0])), Ok(()));
        world.say(&teardown(1, 30));
        assert_eq!(world.sent().len(), 1);
    }
    assert_eq!(
        World::new(2, ResetRule::WhenInUse).post(&bytes(&contact(0x5_0003))),
        Err(Refused::QueueFull)
    );
}

#[test]
fn offers_that_linux_cannot_take_are_refused() {
    let mut world = World::connected(1);
    let bad = Err(HvError::INVALID_PARAMETER);
    for flags in [2, 4, 6, 0x100, 0x2000, 0x8000] {
        let mut offer = offer(2, 0);
        offer.flags = OfferFlags::from_bits_retain(flags);
        assert_eq!(world.bus().offer(&offer), bad);
    }
    let mut other_class = offer(1, 0);
    other_class.class = vmbus_proto::class::NETWORK;
    assert_eq!(world.bus().offer(&other_class), bad);
    other_class.sub_channel = 1;
    assert_eq!(world.bus().offer(&other_class), bad);
    assert_eq!(world.bus().offer(&offer(2, 1)), bad, "no primary");
    for number in 2..=768 {
        world.quota = 1000;
        world.server.quota = 100;
        assert_eq!(world.bus().offer(&offer(number, 0)), Ok(Relid(number)));
    }
    assert_eq!(
        world.bus().offer(&offer(769, 0)),
        Err(HvError::INSUFFICIENT_MEMORY)
    );
}

#[test]
fn a_back_end_answers_what_it_was_asked() {
    let mut world = World::connected(2);
    let (unknown, wrong) = (
        Err(HvError::INVALID_PARAMETER),
        Err(HvError::INVALID_PARTITION_STATE),
    );
    assert_eq!(world.bus().opened(Relid(3), 0), unknown);
    assert_eq!(world.bus().opened(Relid(u32::MAX), 0), unknown);
    assert_eq!(world.bus().rescind(Relid(0)), unknown);
    assert_eq!(world.bus().opened(Relid(1), 0), wrong);
    assert_eq!(world.bus().closed(Relid(1)), wrong);
    world.made(1, 10, 64);
    world.say(&open(1, 10, 32));
    assert_eq!(
        world.bus().opened(Relid(1), 0),
        wrong,
        "it has not heard yet"
    );
    assert_eq!(world.notices().len(), 1);
    assert_eq!(world.bus().closed(Relid(1)), wrong);
    assert_eq!(world.bus().gpadl_done(Relid(1), GpadlHandle(10)), wrong);
    assert_eq!(world.bus().gpadl_done(Relid(2), GpadlHandle(10)), unknown);
    let mut room = [addr::Gpn::default(); 1];
    assert_eq!(
        world
            .bus()
            .gpadl_pages(Relid(2), GpadlHandle(10), 0, &mut room)
            .map(|_| ()),
        unknown
    );
    assert_eq!(
        world
            .bus()
            .gpadl_pages(Relid(1), GpadlHandle(11), 0, &mut room)
            .map(|_| ()),
        unknown
    );
    assert_eq!(world.bus().opened(Relid(1), 0), Ok(()));
    assert_eq!(world.bus().opened(Relid(1), 0), wrong);
    assert_eq!(world.bus().reset_done(false), wrong);
}
