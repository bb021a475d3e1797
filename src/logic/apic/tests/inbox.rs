//! The part that other processors write.

mod common;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use addr::ApicId;
use apic::{Apic, Destination, Effect, Inbox, Ipi, IpiKind, StartEvent};
use common::*;
use proptest::prelude::*;

#[test]
fn a_broadcast_init_and_a_single_sipi_right_after_it_start_the_target() {
    let (mut sender, target) = (enabled(0), enabled(1));
    let inboxes = [Inbox::new(), Inbox::new()];
    sender.publish(&inboxes[0]);
    target.publish(&inboxes[1]);
    for low in [0xC_4500, 0xC_4687] {
        let Effect::Ipi(ipi) = sender.write(ICR, low, 0) else {
            panic!()
        };
        for inbox in inboxes.iter().filter(|inbox| inbox.matches(&ipi)) {
            let kick = match ipi.kind {
                IpiKind::Init => inbox.post_init(),
                IpiKind::Sipi(vector) => inbox.post_sipi(vector),
                other => panic!("{other:?}"),
            };
            assert!(kick);
        }
    }
    assert_eq!(inboxes[0].take_start(), None);
    assert!(inboxes[1].is_held() && inboxes[1].has_start());
    assert_eq!(inboxes[1].take_start(), Some(StartEvent::Init));
    assert_eq!(inboxes[1].take_start(), Some(StartEvent::Start(0x87)));
    assert_eq!(inboxes[1].take_start(), None);
    assert!(!inboxes[1].is_held());
    assert!(!inboxes[1].post_sipi(0x87), "a second SIPI is ignored");
}

#[test]
fn init_drops_what_was_posted_before() {
    let inbox = Inbox::new();
    inbox.post(0x40);
    inbox.post_nmi();
    inbox.post_init();
    assert_eq!(inbox.take_start(), Some(StartEvent::Init));
    assert!(inbox.is_empty());
    assert!(inbox.is_held() && !inbox.has_start());
    // In wait-for-SIPI neither counts.
    inbox.post_nmi();
    inbox.post_sipi(9);
    assert_eq!(inbox.take_start(), Some(StartEvent::Start(9)));
    assert!(inbox.is_empty());
}

#[test]
fn a_new_ap_waits_for_its_first_sipi() {
    let inbox = Inbox::waiting();
    assert!(inbox.is_held() && !inbox.has_start());
    assert!(!inbox.post_init());
    assert!(inbox.post_sipi(0));
    assert_eq!(inbox.take_start(), Some(StartEvent::Start(0)));
}

#[test]
fn posts_reach_irr_as_edges() {
    let (mut apic, inbox) = (enabled(0), Inbox::new());
    let _ = apic.accept(0x40, apic::Trigger::Level);
    for vector in [0x40, 0x7F, 0x80, 0xFF] {
        assert!(inbox.post(vector) && !inbox.post(vector));
    }
    assert!(inbox.post_nmi() && !inbox.post_nmi());
    apic.absorb(&inbox);
    assert!(inbox.is_empty() && apic.take_nmi());
    assert_eq!(apic.irr().registers(), [0, 0, 1, 1 << 31, 1, 0, 0, 1 << 31]);
    assert!(apic.tmr().is_empty());
    assert_eq!(apic.pending(), Some(0xFF));
}

#[test]
fn nobody_matches_before_it_is_published() {
    let ipi = Ipi {
        kind: IpiKind::Nmi,
        destination: Destination::All,
        sender: ApicId::new(0),
        x2apic: false,
    };
    let inbox = Inbox::new();
    assert!(!inbox.matches(&ipi) && !inbox.is_accepting());
    fresh(0).publish(&inbox);
    assert!(inbox.matches(&ipi) && !inbox.is_accepting());
    enabled(0).publish(&inbox);
    assert!(inbox.is_accepting());
}

