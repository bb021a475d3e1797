//! Each register: what it reads, what it takes, and who has it.

use proptest::prelude::*;

use super::*;

const NOW: RefTime = RefTime(1234);

fn partition() -> PartitionMsrs {
    PartitionMsrs::new(CONFIG)
}

fn overlay(kind: Overlay, page: Option<u64>) -> Result<MsrEffect, GpFault> {
    Ok(MsrEffect::Overlay {
        kind,
        page: page.map(Gpn::new),
    })
}

#[test]
fn linux_sets_up_its_partition_in_its_order() {
    let mut p = partition();
    assert_eq!(p.read(msr::APIC_FREQUENCY, NOW), Ok(200_000_000));
    assert_eq!(
        p.write(msr::TSC_INVARIANT_CONTROL, 1, &at(0)),
        Ok(MsrEffect::None)
    );
    assert!(p.is_tsc_invariant_exposed());
    // before the guest has an identity
    assert_eq!(
        p.write(msr::REFERENCE_TSC, 0x7001, &at(0)),
        overlay(Overlay::ReferenceTsc, Some(7))
    );
    assert_eq!(p.read(msr::REFERENCE_TSC, NOW), Ok(0x7001));
    assert_eq!(p.read(msr::TSC_FREQUENCY, NOW), Ok(2_400_000_000));
    assert_eq!(p.read(msr::TIME_REF_COUNT, NOW), Ok(1234));
    assert_eq!(p.read(msr::CRASH_CTL, NOW), Ok(0xC000_0000_0000_0000));
    assert_eq!(
        p.write(msr::GUEST_OS_ID, 0x8100_0007_0304_0000, &at(0)),
        Ok(MsrEffect::None)
    );
    assert_eq!(p.read(msr::HYPERCALL, NOW), Ok(0));
    assert_eq!(
        p.write(msr::HYPERCALL, 0x8001, &at(0)),
        overlay(Overlay::Hypercall, Some(8))
    );
    assert_eq!(p.read(msr::HYPERCALL, NOW), Ok(0x8001));
    assert_eq!(p.guest_os_id(), 0x8100_0007_0304_0000);
}

#[test]
fn without_identity_the_hypercall_page_is_not_enabled() {
    let mut p = partition();
    assert_eq!(p.write(msr::HYPERCALL, 0x8001, &at(0)), Ok(MsrEffect::None));
    assert_eq!(p.read(msr::HYPERCALL, NOW), Ok(0x8000));
}

#[test]
fn a_guest_that_says_good_bye_loses_the_hypercall_page_in_either_order() {
    let mut p = partition();
    let _ = p.write(msr::GUEST_OS_ID, 1, &at(0)).unwrap();
    let _ = p.write(msr::HYPERCALL, 0x8001, &at(0)).unwrap();
    assert_eq!(
        p.write(msr::GUEST_OS_ID, 0, &at(0)),
        overlay(Overlay::Hypercall, None)
    );
    assert_eq!(p.read(msr::HYPERCALL, NOW), Ok(0x8000));
    assert_eq!(p.write(msr::HYPERCALL, 0x8000, &at(0)), Ok(MsrEffect::None));

    let _ = p.write(msr::GUEST_OS_ID, 1, &at(0)).unwrap();
    let _ = p.write(msr::HYPERCALL, 0x8001, &at(0)).unwrap();
    assert_eq!(
        p.write(msr::HYPERCALL, 0x8000, &at(0)),
        overlay(Overlay::Hypercall, None)
    );
    assert_eq!(p.write(msr::GUEST_OS_ID, 0, &at(0)), Ok(MsrEffect::None));
}

#[test]
fn a_moved_hypercall_page_is_placed_anew() {
    let mut p = partition();
    let _ = p.write(msr::GUEST_OS_ID, 1, &at(0)).unwrap();
    let _ = p.write(msr::HYPERCALL, 0x8001, &at(0)).unwrap();
    assert_eq!(
        p.write(msr::HYPERCALL, 0x9001, &at(0)),
        overlay(Overlay::Hypercall, Some(9))
    );
}

#[test]
fn bad_pages_and_reserved_bits_of_the_partition_fault_and_change_nothing() {
    let mut p = partition();
    let _ = p.write(msr::GUEST_OS_ID, 1, &at(0)).unwrap();
    for number in [msr::HYPERCALL, msr::REFERENCE_TSC] {
        for bad in [0x8003, 0x8801, 0x8002, 100 << 12 | 1, u64::MAX, 1] {
            assert_eq!(
                p.write(number, bad, &at(0)),
                Err(GpFault),
                "{number:#x} {bad:#x}"
            );
        }
        assert_eq!(p.read(number, NOW), Ok(0));
        // a page number that is not enabled is only stored
        assert!(p.write(number, 1 << 40, &at(0)).is_ok());
        assert_eq!(p.read(number, NOW), Ok(1 << 40));
    }
    assert_eq!(p.write(msr::TSC_INVARIANT_CONTROL, 2, &at(0)), Err(GpFault));
}

