//! The timer, in host TSC ticks.

mod common;

use addr::ApicId;
use apic::{Apic, Effect, Timing};
use common::*;
use proptest::prelude::*;

const PERIODIC: u32 = 1 << 17;
const TSC_DEADLINE: u32 = 1 << 18;
const MASKED: u32 = 1 << 16;
/// Divide by one.
const BY_ONE: u32 = 0b1011;

/// An APIC with its timer entry written at `now` and divisor one.
fn with_timer(lvt: u32, now: u64) -> Apic {
    let mut apic = enabled(0);
    let _ = apic.write(DIVIDE, BY_ONE, now);
    assert_eq!(apic.write(LVT_TIMER, lvt, now), Effect::Timer);
    apic
}

#[test]
fn a_one_shot_fires_once_and_not_early() {
    let mut apic = with_timer(0x20, 0);
    assert_eq!(apic.write(INITIAL, 1000, 500), Effect::Timer);
    let deadline = apic.timer_deadline().unwrap();
    assert!((3500..=3501).contains(&deadline));
    assert!(!apic.timer_tick(deadline - 1));
    assert_eq!(apic.pending(), None);
    assert!(apic.timer_tick(deadline));
    assert_eq!(apic.pending(), Some(0x20));
    assert!(!apic.timer_tick(u64::MAX));
    assert_eq!(
        (
            apic.timer_deadline(),
            apic.read(CURRENT, deadline),
            apic.read(INITIAL, deadline)
        ),
        (None, 0, 1000)
    );
}

#[test]
fn every_divisor_is_decoded() {
    for (code, divisor) in [
        (0b0000, 2),
        (0b0001, 4),
        (0b0010, 8),
        (0b0011, 16),
        (0b1000, 32),
        (0b1001, 64),
        (0b1010, 128),
        (0b1011, 1),
    ] {
        let mut apic = with_timer(0x20, 0);
        let _ = apic.write(DIVIDE, code, 0);
        let _ = apic.write(INITIAL, 100, 0);
        let deadline = apic.timer_deadline().unwrap();
        assert!(
            (300 * divisor..=300 * divisor + 1).contains(&deadline),
            "{code:#b}: {deadline}"
        );
    }
}

#[test]
fn the_current_count_falls_from_the_initial_count_to_zero() {
    let mut apic = with_timer(0x20, 0);
    let _ = apic.write(INITIAL, 1000, 0);
    assert_eq!(apic.read(CURRENT, 0), 1000);
    let middle = apic.read(CURRENT, 1500);
    assert!((500..=502).contains(&middle), "{middle}");
    assert_eq!(apic.read(CURRENT, 2999), 1);
    // The read itself lets the timer expire.
    assert_eq!(apic.read(CURRENT, 3001), 0);
    assert_eq!(apic.pending(), Some(0x20));
}

#[test]
fn lost_periods_coalesce_and_the_phase_is_kept() {
    let mut apic = with_timer(PERIODIC | 0x20, 0);
    let _ = apic.write(INITIAL, 1000, 0);
    for period in 1..=5_u64 {
        let deadline = apic.timer_deadline().unwrap();
        assert!((3000 * period..=3000 * period + 1).contains(&deadline));
        assert!(apic.timer_tick(deadline));
    }
    // Asleep for a thousand periods and a half.
    assert!(apic.timer_tick(3_016_500));
    assert!(!apic.timer_tick(3_016_500));
    let deadline = apic.timer_deadline().unwrap();
    assert!((3_018_000..=3_018_001).contains(&deadline));
    let current = apic.read(CURRENT, 3_016_500);
    assert!((500..=502).contains(&current), "{current}");
}

#[test]
fn a_masked_timer_counts_without_asking_for_attention() {
    let mut apic = with_timer(MASKED | PERIODIC | 0x20, 0);
    let _ = apic.write(INITIAL, 1000, 0);
    assert_eq!(apic.timer_deadline(), None);
    let current = apic.read(CURRENT, 3_000_000 + 1500);
    assert!((500..=502).contains(&current), "{current}");
    let _ = apic.write(LVT_TIMER, PERIODIC | 0x20, 6_000_100);
    assert_eq!(apic.pending(), None, "what passed while masked is gone");
    let deadline = apic.timer_deadline().unwrap();
    assert!((6_003_000..=6_003_001).contains(&deadline));
}

#[test]
fn what_was_due_before_a_mask_is_delivered() {
    for (offset, value) in [(LVT_TIMER, MASKED), (SVR, 0xFF), (INITIAL, 0), (DIVIDE, 0)] {
        let mut apic = with_timer(0x20, 0);
        let _ = apic.write(INITIAL, 1000, 0);
        let _ = apic.write(offset, value, 4000);
        assert!(apic.irr().contains(0x20), "{offset:#x}");
    }
}

