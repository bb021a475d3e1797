//! Ports and connections of several partitions against a model, at random.

mod model;
mod pool;

use arbitrary::{Arbitrary, Unstructured};
use model::Step;
use proptest::prelude::*;

/// Any step: the longest is made of 14 bytes.
fn step() -> impl Strategy<Value = Step> {
    any::<[u8; 16]>().prop_filter_map("no step", |bytes| {
        Step::arbitrary(&mut Unstructured::new(&bytes)).ok()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn ports_and_connections_follow_the_model(
        steps in proptest::collection::vec(step(), 0..300), memory in 0usize..120
    ) {
        model::run(memory, &steps);
    }
}
