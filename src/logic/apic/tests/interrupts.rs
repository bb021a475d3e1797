//! Priorities and end of interrupt, by example and against a naive model.

mod common;

use apic::{Acceptance, Apic, Effect, Inbox, Trigger};
use common::*;
use proptest::prelude::*;

#[test]
fn a_class_is_held_back_by_its_own_class_and_by_tpr() {
    let mut apic = enabled(0);
    let _ = apic.accept(0x41, Trigger::Edge);
    apic.set_cr8(4);
    assert_eq!((apic.tpr(), apic.pending()), (0x40, None));
    apic.set_cr8(3);
    assert_eq!(apic.pending(), Some(0x41));
    assert!(apic.take(0x41));
    let _ = apic.accept(0x4F, Trigger::Edge);
    assert_eq!(apic.pending(), None, "same class");
    let _ = apic.accept(0x50, Trigger::Edge);
    assert_eq!(apic.pending(), Some(0x50));
    assert!(apic.take(0x50));
    assert_eq!(apic.ppr(), 0x50);
    assert_eq!(
        apic.eoi(),
        Effect::Eoi {
            vector: 0x50,
            level: false
        }
    );
    assert_eq!(
        apic.eoi(),
        Effect::Eoi {
            vector: 0x41,
            level: false
        }
    );
    assert_eq!((apic.ppr(), apic.cr8()), (0x30, 3));
    assert_eq!(apic.pending(), Some(0x4F));
}

#[test]
fn ppr_keeps_the_low_bits_of_tpr_only_when_tpr_rules() {
    let mut apic = enabled(0);
    let _ = apic.accept(0x45, Trigger::Edge);
    assert!(apic.take(0x45));
    for (tpr, ppr) in [(0x3F, 0x40), (0x47, 0x47), (0x52, 0x52)] {
        let _ = apic.write(TPR, tpr, 0);
        assert_eq!(apic.read(0xA0, 0), ppr);
    }
}

#[test]
fn the_eoi_tells_level_from_edge_by_the_last_acceptance() {
    let mut apic = enabled(0);
    assert_eq!(apic.accept(0x31, Trigger::Level), Acceptance::Queued);
    assert_eq!(apic.accept(0x31, Trigger::Level), Acceptance::Merged);
    assert_eq!(apic.read(0x190, 0), 1 << 0x11);
    assert!(apic.take(0x31));
    assert!(!apic.take(0x31));
    assert_eq!(
        apic.write(EOI, 0, 0),
        Effect::Eoi {
            vector: 0x31,
            level: true
        }
    );
    let _ = apic.accept(0x31, Trigger::Edge);
    assert_eq!(apic.read(0x190, 0), 0);
    assert!(apic.take(0x31));
    assert_eq!(
        apic.write(EOI, 0, 0),
        Effect::Eoi {
            vector: 0x31,
            level: false
        }
    );
    assert_eq!(apic.write(EOI, 0, 0), Effect::EoiWithoutService);
}

#[test]
fn a_vector_can_be_pending_and_in_service_at_once() {
    let mut apic = enabled(0);
    let _ = apic.accept(0x31, Trigger::Edge);
    assert!(apic.take(0x31));
    assert_eq!(apic.accept(0x31, Trigger::Edge), Acceptance::Queued);
    assert_eq!(apic.pending(), None);
    let _ = apic.eoi();
    assert_eq!(apic.pending(), Some(0x31));
}

#[test]
fn illegal_vectors_are_refused_with_an_error() {
    let mut apic = enabled(0);
    assert_eq!(apic.accept(15, Trigger::Edge), Acceptance::Dropped);
    assert_eq!(errors(&mut apic), 0x40);
    let inbox = Inbox::new();
    inbox.post(3);
    inbox.post(0x10);
    apic.set_tpr(0);
    apic.absorb(&inbox);
    assert_eq!(apic.irr().lowest(), Some(0x10));
    assert_eq!(errors(&mut apic), 0x40);
}

#[test]
fn extint_passes_priorities_and_sets_no_service_bit() {
    let mut apic = fresh(0);
    apic.accept_extint(0x0D);
    apic.accept_extint(8);
    apic.set_tpr(0xFF);
    assert_eq!(apic.pending_extint(), Some(8));
    assert!(apic.take_extint(8) && !apic.take_extint(8));
    assert_eq!(apic.pending_extint(), Some(0x0D));
    assert!(apic.isr().is_empty());
}

/// The manual, read slowly.
#[derive(Default)]
struct Model {
    irr: Vec<u8>,
    isr: Vec<u8>,
    level: Vec<u8>,
    tpr: u8,
    disabled: bool,
}

