//! Conversations as Linux holds them.

use std::vec::Vec;

use addr::{Gpn, VpIndex};
use tlfs::HvError;
use tlfs::call::ConnectionId;
use vmbus_proto::{GpadlHandle, Relid, class};

use super::world::*;
use crate::{Cause, EventTarget, GpadlPages, Notice, Refused, ResetRule};

#[test]
fn contact_goes_down_to_a_version_that_both_speak() {
    let mut world = World::new(64, ResetRule::WhenInUse);
    world.say(&contact(0x6_0000));
    assert_eq!(world.sent(), [[15, 0, 0, 4]]);
    world.say(&contact(0x5_0003));
    assert_eq!(world.sent(), [[15, 0, 1, 4]]);
    assert_eq!(world.bus().message_target(), Some((VpIndex::new(1), 2)));

    world.say(&contact(0x4_0001));
    assert_eq!(world.sent(), [[15, 0, 1, 0x4_0001]]);
}

#[test]
fn offers_come_when_asked_for_and_their_end_is_told() {
    let mut world = World::new(64, ResetRule::WhenInUse);
    assert_eq!(world.bus().offer(&offer(1, 0)), Ok(Relid(1)));
    world.say(&contact(0x5_0003));
    assert_eq!(world.sent().len(), 1);
    assert_eq!(world.bus().offer(&offer(2, 0)), Ok(Relid(2)));
    assert!(world.sent().is_empty());
    world.say(&[3, 0]);
    let sent = world.sent();
    assert_eq!(
        sent.iter().map(|message| message[0]).collect::<Vec<_>>(),
        [1, 1, 4]
    );
    assert_eq!((sent[0].len(), sent[0][46], sent[1][46]), (49, 1, 2));
    assert_eq!(sent[1][2..6], words(&class::SCSI.0));
    // Relid, no monitor, dedicated interrupt, connection.
    assert_eq!(sent[1][46..], [2, 0xFF | 1 << 16, 0x2002]);
    assert_eq!(world.post(&bytes(&[3, 0])), Err(Refused::OutOfOrder));

    // One more while running.
    assert_eq!(world.bus().offer(&offer(3, 0)), Ok(Relid(3)));
    assert_eq!(world.sent()[0][46], 3);
    // Asked for again, it is the same.
    assert_eq!(world.bus().offer(&offer(3, 0)), Ok(Relid(3)));
    assert!(world.sent().is_empty());
}

