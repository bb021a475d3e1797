//! Reasons for not running, and interrupts that the parent asserts.

mod common;

use addr::{ApicId, PartitionId};
use apic::{Apic, Effect, Inbox, StartEvent, Timing};
use common::FEATURES;
use proptest::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};
use tlfs::call::{AssertInterrupt, InterruptFlags, InterruptType};
use vpstate::assert::Asserted;
use vpstate::{Reasons, Suspend};

#[test]
fn the_parents_order_starts_the_vp_once() {
    let suspend = Suspend::new(Reasons::EXPLICIT.with(Reasons::INTERCEPT));
    assert!(!suspend.clear(Reasons::INTERCEPT).is_started());
    assert!(suspend.clear(Reasons::EXPLICIT).is_started());
    assert!(!suspend.clear(Reasons::EXPLICIT).is_started());
    assert!(suspend.set(Reasons::HALTED).is_stopped());
    assert!(!suspend.set(Reasons::EXPLICIT).is_stopped());
    assert!(!suspend.wake().is_started());
    assert!(suspend.clear(Reasons::EXPLICIT).is_started());
}

#[test]
fn one_intercept_is_one_notification() {
    let suspend = Suspend::new(Reasons::NONE);
    assert!(suspend.raise_intercept());
    assert!(!suspend.raise_intercept());
    let _ = suspend.clear(Reasons::INTERCEPT);
    assert!(suspend.raise_intercept());
}

#[test]
fn a_new_application_processor_waits_for_two_things() {
    let suspend = Suspend::created(false, Reasons::PARTITION);
    assert!(!suspend.clear(Reasons::EXPLICIT).is_started());
    assert!(!suspend.clear(Reasons::PARTITION).is_started());
    assert!(suspend.clear(Reasons::STARTUP).is_started());
    assert!(
        Suspend::created(true, Reasons::NONE)
            .clear(Reasons::EXPLICIT)
            .is_started()
    );
}

