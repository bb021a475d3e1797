//! The rules of single registers, in both modes.

mod common;

use addr::{ApicId, Gpa};
use apic::{
    Acceptance, Apic, Delivery, Destination, Effect, Features, GeneralProtection, IpiKind, Lvt,
    Mode, Snapshot, Trigger,
};
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

#[test]
fn the_base_allows_the_manuals_transitions_only() {
    const OFF: u64 = 0xFEE0_0000;
    const XAPIC: u64 = OFF | 0x800;
    const X2APIC: u64 = OFF | 0xC00;
    const INVALID: u64 = OFF | 0x400;
    let reach = |path: &[u64]| {
        let mut apic = enabled(1);
        for &value in path {
            apic.write_apic_base(value)?;
        }
        Ok(apic.mode())
    };
    assert_eq!(reach(&[XAPIC]), Ok(Mode::XApic));
    assert_eq!(reach(&[X2APIC, X2APIC]), Ok(Mode::X2Apic));
    assert_eq!(reach(&[OFF]), Ok(Mode::Disabled));
    assert_eq!(reach(&[X2APIC, OFF, XAPIC, X2APIC]), Ok(Mode::X2Apic));
    for illegal in [
        &[X2APIC, XAPIC][..],
        &[OFF, X2APIC],
        &[INVALID],
        &[OFF, INVALID],
        &[X2APIC, INVALID],
    ] {
        assert_eq!(reach(illegal), Err(GeneralProtection), "{illegal:x?}");
    }
    for reserved in [1, 1 << 9, 1 << 40, 1 << 63] {
        assert_eq!(reach(&[XAPIC | reserved]), Err(GeneralProtection));
    }
    let mut old = Apic::new(
        ApicId::new(0),
        true,
        Features {
            x2apic: false,
            ..FEATURES
        },
        timing(),
    );
    assert_eq!(old.write_apic_base(X2APIC), Err(GeneralProtection));
}

#[test]
fn a_base_write_tells_mode_and_place() {
    let mut apic = enabled(0);
    let change = apic.write_apic_base(0xFE_1234_5900).unwrap();
    assert_eq!(
        (change.mode, change.address),
        (None, Some(Gpa::new(0xFE_1234_5000)))
    );
    let change = apic.write_apic_base(0xFE_1234_5D00).unwrap();
    assert_eq!((change.mode, change.address), (Some(Mode::X2Apic), None));
    assert_eq!(apic.read(TPR, 0), u32::MAX, "no page in this mode");
    // BSP cannot be cleared.
    apic.write_apic_base(0xFE_1234_5C00).unwrap();
    assert_eq!(apic.read_msr(0x1B, 0), Ok(0xFE_1234_5D00));
}

#[test]
fn entering_x2apic_mode_keeps_interrupts_and_timer() {
    let mut apic = enabled(0x25);
    let _ = apic.accept(0x40, Trigger::Level);
    let _ = apic.accept(0x50, Trigger::Edge);
    assert!(apic.take(0x50));
    let _ = apic.write(LVT_TIMER, 0x2_0020, 0);
    let _ = apic.write(INITIAL, 1000, 0);
    let _ = apic.write(LDR, 0x0100_0000, 0);
    let deadline = apic.timer_deadline();
    assert!(deadline.is_some());
    apic.write_apic_base(0xFEE0_0C00).unwrap();
    assert_eq!(
        (apic.irr().highest(), apic.isr().highest(), apic.ppr()),
        (Some(0x40), Some(0x50), 0x50)
    );
    assert_eq!(apic.timer_deadline(), deadline);
    assert_eq!(apic.read_msr(0x80D, 0), Ok(0x0002_0020));
    assert_eq!(apic.read_msr(0x802, 0), Ok(0x25));
    assert_eq!(
        apic.write_msr(0x80B, 0, 0),
        Ok(Effect::Eoi {
            vector: 0x50,
            level: false
        })
    );
}

#[test]
fn disabling_resets_all_but_the_id() {
    let mut apic = x2apic(9);
    let _ = apic.accept(0x40, Trigger::Edge);
    apic.accept_extint(8);
    apic.write_apic_base(0xFEE0_0000).unwrap();
    assert_eq!(apic.read_msr(0x802, 0), Err(GeneralProtection));
    apic.write_apic_base(0xFEE0_0800).unwrap();
    assert_eq!(apic.snapshot(0), Snapshot::reset(ApicId::new(9)));
    assert_eq!(
        apic.pending_extint(),
        Some(8),
        "answered by the 8259, so not to be lost"
    );
}

#[test]
fn init_keeps_mode_and_id() {
    let mut apic = x2apic(9);
    let _ = apic.accept(0x40, Trigger::Edge);
    assert!(apic.take(0x40));
    apic.accept_nmi();
    apic.accept_extint(8);
    let _ = apic.write_msr(0x832, 0x4_00EC, 0).unwrap();
    let _ = apic.write_msr(0x6E0, 500, 0).unwrap();
    apic.init_reset();
    let expected = Snapshot {
        apic_base: 0xFEE0_0C00,
        ldr: 0x200,
        ..Snapshot::reset(ApicId::new(9))
    };
    assert_eq!(apic.snapshot(0), expected);
    assert_eq!(
        (
            apic.timer_deadline(),
            apic.pending_extint(),
            apic.take_nmi()
        ),
        (None, None, false)
    );
    assert_eq!(apic.ppr(), 0);
}