#[test]
fn storvsc_opens_gets_sub_channels_moves_and_closes() {
    let mut world = World::connected(1);
    world.made(1, 0xE1E10, 64);
    world.say(&open(1, 0xE1E10, 32));
    let notices = world.notices();
    let [Notice::Open(opening)] = notices[..] else {
        panic!("{notices:?}")
    };
    assert_eq!(
        (opening.relid, opening.ring, opening.downstream_page),
        (Relid(1), GpadlHandle(0xE1E10), 32)
    );
    assert_eq!((opening.vp, opening.version.0), (2, 0x5_0003));
    assert!(world.sent().is_empty());

    let mut pages = [Gpn::default(); 60];
    let got = world
        .bus()
        .gpadl_pages(Relid(1), GpadlHandle(0xE1E10), 30, &mut pages);
    let expected = GpadlPages {
        count: 34,
        pages: 64,
        byte_count: 64 * 4096,
        byte_offset: 0,
    };
    assert_eq!(got, Ok(expected));
    assert!(
        pages
            .iter()
            .take(34)
            .map(|page| page.get())
            .eq(0x100 + 30..0x100 + 64)
    );

    // No signal before it is open, and none is an error.
    let to_one = ConnectionId(0x2001);
    assert_eq!(world.bus().signalled(to_one), Ok(None));
    assert_eq!(world.bus().event_target(Relid(1)), None);
    assert_eq!(world.bus().opened(Relid(1), 0), Ok(()));
    assert_eq!(world.sent(), [[6, 0, 1, 1, 0]]);
    assert_eq!(world.bus().signalled(to_one), Ok(Some(Relid(1))));
    let target = |vp| {
        Some(EventTarget {
            vp: VpIndex::new(vp),
            sint: 2,
            flag: 1,
        })
    };
    assert_eq!(world.bus().event_target(Relid(1)), target(2));
    for unknown in [0x2000, 0x2002, 0x1001, 1, 0x1_2001, 0x27FF] {
        assert_eq!(
            world.bus().signalled(ConnectionId(unknown)),
            Err(HvError::INVALID_CONNECTION_ID)
        );
    }

    // The driver asked for a sub-channel.
    assert_eq!(world.bus().offer(&offer(1, 1)), Ok(Relid(2)));
    let sent = world.sent();
    assert_eq!((sent[0][45], sent[0][46]), (1, 2));
    world.opened(2, 0xE1E11);

    world.say(&[22, 0, 1, 3]);
    assert_eq!(world.sent(), [[24, 0, 1, 0]]);
    assert_eq!(world.bus().event_target(Relid(1)), target(3));
    world.say(&[22, 0, 1, 4]);
    assert_eq!(world.sent(), [[24, 0, 1, 0x8000_FFFF]]);

    world.say(&close(1));
    world.say(&teardown(1, 0xE1E10));
    assert_eq!(world.bus().signalled(to_one), Ok(None));
    assert_eq!(world.notices(), [Notice::Close(Relid(1))]);
    assert!(world.sent().is_empty());
    assert_eq!(world.bus().closed(Relid(1)), Ok(()));
    assert!(world.sent().is_empty(), "the back end still has the pages");
    assert_eq!(
        world.notices(),
        [Notice::GpadlTeardown(Relid(1), GpadlHandle(0xE1E10))]
    );
    assert_eq!(
        world.bus().gpadl_done(Relid(1), GpadlHandle(0xE1E10)),
        Ok(())
    );
    assert_eq!(world.sent(), [[12, 0, 0xE1E10]]);

    // And again.
    world.opened(1, 0xE1E12);
}

#[test]
fn a_channel_opened_anew_while_it_closes_opens_when_that_is_done() {
    let mut world = World::connected(1);
    world.opened(1, 10);
    world.made(1, 11, 34);
    world.say(&close(1));
    world.say(&open(1, 11, 17));
    world.say(&teardown(1, 10));
    assert_eq!(world.notices(), [Notice::Close(Relid(1))]);
    assert_eq!(world.bus().closed(Relid(1)), Ok(()));
    let notices = world.notices();
    assert!(matches!(notices[0], Notice::Open(opening) if opening.ring == GpadlHandle(11)));
    assert_eq!(
        notices[1..],
        [Notice::GpadlTeardown(Relid(1), GpadlHandle(10))]
    );
    assert_eq!(world.bus().opened(Relid(1), 7), Ok(()));
    assert_eq!(world.sent(), [[6, 0, 1, 1, 7]]);
    assert_eq!(world.bus().gpadl_done(Relid(1), GpadlHandle(10)), Ok(()));
    world.say(&teardown(1, 11));
    assert_eq!(
        world.sent(),
        [[12, 0, 10], [12, 0, 11]],
        "the back end never asked for the second one's pages"
    );
}

#[test]
fn a_ring_that_went_meanwhile_fails_the_opening() {
    let mut world = World::connected(1);
    world.opened(1, 10);
    world.made(1, 11, 34);
    world.say(&close(1));
    world.say(&open(1, 11, 17));
    world.say(&teardown(1, 11));
    assert_eq!(world.sent(), [[12, 0, 11]]);
    assert_eq!(world.notices(), [Notice::Close(Relid(1))]);
    assert_eq!(world.bus().closed(Relid(1)), Ok(()));
    assert_eq!(world.sent(), [[6, 0, 1, 1, 0x8000_FFFF]]);
}

