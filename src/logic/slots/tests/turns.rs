//! Nobody is passed over.

use proptest::prelude::*;
use slots::Turns;
use std::collections::BTreeSet;

#[test]
fn one_who_always_has_work_does_not_keep_others_from_theirs() {
    let mut turns = Turns::<4>::NONE;
    assert_eq!(turns.turn(), None);
    turns.add(0);
    turns.add(200);
    turns.add(255);
    turns.add(256);
    assert_eq!(turns.count(), 3);
    for number in [0, 200, 255, 0, 200] {
        assert_eq!(turns.turn(), Some(number));
        turns.add(number);
    }
    turns.remove(255);
    assert_eq!((turns.turn(), turns.turn()), (Some(0), Some(200)));
    turns.remove(0);
    turns.remove(200);
    turns.remove(256);
    assert!(turns.is_empty() && turns.turn().is_none());
}

proptest! {
    #[test]
    fn everybody_has_a_turn_in_each_round(before in 0usize..256, waiting in prop::collection::btree_set(0usize..256, 1..40)) {
        let mut turns = Turns::<4>::NONE;
        turns.add(before);
        turns.turn();
        turns.remove(before);
        waiting.iter().for_each(|number| turns.add(*number));
        prop_assert_eq!(turns.count() as usize, waiting.len());
        let round: BTreeSet<_> = waiting.iter().filter_map(|_| turns.turn()).collect();
        prop_assert_eq!(round, waiting);
    }
}
