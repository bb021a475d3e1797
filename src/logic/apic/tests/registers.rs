//! The rules of single registers.

mod common;

use addr::ApicId;
use apic::{Acceptance, Apic, Delivery, Destination, Effect, Features, IpiKind, Lvt, Trigger};
use common::*;

#[test]
fn reset_state_is_the_manuals() {
    let mut apic = fresh(5);
    assert_eq!(apic.apic_base(), 0xFEE0_0800);
    assert_eq!(fresh(0).apic_base(), 0xFEE0_0900);
    assert_eq!(apic.read(0x20, 0), 5 << 24);
    assert_eq!(apic.read(0x30, 0), 0x0006_0014);
    assert_eq!(apic.read(DFR, 0), u32::MAX);
    assert_eq!(apic.read(SVR, 0), 0xFF);
    for lvt in [0x2F0, 0x320, 0x330, 0x340, 0x350, 0x360, 0x370] {
        assert_eq!(apic.read(lvt, 0), 0x1_0000);
    }
    for zero in [TPR, 0xA0, LDR, ICR, ICR_HIGH, INITIAL, CURRENT, DIVIDE] {
        assert_eq!(apic.read(zero, 0), 0, "{zero:#x}");
    }
    assert_eq!(errors(&mut apic), 0);
}

#[test]
fn the_version_counts_the_lvt_entries_and_offers_no_eoi_suppression() {
    let mut apic = Apic::new(
        ApicId::new(0),
        true,
        Features {
            cmci: false,
            ..FEATURES
        },
        timing(),
    );
    assert_eq!(apic.read(0x30, 0), 0x0005_0014);
    assert_eq!(apic.write(0x2F0, 0x1F9, 0), Effect::None);
    assert_eq!(
        errors(&mut apic),
        0x80,
        "an entry that does not exist is an illegal register"
    );
    assert_eq!(apic.read(0x2F0, 0), 0);
}

#[test]
fn reserved_registers_read_zero_and_set_esr() {
    for offset in [0x00, 0x10, 0x40, 0x290, 0x3F0, 0x400, 0xFFF0, 0x21] {
        let mut apic = enabled(0);
        assert_eq!(apic.read(offset, 0), 0);
        assert_eq!(apic.read(ESR, 0), 0, "not before ESR is written");
        assert_eq!(errors(&mut apic), 0x80, "read of {offset:#x}");
        assert_eq!(errors(&mut apic), 0, "shown once");
        assert_eq!(apic.write(offset, 1, 0), Effect::None);
        assert_eq!(errors(&mut apic), 0x80, "write of {offset:#x}");
    }
}

#[test]
fn read_only_registers_ignore_writes_without_an_error() {
    let mut apic = enabled(3);
    let _ = apic.accept(0x44, Trigger::Level);
    for offset in [0x20, 0x30, 0x90, 0xA0, 0xC0, 0x100, 0x1A0, 0x220, CURRENT] {
        let before = apic.read(offset, 0);
        assert_eq!(apic.write(offset, !before, 0), Effect::None);
        assert_eq!(apic.read(offset, 0), before);
    }
    assert_eq!(errors(&mut apic), 0);
}

#[test]
fn unwritable_bits_read_back_as_they_were() {
    let mut apic = enabled(0);
    for (offset, expected) in [
        (TPR, 0xFF),
        (LDR, 0xFF00_0000),
        (DFR, u32::MAX),
        (SVR, 0x3FF),
        (ICR_HIGH, 0xFF00_0000),
        (0x2F0, 0x1_07FF),
        (0x320, 0x7_00FF),
        (0x330, 0x1_07FF),
        (0x340, 0x1_07FF),
        (LVT_LINT0, 0x1_A7FF),
        (LVT_LINT1, 0x1_A7FF),
        (LVT_ERROR, 0x1_00FF),
        (DIVIDE, 0xB),
        (ICR, 0xC_CFFF),
    ] {
        let _ = apic.write(offset, u32::MAX, 0);
        assert_eq!(apic.read(offset, 0), expected, "{offset:#x}");
    }
    let _ = apic.write(DFR, 0, 0);
    assert_eq!(apic.read(DFR, 0), 0x0FFF_FFFF);
}

#[test]
fn lvt_writes_are_reported_for_the_pins_to_be_mirrored() {
    let mut apic = enabled(0);
    assert_eq!(
        apic.write(LVT_LINT0, 0x700, 0),
        Effect::Lvt(Lvt::Lint0, 0x700)
    );
    assert_eq!(
        apic.write(LVT_LINT1, 0x400, 0),
        Effect::Lvt(Lvt::Lint1, 0x400)
    );
    assert_eq!(apic.write(LVT_TIMER, 0x2_0020, 0), Effect::Timer);
    assert_eq!(apic.lvt(Lvt::Lint1), 0x400);
}

#[test]
fn software_disable_masks_the_lvts_and_holds_the_masks() {
    let mut apic = enabled(0);
    let _ = apic.write(LVT_LINT0, 0x700, 0);
    assert_eq!(apic.write(SVR, 0xFF, 0), Effect::SoftwareDisabled);
    assert_eq!(apic.write(SVR, 0x0F, 0), Effect::None);
    assert_eq!(apic.read(LVT_LINT0, 0), 0x1_0700);
    let _ = apic.write(LVT_LINT0, 0x700, 0);
    assert_eq!(apic.read(LVT_LINT0, 0), 0x1_0700);
    assert_eq!(apic.write(SVR, 0x1FF, 0), Effect::SoftwareEnabled);
    assert_eq!(
        apic.read(LVT_LINT0, 0),
        0x1_0700,
        "stays masked until written"
    );
}

