//! Single rules of one queue.

use super::{SLICE, Table, weight};
use crate::*;

const IDLE: ParentState = ParentState::Idle;

fn table(count: usize) -> Table {
    Table(
        (0..count)
            .map(|_| Entity::new(weight(100), 0, false))
            .collect(),
    )
}

#[test]
fn a_parent_alone_is_not_disturbed_and_learns_of_a_child() {
    let (published, table) = (Published::new(), table(1));
    let mut queue = RunQueue::new(0, SLICE, &published);
    let parent = ParentState::Runnable { has_pending: false };
    assert_eq!(
        queue.choose(100 * SLICE, parent, &table),
        Choice::Parent { until: u64::MAX }
    );
    assert_eq!(
        queue.wake(EntityId(0), 200 * SLICE, &table),
        Ok(Wake::Preempt)
    );
    match queue.choose(200 * SLICE, parent, &table) {
        Choice::Parent { until } | Choice::Vp { until, .. } => assert!(until <= 201 * SLICE),
        idle => panic!("{idle:?}"),
    }
}

#[test]
fn a_wake_while_it_runs_is_not_lost() {
    let (published, table) = (Published::new(), table(1));
    let mut queue = RunQueue::new(0, SLICE, &published);
    let id = EntityId(0);
    queue.wake(id, 0, &table).unwrap();
    let _ = queue.choose(0, IDLE, &table);
    assert_eq!(queue.wake(id, 5, &table), Ok(Wake::Already));
    assert_eq!(queue.block(id, None, 6, &table), Ok(false));
    assert!(queue.is_current(id));
    assert_eq!(queue.block(id, None, 7, &table), Ok(true));
    assert_eq!(
        queue.choose(8, IDLE, &table),
        Choice::Idle { until: u64::MAX }
    );
    assert!(published.is_idle());
}

#[test]
fn a_deadline_wakes_a_halted_one() {
    let (published, table) = (Published::new(), table(1));
    let mut queue = RunQueue::new(0, SLICE, &published);
    let id = EntityId(0);
    queue.wake(id, 0, &table).unwrap();
    let _ = queue.choose(0, IDLE, &table);
    assert_eq!(queue.block(id, Some(5 * SLICE), 6, &table), Ok(true));
    assert_eq!(
        queue.choose(7, IDLE, &table),
        Choice::Idle { until: 5 * SLICE }
    );
    assert!(matches!(
        queue.choose(5 * SLICE, IDLE, &table),
        Choice::Vp {
            id: EntityId(0),
            ..
        }
    ));
    // A wake before the deadline, and no deadline after it.
    assert_eq!(
        queue.block(id, Some(9 * SLICE), 6 * SLICE, &table),
        Ok(true)
    );
    queue.wake(id, 7 * SLICE, &table).unwrap();
    let _ = queue.choose(7 * SLICE, IDLE, &table);
    assert_eq!(queue.block(id, None, 8 * SLICE, &table), Ok(true));
    assert_eq!(
        queue.choose(8 * SLICE, IDLE, &table),
        Choice::Idle { until: u64::MAX }
    );
}

#[test]
fn operations_on_the_wrong_queue_or_state_are_refused() {
    let (a, b, table) = (Published::new(), Published::new(), table(2));
    let (mut home, mut other) = (RunQueue::new(0, SLICE, &a), RunQueue::new(1, SLICE, &b));
    let id = EntityId(0);
    assert_eq!(other.wake(id, 0, &table), Err(Refused::Elsewhere));
    assert_eq!(
        home.wake(EntityId(7), 0, &table),
        Err(Refused::NoSuchEntity)
    );
    assert_eq!(home.block(id, None, 0, &table), Err(Refused::WrongState));
    assert_eq!(home.adopt(id, 0, &table), Err(Refused::WrongState));
    home.wake(id, 0, &table).unwrap();
    assert_eq!(home.assign(id, 1, true, &table), Err(Refused::WrongState));
    assert_eq!(home.steal(1, &table), Some(id));
    assert_eq!(home.remove(id, 0, &table), Err(Refused::Elsewhere));
    assert_eq!(other.remove(id, 0, &table), Ok(false));
    assert_eq!(other.adopt(id, 0, &table), Err(Refused::WrongState));
    assert_eq!(
        other.choose(0, IDLE, &table),
        Choice::Idle { until: u64::MAX }
    );
}

#[test]
fn what_is_removed_while_it_runs_is_left_at_the_next_choice() {
    let (published, table) = (Published::new(), table(2));
    let mut queue = RunQueue::new(0, SLICE, &published);
    for id in [0, 1] {
        queue.wake(EntityId(id), 0, &table).unwrap();
    }
    let Choice::Vp { id, .. } = queue.choose(0, IDLE, &table) else {
        panic!()
    };
    assert_eq!(queue.remove(id, 10, &table), Ok(true));
    assert_eq!(table.get(id).unwrap().runtime(), 10);
    assert_eq!(queue.remove(id, 11, &table), Ok(false));
    let Choice::Vp { id: next, .. } = queue.choose(20, IDLE, &table) else {
        panic!()
    };
    assert_ne!(next, id);
}

#[test]
fn a_woken_sleeper_takes_the_place_of_a_spinner() {
    let (published, table) = (Published::new(), table(2));
    let mut queue = RunQueue::new(0, SLICE, &published);
    queue.wake(EntityId(0), 0, &table).unwrap();
    for now in 0..100 {
        assert!(matches!(
            queue.choose(now * SLICE, IDLE, &table),
            Choice::Vp {
                id: EntityId(0),
                ..
            }
        ));
    }
    assert_eq!(
        queue.wake(EntityId(1), 99 * SLICE + SLICE / 2, &table),
        Ok(Wake::Preempt)
    );
    let next = queue.choose(99 * SLICE + SLICE / 2, IDLE, &table);
    assert!(matches!(
        next,
        Choice::Vp {
            id: EntityId(1),
            ..
        }
    ));
}
