//! The timer of the local APIC.

use x86::cpuid::leaf1_ecx;
use x86::msr::IA32_TSC_DEADLINE;

use machine::apic::{self, LVT_MASKED, TIMER_DEADLINE, TIMER_PERIODIC, reg};
use machine::verdict::{check, check_strict, equal, skip, within};
use machine::{clock, cpu, insn};

const VECTOR: u8 = 0x66;
const APIC_FREQUENCY: u32 = 0x4000_0023;

/// Divide register and divisor.
const DIVISORS: [(u32, u64); 8] = [
    (0xB, 1),
    (0, 2),
    (1, 4),
    (2, 8),
    (3, 16),
    (8, 32),
    (9, 64),
    (10, 128),
];
const DIVIDE_BY_16: u32 = 3;

/// How late an emulator on a busy host may be, in microseconds.
const LATENESS: u64 = 1_000_000;

/// Runs these tests.
pub fn run(mode: &str) {
    let hz = rates(mode);
    one_shot(mode, hz);
    periodic(mode, hz);
    masked(mode, hz);
    if insn::cpuid(1, 0).ecx & leaf1_ecx::TSC_DEADLINE != 0 {
        deadline(mode);
    } else {
        skip(
            format_args!("{mode}: TSC deadline"),
            "the processor has none",
        );
    }
    apic::write(reg::LVT_TIMER, LVT_MASKED | u32::from(VECTOR));
    apic::write(reg::INITIAL_COUNT, 0);
    cpu::this().forget();
}

/// The input clock of the timer in Hz, measured for 20 ms.
fn frequency() -> u64 {
    measure(DIVISORS[0].0, 20_000)
}

fn measure(divide: u32, us: u64) -> u64 {
    apic::write(reg::LVT_TIMER, LVT_MASKED | u32::from(VECTOR));
    apic::write(reg::DIVIDE, divide);
    apic::write(reg::INITIAL_COUNT, u32::MAX);
    let (from, start) = sample();
    clock::spin(us);
    let (to, end) = sample();
    apic::write(reg::INITIAL_COUNT, 0);
    let counted = u128::from(from.wrapping_sub(to));
    (counted * u128::from(clock::tsc_hz()) / u128::from(end - start)) as u64
}

/// The current count and the TSC at the same moment: of some attempts the one with the least time around the reading,
/// since the host may stop an emulator in between.
fn sample() -> (u32, u64) {
    let mut best = (0, 0);
    let mut least = u64::MAX;
    for _ in 0..20 {
        let before = insn::rdtsc();
        let count = apic::read(reg::CURRENT_COUNT);
        let around = insn::rdtsc() - before;
        if around < least {
            best = (count, before + around / 2);
            least = around;
        }
        if least < clock::ticks(50) {
            break;
        }
    }
    best
}

fn rates(mode: &str) -> u64 {
    let hz = frequency();
    if clock::has_reference() {
        let told = insn::rdmsr(APIC_FREQUENCY);
        within(
            format_args!("{mode}: the timer runs at the frequency told, within 2 %"),
            hz,
            told / 100 * 98,
            told / 100 * 102,
        );
    }
    for (divide, divisor) in DIVISORS {
        let rate = measure(divide, 10_000) * divisor;
        // One count more or less, and 5 % for the host.
        let slack = hz / 20 + 2 * divisor * 100;
        within(
            format_args!("{mode}: the timer divided by {divisor}"),
            rate,
            hz - slack.min(hz),
            hz + slack,
        );
    }
    hz
}

/// Counts at divide-by-16 in `us` microseconds.
fn counts(hz: u64, us: u64) -> u32 {
    (hz / 16 * us / 1_000_000) as u32
}