#[test]
fn a_count_of_zero_stops() {
    let mut apic = with_timer(PERIODIC | 0x20, 0);
    let _ = apic.write(INITIAL, 1000, 0);
    assert_eq!(apic.write(INITIAL, 0, 10), Effect::Timer);
    assert_eq!(apic.timer_deadline(), None);
    assert!(!apic.timer_tick(u64::MAX));
}

#[test]
fn a_new_divisor_keeps_the_count() {
    let mut apic = with_timer(0x20, 0);
    let _ = apic.write(INITIAL, 1000, 0);
    let _ = apic.write(DIVIDE, 0b0000, 1500);
    let current = apic.read(CURRENT, 1500);
    assert!((500..=502).contains(&current));
    let deadline = apic.timer_deadline().unwrap();
    assert!((4500..=4515).contains(&deadline), "{deadline}");
}

#[test]
fn one_shot_and_periodic_change_without_a_stop() {
    let mut apic = with_timer(0x20, 0);
    let _ = apic.write(INITIAL, 1000, 0);
    let deadline = apic.timer_deadline();
    let _ = apic.write(LVT_TIMER, PERIODIC | 0x20, 100);
    assert_eq!(apic.timer_deadline(), deadline);
    assert!(apic.timer_tick(3001));
    assert!(apic.timer_deadline().is_some());
    let _ = apic.write(LVT_TIMER, TSC_DEADLINE | 0x20, 3100);
    assert_eq!((apic.timer_deadline(), apic.read(INITIAL, 3100)), (None, 0));
    let _ = apic.write(INITIAL, 77, 3100);
    assert_eq!(
        (apic.read(INITIAL, 3100), apic.read(CURRENT, 3100)),
        (0, 0),
        "ignored in this mode"
    );
}

#[test]
fn a_tsc_deadline_is_exact_and_reads_zero_afterwards() {
    let mut apic = with_timer(TSC_DEADLINE | 0xEC, 0);
    assert_eq!(apic.write_msr(0x6E0, 5000, 100), Ok(Effect::Timer));
    assert_eq!(
        (apic.timer_deadline(), apic.read_msr(0x6E0, 200)),
        (Some(5000), Ok(5000))
    );
    assert!(!apic.timer_tick(4999));
    assert!(apic.timer_tick(5000));
    assert_eq!(
        (apic.pending(), apic.read_msr(0x6E0, 5000)),
        (Some(0xEC), Ok(0))
    );
    let _ = apic.write_msr(0x6E0, 9000, 5000).unwrap();
    let _ = apic.write_msr(0x6E0, 0, 5001).unwrap();
    assert_eq!(apic.timer_deadline(), None);
}

#[test]
fn a_deadline_in_the_past_fires_in_the_write() {
    let mut apic = with_timer(TSC_DEADLINE | 0xEC, 0);
    let _ = apic.write_msr(0x6E0, 50, 100).unwrap();
    assert_eq!(
        (
            apic.pending(),
            apic.timer_deadline(),
            apic.read_msr(0x6E0, 100)
        ),
        (Some(0xEC), None, Ok(0))
    );
}

#[test]
fn a_masked_deadline_passes_unseen() {
    let mut apic = with_timer(TSC_DEADLINE | MASKED | 0xEC, 0);
    let _ = apic.write_msr(0x6E0, 5000, 0).unwrap();
    assert_eq!(apic.timer_deadline(), None);
    assert_eq!(apic.read_msr(0x6E0, 5001), Ok(0));
    assert_eq!(apic.pending(), None);
}

#[test]
fn the_deadline_register_is_dead_outside_its_mode() {
    let mut apic = with_timer(0x20, 0);
    assert!(apic.write_msr(0x6E0, 5000, 0).is_ok());
    assert_eq!(
        (apic.read_msr(0x6E0, 0), apic.timer_deadline()),
        (Ok(0), None)
    );
}

#[test]
fn deadlines_are_in_the_guests_time() {
    let mut apic = with_timer(TSC_DEADLINE | 0xEC, 0);
    // The guest's TSC is 1000 behind.
    apic.set_tsc_offset(0_u64.wrapping_sub(1000), 10_000);
    let _ = apic.write_msr(0x6E0, 9500, 10_000).unwrap();
    assert_eq!(
        (apic.timer_deadline(), apic.read_msr(0x6E0, 10_000)),
        (Some(10_500), Ok(9500))
    );
    // The guest sets its TSC forward by 200, then past the deadline.
    apic.set_tsc_offset(0_u64.wrapping_sub(800), 10_100);
    assert_eq!(apic.timer_deadline(), Some(10_300));
    apic.set_tsc_offset(5000, 10_200);
    assert_eq!(apic.timer_deadline(), Some(10_200));
    assert!(apic.timer_tick(10_200));
}