#[test]
fn a_disabled_apic_loses_new_interrupts_and_holds_old_ones() {
    let mut apic = enabled(0);
    let _ = apic.accept(0x40, Trigger::Edge);
    let _ = apic.write(SVR, 0xFF, 0);
    assert_eq!(apic.accept(0x50, Trigger::Edge), Acceptance::Dropped);
    assert_eq!(apic.pending(), None);
    let _ = apic.write(SVR, 0x1FF, 0);
    assert_eq!(apic.pending(), Some(0x40));
    apic.accept_nmi();
    let _ = apic.write(SVR, 0xFF, 0);
    assert!(apic.take_nmi() && !apic.take_nmi());
}

#[test]
fn an_icr_write_sends_what_both_halves_say() {
    let mut apic = enabled(0);
    let _ = apic.write(ICR_HIGH, 0x0300_0000, 0);
    let Effect::Ipi(ipi) = apic.write(ICR, 0x1_5840, 0) else {
        panic!()
    };
    assert_eq!(ipi.kind, IpiKind::Fixed(0x40));
    assert_eq!(ipi.destination, Destination::Logical(3));
    assert_eq!(
        (apic.read(ICR, 0), apic.read(ICR_HIGH, 0)),
        (0x4840, 0x0300_0000)
    );
    assert_eq!(apic.icr(), 0x0300_0000_0000_4840);

    let mut apic = x2apic(7);
    let Ok(Effect::Ipi(ipi)) = apic.write_msr(0x830, 0x0001_0002_0000_00FB, 0) else {
        panic!()
    };
    assert_eq!(
        (ipi.destination, ipi.sender, ipi.x2apic),
        (Destination::Physical(0x1_0002), ApicId::new(7), true)
    );
    assert_eq!(apic.read_msr(0x830, 0), Ok(0x0001_0002_0000_00FB));
}

#[test]
fn illegal_vectors_are_not_sent() {
    let mut apic = enabled(0);
    assert_eq!(apic.write(ICR, 0x400F, 0), Effect::None);
    assert_eq!(errors(&mut apic), 0x20);
    let mut apic = x2apic(0);
    let _ = apic.write_msr(0x837, 0xFE, 0).unwrap();
    assert_eq!(apic.write_msr(0x83F, 3, 0), Ok(Effect::None));
    assert_eq!(apic.pending(), Some(0xFE), "the error interrupt");
    let _ = apic.write_msr(0x828, 0, 0).unwrap();
    assert_eq!(apic.read_msr(0x828, 0), Ok(0x60));
}

#[test]
fn an_error_interrupt_with_an_illegal_vector_does_not_raise_itself() {
    let mut apic = enabled(0);
    let _ = apic.write(LVT_ERROR, 0x05, 0);
    assert_eq!(apic.write(ICR, 0x4001, 0), Effect::None);
    assert_eq!(errors(&mut apic), 0x60);
    assert_eq!(apic.pending(), None);
}

#[test]
fn interrupts_to_oneself_arrive_at_once() {
    let mut apic = enabled(0);
    assert_eq!(apic.write(ICR, 0x4_40F6, 0), Effect::None);
    assert_eq!(apic.pending(), Some(0xF6));
    assert_eq!(apic.write(ICR, 0x4_4400, 0), Effect::None);
    assert!(apic.nmi_pending());
    let mut apic = x2apic(0);
    assert_eq!(apic.write_msr(0x83F, 0xF6, 0), Ok(Effect::None));
    assert_eq!(apic.pending(), Some(0xF6));
    assert_eq!(apic.tmr().highest(), None);
}

#[test]
fn local_sources_follow_their_entry() {
    let mut apic = enabled(0);
    assert_eq!(apic.lvt_event(Lvt::Lint1), None, "masked");
    let _ = apic.write(LVT_LINT1, 0x400, 0);
    assert_eq!(apic.lvt_event(Lvt::Lint1), Some(Delivery::Nmi));
    assert!(apic.take_nmi());
    let _ = apic.write(LVT_LINT0, 0x700, 0);
    assert_eq!(apic.lvt_event(Lvt::Lint0), Some(Delivery::ExtInt));
    let _ = apic.write(LVT_LINT0, 0x8031, 0);
    assert_eq!(apic.lvt_event(Lvt::Lint0), Some(Delivery::Fixed(0x31)));
    assert!(apic.tmr().contains(0x31));
    let _ = apic.write(0x330, 0x2FA, 0);
    assert_eq!(apic.lvt_event(Lvt::Thermal), None, "SMI");
    let _ = apic.write(0x340, 0x00F, 0);
    assert_eq!(apic.lvt_event(Lvt::Perf), None);
    assert_eq!(errors(&mut apic), 0x40);
    apic.write_apic_base(0xFEE0_0000).unwrap();
    assert_eq!(
        apic.lvt_event(Lvt::Lint0),
        Some(Delivery::ExtInt),
        "the pins bypass an APIC that is off"
    );
}
