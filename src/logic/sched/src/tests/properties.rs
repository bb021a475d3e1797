//! Any sequence of operations.

use proptest::prelude::*;
use std::vec::Vec;

use super::{SLICE, Table};
use crate::entity::{Node, State};
use crate::heap::Heap;
use crate::*;

fn table(count: usize) -> Table {
    Table(
        (0..count)
            .map(|i| {
                Entity::new(
                    Share {
                        weight: 1 + i as u32 * 37,
                        cap_percent: if i % 5 == 4 { 10 } else { 0 },
                    },
                    i as u32 % 2,
                    i % 7 == 6,
                )
            })
            .collect(),
    )
}

/// Checks order, links and ranks; gives the elements and the height of the path of right links.
fn check(table: &Table, heap: &Heap) -> Vec<u32> {
    let mut found = Vec::new();
    let mut open: Vec<(u32, u32)> = heap
        .first(table)
        .map(|(id, _)| (id.0, Node::NONE))
        .into_iter()
        .collect();
    while let Some((link, above)) = open.pop() {
        let node = &table.0[link as usize].node;
        assert_eq!(node.parent.get(), above);
        if above != Node::NONE {
            assert!(table.0[above as usize].node.key.get() <= node.key.get());
        }
        let rank = |link: u32| table.0.get(link as usize).map_or(0, |e| e.node.rank.get());
        assert!(rank(node.left.get()) >= rank(node.right.get()));
        assert_eq!(node.rank.get(), rank(node.right.get()) + 1);
        for child in [node.left.get(), node.right.get()] {
            if child != Node::NONE {
                open.push((child, link));
            }
        }
        found.push(link);
    }
    assert_eq!(found.len(), heap.len() as usize);
    found.sort();
    found
}

proptest! {
    #[test]
    fn a_heap_holds_what_it_was_given(steps in proptest::collection::vec((0u32..40, 0u64..50), 0..300)) {
        let table = table(40);
        let mut heap = Heap::EMPTY;
        let mut model: Vec<u32> = Vec::new();
        for (id, key) in steps {
            match model.iter().position(|m| *m == id) {
                Some(at) => {
                    model.swap_remove(at);
                    heap.remove(EntityId(id), &table);
                }
                None => {
                    model.push(id);
                    heap.insert(EntityId(id), key, &table);
                }
            }
            model.sort();
            prop_assert_eq!(check(&table, &heap), model.clone());
            let least = model.iter().map(|m| table.0[*m as usize].node.key.get()).min();
            prop_assert_eq!(heap.first(&table).map(|(_, e)| e.node.key.get()), least);
        }
    }

    #[test]
    fn a_line_is_a_queue_from_which_any_can_go(steps in proptest::collection::vec((0u32..12, 0u8..3), 0..100)) {
        let table = table(10);
        let (mut line, mut model) = (Line::EMPTY, std::collections::VecDeque::new());
        for (id, step) in steps {
            let at = model.iter().position(|m| *m == id);
            match step {
                0 | 1 => {
                    prop_assert_eq!(line.push(EntityId(id), &table), at.is_none() && id < 10);
                    if at.is_none() && id < 10 {
                        model.push_back(id);
                    }
                }
                _ => {
                    prop_assert_eq!(line.remove(EntityId(id), &table), at.is_some());
                    at.map(|at| model.remove(at));
                }
            }
            prop_assert_eq!(line.first(), model.front().map(|id| (EntityId(*id), model.len() > 1)));
        }
    }

    #[test]
    fn no_entity_is_lost_or_in_two_places(
        steps in proptest::collection::vec((0u8..9, 0u32..24, 0usize..2, 0u64..3 * SLICE), 0..400)
    ) {
        let table = table(20);
        let published = [Published::new(), Published::new()];
        let mut queues: Vec<_> = (0..).zip(&published).map(|(lp, p)| RunQueue::new(lp, SLICE, p)).collect();
        // Runnable, as far as callers were told.
        let mut awake = [false; 24];
        let mut now = 0;
        for (step, id, lp, ticks) in steps {
            now += ticks;
            let (entity, i) = (EntityId(id), id as usize);
            let queue = &mut queues[lp];
            match step {
                0 | 1 => if queue.wake(entity, now, &table).is_ok() { awake[i] = true },
                2 => if queue.remove(entity, now, &table).is_ok() { awake[i] = false },
                3 => if queue.block(entity, None, now, &table) == Ok(true) { awake[i] = false },
                4 => if queue.block(entity, Some(now + ticks), now, &table) == Ok(true) { awake[i] = false },
                5 => {
                    let stolen = queue.steal(1 - lp as u32, &table);
                    if let Some(id) = stolen.filter(|_| ticks % 2 == 0) {
                        prop_assert_eq!(queues[1 - lp].adopt(id, now, &table), Ok(()));
                    }
                }
                6 => { let _ = queue.adopt(entity, now, &table); }
                7 => { let _ = queue.assign(entity, lp as u32, ticks % 3 == 0, &table); }
                _ => {
                    let parent = match ticks % 3 { 0 => ParentState::Idle, n => ParentState::Runnable { has_pending: n == 1 } };
                    let choice = queue.choose(now, parent, &table);
                    if let Choice::Vp { id, .. } = choice {
                        prop_assert_eq!(table.get(id).unwrap().state(), State::Running);
                        prop_assert!(queue.is_current(id));
                    }
                    if choice == (Choice::Idle { until: u64::MAX }) {
                        prop_assert!(table.0.iter().all(|e| e.home() != lp as u32
                            || matches!(e.state(), State::Off | State::InTransit)));
                    }
                    let _ = queue.balance(2, |lp| published.get(lp as usize), &table);
                }
            }
            for (i, entity) in table.0.iter().enumerate() {
                let state = entity.state();
                // A deadline wakes without a caller.
                awake[i] |= !matches!(state, State::Off | State::Parked);
                prop_assert_eq!(awake[i], !matches!(state, State::Off | State::Parked), "{} is {:?}", i, state);
            }
            for (lp, queue) in queues.iter().enumerate() {
                let mut places = std::vec![(State::Running, Vec::new())];
                places[0].1.extend((0..20).filter(|id| queue.is_current(EntityId(*id))));
                for (state, heap) in queue.heaps() {
                    places.push((state, check(&table, heap)));
                }
                for (state, ids) in places {
                    let expected: Vec<u32> = (0..20).filter(|id| {
                        let entity = &table.0[*id as usize];
                        entity.home() == lp as u32 && entity.state() == state
                    }).collect();
                    prop_assert_eq!(ids, expected, "{:?} of LP {}", state, lp);
                }
            }
        }
    }
}
