//! Registers by name.

mod common;

use common::Vp;
use proptest::prelude::*;
use tlfs::HvError;
use tlfs::register::RegisterName as N;
use vpstate::{Effect, Reasons};

const REFUSED: HvError = HvError::INVALID_REGISTER_VALUE;

/// Names of contract 3.4: QEMU's, then Cloud Hypervisor's.
fn named() -> Vec<N> {
    let mut names = vec![];
    for (first, last) in [
        (0x2_0000, 0x2_0011),
        (0x3_0000, 0x3_0019),
        (0x4_0000, 0x4_0005),
        (0x6_0000, 0x6_0007),
        (0x7_0000, 0x7_0001),
        (0x8_0000, 0x8_000B),
        (0x8_000E, 0x8_000E),
        (0x8_0010, 0x8_0017),
        (0x8_0040, 0x8_0047),
        (0x8_0070, 0x8_007B),
        (0x8_0084, 0x8_0084),
        (0x8_0096, 0x8_0096),
        (0x8_008B, 0x8_0093),
        (0x9_0001, 0x9_0002),
        (0x9_0017, 0x9_0017),
        (0xA_0010, 0xA_0010),
        (0xA_0012, 0xA_0013),
        (0x1_0002, 0x1_0005),
        (0xA_0000, 0xA_000F),
        (0xA_0014, 0xA_0014),
        (0x8_007D, 0x8_007D),
        (0x5_0000, 0x5_0005),
        (0x4_1000, 0x4_1000),
        (0x4_1002, 0x4_1003),
        (0, 4),
    ] {
        names.extend((first..=last).map(N));
    }
    names
}

#[test]
fn every_name_that_vmms_use_can_be_read_and_written_back() {
    let mut vp = Vp::new();
    // Reset state as a VMM writes it.
    for (name, value) in [
        (N::CS, 0x009B_F000_0000_FFFF_0000_0000_FFFF_0000),
        (N::TR, 0x008B_0000_0000_FFFF_0000_0000_0000_0000),
        (N::RFLAGS, 2),
        (N::CR0, 0x6000_0010),
        (N::PAT, 0x0007_0406_0007_0406),
        (N::DR6, 0xFFFF_0FF0),
        (N::DR7, 0x400),
    ] {
        let _ = vp.registers().set(name, value).unwrap();
    }
    for name in named() {
        let value = vp
            .registers()
            .get(name)
            .unwrap_or_else(|e| panic!("{name:?}: {e:?}"));
        let _ = vp
            .registers()
            .set(name, value)
            .unwrap_or_else(|e| panic!("{name:?} := {value:#x}: {e:?}"));
        assert_eq!(vp.registers().get(name), Ok(value), "{name:?}");
    }
}

#[test]
fn zero_goes_into_every_msr_and_page_register() {
    let mut vp = Vp::new();
    for name in named()
        .into_iter()
        .filter(|n| n.0 >= 0x8_0000 && *n != N::APIC_BASE)
    {
        assert!(vp.registers().set(name, 0).is_ok(), "{name:?}");
    }
}

#[test]
fn a_name_that_nobody_has_is_refused() {
    let mut vp = Vp::new();
    for name in [
        5, 0x1_0001, 0x2_0012, 0x3_001A, 0x4_0006, 0x6_0008, 0x8_0018, 0x8_0048, 0xB_0008, !0,
    ] {
        assert_eq!(
            vp.registers().get(N(name)),
            Err(HvError::INVALID_PARAMETER),
            "{name:#x}"
        );
        assert_eq!(
            vp.registers().set(N(name), 0),
            Err(HvError::INVALID_PARAMETER),
            "{name:#x}"
        );
    }
}

