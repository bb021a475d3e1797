//! What a child reads and writes itself.

mod common;

use common::Vp;
use proptest::prelude::*;
use tlfs::register::RegisterName as N;
use vpstate::Effect;
use vpstate::msr::{COMMANDS, Class, DIRECT, classify};

/// RDMSR as far as this crate answers it: `None` is #GP or somebody else.
fn read(vp: &mut Vp, msr: u32) -> Option<u64> {
    match classify(msr) {
        Class::Register(name) => vp.registers().read_msr(name).ok(),
        Class::Constant(value) | Class::Ignored(value) => Some(value),
        _ => None,
    }
}

#[test]
fn what_linux_reads_at_boot_is_answered() {
    let mut vp = Vp::new();
    // Plain reads of arch/x86: no exception table entry keeps them quiet.
    for msr in [
        0x10,
        0x17,
        0x3A,
        0x8B,
        0xFE,
        0x179,
        0x17A,
        0x1A0,
        0x200,
        0x20F,
        0x250,
        0x258,
        0x259,
        0x268,
        0x26F,
        0x277,
        0x2FF,
        0xC000_0080,
        0xC000_0081,
        0xC000_0084,
        0xC000_0103,
        0xC001_0010,
        0xC001_0015,
        0xC001_001F,
        0xC001_0058,
        0xC001_1029,
        0xC001_001A,
        0xC001_001D,
        0xC001_0114,
    ] {
        assert!(read(&mut vp, msr).is_some(), "{msr:#x}");
    }
    assert_eq!(read(&mut vp, 0x3A), Some(1));
    assert_eq!(read(&mut vp, 0x1A0).unwrap() & 1, 1);
    assert_eq!(read(&mut vp, 0xC001_0015).unwrap() >> 24 & 1, 1);
}

#[test]
fn probes_for_counters_and_virtualization_get_a_fault() {
    for msr in [
        0xC1,
        0x186,
        0x38F,
        0xE7,
        0xE8,
        0x480,
        0xC001_0000,
        0xC001_0200,
        0xC001_0117,
        0x570,
        0x600,
        0x6A0,
        0x122,
    ] {
        assert_eq!(classify(msr), Class::Absent, "{msr:#x}");
    }
}

#[test]
fn memory_type_ranges_are_the_named_ones() {
    let mut vp = Vp::new();
    for (msr, name) in [
        (0x200, N::MTRR_PHYS_BASE0),
        (0x20F, N::MTRR_PHYS_MASK0.nth(7)),
        (0x250, N::MTRR_FIX_64K_00000),
        (0x258, N::MTRR_FIX_64K_00000.nth(1)),
        (0x259, N::MTRR_FIX_64K_00000.nth(2)),
        (0x268, N::MTRR_FIX_64K_00000.nth(3)),
        (0x26F, N::MTRR_FIX_64K_00000.nth(10)),
        (0xC000_0081, N::STAR),
        (0xC000_0084, N::SFMASK),
    ] {
        assert_eq!(classify(msr), Class::Register(name), "{msr:#x}");
        assert_eq!(vp.registers().write_msr(name, 6), Ok(Effect::None));
        assert_eq!(read(&mut vp, msr), Some(6), "{msr:#x}");
    }
}

#[test]
fn long_mode_cannot_be_switched_under_paging() {
    let mut vp = Vp::new();
    assert_eq!(
        vp.registers().write_msr(N::EFER, 0x100),
        Ok(Effect::Translation)
    );
    let _ = vp.registers().set(N::CR0, 0x8000_0011).unwrap();
    assert!(vp.registers().write_msr(N::EFER, 0).is_err());
    // LMA as read is no offence.
    assert!(vp.registers().write_msr(N::EFER, 0x501).is_ok());
    assert!(vp.registers().write_msr(N::EFER, 0x1101).is_err());
}

#[test]
fn adjusting_moves_the_tsc_and_the_other_way_round() {
    let mut vp = Vp::new();
    let before = read(&mut vp, 0x10).unwrap();
    assert_eq!(
        vp.registers().write_msr(N::TSC_ADJUST, 100),
        Ok(Effect::Timer)
    );
    assert_eq!(read(&mut vp, 0x10), Some(before + 100));
    assert_eq!(vp.registers().write_msr(N::TSC, before), Ok(Effect::Timer));
    assert_eq!(read(&mut vp, 0x3B), Some(0));
}

#[test]
fn registers_that_the_processor_has_not_do_not_exist() {
    let mut vp = Vp::new();
    vp.limits.spec_ctrl = 0;
    vp.limits.has_xsaves = false;
    assert_eq!(read(&mut vp, 0x48), None);
    assert_eq!(read(&mut vp, 0xDA0), None);
    vp.limits.has_xsaves = true;
    assert_eq!(read(&mut vp, 0xDA0), Some(0));
    assert!(vp.registers().write_msr(N::XSS, 1 << 8).is_err());
    assert!(vp.registers().write_msr(N::XSS, 0).is_ok());
}

#[test]
fn nothing_direct_reaches_the_hypervisor_or_the_machine() {
    for msr in DIRECT {
        // Each is also known by name, for processors whose bitmap does not cover it, or is a segment base.
        assert!(
            matches!(classify(msr), Class::Register(_)) || matches!(msr, 0xC000_0100 | 0xC000_0101),
            "{msr:#x}"
        );
    }
    assert_eq!(COMMANDS, [0x49]);
}

proptest! {
    #[test]
    fn any_access_is_answered_without_a_panic(msr in prop_oneof![any::<u32>(), 0_u32..0x2000, 0xC000_0000_u32..0xC001_2000], value: u64) {
        let mut vp = Vp::new();
        if let Class::Register(name) = classify(msr) {
            let _ = vp.registers().write_msr(name, value);
            prop_assert!(read(&mut vp, msr).is_some());
        }
    }
}