#[test]
fn a_client_that_closes_before_the_answer_leaves_nothing_open() {
    // The back end has not heard of it.
    let mut world = World::connected(1);
    world.made(1, 10, 64);
    world.say(&open(1, 10, 32));
    world.say(&close(1));
    assert!(world.notices().is_empty());
    // It has, and opens.
    world.say(&open(1, 10, 32));
    assert_eq!(world.notices().len(), 1);
    world.say(&close(1));
    world.say(&teardown(1, 10));
    assert_eq!(world.bus().opened(Relid(1), 0), Ok(()));
    assert_eq!(world.notices(), [Notice::Close(Relid(1))]);
    assert_eq!(world.bus().closed(Relid(1)), Ok(()));
    assert_eq!(world.sent(), [[12, 0, 10]]);
    // It has, and does not.
    world.made(1, 11, 64);
    world.say(&open(1, 11, 32));
    assert_eq!(world.notices().len(), 1);
    world.say(&close(1));
    world.say(&open(1, 11, 32));
    assert_eq!(world.bus().opened(Relid(1), 1), Ok(()));
    assert!(matches!(world.notices()[..], [Notice::Open(_)]));
    assert!(world.sent().is_empty());
}

#[test]
fn a_driver_that_goes_gets_its_buffers_back_after_the_ring() {
    let mut world = World::connected(1);
    world.opened(1, 10);
    world.made(1, 11, 4096);
    world.hold(1, 11);
    world.made(1, 12, 255);
    world.say(&teardown(1, 12));
    assert_eq!(world.sent(), [[12, 0, 12]]);
    world.say(&teardown(1, 11));
    assert_eq!(
        world.notices(),
        [Notice::GpadlTeardown(Relid(1), GpadlHandle(11))]
    );
    assert_eq!(world.bus().gpadl_done(Relid(1), GpadlHandle(11)), Ok(()));
    assert_eq!(world.sent(), [[12, 0, 11]]);
}

#[test]
fn gpadls_of_several_drivers_come_mixed() {
    let mut world = World::connected(2);
    let (one, two) = (gpadl(1, 10, 200), gpadl(2, 11, 7936));
    for index in 0..two.len() {
        for messages in [&one, &two] {
            if let Some(message) = messages.get(index) {
                world.say(message);
            }
        }
    }
    assert_eq!(world.sent(), [[10, 0, 1, 10, 0], [10, 0, 2, 11, 0]]);
    let mut pages = [Gpn::default(); 510];
    let got = world
        .bus()
        .gpadl_pages(Relid(2), GpadlHandle(11), 7900, &mut pages)
        .unwrap();
    assert_eq!((got.count, got.pages), (36, 7936));
    assert_eq!(pages[35].get(), 0x100 + 7935);
    assert_eq!(
        world
            .bus()
            .gpadl_pages(Relid(2), GpadlHandle(11), 7936, &mut pages),
        Err(HvError::INVALID_PARAMETER)
    );
    world.made(1, 12, 8190);
}

#[test]
fn unload_waits_for_the_back_end_and_the_next_kernel_finds_the_offers() {
    let mut world = World::connected(2);
    world.opened(1, 10);
    assert_eq!(world.bus().offer(&offer(1, 1)), Ok(Relid(3)));
    world.sent();
    world.opened(3, 11);
    world.say(&close(1));
    assert_eq!(world.notices(), [Notice::Close(Relid(1))]);
    world.say(&[16, 0]);
    assert_eq!(world.notices(), [Notice::Reset(Cause::Unload)]);
    assert!(world.sent().is_empty());
    assert_eq!(
        world.bus().closed(Relid(1)),
        Err(HvError::INVALID_PARTITION_STATE)
    );
    assert_eq!(world.post(&bytes(&close(3))), Err(Refused::OutOfOrder));
    assert_eq!(world.bus().reset_done(false), Ok(()));
    assert_eq!(world.sent(), [[17, 0]]);
    assert_eq!(
        world.notices(),
        [Notice::Released(Relid(3))],
        "a sub-channel belongs to the driver that asked"
    );
    assert_eq!(
        world.bus().reset_done(false),
        Err(HvError::INVALID_PARTITION_STATE)
    );
    assert_eq!(world.post(&bytes(&[3, 0])), Err(Refused::OutOfOrder));

    world.say(&contact(0x5_0003));
    assert_eq!(world.sent(), [[15, 0, 1, 4]]);
    world.say(&[3, 0]);
    let kinds: Vec<_> = world.sent().iter().map(|message| message[0]).collect();
    assert_eq!(kinds, [1, 1, 4]);
    world.opened(1, 10);
}