#[test]
fn values_that_hardware_refuses_change_nothing() {
    let mut vp = Vp::new();
    let bad = [
        (N::RIP, 0x8000_0000_0000_0000),
        (N::RFLAGS, 1 << 22),
        (N::CR0, 1 << 31),
        (N::CR0, 1 << 29),
        (N::CR0, 1 << 32),
        (N::CR3, 1 << 40),
        (N::CR4, 1 << 13),
        (N::CR4, 1 << 12),
        (N::CR8, 16),
        (N::EFER, 1 << 12),
        (N::EFER, 1 << 10),
        (N::PAT, 2),
        (N::LSTAR, 1 << 47),
        (N::KERNEL_GS_BASE, 1 << 63),
        (N::XFEM, 0),
        (N::XFEM, 5),
        (N::XFEM, 0x27),
        (N::XFEM, 1 << 18 | 1),
        (N::TSC_AUX, 1 << 32),
        (N::SPEC_CTRL, 1 << 63),
        (N::XSS, 1),
        (N::S_CET, 1),
        (N::DR7, 1 << 32),
        (N::IDTR, 1 << 127),
        (N::XMM_CONTROL_STATUS, 1 << 80),
        (N::APIC_BASE, 1 << 10),
        (N::INTERRUPT_STATE, 4),
        (N::INTERCEPT_SUSPEND, 1),
        (N::INTERNAL_ACTIVITY_STATE, 8),
        (N::PENDING_INTERRUPTION, 1 | 1 << 1),
        (N::PENDING_EVENT_0, 1 | 1 << 1),
        (N::MTRR_CAP, 0),
        (N::INITIAL_APIC_ID, 0),
        (N::CS, 0x0093_0000_0000_FFFF << 64 | 1 << 32),
        (N::CS, 0x00A1_0000_0000_FFFF << 64),
        (N::CS, 0xE09B_0000_FFFF_FFFF << 64),
        (N::SS, 0x009B_0000_0000_FFFF << 64),
        (N::DS, 0x0099_0000_0000_FFFF << 64),
        (N::DS, 0x0093_0000_0010_0000 << 64),
        (N::DS, 0x0193_0000_0000_FFFF << 64),
        (N::LDTR, 0x0092_0000_0000_FFFF << 64),
        (N::CS, 0),
        (N::TR, 0x0082_0000_0000_FFFF << 64),
    ];
    for (name, value) in bad {
        let before = vp.registers().get(name);
        assert_eq!(
            vp.registers().set(name, value),
            Err(REFUSED),
            "{name:?} := {value:#x}"
        );
        assert_eq!(vp.registers().get(name), before, "{name:?}");
    }
}

#[test]
fn control_registers_of_long_mode_can_be_set_in_any_order() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let mut vp = Vp::new();
        let values = [(N::CR0, 0x8005_0033), (N::CR4, 0x6A0), (N::EFER, 0xD01)];
        for index in order {
            let (name, value) = values[index];
            assert_eq!(vp.registers().set(name, value), Ok(Effect::Translation));
        }
    }
}

#[test]
fn descriptors_as_amd_keeps_them_are_taken_as_they_are() {
    let mut vp = Vp::new();
    // Available TSS, data not accessed, granularity lost, no TSS.
    for (name, value) in [
        (N::TR, 0x0089_0040_0000_0067_u128),
        (N::DS, 0x0092_0010_0000_FFFF),
        (N::CS, 0x209B_0010_FFFF_FFFF),
        (N::TR, 0),
    ] {
        let _ = vp.registers().set(name, value << 64).unwrap();
        assert_eq!(vp.registers().get(name), Ok(value << 64), "{name:?}");
    }
}

#[test]
fn an_apic_base_of_reset_is_taken_in_every_mode() {
    let mut vp = Vp::new();
    for value in [
        0xFEE0_0C00,
        0xFEE0_0900,
        0xFEE0_0000,
        0xFEE0_0D00,
        0xFEE0_0800,
    ] {
        assert!(matches!(
            vp.registers().set(N::APIC_BASE, value),
            Ok(Effect::ApicBase(_))
        ));
        assert_eq!(vp.registers().get(N::APIC_BASE), Ok(value));
    }
}

#[test]
fn an_interruption_that_an_exit_left_in_the_back_end_is_not_lost() {
    use vpcore::seam::Event;
    let mut vp = Vp::new();
    vp.backend.interrupted = Some(Event::Interrupt(0x31));
    let shown = vp.registers().get(N::PENDING_INTERRUPTION).unwrap();
    assert_eq!(shown, 0x31_0001);
    assert_eq!(vp.registers().get(N::PENDING_INTERRUPTION), Ok(shown));
    assert_eq!(vp.interrupted, Some(Event::Interrupt(0x31)));
    let _ = vp.registers().set(N::PENDING_INTERRUPTION, 0).unwrap();
    assert_eq!((vp.interrupted, vp.backend.interrupted), (None, None));
}