fn one_shot(mode: &str, hz: u64) {
    let cpu = cpu::this();
    cpu.forget();
    apic::write(reg::DIVIDE, DIVIDE_BY_16);
    apic::write(reg::LVT_TIMER, u32::from(VECTOR));
    let start = insn::rdtsc();
    apic::write(reg::INITIAL_COUNT, counts(hz, 5_000));
    insn::sti();
    let fired = clock::wait_for(LATENESS, || cpu.count(VECTOR) != 0);
    insn::cli();
    check(format_args!("{mode}: one-shot of 5 ms fires"), fired);
    let took = clock::micros(cpu.stamp(VECTOR).wrapping_sub(start));
    within(
        format_args!("{mode}: not early, not much later"),
        took,
        4_950,
        LATENESS,
    );
    equal(
        format_args!("{mode}: the count stays at 0"),
        apic::read(reg::CURRENT_COUNT).into(),
        0,
    );
    insn::sti();
    clock::spin(12_000);
    insn::cli();
    equal(
        format_args!("{mode}: and it fires once"),
        cpu.count(VECTOR).into(),
        1,
    );

    cpu.forget();
    // Long enough that a busy host does not let it expire between the two writes.
    apic::write(reg::INITIAL_COUNT, counts(hz, 100_000));
    apic::write(reg::INITIAL_COUNT, 0);
    insn::sti();
    clock::spin(120_000);
    insn::cli();
    equal(
        format_args!("{mode}: an initial count of 0 stops it"),
        cpu.count(VECTOR).into(),
        0,
    );

    apic::write(reg::INITIAL_COUNT, counts(hz, 3_000));
    insn::halt_once();
    equal(
        format_args!("{mode}: it wakes HLT"),
        cpu.count(VECTOR).into(),
        1,
    );

    cpu.forget();
    apic::write(reg::INITIAL_COUNT, counts(hz, 1_000));
    clock::spin(8_000);
    // The count first: Bochs holds physical interrupts back from a guest that was entered with IF clear, so on its VT-x
    // the hypervisor learns of the expiry at the next exit.
    equal(
        format_args!("{mode}: expired, the count is 0"),
        apic::read(reg::CURRENT_COUNT).into(),
        0,
    );
    check(
        format_args!("{mode}: expired with IF clear, it waits in IRR"),
        apic::bit(reg::IRR, VECTOR),
    );
    insn::sti();
    clock::spin(50);
    insn::cli();
    equal(
        format_args!("{mode}: and comes once IF is set"),
        cpu.count(VECTOR).into(),
        1,
    );
}

fn periodic(mode: &str, hz: u64) {
    let cpu = cpu::this();
    cpu.forget();
    apic::write(reg::DIVIDE, DIVIDE_BY_16);
    apic::write(reg::LVT_TIMER, TIMER_PERIODIC | u32::from(VECTOR));
    let start = insn::rdtsc();
    apic::write(reg::INITIAL_COUNT, counts(hz, 2_000));
    insn::sti();
    let ticked = clock::wait_for(20 * 2_000 + LATENESS, || cpu.count(VECTOR) >= 20);
    insn::cli();
    let took = clock::micros(insn::rdtsc() - start);
    check(format_args!("{mode}: 20 periods of 2 ms"), ticked);
    within(
        format_args!("{mode}: not early, not much later"),
        took,
        39_600,
        40_000 + LATENESS,
    );
    check(
        format_args!("{mode}: the count is being reloaded"),
        apic::read(reg::CURRENT_COUNT) <= counts(hz, 2_000),
    );
    // The emulated clock must not gain: ticks that passed are at most time over period.
    let ticks = u64::from(cpu.count(VECTOR));
    within(
        format_args!("{mode}: no tick too many"),
        ticks,
        20,
        took / 2_000 + 1,
    );
    apic::write(reg::INITIAL_COUNT, 0);
    insn::sti();
    clock::spin(100);
    insn::cli();
    let before = cpu.count(VECTOR);
    insn::sti();
    clock::spin(8_000);
    insn::cli();
    equal(
        format_args!("{mode}: stopped, it is quiet"),
        cpu.count(VECTOR).into(),
        before.into(),
    );
}

