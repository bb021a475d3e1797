//! Who gets how much of the processors.

use proptest::prelude::*;
use std::vec::Vec;

use super::machine::{Habit, Machine, SPIN};
use super::{SLICE, weight};
use crate::*;

const SECOND: u64 = 1000 * SLICE;

fn published(lps: usize) -> Vec<Published> {
    (0..lps).map(|_| Published::new()).collect()
}

/// What spinning children of these weights are due on `lps` LPs: none more than one LP.
fn due(weights: &[u32], lps: usize) -> Vec<f64> {
    let mut due = std::vec![0.0; weights.len()];
    let mut open: Vec<usize> = (0..weights.len()).collect();
    let mut capacity = (lps as f64).min(weights.len() as f64);
    loop {
        let sum: f64 = open.iter().map(|i| f64::from(weights[*i])).sum();
        let (full, rest): (Vec<usize>, Vec<usize>) = open
            .iter()
            .partition(|i| f64::from(weights[**i]) / sum * capacity >= 1.0);
        for i in &full {
            due[*i] = 1.0;
        }
        capacity -= full.len() as f64;
        if full.is_empty() || rest.is_empty() {
            for i in &rest {
                due[*i] = f64::from(weights[*i]) / sum * capacity;
            }
            return due;
        }
        open = rest;
    }
}

/// Spinning children, all on LP 0 at first; gives shares over ten seconds and moves between LPs.
fn spin(weights: &[u32], lps: usize) -> (Vec<f64>, u64) {
    let published = published(lps);
    let children = weights
        .iter()
        .map(|w| (Entity::new(weight(*w), 0, false), SPIN))
        .collect();
    let mut machine = Machine::new(&published, children);
    machine.run(10 * SECOND);
    let shares = machine.shares(&std::vec![0; weights.len()], 10 * SECOND);
    assert!(shares.iter().sum::<f64>() > (lps.min(weights.len())) as f64 * 0.999);
    (shares, machine.moves)
}

#[test]
fn weights_one_to_eight_on_one_two_and_four_lps() {
    let weights: Vec<u32> = (1..=8).collect();
    for lps in [1, 2, 4] {
        let (shares, moves) = spin(&weights, lps);
        for (share, due) in shares.iter().zip(due(&weights, lps)) {
            assert!(
                (share / due - 1.0).abs() < 0.02,
                "{lps} LPs: {share} of {due}: {shares:?}"
            );
        }
        std::println!("{lps} LPs: {moves} moves");
        assert!(moves < 10_000 * lps as u64);
    }
}

#[test]
fn three_equal_children_share_two_lps() {
    let (shares, moves) = spin(&[100, 100, 100], 2);
    assert!(
        shares.iter().all(|s| (s - 2.0 / 3.0).abs() < 0.01),
        "{shares:?}"
    );
    std::println!("{moves} moves");
}

#[test]
fn a_capped_child_gets_its_percentage() {
    let published = published(1);
    let capped = Share {
        weight: 1000,
        cap_percent: 20,
    };
    let mut machine = Machine::new(
        &published,
        std::vec![
            (Entity::new(capped, 0, false), SPIN),
            (Entity::new(weight(100), 0, false), SPIN)
        ],
    );
    machine.run(2 * SECOND);
    let shares = machine.shares(&[0, 0], 2 * SECOND);
    assert!(
        (shares[0] - 0.2).abs() < 0.01 && (shares[1] - 0.8).abs() < 0.01,
        "{shares:?}"
    );
}

#[test]
fn a_capped_child_alone_leaves_the_lp_idle() {
    let published = published(2);
    let capped = Share {
        weight: 1,
        cap_percent: 5,
    };
    let mut machine = Machine::new(&published, std::vec![(Entity::new(capped, 0, false), SPIN)]);
    machine.run(2 * SECOND);
    let shares = machine.shares(&[0], 2 * SECOND);
    assert!((shares[0] - 0.05).abs() < 0.005, "{shares:?}");
}