#[test]
fn of_many_that_clear_at_once_one_starts_the_vp() {
    for _ in 0..200 {
        let reasons = [
            Reasons::EXPLICIT,
            Reasons::INTERCEPT,
            Reasons::HALTED,
            Reasons::STARTUP,
        ];
        let suspend = Suspend::new(reasons.into_iter().fold(Reasons::NONE, Reasons::with));
        let started = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for reason in reasons {
                let (suspend, started) = (&suspend, &started);
                scope.spawn(move || {
                    if suspend.clear(reason).is_started() {
                        started.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(started.load(Ordering::SeqCst), 1);
    }
}

proptest! {
    /// A VP is on the run queue exactly while it has no reason, whatever happens in which order.
    #[test]
    fn starts_and_stops_alternate(steps in proptest::collection::vec((0_u8..4, 0_u32..7), 0..50)) {
        let all = [
            Reasons::EXPLICIT, Reasons::INTERCEPT, Reasons::DISPATCH, Reasons::STARTUP,
            Reasons::HALTED, Reasons::IDLE, Reasons::PARTITION,
        ];
        let suspend = Suspend::new(Reasons::EXPLICIT);
        let mut is_queued = false;
        for (kind, index) in steps {
            let reason = all[index as usize];
            let change = match kind {
                0 => suspend.set(reason),
                1 => suspend.clear(reason),
                2 => suspend.wake(),
                _ => suspend.replace(reason.with(Reasons::IDLE), reason),
            };
            if change.is_started() {
                prop_assert!(!is_queued);
                is_queued = true;
            } else if change.is_stopped() {
                prop_assert!(is_queued);
                is_queued = false;
            }
            prop_assert_eq!(is_queued, suspend.reasons().is_runnable());
        }
    }

    #[test]
    fn activity_round_trips(value: u64) {
        match Reasons::from_activity(value) {
            Some(reasons) => prop_assert_eq!(reasons.activity(), value),
            None => prop_assert!(value > 7),
        }
    }
}

fn call(
    kind: InterruptType,
    destination: u64,
    vector: u32,
    flags: InterruptFlags,
) -> AssertInterrupt {
    AssertInterrupt {
        partition: PartitionId::new(7),
        kind,
        flags,
        destination,
        vector,
        ..Default::default()
    }
}

/// Four VPs with enabled APICs and flat logical ids.
fn machine() -> Vec<(Apic, Inbox)> {
    (0..4)
        .map(|id| {
            let timing = Timing::new(3_000_000_000, 1_000_000_000).unwrap();
            let mut apic = Apic::new(ApicId::new(id), id == 0, FEATURES, timing);
            let _ = apic.write(0xF0, 0x1FF, 0);
            let _ = apic.write(0xD0, 1 << (24 + id), 0);
            let inbox = if id == 0 {
                Inbox::new()
            } else {
                Inbox::waiting()
            };
            apic.publish(&inbox);
            (apic, inbox)
        })
        .collect()
}

fn deliver(machine: &[(Apic, Inbox)], call: &AssertInterrupt) -> Vec<usize> {
    let mut woken = vec![];
    let asserted = Asserted::new(call).unwrap();
    asserted.deliver(machine.iter().map(|(_, inbox)| inbox), |index| {
        woken.push(index)
    });
    woken
}

#[test]
fn destinations_name_vps() {
    let none = InterruptFlags::empty();
    let m = machine();
    assert_eq!(deliver(&m, &call(InterruptType::Fixed, 2, 0x41, none)), [2]);
    assert_eq!(
        deliver(&m, &call(InterruptType::Fixed, 2, 0x41, none)),
        [0; 0]
    );
    assert_eq!(
        deliver(&m, &call(InterruptType::Fixed, 0xFF, 0x42, none)),
        [0, 1, 2, 3]
    );
    assert_eq!(
        deliver(
            &m,
            &call(InterruptType::Fixed, 0b1010, 0x43, InterruptFlags::LOGICAL)
        ),
        [1, 3]
    );
    assert_eq!(
        deliver(
            &m,
            &call(
                InterruptType::LowestPriority,
                0b1100,
                0x44,
                InterruptFlags::LOGICAL
            )
        ),
        [2]
    );
    assert_eq!(deliver(&m, &call(InterruptType::Nmi, 1, 0, none)), [1]);
    assert_eq!(deliver(&m, &call(InterruptType::Sipi, 1, 0x9F, none)), [1]);
    assert_eq!(m[1].1.take_start(), Some(StartEvent::Start(0x9F)));
    assert_eq!(
        deliver(&m, &call(InterruptType::Fixed, 9, 0x41, none)),
        [0; 0]
    );
}

#[test]
fn what_no_child_takes_is_refused() {
    let none = InterruptFlags::empty();
    for call in [
        call(InterruptType::Fixed, 0, 15, none),
        call(InterruptType::LowestPriority, 0, 256, none),
        call(InterruptType::Fixed, 1 << 32, 0x41, none),
        call(InterruptType::Smi, 0, 0, none),
        call(InterruptType::LocalInt0, 0, 0, none),
    ] {
        assert!(Asserted::new(&call).is_err(), "{call:?}");
    }
}

#[test]
fn the_end_of_a_level_interrupt_says_so_and_an_edge_forgets_it() {
    let mut m = machine();
    for (flags, level) in [
        (InterruptFlags::LEVEL, true),
        (InterruptFlags::empty(), false),
        (InterruptFlags::LEVEL, true),
    ] {
        assert_eq!(
            deliver(&m, &call(InterruptType::Fixed, 0, 0x51, flags)),
            [0]
        );
        let (apic, inbox) = &mut m[0];
        apic.absorb(inbox);
        assert_eq!(apic.pending(), Some(0x51));
        assert!(apic.take(0x51));
        assert_eq!(
            apic.eoi(),
            Effect::Eoi {
                vector: 0x51,
                level
            }
        );
    }
}

#[test]
fn an_8259_replaces_and_takes_back_its_request() {
    let mut m = machine();
    let none = InterruptFlags::empty();
    assert_eq!(deliver(&m, &call(InterruptType::ExtInt, 0, 8, none)), [0]);
    assert_eq!(deliver(&m, &call(InterruptType::ExtInt, 0, 9, none)), [0]);
    let (apic, inbox) = &mut m[0];
    assert!(!inbox.is_empty());
    apic.absorb(inbox);
    assert_eq!(apic.pending_extint(), Some(9));
    inbox.clear_extint();
    apic.absorb(inbox);
    assert_eq!(apic.pending_extint(), None);
    assert!(inbox.is_empty());
}
