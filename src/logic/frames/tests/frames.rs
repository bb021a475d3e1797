//! Each transition from each state, many at once against a model, and two threads at one frame.

use std::sync::atomic::AtomicU16;

use addr::{PAGE_SIZE, Spa};
use frames::{FrameError, FrameState, FrameTable, MAX_USES, Slot};
use proptest::prelude::*;

fn words(count: usize) -> Vec<AtomicU16> {
    (0..count).map(|_| AtomicU16::new(0)).collect()
}

fn page(number: u64) -> Spa {
    Spa::new(number * PAGE_SIZE)
}

fn slot(number: u16) -> Slot {
    Slot::new(number).unwrap()
}

#[test]
fn a_new_table_says_that_nothing_is_ram() {
    let words = words(4);
    let table = FrameTable::new(&words);
    for spa in [page(0), page(3), page(4), Spa::new(u64::MAX)] {
        assert_eq!(table.state(spa), FrameState::NotRam);
        assert_eq!(table.pin(spa), Err(FrameError::NotRam));
        assert_eq!(table.unpin(spa), Err(FrameError::NotHeld));
        assert_eq!(table.deposit(spa, slot(1)), Err(FrameError::NotRam));
        assert_eq!(table.withdraw(spa, slot(1)), Err(FrameError::NotHeld));
    }
}

#[test]
fn only_whole_frames_become_ram_and_touched_ones_cease_to_be() {
    let words = words(8);
    let table = FrameTable::new(&words);
    table.add_ram(Spa::new(1), 6 * PAGE_SIZE);
    let states = |table: FrameTable<'_>| {
        (0..8)
            .map(|at| table.is_unused(page(at)))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        states(table),
        [false, true, true, true, true, true, false, false]
    );
    table.remove_ram(Spa::new(2 * PAGE_SIZE + 5), PAGE_SIZE);
    assert_eq!(
        states(table),
        [false, true, false, false, true, true, false, false]
    );
    table.add_ram(page(6), u64::MAX);
    table.remove_ram(page(7), u64::MAX);
    assert_eq!(
        states(table),
        [false, true, false, false, true, true, true, false]
    );
    assert_eq!(FrameTable::entries(8 * PAGE_SIZE - 1), 8);
}

#[test]
fn a_used_frame_is_not_deposited_and_a_deposited_one_not_used() {
    let words = words(2);
    let table = FrameTable::new(&words);
    table.add_ram(page(0), PAGE_SIZE);
    let spa = page(0);
    table.pin(spa).unwrap();
    assert_eq!(table.deposit(spa, slot(0)), Err(FrameError::InUse));
    table.unpin(spa).unwrap();
    assert_eq!(table.unpin(spa), Err(FrameError::NotHeld));
    table.deposit(spa, slot(0)).unwrap();
    assert_eq!(table.state(spa), FrameState::Deposited(slot(0)));
    assert_eq!(table.pin(spa), Err(FrameError::Deposited));
    assert_eq!(table.unpin(spa), Err(FrameError::NotHeld));
    assert_eq!(table.deposit(spa, slot(0)), Err(FrameError::Deposited));
    for other in [slot(1), Slot::PARENT] {
        assert_eq!(table.withdraw(spa, other), Err(FrameError::NotHeld));
    }
    table.withdraw(spa, slot(0)).unwrap();
    assert_eq!(table.withdraw(spa, slot(0)), Err(FrameError::NotHeld));
    assert!(table.is_unused(spa));
    table.deposit(spa, Slot::PARENT).unwrap();
    table.withdraw(spa, Slot::PARENT).unwrap();
}

#[test]
fn the_count_stops_before_it_would_look_like_a_pool() {
    let words = words(1);
    let table = FrameTable::new(&words);
    table.add_ram(page(0), PAGE_SIZE);
    for _ in 0..MAX_USES {
        table.pin(page(0)).unwrap();
    }
    assert_eq!(table.pin(page(0)), Err(FrameError::TooManyUses));
    assert_eq!(table.state(page(0)), FrameState::Parent(MAX_USES));
    assert_eq!(Slot::new(0x7FFF), None);
    assert!(Slot::new(0x7FFE).is_some());
}

