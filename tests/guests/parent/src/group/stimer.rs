//! Synthetic timers in direct mode (TLFS, "Synthetic Timers").

use crate::options::Options;
use machine::cpu::Cpu;
use machine::platform::Platform;
use machine::verdict::{check, equal, within};
use machine::{apic, clock, cpu, insn};

const CONFIG: u32 = 0x4000_00B0;
const COUNT: u32 = 0x4000_00B1;

const ENABLE: u64 = 1;
const PERIODIC: u64 = 1 << 1;
const AUTO_ENABLE: u64 = 1 << 3;
const DIRECT: u64 = 1 << 12;

const VECTOR: u8 = 0xD1;
const MS: u64 = 10_000;

/// How late an emulator on a busy host may be, in units of 100 ns.
const LATENESS: u64 = 1000 * MS;

/// Runs the group.
pub fn run(_: &Options, _: &Platform) {
    if !check(
        "stimer: the machine runs under Hyper-V's interface",
        clock::has_reference(),
    ) {
        return;
    }
    apic::notice_mode();
    apic::quiet();
    let cpu = cpu::this();
    for timer in 0..4 {
        one_shot(cpu, timer);
    }
    corners(cpu);
    blocked(cpu);
    periodic(cpu);
    together(cpu);
    for timer in 0..4 {
        stop(timer);
    }
    cpu.forget();
    apic::quiet();
}

fn config(timer: u32, flags: u64, vector: u8) {
    insn::wrmsr(
        CONFIG + 2 * timer,
        DIRECT | flags | (u64::from(vector) << 4),
    );
}

fn count(timer: u32, value: u64) {
    insn::wrmsr(COUNT + 2 * timer, value);
}

fn stop(timer: u32) {
    count(timer, 0);
    insn::wrmsr(CONFIG + 2 * timer, 0);
}

/// Lets interrupts in until `vector` came `times` times or `units` of 100 ns passed.
fn fires(cpu: &Cpu, vector: u8, times: u32, units: u64) -> bool {
    insn::sti();
    let fired = clock::wait_for(units / 10, || cpu.count(vector) >= times);
    insn::cli();
    fired
}

fn one_shot(cpu: &'static Cpu, timer: u32) {
    cpu.forget();
    config(timer, ENABLE | AUTO_ENABLE, VECTOR);
    check(
        format_args!("stimer{timer}: enabled with count 0, it is quiet"),
        !fires(cpu, VECTOR, 1, 5 * MS),
    );
    let due = clock::reference() + 10 * MS;
    count(timer, due);
    let fired = fires(cpu, VECTOR, 1, 10 * MS + LATENESS);
    let now = clock::reference();
    check(format_args!("stimer{timer}: one-shot fires"), fired);
    within(
        format_args!("stimer{timer}: not early, not much later"),
        now,
        due,
        due + LATENESS,
    );
    equal(
        format_args!("stimer{timer}: expired, it is not enabled"),
        insn::rdmsr(CONFIG + 2 * timer) & ENABLE,
        0,
    );
    check(
        format_args!("stimer{timer}: and does not fire again"),
        !fires(cpu, VECTOR, 2, 15 * MS),
    );
    // Auto-enable: the next count alone arms it.
    count(timer, clock::reference() + LATENESS);
    equal(
        format_args!("stimer{timer}: a count enables it again"),
        insn::rdmsr(CONFIG + 2 * timer) & ENABLE,
        ENABLE,
    );
    count(timer, clock::reference() + 5 * MS);
    check(
        format_args!("stimer{timer}: and it fires"),
        fires(cpu, VECTOR, 2, 5 * MS + LATENESS),
    );
    stop(timer);
}

