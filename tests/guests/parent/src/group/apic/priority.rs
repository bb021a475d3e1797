//! Which interrupt comes when: task and processor priority, nesting, EOI, and destinations that mean this
//! processor.

use core::sync::atomic::{AtomicU32, Ordering};

use machine::apic::{self, icr, reg};
use machine::cpu::{self, Cpu};
use machine::verdict::{check, check_strict, equal};
use machine::{clock, insn};

const LOW: u8 = 0x41;
const MIDDLE: u8 = 0x51;
const HIGH: u8 = 0x61;
const HIGHEST: u8 = 0x71;

/// Stands for the end of an outer handler in the order of events.
const OUTER_ENDS: u8 = 1;

static SEEN_PPR: AtomicU32 = AtomicU32::new(0);
static SEEN_ISR: AtomicU32 = AtomicU32::new(0);
static SEEN_IRR: AtomicU32 = AtomicU32::new(0);

/// Runs these tests, interrupts off before and after.
pub fn run(mode: &str) {
    apic::quiet();
    in_service(mode);
    order(mode);
    task_priority(mode);
    nesting(mode);
    repetition(mode);
    waking(mode);
    destinations(mode);
    disabled(mode);
    cpu::this().forget();
}

fn self_ipi(vector: u8) {
    apic::command(0, icr::SELF | u32::from(vector));
}

/// Lets interrupts in for a moment: long enough for one that is on its way.
fn window() {
    insn::sti();
    clock::spin(20);
    insn::cli();
}

fn in_service(mode: &str) {
    fn look(_: &'static Cpu, vector: u8) {
        SEEN_PPR.store(apic::read(reg::PPR), Ordering::SeqCst);
        SEEN_ISR.store(apic::bit(reg::ISR, vector).into(), Ordering::SeqCst);
        SEEN_IRR.store(apic::bit(reg::IRR, vector).into(), Ordering::SeqCst);
        apic::end_of_interrupt();
    }
    let cpu = cpu::this();
    cpu.forget();
    cpu.set_hook(look);
    self_ipi(MIDDLE);
    check(
        format_args!("{mode}: a pending interrupt shows in IRR"),
        apic::bit(reg::IRR, MIDDLE),
    );
    equal(
        format_args!("{mode}: and waits for IF"),
        cpu.total().into(),
        0,
    );
    window();
    equal(
        format_args!("{mode}: it comes once"),
        cpu.count(MIDDLE).into(),
        1,
    );
    equal(
        format_args!("{mode}: PPR in its handler"),
        (SEEN_PPR.load(Ordering::SeqCst) & 0xF0).into(),
        0x50,
    );
    equal(
        format_args!("{mode}: ISR in its handler"),
        SEEN_ISR.load(Ordering::SeqCst).into(),
        1,
    );
    equal(
        format_args!("{mode}: IRR in its handler"),
        SEEN_IRR.load(Ordering::SeqCst).into(),
        0,
    );
    check(
        format_args!("{mode}: EOI clears ISR"),
        !apic::bit(reg::ISR, MIDDLE),
    );
    equal(
        format_args!("{mode}: PPR back at 0"),
        (apic::read(reg::PPR) & 0xF0).into(),
        0,
    );
    check(
        format_args!("{mode}: an IPI is edge-triggered in TMR"),
        !apic::bit(reg::TMR, MIDDLE),
    );
    let before = cpu.total();
    apic::end_of_interrupt();
    window();
    equal(
        format_args!("{mode}: EOI with nothing in service does nothing"),
        cpu.total().into(),
        before.into(),
    );
}

fn order(mode: &str) {
    let cpu = cpu::this();
    cpu.forget();
    for vector in [MIDDLE, HIGHEST, LOW, HIGH] {
        self_ipi(vector);
    }
    window();
    if !check(
        format_args!("{mode}: the highest vector comes first"),
        cpu.order_is(&[HIGHEST, HIGH, MIDDLE, LOW]),
    ) {
        equal("the order", cpu.order_digits(), 0x7161_5141_0000_0000);
    }
}

fn task_priority(mode: &str) {
    let cpu = cpu::this();
    cpu.forget();
    apic::write(reg::TPR, 0x50);
    self_ipi(MIDDLE);
    window();
    equal(
        format_args!("{mode}: TPR of the same class holds it back"),
        cpu.count(MIDDLE).into(),
        0,
    );
    self_ipi(HIGH);
    window();
    equal(
        format_args!("{mode}: a higher class passes"),
        cpu.count(HIGH).into(),
        1,
    );
    apic::write(reg::TPR, 0x4F);
    window();
    equal(
        format_args!("{mode}: a lower TPR lets it in"),
        cpu.count(MIDDLE).into(),
        1,
    );
    insn::write_cr8(15);
    self_ipi(HIGHEST);
    window();
    equal(
        format_args!("{mode}: CR8 = 15 holds everything back"),
        cpu.count(HIGHEST).into(),
        0,
    );
    insn::sti();
    insn::write_cr8(0);
    clock::spin(20);
    insn::cli();
    equal(
        format_args!("{mode}: CR8 = 0 with IF set lets it in"),
        cpu.count(HIGHEST).into(),
        1,
    );
}