/// What the manual says a processor does, event by event, as seen from outside: how often it was
/// reset, where it started, whether it waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
enum Ideal {
    Running { start: Option<u8>, reset: bool },
    Waiting { reset: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Init,
    Sipi(u8),
    Take,
}

/// Plays `steps` on a real inbox and on the ideal; `reset` is "a reset the owner still has to do".
fn play(steps: &[Step], inbox: Inbox, mut ideal: Ideal) {
    for step in steps {
        match *step {
            Step::Init => {
                let changed = inbox.post_init();
                let expected = matches!(ideal, Ideal::Running { .. });
                assert_eq!(changed, expected, "{steps:?}");
                if expected {
                    ideal = Ideal::Waiting { reset: true };
                }
            }
            Step::Sipi(vector) => {
                let changed = inbox.post_sipi(vector);
                match ideal {
                    Ideal::Waiting { reset } => {
                        assert!(changed, "SIPI lost: {steps:?}");
                        ideal = Ideal::Running {
                            start: Some(vector),
                            reset,
                        };
                    }
                    Ideal::Running { .. } => assert!(!changed, "{steps:?}"),
                }
            }
            Step::Take => {
                let expected = match &mut ideal {
                    Ideal::Running { reset, .. } | Ideal::Waiting { reset } if *reset => {
                        *reset = false;
                        Some(StartEvent::Init)
                    }
                    Ideal::Running { start, .. } => start.take().map(StartEvent::Start),
                    Ideal::Waiting { .. } => None,
                };
                assert_eq!(inbox.take_start(), expected, "{steps:?}");
            }
        }
        let free = ideal
            == Ideal::Running {
                start: None,
                reset: false,
            };
        assert_eq!(inbox.is_held(), !free, "{steps:?}");
    }
}

/// Each operation is one atomic read-modify-write of one word, so that the interleavings of any number
/// of processors are exactly the sequences of operations: all of them up to a length are tried.
#[test]
fn every_order_of_init_sipi_and_consumption_is_the_manuals() {
    const STEPS: [Step; 4] = [Step::Init, Step::Sipi(0x87), Step::Sipi(0x9F), Step::Take];
    const LENGTH: u32 = 8;
    for number in 0..4_usize.pow(LENGTH) {
        let mut rest = number;
        let steps: Vec<Step> = (0..LENGTH)
            .map(|_| {
                let step = STEPS[rest % 4];
                rest /= 4;
                step
            })
            .collect();
        play(
            &steps,
            Inbox::new(),
            Ideal::Running {
                start: None,
                reset: false,
            },
        );
        play(&steps, Inbox::waiting(), Ideal::Waiting { reset: false });
    }
}

/// Senders and owner on their own threads: each wake-up of INIT and one SIPI starts the owner once, at
/// the right vector, after a reset.
#[test]
fn no_wake_up_is_lost_between_threads() {
    const ROUNDS: u64 = if cfg!(miri) { 20 } else { 20_000 };
    let inbox = Inbox::new();
    let started = AtomicU64::new(0);
    // A lost wake-up is a failure, not a test that hangs.
    let end = Instant::now() + Duration::from_secs(60);
    let pause = || {
        assert!(Instant::now() < end, "a wake-up was lost");
        std::thread::yield_now();
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..ROUNDS {
                let vector = round as u8;
                assert!(inbox.post_init());
                assert!(inbox.post_sipi(vector));
                while started.load(SeqCst) == round {
                    // A stray second SIPI is never to count.
                    assert!(!inbox.post_sipi(!vector));
                    pause();
                }
            }
        });
        let mut was_reset = false;
        for round in 0..ROUNDS {
            loop {
                match inbox.take_start() {
                    Some(StartEvent::Init) => {
                        assert!(!was_reset);
                        was_reset = true;
                    }
                    Some(StartEvent::Start(vector)) => {
                        assert!(was_reset);
                        assert_eq!(vector, round as u8);
                        was_reset = false;
                        break;
                    }
                    None => pause(),
                }
            }
            started.store(round + 1, SeqCst);
        }
    });
}

