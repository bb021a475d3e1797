//! The state that VMMs save and load.

mod common;

use apic::{Apic, Effect, SAVED_BYTES};
use common::{
    CURRENT, DIVIDE, ICR, ICR_HIGH, INITIAL, LVT_LINT0, LVT_TIMER, enabled, fresh, x2apic,
};
use proptest::prelude::*;

fn word(saved: &[u8; SAVED_BYTES], at: usize) -> u32 {
    u32::from_le_bytes(saved[at..at + 4].try_into().unwrap())
}

fn set(saved: &mut [u8; SAVED_BYTES], at: usize, value: u32) {
    saved[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

#[test]
fn registers_are_where_the_record_has_them() {
    let mut apic = enabled(3);
    for (offset, value) in [
        (0xD0, 0x0800_0000),
        (ICR_HIGH, 0x0500_0000),
        (ICR, 0x0_0402),
        (LVT_TIMER, 0x2_0033),
        (0x330, 0x0031),
        (0x340, 0x0400),
        (LVT_LINT0, 0x0700),
        (0x360, 0x0400),
        (0x370, 0x00FE),
        (0x2F0, 0x0032),
        (DIVIDE, 0xB),
        (INITIAL, 1000),
    ] {
        let _ = apic.write(offset, value, 0);
    }
    let _ = apic.accept(0x31, apic::Trigger::Edge);
    let _ = apic.accept(0xA5, apic::Trigger::Level);
    assert!(apic.take(0xA5));
    // Three ticks a count.
    let saved = apic.save(300);
    let expected = [
        (0x00, 3 << 24),
        (0x04, 0x6_0014),
        (0x08, 0x0800_0000),
        (0x0C, u32::MAX),
        (0x10, 0x1FF),
        (0x14 + 5 * 4, 1 << 5),
        (0x34 + 5 * 4, 1 << 5),
        (0x54 + 4, 1 << 17),
        (0x74, 0),
        (0x78, 0x0500_0000),
        (0x7C, 0x402),
        (0x80, 0x2_0033),
        (0x84, 0x31),
        (0x88, 0x400),
        (0x8C, 0x700),
        (0x90, 0x400),
        (0x94, 0xFE),
        (0x98, 0x32),
        (0xA0, 1000),
        (0xA4, 900),
        (0xA8, 0xB),
        (0xAC, 0),
    ];
    for (at, value) in expected {
        assert_eq!(word(&saved, at), value, "{at:#x}");
    }

    let mut other = fresh(3);
    other.load(&saved, 1_000_000);
    assert_eq!(other.save(1_000_000), saved);
    assert_eq!(other.timer_deadline(), Some(1_000_000 + 900 * 3));
    assert_eq!(
        other.eoi(),
        Effect::Eoi {
            vector: 0xA5,
            level: true
        }
    );
    assert_eq!(other.pending(), Some(0x31));
}

#[test]
fn in_x2apic_mode_the_id_is_whole() {
    let mut apic = x2apic(0x123);
    let saved = apic.save(0);
    assert_eq!((word(&saved, 0), word(&saved, 8)), (0x123, 0x12_0008));
    let mut other = x2apic(0x123);
    other.load(&saved, 0);
    assert_eq!(other.save(0), saved);
}

#[test]
fn foreign_ids_and_bits_that_do_not_exist_are_dropped() {
    let mut apic = enabled(3);
    let before = apic.save(0);
    let mut saved = [0xFF; SAVED_BYTES];
    set(&mut saved, 0xA0, 0);
    apic.load(&saved, 0);
    let after = apic.save(0);
    assert_eq!(word(&after, 0), word(&before, 0));
    assert_eq!(word(&after, 4), word(&before, 4));
    assert_eq!(word(&after, 0x10), 0x3FF);
    assert_eq!(word(&after, 0x54), !0xFFFF);
    assert_eq!(word(&after, 0xA8), 0xB);
    assert_eq!(apic.timer_deadline(), None);
}

#[test]
fn every_change_of_mode_can_be_loaded() {
    const BASE: u64 = 0xFEE0_0000;
    let mut apic = x2apic(3);
    for (flags, is_taken) in [
        (0x800, true),
        (0, true),
        (0xC00, true),
        (0x900, true),
        (0x400, false),
    ] {
        assert_eq!(
            apic.load_apic_base(BASE | flags).is_ok(),
            is_taken,
            "{flags:#x}"
        );
    }
    assert_eq!(apic.apic_base(), BASE | 0x900);
    assert!(apic.load_apic_base(1 << 50).is_err());
    // A guest cannot do it.
    apic.load_apic_base(BASE | 0xC00).unwrap();
    assert!(apic.write_apic_base(BASE | 0x800).is_err());
    // Nor become the boot processor.
    apic.write_apic_base(BASE | 0xD00).unwrap();
    assert_eq!(apic.apic_base(), BASE | 0xC00);
}

fn after_load(apic: &mut Apic, saved: &[u8; SAVED_BYTES], now: u64) -> [u8; SAVED_BYTES] {
    apic.load(saved, now);
    apic.save(now)
}

proptest! {
    /// What comes out of any bytes is a state that loads to itself and works.
    #[test]
    fn any_bytes_make_a_consistent_apic(
        bytes in proptest::collection::vec(any::<u8>(), SAVED_BYTES),
        is_x2apic: bool,
        now in 0_u64..1 << 60,
    ) {
        let make = || if is_x2apic { x2apic(3) } else { enabled(3) };
        let saved: [u8; SAVED_BYTES] = bytes.try_into().unwrap();
        let mut apic = make();
        let first = after_load(&mut apic, &saved, now);
        let second = after_load(&mut make(), &first, now);
        prop_assert_eq!(first, second);
        let deadline = apic.timer_deadline();
        prop_assert!(deadline.is_none_or(|at| at >= now));
        apic.timer_tick(now + (1 << 62));
        for _ in 0..1000 {
            match apic.pending() {
                Some(vector) => prop_assert!(apic.take(vector)),
                None => if apic.eoi() == Effect::EoiWithoutService { break },
            }
        }
        prop_assert_eq!(apic.isr().highest(), None);
        let _ = apic.read(CURRENT, now);
    }
}
