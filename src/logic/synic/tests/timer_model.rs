//! Synthetic timers against a model, at random.

mod timers;

use arbitrary::{Arbitrary, Unstructured};
use proptest::prelude::*;
use timers::{Step, Story};

/// Any step: the longest is made of 13 bytes.
fn step() -> impl Strategy<Value = Step> {
    any::<[u8; 16]>().prop_filter_map("no step", |bytes| {
        Step::arbitrary(&mut Unstructured::new(&bytes)).ok()
    })
}

fn story() -> impl Strategy<Value = Story> {
    let start = prop_oneof![Just(0), 0..1u64 << 40, any::<u64>()];
    let steps = proptest::collection::vec(step(), 0..120);
    (any::<bool>(), start, steps).prop_map(|(is_direct_offered, start, steps)| Story {
        is_direct_offered,
        start,
        steps,
    })
}

proptest! {
    #[test]
    fn timers_follow_the_model(story in story()) {
        timers::run(&story);
    }
}