/// Every post that said "new" is absorbed exactly once.
#[test]
fn no_interrupt_is_lost_between_threads() {
    const ROUNDS: u32 = if cfg!(miri) { 20 } else { 20_000 };
    let (mut apic, inbox) = (enabled(0), Inbox::new());
    let (posted, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let mut taken = 0;
    std::thread::scope(|scope| {
        let sender = |first: u8| {
            let (inbox, posted) = (&inbox, &posted);
            move || {
                for round in 0..ROUNDS {
                    if inbox.post(first | (round % 32) as u8) {
                        posted.fetch_add(1, SeqCst);
                    }
                }
            }
        };
        let senders = [scope.spawn(sender(0x60)), scope.spawn(sender(0xE0))];
        let done = &done;
        scope.spawn(move || {
            senders
                .into_iter()
                .for_each(|sender| sender.join().unwrap());
            done.store(true, SeqCst);
        });
        loop {
            let last = done.load(SeqCst);
            apic.absorb(&inbox);
            while let Some(vector) = apic.pending() {
                assert!(apic.take(vector));
                assert!(matches!(apic.eoi(), Effect::Eoi { .. }));
                taken += 1;
            }
            if last {
                break;
            }
        }
    });
    assert_eq!(taken, posted.load(SeqCst));
}

/// An APIC in a random mode with random logical addressing.
fn target() -> impl Strategy<Value = Apic> {
    (
        0..300_u32,
        0..3_u8,
        any::<u8>(),
        prop::sample::select(vec![0_u32, 7, 15]),
    )
        .prop_map(|(id, mode, logical, model)| {
            let mut apic = enabled(id);
            let _ = apic.write(LDR, u32::from(logical) << 24, 0);
            let _ = apic.write(DFR, model << 28, 0);
            if mode != 1 {
                apic.write_apic_base(
                    (0xFEE0_0800 * u64::from(mode != 0)) | (u64::from(mode == 2) << 10),
                )
                .unwrap();
            }
            apic
        })
}

/// Logical selection by sets: the addresses of one member each, united.
fn members(address: u32, apic: &Apic, x2apic: bool) -> bool {
    let single = |bits: u32, width: u32| -> BTreeSet<u32> {
        (0..width).filter(|bit| bits >> bit & 1 == 1).collect()
    };
    if address == if x2apic { u32::MAX } else { 0xFF } {
        return true;
    }
    if apic.mode() == apic::Mode::X2Apic {
        let id = apic.id().get();
        return address >> 16 == id / 16 && single(address, 16).contains(&(id % 16));
    }
    let own = apic.logical_destination() >> 24;
    match apic.destination_format() >> 28 {
        15 => address < 256 && !single(own, 8).is_disjoint(&single(address, 8)),
        0 => {
            address < 256
                && own / 16 == address / 16
                && !single(own, 4).is_disjoint(&single(address, 4))
        }
        _ => false,
    }
}

proptest! {
    #[test]
    fn destinations_select_whom_the_model_selects(
        apic in target(),
        sender in 0..300_u32,
        x2apic: bool,
        near in 0..300_u32,
        bits in any::<u16>(),
        all_ones in prop::bool::weighted(0.1),
        kind in 0..5_u8,
    ) {
        let inbox = Inbox::new();
        apic.publish(&inbox);
        let broadcast = if x2apic { u32::MAX } else { 0xFF };
        let limit = |value: u32| if all_ones { broadcast } else if x2apic { value } else { value & 0xFF };
        let (physical, logical) = (limit(near), limit((near >> 4 << 16) | u32::from(bits)));
        let id = apic.id().get();
        let (destination, expected) = match kind {
            0 => (Destination::Physical(physical), physical == id || physical == broadcast),
            1 => (Destination::Logical(logical), members(logical, &apic, x2apic)),
            2 => (Destination::All, true),
            3 => (Destination::AllButSelf, sender != id),
            _ => (Destination::SelfOnly, sender == id),
        };
        let ipi = Ipi { kind: IpiKind::Fixed(0x40), destination, sender: ApicId::new(sender), x2apic };
        let on = apic.mode() != apic::Mode::Disabled;
        prop_assert_eq!(inbox.matches(&ipi), on && expected);
    }
}