#[test]
fn x2apic_registers_that_do_not_exist_or_go_the_other_way_fault() {
    let readable: &[u32] = &[
        0x802, 0x803, 0x808, 0x80A, 0x80D, 0x80F, 0x828, 0x82F, 0x830, 0x832, 0x833, 0x834, 0x835,
        0x836, 0x837, 0x838, 0x839, 0x83E,
    ];
    let writable: &[u32] = &[
        0x808, 0x80B, 0x80F, 0x828, 0x82F, 0x830, 0x832, 0x833, 0x834, 0x835, 0x836, 0x837, 0x838,
        0x83E, 0x83F,
    ];
    for msr in 0x7FF..=0x900 {
        let mut apic = x2apic(0);
        let set = (0x810..=0x827).contains(&msr);
        assert_eq!(
            apic.read_msr(msr, 0).is_ok(),
            set || readable.contains(&msr),
            "read {msr:#x}"
        );
        assert_eq!(
            apic.write_msr(msr, 0, 0).is_ok(),
            writable.contains(&msr),
            "write {msr:#x}"
        );
        assert_eq!(
            enabled(0).read_msr(msr, 0),
            Err(GeneralProtection),
            "xAPIC mode"
        );
        assert_eq!(
            enabled(0).write_msr(msr, 0, 0),
            Err(GeneralProtection),
            "xAPIC mode"
        );
    }
    let mut old = Apic::new(
        ApicId::new(0),
        true,
        Features {
            cmci: false,
            tsc_deadline: false,
            ..FEATURES
        },
        timing(),
    );
    old.write_apic_base(0xFEE0_0C00).unwrap();
    for msr in [0x82F, 0x6E0] {
        assert_eq!(old.read_msr(msr, 0), Err(GeneralProtection));
        assert_eq!(old.write_msr(msr, 0, 0), Err(GeneralProtection));
    }
    assert_eq!(old.write_msr(0x832, 1 << 18, 0), Err(GeneralProtection));
}

#[test]
fn x2apic_reserved_bits_fault_and_change_nothing() {
    for (msr, allowed) in [
        (0x808, 0xFF_u64),
        (0x80B, 0),
        (0x80F, 0x3FF),
        (0x828, 0),
        (0x82F, 0x1_17FF),
        (0x830, 0xFFFF_FFFF_000C_DFFF),
        (0x832, 0x7_10FF),
        (0x833, 0x1_17FF),
        (0x834, 0x1_17FF),
        (0x835, 0x1_F7FF),
        (0x836, 0x1_F7FF),
        (0x837, 0x1_10FF),
        (0x838, 0xFFFF_FFFF),
        (0x83E, 0xB),
        (0x83F, 0xFF),
    ] {
        for bit in 0..64 {
            let mut apic = x2apic(0);
            let before = apic.snapshot(0);
            let outcome = apic.write_msr(msr, 1 << bit, 0);
            assert_eq!(
                outcome.is_ok(),
                allowed >> bit & 1 == 1,
                "MSR {msr:#x} bit {bit}"
            );
            if outcome.is_err() {
                assert_eq!(apic.snapshot(0), before);
            }
        }
    }
}

#[test]
fn a_firmware_apic_is_taken_over() {
    let mut apic = Apic::from_snapshot(
        &Snapshot {
            id: ApicId::new(0),
            apic_base: 0xFEE0_0900,
            tpr: 0x10,
            ldr: 0x0100_0000,
            svr: 0x10F,
            icr: 0xC_4687,
            lvt_timer: 0x2_0020,
            lvt_lint0: 0x1_0700,
            lvt_lint1: 0x400,
            divide: 0b1010,
            initial_count: 10_000_000,
            current_count: 4_000_000,
            irr: [0, 1 << 0x10, 0, 0, 0, 0, 0, 0],
            isr: [0, 1, 0, 0, 0, 0, 0, 0],
            ..Snapshot::reset(ApicId::new(0))
        },
        FEATURES,
        timing(),
        1000,
    )
    .unwrap();
    assert_eq!(apic.ppr(), 0x20);
    assert_eq!(apic.pending(), Some(0x30));
    assert_eq!(
        apic.write(EOI, 0, 1000),
        Effect::Eoi {
            vector: 0x20,
            level: false
        }
    );
    assert_eq!(apic.write(EOI, 0, 1000), Effect::EoiWithoutService);
    // Divisor 128 (code 110), three ticks a count.
    let deadline = apic.timer_deadline().unwrap();
    let exact = 1000 + 4_000_000 * 128 * 3;
    assert!(deadline >= exact && deadline <= exact + 1);
    let copy = apic.snapshot(1000);
    let mut again = Apic::from_snapshot(&copy, FEATURES, timing(), 1000).unwrap();
    assert_eq!(again.snapshot(1000), copy);
    assert_eq!((copy.icr, copy.current_count), (0xC_4687, 4_000_000));
    assert!(
        Apic::from_snapshot(
            &Snapshot {
                apic_base: 0x400,
                ..copy
            },
            FEATURES,
            timing(),
            0
        )
        .is_none()
    );
}
