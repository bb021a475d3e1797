//! Saved states: the same, damaged, and of somebody who means harm.

use proptest::prelude::*;
use tlfs::HvError;
use vmbus_proto::Relid;

use super::backend::{restore, save};
use super::world::*;
use crate::{Notice, ResetRule};

/// A client with a bit of everything.
fn busy() -> World {
    let mut world = World::connected(5);
    world.opened(1, 11);
    world.opened(2, 12);
    world.made(2, 13, 100);
    world.say(&close(2));
    world.made(3, 14, 64);
    world.say(&open(3, 14, 32));
    world.say(&gpadl(4, 15, 90)[0]);
    assert_eq!(world.bus().rescind(Relid(5)), Ok(()));
    assert_eq!(world.bus().offer(&offer(7, 0)), Ok(Relid(6)));
    world.say(&teardown(4, 99));
    world
}

fn fresh() -> World {
    World::new(64, ResetRule::WhenInUse)
}

#[test]
fn a_state_goes_on_elsewhere() {
    let mut old = busy();
    let state = save(&mut old, 4088);
    let mut new = fresh();
    restore(&mut new, &state, 4088).unwrap();
    assert_eq!(new.sent(), old.sent());
    let notices = new.notices();
    assert!(matches!(notices[0], Notice::IsOpen(opening) if opening.relid == Relid(1)));
    assert_eq!(notices[1], Notice::Close(Relid(2)));
    assert!(matches!(notices[2], Notice::Open(opening) if opening.relid == Relid(3)));
    assert_eq!(notices.len(), 3);
    // The GPADL that was being described.
    for message in &gpadl(4, 15, 90)[1..] {
        new.say(message);
    }
    assert_eq!(new.sent(), [[10, 0, 4, 15, 0]]);
    let mut pages = [addr::Gpn::default(); 90];
    new.bus()
        .gpadl_pages(Relid(4), vmbus_proto::GpadlHandle(15), 0, &mut pages)
        .unwrap();
    assert!(pages.iter().map(|page| page.get()).eq(0x100..0x100 + 90));
}

#[test]
fn a_new_back_end_holds_nothing_that_it_could_give_back() {
    let mut old = World::connected(1);
    old.opened(1, 10);
    old.made(1, 11, 8);
    old.hold(1, 11);
    old.say(&teardown(1, 11));
    assert_eq!(old.notices().len(), 1);
    let mut new = fresh();
    restore(&mut new, &save(&mut old, 4088), 4088).unwrap();
    assert_eq!(new.sent(), [[12, 0, 11]]);
    assert!(matches!(new.notices()[..], [Notice::IsOpen(_)]));
}

#[test]
fn saved_again_it_is_the_same() {
    let mut first = fresh();
    restore(&mut first, &save(&mut busy(), 1000), 5000).unwrap();
    let state = save(&mut first, 7);
    let mut second = fresh();
    restore(&mut second, &state, 1).unwrap();
    assert_eq!(save(&mut second, 100_000), state);
}

#[test]
fn it_is_taken_once_in_order_and_by_a_new_server() {
    let state = save(&mut busy(), 4088);
    let total = state.len() as u32;
    let mut world = busy();
    let refused = world.bus().restore(total, 0, &state, &mut Machine);
    assert_eq!(refused, Err(HvError::INVALID_PARTITION_STATE));
    world.check();
    // Nor does a part from the middle touch a server at work.
    for (offset, part) in [(100, &state[100..]), (total, &[][..]), (1, &state[..1])] {
        let refused = world.bus().restore(total, offset, part, &mut Machine);
        assert_eq!(refused, Err(HvError::INVALID_PARAMETER));
        assert_eq!(save(&mut world, 4088), state);
    }

    let mut world = fresh();
    let bad = Err(HvError::INVALID_PARAMETER);
    assert_eq!(
        world.bus().restore(total, 100, &state[100..], &mut Machine),
        bad
    );
    assert_eq!(world.bus().restore(0, 0, &[], &mut Machine), bad);
    assert_eq!(
        world.bus().restore(total, 0, &state[..100], &mut Machine),
        Ok(false)
    );
    assert_eq!(
        world.bus().offer(&offer(1, 0)),
        Err(HvError::INVALID_PARTITION_STATE)
    );
    assert!(
        world
            .bus()
            .receive(&bytes(&contact(0x5_0003)), &mut Machine)
            .is_err()
    );
    assert_eq!(
        world.bus().restore(total, 0, &state[..100], &mut Machine),
        Ok(false),
        "from the beginning again"
    );
    assert_eq!(
        world.bus().restore(total, 101, &state[101..], &mut Machine),
        bad
    );
    restore(&mut world, &state, 4088).unwrap();

    let mut small = World::new(4, ResetRule::WhenInUse);
    assert_eq!(
        restore(&mut small, &state, 4088),
        Err(HvError::INSUFFICIENT_MEMORY)
    );
    small.check();
}

