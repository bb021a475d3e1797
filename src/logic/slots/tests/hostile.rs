//! A peer that writes anything anywhere: this side neither panics nor loops, and keeps its own promises.

mod common;
mod peer;

use common::{Shared, buffer};
use peer::{Session, Step};
use proptest::collection::vec;
use proptest::prelude::*;
use ring::RingMem;
use ring_proto::Control;
use slot_proto::{ChannelKind, Generation};
use slots::{Client, SharedWords, Watcher};

fn steps(breaks_rings: bool) -> impl Strategy<Value = Vec<Step>> {
    let packet = (0u16..45, 0u64..12, 0u32..4, 0u32..60, vec(0u8..6, 0..200)).prop_map(
        |(kind, transaction, generation, len, body)| Step::Packet {
            kind,
            transaction,
            generation,
            len: if len < 50 { body.len() as u32 } else { len },
            body,
        },
    );
    let value = prop_oneof![any::<u32>(), (0u32..2200).prop_map(|i| i * 8)];
    let field = (any::<bool>(), 0usize..5, value).prop_map(|(is_up, field, value)| Step::Field {
        is_up,
        field,
        value,
    });
    let word = (any::<bool>(), 0u32..2048, any::<u64>()).prop_map(|(is_up, at, word)| Step::Word {
        is_up,
        at: at * 8,
        word,
    });
    let breaking = u32::from(breaks_rings);
    vec(
        prop_oneof![
            12 => packet,
            3 => (0u32..4).prop_map(Step::Hello),
            2 * breaking => field,
            2 * breaking => word,
            6 => Just(Step::Serve),
            6 => any::<usize>().prop_map(Step::Complete),
            1 => Just(Step::Attach),
            1 => Just(Step::Detach),
            6 => Just(Step::Take),
        ],
        1..200,
    )
}

fn run(is_slot: bool, steps: &[Step]) {
    let shared = Shared::with_rings(16384);
    let kind = if is_slot {
        ChannelKind::Slot
    } else {
        ChannelKind::Control
    };
    let mut session = Session::open(
        common::identity(kind),
        shared.upstream.mem(),
        shared.downstream.mem(),
    );
    steps.iter().for_each(|step| session.step(step));
}

proptest! {
    #[test]
    fn strange_requests_are_answered_or_stop_the_channel(steps in steps(false), is_slot: bool) {
        run(is_slot, &steps);
    }

    #[test]
    fn broken_rings_stop_the_channel(steps in steps(true), is_slot: bool) {
        run(is_slot, &steps);
    }

    #[test]
    fn user_space_survives_any_ring_and_any_area(
        words in vec((0u32..40, 0u64..40), 0..60),
        index in 0u32..300,
        area in vec((0usize..9000, any::<u64>()), 0..40),
        small in vec((0usize..600, 0u64..300), 0..40),
    ) {
        let shared = Shared::with_rings(16384);
        let down = shared.downstream.mem();
        words.iter().for_each(|(at, word)| down.set_word(at * 8, *word | 2 << 16 | (*word & 7) << 32));
        down.set_control(Control::WriteIndex, index * 8);
        let mut client = Client::new(Generation(1), shared.upstream.mem(), down).unwrap();
        client.send(&Client::<ring::Contiguous<'_>>::hello(1)).unwrap();
        let mut buffer = buffer();
        for _ in 0..300 {
            if !matches!(client.next(&mut buffer), Ok(Some(_))) {
                break;
            }
        }
        let pages = &shared.area[..];
        area.iter().chain(&small).for_each(|(at, word)| pages.store(*at, *word));
        pages.store(0, 1);
        pages.store(1, 1);
        let mut watcher = Watcher::new(pages, Generation(1)).unwrap();
        watcher.take_news();
        let mut signals = 0;
        watcher.take_signals(|relid| {
            assert!(relid.0 < 2048);
            signals += 1;
        });
        prop_assert!(signals <= 2048);
        while let Ok(Some(_)) = watcher.next_notice() {}
    }
}