fn masked(mode: &str, hz: u64) {
    let cpu = cpu::this();
    cpu.forget();
    apic::write(reg::LVT_TIMER, LVT_MASKED | u32::from(VECTOR));
    apic::write(reg::INITIAL_COUNT, counts(hz, 3_000));
    let first = apic::read(reg::CURRENT_COUNT);
    insn::sti();
    clock::spin(1_000);
    let second = apic::read(reg::CURRENT_COUNT);
    clock::spin(9_000);
    insn::cli();
    check(
        format_args!("{mode}: masked, it counts down"),
        first <= counts(hz, 3_000) && second < first,
    );
    equal(
        format_args!("{mode}: to 0"),
        apic::read(reg::CURRENT_COUNT).into(),
        0,
    );
    equal(
        format_args!("{mode}: without an interrupt"),
        cpu.count(VECTOR).into(),
        0,
    );
    equal(
        format_args!("{mode}: the initial count reads back"),
        apic::read(reg::INITIAL_COUNT).into(),
        counts(hz, 3_000).into(),
    );
    apic::write(reg::INITIAL_COUNT, 0);
}

fn deadline(mode: &str) {
    let cpu = cpu::this();
    cpu.forget();
    apic::write(reg::LVT_TIMER, TIMER_DEADLINE | u32::from(VECTOR));
    let due = insn::rdtsc() + clock::ticks(5_000);
    insn::wrmsr(IA32_TSC_DEADLINE, due);
    check(
        format_args!("{mode}: the deadline reads back"),
        insn::rdmsr(IA32_TSC_DEADLINE) == due,
    );
    insn::sti();
    let fired = clock::wait_for(LATENESS, || cpu.count(VECTOR) != 0);
    insn::cli();
    check(format_args!("{mode}: the deadline fires"), fired);
    check(
        format_args!("{mode}: not before its time"),
        cpu.stamp(VECTOR) >= due,
    );
    check_strict(
        format_args!("{mode}: fired, it reads 0"),
        insn::rdmsr(IA32_TSC_DEADLINE) == 0,
    );

    insn::wrmsr(IA32_TSC_DEADLINE, insn::rdtsc() - 1);
    insn::sti();
    let fired = clock::wait_for(LATENESS, || cpu.count(VECTOR) == 2);
    insn::cli();
    check(
        format_args!("{mode}: a deadline in the past fires at once"),
        fired,
    );

    insn::wrmsr(IA32_TSC_DEADLINE, insn::rdtsc() + clock::ticks(100_000));
    insn::wrmsr(IA32_TSC_DEADLINE, 0);
    insn::sti();
    clock::spin(120_000);
    insn::cli();
    equal(
        format_args!("{mode}: a deadline of 0 disarms"),
        cpu.count(VECTOR).into(),
        2,
    );

    apic::write(reg::INITIAL_COUNT, 1000);
    check_strict(
        format_args!("{mode}: the initial count does not matter in this mode"),
        apic::read(reg::CURRENT_COUNT) == 0,
    );
    insn::wrmsr(IA32_TSC_DEADLINE, insn::rdtsc() + clock::ticks(3_000));
    insn::halt_once();
    equal(
        format_args!("{mode}: a deadline wakes HLT"),
        cpu.count(VECTOR).into(),
        3,
    );

    insn::wrmsr(IA32_TSC_DEADLINE, insn::rdtsc() + clock::ticks(3_000));
    apic::write(reg::LVT_TIMER, u32::from(VECTOR));
    insn::sti();
    clock::spin(9_000);
    insn::cli();
    equal(
        format_args!("{mode}: leaving the mode disarms"),
        cpu.count(VECTOR).into(),
        3,
    );
    equal(
        format_args!("{mode}: outside the mode it reads 0"),
        insn::rdmsr(IA32_TSC_DEADLINE),
        0,
    );
}
