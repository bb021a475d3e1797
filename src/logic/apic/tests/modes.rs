//! Modes and the ways between them: IA32_APIC_BASE, INIT, take-over, and the faults of x2APIC MSRs.

mod common;

use addr::{ApicId, Gpa};
use apic::{Apic, Effect, Features, GeneralProtection, Mode, Snapshot, Trigger};
use common::*;

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
