use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use addr::PartitionId;
use slot_proto::PartitionState;
use tlfs::HvError;

use super::*;
use crate::control::fake::FakeHypervisor;
use crate::control::{Calls, SharedControl};

/// Frames from a place of their own, a large page at a time.
struct Frames {
    next: u64,
    given: BTreeSet<u64>,
    each: u64,
}

impl Frames {
    fn from(next: u64, each: u64) -> Self {
        Self {
            next,
            given: BTreeSet::new(),
            each,
        }
    }
}

impl Supply for Frames {
    fn more(&mut self) -> Result<Vec<u64>, String> {
        let frames: Vec<u64> = (self.next..self.next + self.each).collect();
        self.next += 512;
        self.given.extend(&frames);
        Ok(frames)
    }
}

fn hypervisor() -> (Arc<Mutex<FakeHypervisor>>, Calls) {
    let hypervisor = Arc::new(Mutex::new(FakeHypervisor::default()));
    let control: SharedControl = hypervisor.clone();
    (hypervisor, Calls(control))
}

/// 4 GiB: a part on each side of the gap.
const RAM_PAGES: u64 = 2048;

fn ram() -> Vec<u64> {
    (0..RAM_PAGES).map(|page| 0x10_0000 + page * 512).collect()
}

fn plan(ram: &[u64]) -> Plan<'_> {
    Plan {
        tag: 77,
        vps: 2,
        memory_bytes: RAM_PAGES << 21,
        ram,
        pages: 0x8_0000,
        slot: 3,
    }
}

#[test]
fn a_partition_is_made_in_order_and_leaves_nothing() {
    let (hypervisor, calls) = hypervisor();
    let (mut own, mut pool) = (Frames::from(0x1000, 512), Frames::from(0x2000, 512));
    let ram = ram();
    let (id, generation) = make(&calls, &plan(&ram), &mut own, &mut pool).unwrap();
    {
        let hypervisor = hypervisor.lock().unwrap();
        let child = &hypervisor.children[&id.get()];
        assert_eq!((child.tag, child.state), (77, PartitionState::ACTIVE));
        assert_eq!(child.quota, 36);
        assert_eq!(child.ram.len() as u64, RAM_PAGES);
        assert_eq!(child.ram[&0], ram[0]);
        assert_eq!(child.ram[&(4 << 30)], ram[1536]);
        assert!(!child.ram.contains_key(&(3 << 30)));
        assert_eq!(child.vps.values().collect::<Vec<_>>(), [&2, &2]);
        assert_eq!(child.slot, Some((3, generation.0)));
        assert!(own.given.is_empty(), "the reserve was enough");
    }
    let frames: BTreeSet<u64> = unmake(&calls, id).unwrap().into_iter().collect();
    assert_eq!(frames, pool.given);
    assert!(hypervisor.lock().unwrap().children.is_empty());
    assert_eq!(unmake(&calls, id).unwrap(), Vec::<u64>::new());
}

#[test]
fn pools_that_are_too_small_are_filled_up() {
    let (hypervisor, calls) = hypervisor();
    hypervisor.lock().unwrap().reserve = 0;
    // One frame at a time, where the pool's first filling is the estimate.
    let (mut own, mut pool) = (Frames::from(0x1000, 1), Frames::from(0x2000, 40));
    let ram = ram();
    let (id, _) = make(&calls, &plan(&ram), &mut own, &mut pool).unwrap();
    assert_eq!(own.given.len(), 1);
    unmake(&calls, id).unwrap();
}

#[test]
fn whichever_request_fails_everything_can_be_taken_back() {
    let ram = ram();
    for at in 0.. {
        let (hypervisor, calls) = hypervisor();
        hypervisor.lock().unwrap().fails_at = Some((at, HvError::OPERATION_FAILED));
        let (mut own, mut pool) = (Frames::from(0x1000, 512), Frames::from(0x2000, 512));
        let made = make(&calls, &plan(&ram), &mut own, &mut pool);
        hypervisor.lock().unwrap().fails_at = None;
        let ids: Vec<u64> = hypervisor
            .lock()
            .unwrap()
            .children
            .keys()
            .copied()
            .collect();
        if let Err(error) = &made {
            assert!(error.to_string().contains("OPERATION_FAILED"), "{error}");
        }
        let mut back = BTreeSet::new();
        for id in ids {
            back.extend(unmake(&calls, PartitionId::new(id)).unwrap());
        }
        assert!(hypervisor.lock().unwrap().children.is_empty());
        assert!(back.is_subset(&pool.given));
        if made.is_ok() {
            assert!(at > 20, "{at}");
            return;
        }
    }
}

#[test]
fn taking_apart_can_be_tried_again() {
    let ram = ram();
    for at in 0..6 {
        let (hypervisor, calls) = hypervisor();
        let (mut own, mut pool) = (Frames::from(0x1000, 512), Frames::from(0x2000, 512));
        let (id, _) = make(&calls, &plan(&ram), &mut own, &mut pool).unwrap();
        {
            let mut hypervisor = hypervisor.lock().unwrap();
            hypervisor.fails_at = Some((hypervisor.requests + at, HvError::TIMEOUT));
        }
        assert!(unmake(&calls, id).is_err(), "request {at}");
        unmake(&calls, id).unwrap();
        assert!(hypervisor.lock().unwrap().children.is_empty());
    }
}