/// What a worker sends in one packet must not cost the product of two tables, which stay as large as they ever were.
#[test]
fn an_empty_state_is_taken_in_time_linear_in_the_tables() {
    let mut old = World::new(u32::from(u16::MAX), ResetRule::WhenInUse);
    let mut offers = 0;
    while old.bus().offer(&offer(offers + 1, 0)).is_ok() {
        offers += 1;
    }
    old.say(&contact(0x5_0003));
    old.say(&[3, 0]);
    let mut handle = 0;
    while old
        .sent()
        .iter()
        .all(|message| message[0] != 10 || message[4] == 0)
    {
        handle += 1;
        old.say(&gpadl(1, handle, 1)[0]);
    }
    assert!(offers > 500 && handle > 500, "{offers} {handle}");

    let empty = save(&mut fresh(), 4088);
    // A server that grew before the state was found to be wrong: its last record is of no kind.
    let mut grown = World::new(u32::from(u16::MAX), ResetRule::WhenInUse);
    let mut state = save(&mut old, 4088);
    let end = state.len() - 8;
    state[end] = 9;
    assert!(restore(&mut grown, &state, 4088).is_err());
    grown.pool.looks = 0;
    let refused = grown.bus().restore(16, 0, &[0; 16], &mut Machine);
    assert_eq!(refused, Err(HvError::INVALID_PARAMETER));
    assert!(grown.pool.looks < 6_000, "{}", grown.pool.looks);
    grown.pool.looks = 0;
    restore(&mut grown, &empty, 4088).unwrap();
    assert!(grown.pool.looks < 30_000, "{}", grown.pool.looks);
}

#[test]
fn what_lies_in_frames_is_zero_by_default() {
    assert!(
        crate::channel::Channel::default()
            .encode()
            .iter()
            .all(|byte| *byte == 0)
    );
    assert!(
        crate::gpadl::Gpadl::default()
            .encode()
            .iter()
            .all(|byte| *byte == 0)
    );
    assert!(
        vmbus_proto::Answer::default()
            .encode()
            .iter()
            .all(|byte| *byte == 0)
    );
}

#[test]
fn another_version_is_refused() {
    let mut state = save(&mut busy(), 4088);
    state[4] += 1;
    assert_eq!(
        restore(&mut fresh(), &state, 4088),
        Err(HvError::INVALID_PARAMETER)
    );
}

proptest! {
    #![proptest_config(super::cases(300))]
    #[test]
    fn a_damaged_state_is_refused_or_one_that_can_be(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
        is_resetting in any::<bool>(),
    ) {
        let mut old = busy();
        if is_resetting {
            old.say(&[16, 0]);
        }
        let mut state = save(&mut old, 4088);
        for (at, value) in damage {
            let at = at.index(state.len());
            state[at] = value;
        }
        if let Some(cut) = cut {
            state.truncate(cut.index(state.len()));
        }
        let mut world = fresh();
        let outcome = restore(&mut world, &state, 1000);
        prop_assert!(outcome.is_ok() || world.server.channels.find(&mut world.pool, |c| c.offer.user.0[0] != 0).is_none());
        if outcome.is_ok() {
            world.check_restored();
            // Whatever it is, it can be lived with.
            let _ = world.post(&bytes(&close(1)));
            world.notices();
            let _ = world.bus().closed(Relid(2));
            world.sent();
        }
        let _ = world.bus().reset_done(true);
        world.check_restored();
        let _ = world.post(&bytes(&contact(0x5_0003)));
        let _ = world.post(&bytes(&[3, 0]));
        world.sent();
    }
}