#[test]
fn bound_children_stay_and_the_others_use_the_rest() {
    let published = published(2);
    let child = |lp, bound| (Entity::new(weight(100), lp, bound), SPIN);
    let mut machine = Machine::new(
        &published,
        std::vec![
            child(0, true),
            child(0, true),
            child(0, true),
            child(0, false)
        ],
    );
    machine.run(4 * SECOND);
    let shares = machine.shares(&[0; 4], 4 * SECOND);
    assert!(shares[3] > 0.99, "{shares:?}");
    assert!(
        shares[..3].iter().all(|s| (s - 1.0 / 3.0).abs() < 0.01),
        "{shares:?}"
    );
}

#[test]
fn a_child_that_computes_alone_for_long_owes_and_is_owed_nothing() {
    // Weight 1000 has an LP to itself while two others share one; then one of equal weight joins the two.
    let published = published(2);
    let child = |w| (Entity::new(weight(w), 0, false), SPIN);
    let mut machine = Machine::new(&published, std::vec![child(10_000), child(10), child(10)]);
    machine.run(20 * SECOND);
    machine.table.0[1].set_share(weight(10_000));
    machine.table.0[2].set_share(weight(10_000));
    machine.run(SECOND / 2);
    let then = machine.runtimes();
    machine.run(4 * SECOND);
    let shares = machine.shares(&then, 4 * SECOND);
    assert!(
        shares.iter().all(|s| (s - 2.0 / 3.0).abs() < 0.02),
        "{shares:?}"
    );
}

#[test]
fn a_sleeper_saves_up_no_time_and_wakes_soon() {
    let published = published(1);
    let child = |habit| (Entity::new(weight(100), 0, false), habit);
    let mut machine = Machine::new(
        &published,
        std::vec![
            child(SPIN),
            child(SPIN),
            child(Habit(SLICE / 10, 10 * SLICE)),
            child(Habit(5 * SECOND, SECOND))
        ],
    );
    machine.run(10 * SECOND);
    // 0.1 ms every 10 ms needs 1 % and gets it without waiting for all slices of the others.
    let shares = machine.shares(&[0; 4], 10 * SECOND);
    assert!(shares[2] > 0.0085, "{shares:?}");
    assert!(
        machine.longest_wait[2] < 4 * SLICE,
        "{:?}",
        machine.longest_wait
    );
    assert!((shares[0] - shares[1]).abs() < 0.001);
    assert!(
        machine.longest_wait[0] < 8 * SLICE,
        "{:?}",
        machine.longest_wait
    );
}

#[test]
fn a_parent_that_computes_has_the_share_of_ten_children() {
    let published = published(1);
    let children = (0..5)
        .map(|_| (Entity::new(weight(100), 0, false), SPIN))
        .collect();
    let mut machine = Machine::new(&published, children);
    machine.parents[0] = ParentState::Runnable { has_pending: false };
    machine.run(3 * SECOND);
    let parent = machine.parent_ticks[0] as f64 / (3 * SECOND) as f64;
    assert!((parent - 10.0 / 15.0).abs() < 0.02, "{parent}");
}

#[test]
fn a_parent_under_a_storm_leaves_a_quarter() {
    let published = published(1);
    let children = (0..40)
        .map(|_| (Entity::new(weight(100), 0, false), SPIN))
        .collect();
    let mut machine = Machine::new(&published, children);
    for _ in 0..20_000 {
        machine.interrupt(0);
        machine.run(SLICE / 10);
    }
    let parent = machine.parent_ticks[0] as f64 / (2000 * SLICE) as f64;
    assert!((0.6..0.85).contains(&parent), "{parent}");
}