#[test]
fn a_crash_kernel_makes_contact_without_unload() {
    let mut world = World::connected(1);
    world.opened(1, 10);
    // It tries a version that is too new first.
    world.say(&contact(0x6_0000));
    assert_eq!(world.notices(), [Notice::Reset(Cause::Contact)]);
    assert!(world.sent().is_empty());
    assert_eq!(world.bus().signalled(ConnectionId(0x2001)), Ok(None));
    assert_eq!(world.bus().reset_done(false), Ok(()));
    assert_eq!(world.sent(), [[15, 0, 0, 4]]);
    world.say(&contact(0x5_0003));
    assert!(world.notices().is_empty(), "nothing is in use any more");
    assert_eq!(world.sent(), [[15, 0, 1, 4]]);
}

#[test]
fn the_last_wish_counts_while_a_reset_runs() {
    let mut world = World::connected(1);
    world.opened(1, 10);
    world.say(&[16, 0]);
    world.say(&[16, 0]);
    world.say(&contact(0x5_0002));
    world.say(&contact(0x5_0001));
    assert_eq!(world.notices(), [Notice::Reset(Cause::Unload)]);
    assert_eq!(world.bus().reset_done(false), Ok(()));
    assert_eq!(world.sent(), [[15, 0, 1, 4]]);
    world.say(&[3, 0]);
    world.sent();
    world.made(1, 10, 64);
    world.say(&open(1, 10, 32));
    assert!(
        matches!(world.notices()[..], [Notice::Open(opening)] if opening.version.0 == 0x5_0001)
    );
}

#[test]
fn the_parents_children_go_before_it_is_answered() {
    let mut world = World::new(64, ResetRule::Always);
    world.say(&contact(0x5_0003));
    assert!(world.notices().is_empty());
    world.say(&[16, 0]);
    assert_eq!(world.notices(), [Notice::Reset(Cause::Unload)]);
    assert!(
        world.sent().is_empty(),
        "the old answer went with the connection"
    );
    assert_eq!(world.bus().reset_done(false), Ok(()));
    assert_eq!(world.sent(), [[17, 0]]);
}

#[test]
fn a_channel_taken_back_is_free_when_the_client_lets_go() {
    let mut world = World::connected(1);
    world.opened(1, 10);
    assert_eq!(world.bus().offer(&offer(1, 1)), Ok(Relid(2)));
    world.sent();
    assert_eq!(
        world.bus().rescind(Relid(1)),
        Err(HvError::INVALID_PARTITION_STATE),
        "sub-channels first"
    );
    assert_eq!(world.bus().rescind(Relid(2)), Ok(()));
    assert_eq!(world.bus().rescind(Relid(1)), Ok(()));
    assert_eq!(
        world.bus().rescind(Relid(1)),
        Err(HvError::INVALID_PARTITION_STATE)
    );
    assert_eq!(world.sent(), [[2, 0, 2], [2, 0, 1]]);
    // What Linux may still say, or be waiting for.
    world.say(&close(1));
    world.say(&open(1, 10, 32));
    assert_eq!(world.gpadl(1, 11, 8), [[10, 0, 1, 11, 0]]);
    world.say(&teardown(1, 11));
    assert_eq!(world.sent(), [[12, 0, 11]]);
    assert_eq!(
        world.bus().offer(&offer(1, 0)),
        Err(HvError::INVALID_PARTITION_STATE)
    );
    assert!(world.notices().is_empty());
    world.say(&[13, 0, 1]);
    assert_eq!(
        world.bus().offer(&offer(1, 0)),
        Err(HvError::INVALID_PARTITION_STATE),
        "the back end has not heard"
    );
    assert_eq!(world.notices(), [Notice::Released(Relid(1))]);
    assert_eq!(world.post(&bytes(&[13, 0, 1])), Err(Refused::OutOfOrder));
    assert_eq!(world.bus().offer(&offer(1, 0)), Ok(Relid(1)));
}