fn corners(cpu: &'static Cpu) {
    cpu.forget();
    config(0, ENABLE | AUTO_ENABLE, VECTOR);
    count(0, clock::reference() - 5 * MS);
    check(
        "stimer: a count in the past fires at once",
        fires(cpu, VECTOR, 1, LATENESS),
    );
    count(0, clock::reference());
    check(
        "stimer: a count of now fires at once",
        fires(cpu, VECTOR, 2, LATENESS),
    );
    count(0, 1);
    check(
        "stimer: a count of 1 fires at once",
        fires(cpu, VECTOR, 3, LATENESS),
    );

    count(0, clock::reference() + 100 * MS);
    count(0, 0);
    check("stimer: count 0 stops it", !fires(cpu, VECTOR, 4, 120 * MS));

    config(0, ENABLE | AUTO_ENABLE, VECTOR);
    count(0, clock::reference() + 100 * MS);
    config(0, AUTO_ENABLE, VECTOR);
    check(
        "stimer: clearing enable stops it",
        !fires(cpu, VECTOR, 4, 120 * MS),
    );

    // Without auto-enable the count alone does nothing.
    config(0, 0, VECTOR);
    count(0, clock::reference() + 5 * MS);
    check(
        "stimer: without auto-enable a count does not enable",
        !fires(cpu, VECTOR, 4, 20 * MS),
    );
    config(0, ENABLE | AUTO_ENABLE, VECTOR);
    check(
        "stimer: enabled after its count has passed, it fires at once",
        fires(cpu, VECTOR, 4, LATENESS),
    );

    let due = clock::reference() + 3 * MS;
    count(0, due);
    insn::halt_once();
    equal("stimer: expiry wakes HLT", cpu.count(VECTOR).into(), 5);
    check("stimer: not before its time", clock::reference() >= due);

    count(0, clock::reference() + 100 * MS);
    count(0, clock::reference() + 3 * MS);
    check(
        "stimer: a new count replaces the old",
        fires(cpu, VECTOR, 6, 3 * MS + LATENESS),
    );
    check(
        "stimer: which is forgotten",
        !fires(cpu, VECTOR, 7, 120 * MS),
    );

    count(0, u64::MAX);
    check(
        "stimer: a count at the end of time does not fire",
        !fires(cpu, VECTOR, 7, 5 * MS),
    );
    stop(0);
    check("stimer: an enabled vector below 16 harms nobody", {
        // TLFS leaves open whether this is refused or never delivered.
        let refused =
            machine::probe::wrmsr(CONFIG, DIRECT | ENABLE | AUTO_ENABLE | (5 << 4)).is_err();
        if !refused {
            count(0, 1);
        }
        insn::sti();
        clock::spin(100);
        insn::cli();
        cpu.count(5) == 0
    });
    stop(0);
}

fn blocked(cpu: &'static Cpu) {
    cpu.forget();
    config(0, ENABLE | AUTO_ENABLE, VECTOR);
    let due = clock::reference() + 2 * MS;
    count(0, due);
    clock::spin(10_000);
    // An exit first, for Bochs' sake: see the APIC timer's test.
    check("stimer: its time has come", clock::reference() >= due);
    check(
        "stimer: expired with IF clear, it waits in IRR",
        apic::bit(apic::reg::IRR, VECTOR),
    );
    apic::write(apic::reg::TPR, 0xF0);
    check("stimer: TPR holds it back", !fires(cpu, VECTOR, 1, 5 * MS));
    apic::write(apic::reg::TPR, 0);
    check("stimer: and lets it in", fires(cpu, VECTOR, 1, LATENESS));
    stop(0);
}

fn periodic(cpu: &'static Cpu) {
    cpu.forget();
    config(1, ENABLE | PERIODIC, VECTOR);
    let start = clock::reference();
    count(1, MS);
    config(1, ENABLE | PERIODIC, VECTOR);
    let ticked = fires(cpu, VECTOR, 20, 20 * MS + LATENESS);
    let took = clock::reference() - start;
    check("stimer: 20 periods of 1 ms", ticked);
    within(
        "stimer: not early, not much later",
        took,
        20 * MS - MS / 10,
        20 * MS + LATENESS,
    );
    within(
        "stimer: no period too many",
        cpu.count(VECTOR).into(),
        20,
        took / MS + 1,
    );
    equal(
        "stimer: periodic stays enabled",
        insn::rdmsr(CONFIG + 2) & ENABLE,
        ENABLE,
    );
    stop(1);
    fires(cpu, VECTOR, u32::MAX, MS);
    let before = cpu.count(VECTOR);
    check(
        "stimer: stopped, it is quiet",
        !fires(cpu, VECTOR, before + 1, 10 * MS),
    );

    // A period too short to serve must not eat the processor.
    config(1, ENABLE | PERIODIC, VECTOR);
    count(1, 1);
    config(1, ENABLE | PERIODIC, VECTOR);
    let alive = fires(cpu, VECTOR, before + 10, LATENESS);
    stop(1);
    check("stimer: a period of 100 ns leaves the guest alive", alive);
}

fn together(cpu: &'static Cpu) {
    cpu.forget();
    let now = clock::reference();
    for timer in 0..4 {
        config(timer, ENABLE | AUTO_ENABLE, VECTOR + timer as u8);
        count(timer, now + (8 - u64::from(timer)) * 2 * MS);
    }
    let last = fires(cpu, VECTOR, 1, 20 * MS + LATENESS);
    let all = (0..4).all(|timer| cpu.count(VECTOR + timer) == 1);
    check("stimer: four timers at once fire once each", last && all);
    if !check(
        "stimer: in the order of their times",
        cpu.order_is(&[VECTOR + 3, VECTOR + 2, VECTOR + 1, VECTOR]),
    ) {
        equal("the order", cpu.order_digits(), 0);
    }
}