fn nesting(mode: &str) {
    fn outer(cpu: &'static Cpu, vector: u8) {
        if vector == MIDDLE {
            self_ipi(LOW);
            self_ipi(HIGH);
            window();
            cpu.note(OUTER_ENDS);
        }
        if vector == HIGH {
            let both = apic::bit(reg::ISR, MIDDLE) && apic::bit(reg::ISR, HIGH);
            SEEN_ISR.store(both.into(), Ordering::SeqCst);
        }
        apic::end_of_interrupt();
        if vector == HIGH {
            // EOI retires the highest in service, not the first.
            let outer_left = apic::bit(reg::ISR, MIDDLE) && !apic::bit(reg::ISR, HIGH);
            SEEN_IRR.store(outer_left.into(), Ordering::SeqCst);
        }
    }
    let cpu = cpu::this();
    cpu.forget();
    cpu.set_hook(outer);
    self_ipi(MIDDLE);
    window();
    if !check(
        format_args!("{mode}: a handler is interrupted by a higher class only"),
        cpu.order_is(&[MIDDLE, HIGH, OUTER_ENDS, LOW]),
    ) {
        equal("the order", cpu.order_digits(), 0x5161_0141_0000_0000);
    }
    equal(
        format_args!("{mode}: both are in service"),
        SEEN_ISR.load(Ordering::SeqCst).into(),
        1,
    );
    equal(
        format_args!("{mode}: EOI ends the inner one"),
        SEEN_IRR.load(Ordering::SeqCst).into(),
        1,
    );
}

fn repetition(mode: &str) {
    fn again(cpu: &'static Cpu, vector: u8) {
        if cpu.count(vector) == 1 {
            self_ipi(vector);
            window();
            cpu.note(OUTER_ENDS);
        }
        apic::end_of_interrupt();
    }
    let cpu = cpu::this();
    cpu.forget();
    self_ipi(MIDDLE);
    self_ipi(MIDDLE);
    window();
    equal(
        format_args!("{mode}: two of a vector that is pending are one"),
        cpu.count(MIDDLE).into(),
        1,
    );
    cpu.forget();
    cpu.set_hook(again);
    self_ipi(MIDDLE);
    window();
    let order = cpu.order_is(&[MIDDLE, OUTER_ENDS, MIDDLE]);
    check(
        format_args!("{mode}: one of a vector in service comes after EOI"),
        order,
    );
}

fn waking(mode: &str) {
    let cpu = cpu::this();
    cpu.forget();
    self_ipi(MIDDLE);
    insn::halt_once();
    equal(
        format_args!("{mode}: a pending interrupt wakes HLT"),
        cpu.count(MIDDLE).into(),
        1,
    );
}

fn destinations(mode: &str) {
    let cpu = cpu::this();
    let x2apic = cpu.x2apic.load(Ordering::SeqCst);
    let arrives = |name: &str, destination: u32, low: u32, wanted: u32| {
        cpu.forget();
        apic::command(destination, low | u32::from(MIDDLE));
        window();
        equal(
            format_args!("{mode}: {name}"),
            cpu.count(MIDDLE).into(),
            wanted.into(),
        );
    };
    arrives("physical destination, own id", apic::id(), icr::FIXED, 1);
    if x2apic {
        let ldr = apic::read(reg::LDR);
        arrives("logical destination, own bit", ldr, icr::LOGICAL, 1);
        arrives(
            "logical destination, another cluster",
            ldr ^ 0x0F00_0000,
            icr::LOGICAL,
            0,
        );
        cpu.forget();
        apic::write(reg::SELF_IPI, MIDDLE.into());
        window();
        equal(
            format_args!("{mode}: SELF IPI register"),
            cpu.count(MIDDLE).into(),
            1,
        );
        return;
    }
    apic::write(reg::DFR, 0xFFFF_FFFF);
    apic::write(reg::LDR, 0x0400_0000);
    arrives("flat logical destination, own bit", 0x04, icr::LOGICAL, 1);
    arrives(
        "flat logical destination, own bit among others",
        0x84,
        icr::LOGICAL,
        1,
    );
    arrives(
        "flat logical destination, other bits",
        0x80,
        icr::LOGICAL,
        0,
    );
    apic::write(reg::DFR, 0x0FFF_FFFF);
    apic::write(reg::LDR, 0x2200_0000);
    arrives(
        "cluster destination, own cluster and bit",
        0x23,
        icr::LOGICAL,
        1,
    );
    arrives("cluster destination, another bit", 0x21, icr::LOGICAL, 0);
    arrives(
        "cluster destination, another cluster",
        0x12,
        icr::LOGICAL,
        0,
    );
    apic::write(reg::DFR, 0xFFFF_FFFF);
    apic::write(reg::LDR, 0x0100_0000);
    arrives(
        "lowest priority among one",
        0x01,
        icr::LOGICAL | icr::LOWEST,
        1,
    );
}

fn disabled(mode: &str) {
    let cpu = cpu::this();
    cpu.forget();
    apic::write(reg::SVR, u32::from(apic::SPURIOUS));
    self_ipi(MIDDLE);
    window();
    check_strict(
        format_args!("{mode}: software-disabled, nothing comes"),
        cpu.count(MIDDLE) == 0,
    );
    apic::quiet();
    window();
}