#[test]
fn an_offer_that_nobody_saw_is_taken_back_in_silence() {
    let mut world = World::new(64, ResetRule::WhenInUse);
    assert_eq!(world.bus().offer(&offer(1, 0)), Ok(Relid(1)));
    assert_eq!(world.bus().rescind(Relid(1)), Ok(()));
    assert_eq!(world.notices(), [Notice::Released(Relid(1))]);
    world.say(&contact(0x5_0003));
    world.say(&[3, 0]);
    assert_eq!(world.sent(), [&[15, 0, 1, 4][..], &[4, 0]]);
}

#[test]
fn a_client_without_room_for_a_channel_lets_go_of_it() {
    let mut world = World::connected(1);
    world.say(&[13, 0, 1]);
    assert_eq!(world.notices(), [Notice::Released(Relid(1))]);
    assert_eq!(
        world.bus().opened(Relid(1), 0),
        Err(HvError::INVALID_PARAMETER)
    );
}

#[test]
fn nobody_listens_for_sockets() {
    let mut world = World::connected(0);
    world.say(&[21, 0, 1, 1, 1, 1, 2, 2, 2, 2]);
    assert_eq!(world.sent(), [[23, 0, 1, 1, 1, 1, 2, 2, 2, 2, 0xC000_0236]]);
}

#[test]
fn another_back_end_hears_everything_that_is_unanswered_or_open() {
    let mut world = World::connected(5);
    world.opened(1, 11);
    world.opened(2, 12);
    world.opened(5, 15);
    world.say(&close(2));
    world.made(3, 13, 64);
    world.say(&open(3, 13, 32));
    world.made(4, 14, 64);
    world.say(&open(4, 14, 32));
    world.made(5, 16, 8);
    world.hold(5, 16);
    world.say(&teardown(5, 16));
    assert_eq!(world.notices().len(), 4);
    world.say(&close(4));
    assert!(world.notices().is_empty());

    world.bus().attach();
    let notices = world.notices();
    assert_eq!(notices.len(), 6, "{notices:?}");
    assert!(matches!(notices[0], Notice::IsOpen(opening) if opening.ring == GpadlHandle(11)));
    assert_eq!(notices[1], Notice::Close(Relid(2)));
    assert!(matches!(notices[2], Notice::Open(opening) if opening.relid == Relid(3)));
    assert_eq!(
        notices[3],
        Notice::Close(Relid(4)),
        "who was asked to open it is gone"
    );
    assert!(matches!(notices[4], Notice::IsOpen(opening) if opening.relid == Relid(5)));
    assert_eq!(notices[5], Notice::GpadlTeardown(Relid(5), GpadlHandle(16)));
    world.check();
    assert!(world.notices().is_empty());
    assert_eq!(
        world.bus().opened(Relid(1), 0),
        Err(HvError::INVALID_PARTITION_STATE)
    );
    assert_eq!(world.bus().closed(Relid(4)), Ok(()));
}

#[test]
fn a_partition_reset_forgets_the_client() {
    let mut world = World::connected(1);
    world.opened(1, 10);
    world.say(&close(1));
    assert_eq!(world.bus().reset_done(true), Ok(()));
    world.check();
    assert!(world.notices().is_empty());
    assert_eq!(world.bus().message_target(), None);
    world.say(&contact(0x5_0003));
    world.say(&[3, 0]);
    assert_eq!(world.sent().len(), 3);
}