#[test]
fn a_page_fault_to_be_raised_brings_its_address() {
    use vpcore::seam::{Event, Register, VpBackend};
    let mut vp = Vp::new();
    let _ = vp.registers().set(N::CR0, 0x11).unwrap();
    let fault = 1 | 1 << 8 | 14 << 16 | 2 << 32 | 0xDEAD_B000_u128 << 64;
    let _ = vp.registers().set(N::PENDING_EVENT_0, fault).unwrap();
    assert_eq!(vp.backend.get(Register::Cr2), 0xDEAD_B000);
    assert_eq!(
        vp.raised,
        Some(Event::Exception {
            vector: 14,
            error_code: Some(2)
        })
    );
    assert_eq!(vp.registers().get(N::PENDING_EVENT_0), Ok(fault));
    // #UD has no code.
    assert_eq!(
        vp.registers().set(N::PENDING_EVENT_0, 1 | 1 << 8 | 6 << 16),
        Err(REFUSED)
    );
}

#[test]
fn internal_activity_and_the_inbox_agree() {
    let mut vp = Vp::new();
    assert_eq!(vp.registers().get(N::INTERNAL_ACTIVITY_STATE), Ok(1));
    let effect = vp.registers().set(N::INTERNAL_ACTIVITY_STATE, 0).unwrap();
    let Effect::Run(change) = effect else {
        panic!("{effect:?}")
    };
    assert!(!change.is_started());
    assert!(!vp.inbox.is_held());
    let Ok(Effect::Run(change)) = vp.registers().set(N::EXPLICIT_SUSPEND, 0) else {
        panic!()
    };
    assert!(change.is_started());
    assert_eq!(vp.suspend.reasons(), Reasons::NONE);
}

#[test]
fn tsc_moves_with_time_from_where_it_was_set() {
    let mut vp = Vp::new();
    let _ = vp.registers().set(N::TSC, 5000).unwrap();
    vp.now += 7;
    assert_eq!(vp.registers().get(N::TSC), Ok(5007));
}

fn any_name() -> impl Strategy<Value = N> {
    prop_oneof![
        proptest::sample::select(named()),
        any::<u32>().prop_map(N),
        (0_u32..0x10, 0_u32..0x100).prop_map(|(class, index)| N(class << 16 | index)),
    ]
}

/// Values near those that are taken.
fn any_value() -> impl Strategy<Value = u128> {
    prop_oneof![
        any::<u128>(),
        any::<u64>().prop_map(u128::from),
        (0_u32..128).prop_map(|bit| 1 << bit),
        (any::<u64>(), any::<u32>(), any::<u16>(), any::<u16>()).prop_map(|(base, limit, s, a)| {
            u128::from(base >> 17)
                | u128::from(limit) << 64
                | u128::from(s) << 96
                | u128::from(a & 0xF0FF | 0x80) << 112
        }),
    ]
}

proptest! {
    /// Whatever is taken reads back as something that is taken again, and then stays.
    #[test]
    fn what_was_taken_is_taken_again(steps in proptest::collection::vec((any_name(), any_value()), 1..20)) {
        let mut vp = Vp::new();
        for (name, value) in steps {
            let Ok(_) = vp.registers().set(name, value) else { continue };
            let held = vp.registers().get(name).unwrap();
            if name == N::TSC {
                continue;
            }
            prop_assert!(vp.registers().set(name, held).is_ok(), "{:?} := {:#x}", name, held);
            prop_assert_eq!(vp.registers().get(name), Ok(held));
        }
    }

    /// Bases of segments and tables, and addresses in MSRs, are always canonical.
    #[test]
    fn addresses_are_canonical(value in any_value()) {
        let mut vp = Vp::new();
        for name in [N::FS, N::GS, N::TR, N::LDTR, N::LSTAR, N::CSTAR, N::SYSENTER_ESP, N::RIP] {
            if vp.registers().set(name, value).is_ok() {
                let base = vp.registers().get(name).unwrap() as u64;
                prop_assert_eq!((base << 16) as i64 >> 16, base as i64);
            }
        }
    }

    #[test]
    fn pending_interruptions_round_trip(value: u64, protected: bool) {
        use vpstate::pending::{interruption, parse_interruption};
        for value in [value, value & 0xFF_0000_03FF | 1, value & 0x1F_03FF | 1] {
            if let Some(event) = parse_interruption(value, protected) {
                prop_assert_eq!(parse_interruption(interruption(event), protected), Some(event));
            }
        }
    }
}