#[test]
fn a_range_is_pinned_wholly_or_not_at_all() {
    let words = words(8);
    let table = FrameTable::new(&words);
    table.add_ram(page(0), 6 * PAGE_SIZE);
    table.deposit(page(4), slot(3)).unwrap();
    assert_eq!(table.pin_range(page(1), 5), Err(FrameError::Deposited));
    assert!((0..4).all(|at| table.is_unused(page(at))));
    assert_eq!(table.pin_range(page(5), 2), Err(FrameError::NotRam));
    assert!(table.is_unused(page(5)));
    let last = Spa::new(!0xFFF);
    assert_eq!(table.pin_range(last, 2), Err(FrameError::NotRam));
    table.pin_range(page(1), 3).unwrap();
    assert_eq!(table.state(page(3)), FrameState::Parent(1));
    assert_eq!(table.unpin_range(page(0), 4), Err(FrameError::NotHeld));
    assert!((0..4).all(|at| table.is_unused(page(at))));
}

/// Each of two threads gets the frame again and again, never both at once.
#[test]
fn two_threads_never_hold_one_frame_in_both_ways() {
    let words = words(1);
    let table = FrameTable::new(&words);
    table.add_ram(page(0), PAGE_SIZE);
    let repeat = |once: &dyn Fn() -> bool| {
        let mut done = 0;
        while done < 5_000 {
            if once() {
                done += 1;
            } else {
                std::thread::yield_now();
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            repeat(&|| {
                table.pin(page(0)).is_ok() && {
                    assert_eq!(table.state(page(0)), FrameState::Parent(1));
                    table.unpin(page(0)).unwrap();
                    true
                }
            });
        });
        scope.spawn(|| {
            repeat(&|| {
                table.deposit(page(0), slot(7)).is_ok() && {
                    assert_eq!(table.state(page(0)), FrameState::Deposited(slot(7)));
                    table.withdraw(page(0), slot(7)).unwrap();
                    true
                }
            });
        });
    });
    assert!(table.is_unused(page(0)));
}

#[test]
fn uses_of_two_threads_add_up() {
    let words = words(4);
    let table = FrameTable::new(&words);
    table.add_ram(page(0), 4 * PAGE_SIZE);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..10_000 {
                    table.pin_range(page(0), 4).unwrap();
                }
                for _ in 0..9_999 {
                    table.unpin_range(page(0), 4).unwrap();
                }
            });
        }
    });
    assert!((0..4).all(|at| table.state(page(at)) == FrameState::Parent(2)));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Pin(u64, u64),
    Unpin(u64),
    Deposit(u64, u16),
    Withdraw(u64, u16),
}

fn step() -> impl Strategy<Value = Step> {
    let at = 0..10u64;
    prop_oneof![
        (at.clone(), 0..5u64).prop_map(|(at, count)| Step::Pin(at, count)),
        at.clone().prop_map(Step::Unpin),
        (at.clone(), 0..3u16).prop_map(|(at, slot)| Step::Deposit(at, slot)),
        (at, 0..3u16).prop_map(|(at, slot)| Step::Withdraw(at, slot)),
    ]
}

proptest! {
    #[test]
    fn the_table_agrees_with_a_model(steps in proptest::collection::vec(step(), 0..200)) {
        let words = words(8);
        let table = FrameTable::new(&words);
        table.add_ram(page(0), 7 * PAGE_SIZE);
        let mut model = [FrameState::Parent(0); 10];
        model[7..].fill(FrameState::NotRam);
        for step in steps {
            match step {
                Step::Pin(at, count) => {
                    let range = at as usize..(at + count) as usize;
                    let can = range.end <= 10
                        && model[range.clone()].iter().all(|state| matches!(state, FrameState::Parent(_)));
                    prop_assert_eq!(table.pin_range(page(at), count).is_ok(), can);
                    if can {
                        for state in &mut model[range] {
                            let FrameState::Parent(uses) = state else { unreachable!() };
                            *uses += 1;
                        }
                    }
                }
                Step::Unpin(at) => {
                    let state = &mut model[at as usize];
                    let can = matches!(state, FrameState::Parent(1..));
                    prop_assert_eq!(table.unpin(page(at)).is_ok(), can);
                    if let (true, FrameState::Parent(uses)) = (can, state) {
                        *uses -= 1;
                    }
                }
                Step::Deposit(at, to) => {
                    let state = &mut model[at as usize];
                    let can = *state == FrameState::Parent(0);
                    prop_assert_eq!(table.deposit(page(at), slot(to)).is_ok(), can);
                    if can {
                        *state = FrameState::Deposited(slot(to));
                    }
                }
                Step::Withdraw(at, from) => {
                    let state = &mut model[at as usize];
                    let can = *state == FrameState::Deposited(slot(from));
                    prop_assert_eq!(table.withdraw(page(at), slot(from)).is_ok(), can);
                    if can {
                        *state = FrameState::Parent(0);
                    }
                }
            }
            for (at, state) in model.iter().enumerate() {
                prop_assert_eq!(table.state(page(at as u64)), *state);
            }
        }
    }
}