#[test]
fn an_illegal_vector_is_an_error_not_an_interrupt() {
    let mut apic = with_timer(0x0F, 0);
    let _ = apic.write(INITIAL, 1, 0);
    assert!(apic.timer_tick(100));
    assert!(apic.irr().is_empty());
    assert_eq!(errors(&mut apic), 0x40);
}

fn rates() -> impl Strategy<Value = (u64, u64)> {
    (
        1_000_000_u64..6_000_000_000,
        prop_oneof![1_000_000_u64..2_000_000_000, Just(1_000_000_000)],
    )
}

proptest! {
    /// Deadline k is at the exact time of the k-th expiry or at most a tick after it, with periods
    /// lost here and there.
    #[test]
    fn periods_are_never_early_and_at_most_a_tick_late(
        (tsc_hz, apic_hz) in rates(),
        count in prop_oneof![1_u32..2000, 1_000_000..=u32::MAX],
        code in prop::sample::select(vec![0_u32, 1, 2, 3, 8, 9, 10, 11]),
        start in 0_u64..1 << 50,
        lost in prop::collection::vec(prop_oneof![4 => Just(0_u64), 1 => 1_u64..5000], 1..40),
    ) {
        let divisor: u128 = match code { 0 => 2, 1 => 4, 2 => 8, 3 => 16, 8 => 32, 9 => 64, 10 => 128, _ => 1 };
        let mut apic = Apic::new(ApicId::new(0), true, FEATURES, Timing::new(tsc_hz, apic_hz).unwrap());
        let _ = apic.write(SVR, 0x1FF, 0);
        let _ = apic.write(DIVIDE, code, start);
        let _ = apic.write(LVT_TIMER, PERIODIC | 0x20, start);
        let _ = apic.write(INITIAL, count, start);
        // The k-th expiry, rounded up to a tick.
        let exact = |k: u64| {
            let numerator = u128::from(count) * divisor * u128::from(k) * u128::from(tsc_hz);
            u128::from(start) + numerator.div_ceil(u128::from(apic_hz))
        };
        let mut k: u64 = 1;
        for lost in lost {
            let deadline = apic.timer_deadline().unwrap();
            let expected = exact(k);
            prop_assert!(u128::from(deadline) >= expected, "early: {} for {}", deadline, expected);
            prop_assert!(u128::from(deadline) <= expected + 1, "late: {} for {}", deadline, expected);
            prop_assert!(!apic.timer_tick(deadline - 1));
            let current = apic.read(CURRENT, deadline - 1);
            // A period shorter than a tick is over before it can be seen running.
            prop_assert!(current >= 1 && current <= count);
            // Come late by whole periods, and read the time exactly at the last of them.
            let at = if lost == 0 { u128::from(deadline) } else { exact(k + lost) + 2 };
            let Ok(at) = u64::try_from(at) else { break };
            prop_assert!(apic.timer_tick(at));
            prop_assert!(apic.timer_deadline().unwrap() > at);
            while exact(k) <= u128::from(at) {
                k += 1;
            }
            // Between the exact time and our rounding of it the two may disagree by one period.
            if u128::from(apic.timer_deadline().unwrap()) + 1 < exact(k) {
                k -= 1;
            }
        }
    }

    /// The current count never rises while a one-shot runs, and is zero just when it is over.
    #[test]
    fn a_one_shot_count_only_falls(
        (tsc_hz, apic_hz) in rates(), count in 1_u32.., mut steps in prop::collection::vec(0.0..1.0_f64, 1..20),
    ) {
        let mut apic = Apic::new(ApicId::new(0), true, FEATURES, Timing::new(tsc_hz, apic_hz).unwrap());
        let _ = apic.write(SVR, 0x1FF, 0);
        let _ = apic.write(LVT_TIMER, 0x20, 0);
        let _ = apic.write(INITIAL, count, 0);
        let deadline = apic.timer_deadline().unwrap();
        steps.sort_by(f64::total_cmp);
        let mut last = apic.read(CURRENT, 0);
        prop_assert_eq!(last, count);
        for step in steps {
            let now = ((deadline - 1) as f64 * step) as u64;
            let current = apic.read(CURRENT, now);
            prop_assert!(current <= last && current >= 1);
            let elapsed = u128::from(now) * u128::from(apic_hz) / u128::from(tsc_hz) / 2;
            let exact = u128::from(count).saturating_sub(elapsed);
            // Rounding upward of ticks and counts: what one tick and one count are worth.
            let slack = u128::from(apic_hz / tsc_hz) + 2;
            prop_assert!(u128::from(current) <= exact + slack && u128::from(current) + slack >= exact);
            last = current;
        }
        prop_assert_eq!(apic.read(CURRENT, deadline), 0);
    }
}