#[test]
fn a_parent_that_halts_goes_first_at_once() {
    let published = published(2);
    let children = (0..8)
        .map(|_| (Entity::new(weight(100), 0, false), SPIN))
        .collect();
    let mut machine = Machine::new(&published, children);
    machine.run(SECOND / 10);
    for _ in 0..100 {
        let before = machine.parent_ticks[0];
        machine.interrupt(0);
        machine.run(SLICE / 5);
        machine.parents[0] = ParentState::Idle;
        machine.run(1);
        machine.interrupt(0); // makes it choose again
        machine.parents[0] = ParentState::Idle;
        machine.run(4 * SLICE);
        assert!(machine.parent_ticks[0] - before >= SLICE / 5);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn spinning_children_get_their_weight(
        weights in proptest::collection::vec(1u32..=100, 1..24), lps in 1usize..=4
    ) {
        let (shares, _) = spin(&weights, lps);
        for ((share, due), weight) in shares.iter().zip(due(&weights, lps)).zip(&weights) {
            // A child of little weight gets whole slices: allow some of them beside the 5 %.
            let slack = 0.05 * due + 16.0 * SLICE as f64 / (10 * SECOND) as f64;
            prop_assert!((share - due).abs() <= slack, "weight {weight}: {share} of {due}; {shares:?}");
        }
    }

    #[test]
    fn nobody_starves_and_no_lp_idles_beside_work(
        kinds in proptest::collection::vec((1u32..=1000, 0u32..4, 1u64..20 * SLICE, 1u64..20 * SLICE, 0u32..60), 1..16),
        lps in 1usize..=3, interrupts in proptest::collection::vec((0usize..3, any::<bool>(), 1u64..30 * SLICE), 0..50)
    ) {
        let published = published(lps);
        let children = kinds.iter().map(|&(w, kind, run, halt, cap)| {
            let share = Share { weight: w, cap_percent: if cap < 40 { 0 } else { cap } };
            let home = kind % lps as u32;
            (Entity::new(share, home, kind == 3), if kind == 0 { SPIN } else { Habit(run, halt) })
        }).collect();
        let mut machine = Machine::new(&published, children);
        for (lp, is_pending, ticks) in interrupts {
            let lp = lp % lps;
            if is_pending {
                machine.interrupt(lp);
            } else {
                machine.interrupt(lp);
                machine.parents[lp] = ParentState::Idle;
            }
            machine.run(ticks);
        }
        machine.run(SECOND);
        let then = machine.runtimes();
        machine.longest_wait.fill(0);
        machine.run(60 * SECOND);
        let shares = machine.shares(&then, 60 * SECOND);
        let sum: f64 = kinds.iter().map(|kind| f64::from(kind.0)).sum();
        let free = machine.parents.iter().filter(|p| **p == ParentState::Idle).count() as f64;
        for (i, &(w, kind, .., cap)) in kinds.iter().enumerate() {
            // At least what it would have if all others spun on the LPs that the parent leaves.
            let cap = if cap < 40 { 1.0 } else { f64::from(cap) / 100.0 };
            let part = if free == 0.0 { 1.0 / (sum + 1000.0) } else { free / sum };
            let due = (f64::from(w) * part).min(cap);
            prop_assert!(shares[i] > 0.0, "{i} of {kinds:?} starved: {:?}", machine.table.0[i]);
            if kind == 0 && kinds.iter().all(|kind| kind.1 != 3) {
                prop_assert!(shares[i] > 0.9 * due, "{i} of {kinds:?} has {} of {due}", shares[i]);
                if free >= 1.0 {
                    // Rounds in which each has as many slices as its weight asks for, and the caps' periods.
                    let round = (4.0 * sum / f64::from(w) + 100.0) * SLICE as f64;
                    prop_assert!(machine.longest_wait[i] as f64 <= round, "{i} of {kinds:?} waited {}", machine.longest_wait[i]);
                }
            }
        }
        let spinners = kinds.iter().filter(|kind| kind.1 == 0 && kind.4 < 40).count();
        let used = shares.iter().sum::<f64>();
        prop_assert!(used >= 0.99 * spinners.min(lps) as f64 || free < lps as f64, "{used} of {lps} LPs: {kinds:?}");
    }
}
