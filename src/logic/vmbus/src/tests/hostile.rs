//! A client that says anything, and a back end that says anything: all rules hold, nothing is answered twice, nothing is
//! given back while it is in use.

use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::backend::BackEnd;
use super::world::*;
use crate::{Refused, ResetRule};

#[derive(Debug, Clone)]
enum Step {
    Say(Vec<u32>),
    Deliver,
    Fetch,
    Answer(usize, bool),
    Take(u32, u32),
    Attach,
    Migrate,
    Rescind(u32),
    Offer(u32, u16),
    /// Answers that nobody asked for.
    Lie(u32, u32),
    Reset,
}

fn step() -> impl Strategy<Value = Step> {
    let relid = 0u32..7;
    let handle = 0u32..6;
    let pages = prop_oneof![1u32..6, 20u32..100, Just(8190)];
    let whole =
        (relid.clone(), handle.clone(), pages).prop_map(|(r, h, p)| gpadl(r, h, p).remove(0));
    let ring =
        (relid.clone(), handle.clone(), 4u32..27).prop_map(|(r, h, p)| gpadl(r, h, p).remove(0));
    let body = (handle.clone(), 0usize..28).prop_map(|(h, n)| {
        let mut words = vec![9, 0, 0, h];
        words.resize(4 + 2 * n, 0);
        words
    });
    let opens = (relid.clone(), handle.clone(), 0u32..5).prop_map(|(r, h, d)| open(r, h, d));
    let say = prop_oneof![
        3 => whole,
        6 => ring,
        3 => body,
        8 => opens,
        5 => relid.clone().prop_map(|r| close(r).to_vec()),
        5 => (relid.clone(), handle.clone()).prop_map(|(r, h)| teardown(r, h).to_vec()),
        2 => relid.clone().prop_map(|r| vec![13, 0, r]),
        2 => (relid.clone(), 0u32..6).prop_map(|(r, vp)| vec![22, 0, r, vp]),
        2 => Just(vec![3, 0]),
        1 => Just(vec![16, 0]),
        1 => prop_oneof![Just(0x4_0000), Just(0x5_0003), Just(0x6_0000)].prop_map(contact),
        1 => Just(vec![21, 0, 1, 1, 1, 1, 2, 2, 2, 2]),
        2 => proptest::collection::vec(0u32..30, 0..12),
    ];
    prop_oneof![
        30 => say.prop_map(Step::Say),
        4 => Just(Step::Deliver),
        8 => Just(Step::Fetch),
        8 => (any::<usize>(), any::<bool>()).prop_map(|(i, w)| Step::Answer(i, w)),
        4 => (relid.clone(), handle.clone()).prop_map(|(r, h)| Step::Take(r, h)),
        1 => Just(Step::Attach),
        1 => Just(Step::Migrate),
        1 => relid.clone().prop_map(Step::Rescind),
        4 => (1u32..5, 0u16..3).prop_map(|(i, s)| Step::Offer(i, s)),
        2 => (relid, handle).prop_map(|(r, h)| Step::Lie(r, h)),
        1 => Just(Step::Reset),
    ]
}

proptest! {
    #![proptest_config(super::cases(80))]
    #[test]
    fn any_sequence_keeps_the_rules(
        quota in 3u32..24,
        has_queue_full in any::<bool>(),
        steps in proptest::collection::vec(step(), 0..300),
    ) {
        let mut world = World::new(quota, ResetRule::WhenInUse);
        let mut back = BackEnd::default();
        for number in 1..=3 {
            let _ = world.bus().offer(&offer(number, 0));
        }
        let _ = world.post(&bytes(&contact(0x5_0003)));
        let _ = world.post(&bytes(&[3, 0]));
        if has_queue_full {
            while world.post(&bytes(&teardown(1, 99))).is_ok() {}
        }
        // What the client asked by what would be the answer, less what was answered.
        let mut asked: BTreeMap<[u32; 2], i32> = BTreeMap::new();
        let mut open_id = 1000;
        for step in steps {
            match step {
                Step::Say(mut words) => {
                    let full = world.server.answers.len == 256;
                    let key = match words[..] {
                        [5, _, ..] if words.len() == 37 => {
                            open_id += 1;
                            words[3] = open_id;
                            [6, open_id]
                        }
                        [8, _, _, handle, ..] => [10, handle],
                        [11, _, _, handle, ..] => [12, handle],
                        _ => [0, 0],
                    };
                    *asked.entry(key).or_default() += 1;
                    let starts_anew = matches!(words[..], [14 | 16, ..]);
                    let outcome = world.post(&bytes(&words));
                    if outcome == Err(Refused::QueueFull) {
                        prop_assert!(full || world.server.quota == 0);
                    } else {
                        prop_assert!(!full || starts_anew || outcome == Err(Refused::Malformed));
                    }
                }
                Step::Deliver => {}
                Step::Fetch => back.fetch(&mut world),
                Step::Answer(index, is_willing) => back.answer(&mut world, index, is_willing),
                Step::Take(relid, handle) => back.take(&mut world, relid, handle),
                Step::Attach => back.attach(&mut world),
                Step::Migrate => back.migrate(&mut world, [333, 77]),
                Step::Rescind(relid) => back.rescind(&mut world, relid),
                Step::Offer(instance, sub_channel) => {
                    let _ = world.bus().offer(&offer(instance, sub_channel));
                    world.check();
                }
                Step::Lie(relid, handle) => {
                    use vmbus_proto::{GpadlHandle, Relid};
                    let (relid, handle) = (Relid(relid), GpadlHandle(handle));
                    let knows = |back: &BackEnd, is: &dyn Fn(&crate::Notice) -> bool| back.unanswered.iter().any(is);
                    use crate::Notice::{Close, GpadlTeardown, Open, Reset};
                    if !knows(&back, &|n| matches!(n, Open(o) if o.relid == relid)) {
                        prop_assert!(world.bus().opened(relid, 0).is_err());
                    }
                    if !knows(&back, &|n| *n == Close(relid)) {
                        prop_assert!(world.bus().closed(relid).is_err());
                    }
                    if !knows(&back, &|n| *n == GpadlTeardown(relid, handle)) {
                        prop_assert!(world.bus().gpadl_done(relid, handle).is_err());
                    }
                    if !knows(&back, &|n| matches!(n, Reset(_))) {
                        prop_assert!(world.bus().reset_done(false).is_err());
                    }
                    world.check();
                }
                Step::Reset => {
                    world.bus().reset_done(true).unwrap();
                    world.check();
                    back = BackEnd::default();
                    asked.clear();
                }
            }
            // What arrives late may speak of what went on since.
            let messages = if has_queue_full { world.next_sent().into_iter().collect() } else { world.sent() };
            for message in messages {
                let key = match message[..] {
                    [6, 0, _, open_id, _] => [6, open_id],
                    [10, 0, _, handle, _] => [10, handle],
                    [12, 0, 99] => continue,
                    [12, 0, handle] => {
                        if !has_queue_full {
                            back.expect_off(handle);
                        }
                        [12, handle]
                    }
                    [15 | 17, ..] => {
                        prop_assert!(has_queue_full || (back.held.is_empty() && back.rings.is_empty()));
                        continue;
                    }
                    [2, 0, relid] => {
                        prop_assert!(!back.rings.contains_key(&relid));
                        prop_assert!(!back.held.values().any(|owner| *owner == relid));
                        continue;
                    }
                    _ => continue,
                };
                let left = asked.entry(key).or_default();
                *left -= 1;
                prop_assert!(*left >= 0, "answered without a question: {:?}", message);
            }
        }
    }
}
