//! Clocks against each other: TSC, ACPI PM timer, reference counter, APIC timer, synthetic timer.

use crate::options::Options;
use machine::apic::{self, LVT_MASKED, reg};
use machine::platform::Platform;
use machine::verdict::{check, note, skip, within};
use machine::{clock, cpu, insn};

const APIC_FREQUENCY: u32 = 0x4000_0023;
const TSC_FREQUENCY: u32 = 0x4000_0022;
const STIMER0_CONFIG: u32 = 0x4000_00B0;
const STIMER0_COUNT: u32 = 0x4000_00B1;

/// How long two clocks run against each other, in microseconds.
const WINDOW: u64 = 200_000;
/// Attempts, of which the best counts: the host may stop us between two reads.
const ATTEMPTS: u32 = 5;
const VECTOR: u8 = 0x67;

/// Parts per million that two clocks of one machine may differ.
const TOLERANCE: u64 = 1000;

/// Runs the group.
pub fn run(_: &Options, _: &Platform) {
    apic::notice_mode();
    apic::quiet();
    if !clock::has_reference() {
        skip(
            "timer: clocks against the PM timer",
            "the bare machine states no frequency",
        );
    } else if clock::has_pm_timer() {
        against_pm_timer();
    } else {
        skip("timer: clocks against the PM timer", "the machine has none");
    }
    if check(
        "timer: the reference counter answers",
        clock::has_reference(),
    ) {
        reference_against_tsc();
        expiries();
    }
    cpu::this().forget();
    apic::quiet();
}

/// Deviation of `got` from `wanted` in parts per million.
fn ppm(got: u64, wanted: u64) -> u64 {
    (u128::from(got.abs_diff(wanted)) * 1_000_000 / u128::from(wanted.max(1))) as u64
}

fn best(mut attempt: impl FnMut() -> u64) -> u64 {
    (0..ATTEMPTS).fold(u64::MAX, |least, _| {
        if least <= TOLERANCE / 4 {
            least
        } else {
            least.min(attempt())
        }
    })
}

fn against_pm_timer() {
    let told = if clock::has_reference() {
        insn::rdmsr(TSC_FREQUENCY)
    } else {
        clock::tsc_hz()
    };
    let deviation = best(|| {
        let (pm, tsc) = (clock::pm_timer(), insn::rdtsc());
        clock::spin(WINDOW);
        let (pm, tsc) = (clock::pm_since(pm), insn::rdtsc() - tsc);
        let by_pm = u128::from(pm) * u128::from(told) / u128::from(clock::PM_TIMER_HZ);
        ppm(tsc, by_pm as u64)
    });
    within(
        "timer: TSC at its stated frequency against the PM timer, ppm",
        deviation,
        0,
        TOLERANCE,
    );
    let deviation = best(|| {
        let (pm, start) = (clock::pm_timer(), clock::reference());
        clock::spin(WINDOW);
        let (pm, units) = (clock::pm_since(pm), clock::reference() - start);
        ppm(
            units,
            (u128::from(pm) * 10_000_000 / u128::from(clock::PM_TIMER_HZ)) as u64,
        )
    });
    within(
        "timer: reference counter against the PM timer, ppm",
        deviation,
        0,
        TOLERANCE,
    );
}

fn reference_against_tsc() {
    let hz = insn::rdmsr(TSC_FREQUENCY);
    let deviation = best(|| {
        let (units, tsc) = (clock::reference(), insn::rdtsc());
        clock::spin(WINDOW);
        let (units, tsc) = (clock::reference() - units, insn::rdtsc() - tsc);
        ppm(
            units,
            (u128::from(tsc) * 10_000_000 / u128::from(hz)) as u64,
        )
    });
    within(
        "timer: reference counter against the TSC, ppm",
        deviation,
        0,
        TOLERANCE,
    );
}

/// Expiries of growing length: never early by the reference counter. How late they are is reported, and bounded
/// as far as an emulator allows.
fn expiries() {
    let cpu = cpu::this();
    let hz = insn::rdmsr(APIC_FREQUENCY);
    apic::write(reg::DIVIDE, 0xB);
    let (mut early, mut late) = (0, 0);
    for us in [100, 500, 1_000, 5_000, 20_000, 50_000] {
        cpu.forget();
        apic::write(reg::LVT_TIMER, u32::from(VECTOR));
        let start = clock::reference();
        apic::write(reg::INITIAL_COUNT, (hz * us / 1_000_000) as u32);
        insn::sti();
        clock::wait_for(us + 2_000_000, || cpu.count(VECTOR) != 0);
        insn::cli();
        let took = clock::reference() - start;
        // One unit for the rounding of each clock.
        early += u64::from(took + 2 + us / 100 < us * 10);
        late = late.max(took.saturating_sub(us * 10));
    }
    apic::write(reg::LVT_TIMER, LVT_MASKED | u32::from(VECTOR));
    note(format_args!(
        "APIC timer late by at most {late} units of 100 ns"
    ));
    within("timer: APIC timer expiries too early", early, 0, 0);
    within(
        "timer: APIC timer late by at most 1 s, in 100 ns",
        late,
        0,
        10_000_000,
    );

    let (mut early, mut late) = (0, 0);
    for us in [10, 100, 500, 1_000, 5_000, 20_000, 50_000] {
        cpu.forget();
        // Enabled with the old count, which is past, it would fire at once.
        insn::wrmsr(STIMER0_COUNT, 0);
        // Enable, auto-enable, direct.
        insn::wrmsr(STIMER0_CONFIG, 0x1009 | (u64::from(VECTOR) << 4));
        let due = clock::reference() + us * 10;
        insn::wrmsr(STIMER0_COUNT, due);
        insn::sti();
        clock::wait_for(us + 2_000_000, || cpu.count(VECTOR) != 0);
        insn::cli();
        let now = clock::reference();
        if now < due {
            early += 1;
            note(format_args!(
                "due in {us} us, {} units of 100 ns too early",
                due - now
            ));
        }
        late = late.max(now.saturating_sub(due));
    }
    insn::wrmsr(STIMER0_COUNT, 0);
    insn::wrmsr(STIMER0_CONFIG, 0);
    note(format_args!(
        "synthetic timer late by at most {late} units of 100 ns"
    ));
    within("timer: synthetic timer expiries too early", early, 0, 0);
    within(
        "timer: synthetic timer late by at most 1 s, in 100 ns",
        late,
        0,
        10_000_000,
    );
}