impl Model {
    fn ppr(&self) -> u8 {
        let isrv = self.isr.iter().max().copied().unwrap_or(0);
        if self.tpr & 0xF0 >= isrv & 0xF0 {
            self.tpr
        } else {
            isrv & 0xF0
        }
    }

    fn pending(&self) -> Option<u8> {
        let highest = *self.irr.iter().max()?;
        (!self.disabled && highest & 0xF0 > self.ppr() & 0xF0).then_some(highest)
    }

    fn accept(&mut self, vector: u8, level: bool) {
        if vector < 16 || self.disabled {
            return;
        }
        self.level.retain(|&v| v != vector);
        if level {
            self.level.push(vector);
        }
        if !self.irr.contains(&vector) {
            self.irr.push(vector);
        }
    }

    fn take(&mut self) {
        if let Some(vector) = self.pending() {
            self.irr.retain(|&v| v != vector);
            self.isr.push(vector);
        }
    }

    fn give_back(&mut self, vector: u8) {
        if self.isr.contains(&vector) {
            self.isr.retain(|&v| v != vector);
            self.irr.retain(|&v| v != vector);
            self.irr.push(vector);
        }
    }

    fn eoi(&mut self) -> Effect {
        let Some(vector) = self.isr.iter().max().copied() else {
            return Effect::EoiWithoutService;
        };
        self.isr.retain(|&v| v != vector);
        Effect::Eoi {
            vector,
            level: self.level.contains(&vector),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Accept(u8, bool),
    Post(u8),
    Absorb,
    Take,
    GiveBack(u8),
    Eoi,
    Tpr(u8),
    Enable(bool),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (any::<u8>(), any::<bool>()).prop_map(|(vector, level)| Op::Accept(vector, level)),
        2 => any::<u8>().prop_map(Op::Post),
        2 => Just(Op::Absorb),
        5 => Just(Op::Take),
        2 => any::<u8>().prop_map(Op::GiveBack),
        4 => Just(Op::Eoi),
        2 => (0..=0xFF_u8).prop_map(Op::Tpr),
        1 => prop::bool::weighted(0.8).prop_map(Op::Enable),
    ]
}

fn compare(apic: &Apic, model: &Model) -> Result<(), TestCaseError> {
    prop_assert_eq!(apic.ppr(), model.ppr());
    prop_assert_eq!(apic.pending(), model.pending());
    for vector in 0..=255 {
        prop_assert_eq!(apic.irr().contains(vector), model.irr.contains(&vector));
        prop_assert_eq!(apic.isr().contains(vector), model.isr.contains(&vector));
        prop_assert_eq!(apic.tmr().contains(vector), model.level.contains(&vector));
    }
    Ok(())
}

proptest! {
    #[test]
    fn priorities_agree_with_the_model(ops in prop::collection::vec(op(), 1..120)) {
        let (mut apic, mut model, inbox) = (enabled(0), Model::default(), Inbox::new());
        let mut posted: Vec<u8> = Vec::new();
        for op in ops {
            match op {
                Op::Accept(vector, level) => {
                    let _ = apic.accept(vector, if level { Trigger::Level } else { Trigger::Edge });
                    model.accept(vector, level);
                }
                Op::Post(vector) => {
                    prop_assert_eq!(inbox.post(vector), !posted.contains(&vector));
                    posted.push(vector);
                }
                Op::Absorb => {
                    apic.absorb(&inbox);
                    prop_assert!(inbox.is_empty());
                    posted.drain(..).for_each(|vector| model.accept(vector, false));
                }
                Op::Take => {
                    if let Some(vector) = apic.pending() {
                        prop_assert!(apic.take(vector));
                    }
                    model.take();
                }
                Op::GiveBack(other) => {
                    let highest = apic.isr().highest().filter(|_| other % 4 != 0);
                    let vector = highest.unwrap_or(other);
                    prop_assert_eq!(apic.give_back(vector), model.isr.contains(&vector));
                    model.give_back(vector);
                }
                Op::Eoi => prop_assert_eq!(apic.write(EOI, 0, 0), model.eoi()),
                Op::Tpr(value) => {
                    let _ = apic.write(TPR, u32::from(value), 0);
                    model.tpr = value;
                }
                Op::Enable(on) => {
                    let _ = apic.write(SVR, 0xFF | u32::from(on) << 8, 0);
                    model.disabled = !on;
                }
            }
            compare(&apic, &model)?;
        }
    }
}