#[test]
fn a_crash_report_carries_its_parameters() {
    let mut p = partition();
    for (number, value) in (msr::CRASH_P0..).zip([10, 11, 12, 13, 14]) {
        assert_eq!(p.write(number, value, &at(0)), Ok(MsrEffect::None));
        assert_eq!(p.read(number, NOW), Ok(value));
    }
    assert_eq!(p.write(msr::CRASH_CTL, 0, &at(0)), Ok(MsrEffect::None));
    let ctl = msr::CrashCtl(1 << 63);
    let report = CrashReport {
        parameters: [10, 11, 12, 13, 14],
        ctl,
    };
    assert_eq!(
        p.write(msr::CRASH_CTL, ctl.0, &at(0)),
        Ok(MsrEffect::Crash(report))
    );
}

#[test]
fn read_only_registers_fault_on_writes() {
    for number in [msr::TIME_REF_COUNT, msr::TSC_FREQUENCY, msr::APIC_FREQUENCY] {
        assert_eq!(partition().write(number, 0, &at(0)), Err(GpFault));
    }
    for number in [msr::VP_INDEX, msr::SVERSION] {
        assert_eq!(vp(&mut []).write(number, 0, &at(0)), Err(GpFault));
    }
}

#[test]
fn what_was_not_offered_faults_but_for_the_two_that_linux_takes_for_granted() {
    let bare = PartitionConfig {
        privileges: Privileges::empty(),
        features: Features::empty(),
        ..CONFIG
    };
    let mut p = PartitionMsrs::new(bare);
    let mut v = VpSynic::new(&bare, VpIndex::new(0), &mut []);
    for &(number, name) in msr::NAMES {
        let is_granted = matches!(number, msr::TIME_REF_COUNT | msr::VP_ASSIST_PAGE);
        assert_eq!(
            p.read(number, NOW).is_ok() || v.read(number).is_ok(),
            is_granted,
            "{name}"
        );
        let written = p.write(number, 0, &at(0)).is_ok() || v.write(number, 0, &at(0)).is_ok();
        assert_eq!(written, number == msr::VP_ASSIST_PAGE, "{name}");
    }
}

#[test]
fn linux_sets_up_a_vp() {
    let mut v = vp(&mut []);
    assert_eq!(v.read(msr::VP_INDEX), Ok(3));
    assert_eq!(
        v.write(msr::VP_ASSIST_PAGE, 0x4001, &at(0)),
        overlay(Overlay::VpAssist, Some(4))
    );
    assert_eq!(
        v.write(msr::SIMP, 0x5001, &at(0)),
        overlay(Overlay::Messages, Some(5))
    );
    assert_eq!(
        v.write(msr::SIEFP, 0x6001, &at(0)),
        overlay(Overlay::EventFlags, Some(6))
    );
    assert_eq!(v.read(msr::SINT0 + 2), Ok(0x1_0000));
    assert_eq!(
        v.write(msr::SINT0 + 2, 0xF3, &at(0)),
        Ok(MsrEffect::Service)
    );
    assert_eq!(v.write(msr::SCONTROL, 1, &at(0)), Ok(MsrEffect::Service));
    assert_eq!(v.read(msr::SVERSION), Ok(1));
    assert_eq!(v.read(msr::EOM), Ok(0));
    assert_eq!(v.write(msr::EOM, 99, &at(0)), Ok(MsrEffect::EndOfMessage));
    // offline
    assert_eq!(
        v.write(msr::SINT0 + 2, 0x1_00F3, &at(0)),
        Ok(MsrEffect::Service)
    );
    assert_eq!(
        v.write(msr::SIMP, 0, &at(0)),
        overlay(Overlay::Messages, None)
    );
    assert_eq!(
        v.write(msr::VP_ASSIST_PAGE, 0, &at(0)),
        overlay(Overlay::VpAssist, None)
    );
}

#[test]
fn bad_pages_of_a_vp_fault_and_change_nothing() {
    for (number, strict) in [
        (msr::SIMP, false),
        (msr::SIEFP, false),
        (msr::VP_ASSIST_PAGE, true),
    ] {
        let mut v = vp(&mut []);
        for bad in [100 << 12 | 1, u64::MAX, 1] {
            assert_eq!(v.write(number, bad, &at(0)), Err(GpFault));
        }
        assert_eq!(v.read(number), Ok(0));
        assert_eq!(
            v.write(number, 0x5FFF, &at(0)).is_err(),
            strict,
            "reserved bits are kept or refused"
        );
        assert_eq!(v.read(number), Ok(if strict { 0 } else { 0x5FFF }));
    }
}

#[test]
fn an_unmasked_source_needs_a_vector_that_is_no_exception() {
    let mut v = vp(&mut []);
    for sint in 0..16 {
        assert_eq!(v.write(msr::SINT0 + sint, 15, &at(0)), Err(GpFault));
        assert_eq!(
            v.write(msr::SINT0 + sint, 1 << 16, &at(0)),
            Ok(MsrEffect::Service),
            "masked"
        );
        assert_eq!(
            v.write(msr::SINT0 + sint, 16, &at(0)),
            Ok(MsrEffect::Service)
        );
        assert_eq!(v.read(msr::SINT0 + sint), Ok(16));
    }
}

#[test]
fn each_timer_has_its_own_pair_of_registers() {
    let mut v = vp(&mut []);
    for timer in 0..4u32 {
        write(
            &mut v,
            msr::STIMER0_CONFIG + 2 * timer,
            u64::from(0x20 + timer) << 4 | 0x1000,
        );
        write(
            &mut v,
            msr::STIMER0_COUNT + 2 * timer,
            u64::from(timer) + 70,
        );
    }
    for timer in 0..4u32 {
        assert_eq!(
            v.read(msr::STIMER0_CONFIG + 2 * timer),
            Ok(u64::from(0x20 + timer) << 4 | 0x1000)
        );
        assert_eq!(
            v.read(msr::STIMER0_COUNT + 2 * timer),
            Ok(u64::from(timer) + 70)
        );
    }
}

#[test]
fn a_reset_partition_is_a_new_one() {
    let mut p = partition();
    for (number, value) in [
        (msr::GUEST_OS_ID, 1),
        (msr::HYPERCALL, 0x8001),
        (msr::CRASH_P0, 5),
    ] {
        let _ = p.write(number, value, &at(0)).unwrap();
    }
    p.reset();
    for number in [msr::GUEST_OS_ID, msr::HYPERCALL, msr::CRASH_P0] {
        assert_eq!(p.read(number, NOW), Ok(0));
    }
}

#[test]
fn the_nested_numbers_and_those_without_a_register_belong_to_nobody() {
    for number in [
        0x4000_1080,
        0x4000_0086,
        0x4000_00A0,
        0x4000_00AF,
        0x4000_00B8,
        0x4000_0024,
        0x4000_FFFF,
    ] {
        assert_eq!(scope(number), None, "{number:#x}");
    }
}

proptest! {
    /// `scope` and the two register files agree about who has what.
    #[test]
    fn a_register_answers_only_to_its_owner(
        number in prop_oneof![0x4000_0000u32..0x4000_0140, any::<u32>()], value: u64
    ) {
        let (mut p, mut v) = (partition(), vp(&mut []));
        prop_assert_eq!(p.read(number, NOW).is_ok(), scope(number) == Some(Scope::Partition));
        prop_assert_eq!(v.read(number).is_ok(), scope(number) == Some(Scope::Vp));
        if p.write(number, value, &at(0)).is_ok() {
            prop_assert_eq!(scope(number), Some(Scope::Partition));
        }
        if v.write(number, value, &at(0)).is_ok() {
            prop_assert_eq!(scope(number), Some(Scope::Vp));
        }
    }

    /// An overlay is announced exactly where the register says it is.
    #[test]
    fn a_page_register_that_was_taken_reads_back_and_is_announced(
        which in 0usize..4, page in 0u64..200, low in prop_oneof![Just(0u64), Just(1), 0u64..0x1000]
    ) {
        let value = page << 12 | low;
        let (mut p, mut v) = (partition(), vp(&mut []));
        let number = [msr::REFERENCE_TSC, msr::SIMP, msr::SIEFP, msr::VP_ASSIST_PAGE][which];
        let (effect, read) = if scope(number) == Some(Scope::Partition) {
            (p.write(number, value, &at(0)), p.read(number, NOW))
        } else {
            (v.write(number, value, &at(0)), v.read(number))
        };
        match effect {
            Ok(MsrEffect::Overlay { page: shown, .. }) => {
                prop_assert_eq!(read, Ok(value));
                prop_assert_eq!(shown, (value & 1 != 0).then(|| Gpn::new(page)));
            }
            Ok(other) => panic!("{other:?}"),
            Err(GpFault) => prop_assert_eq!(read, Ok(0)),
        }
    }
}
