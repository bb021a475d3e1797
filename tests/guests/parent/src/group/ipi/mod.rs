//! The other processors: started by hand through INIT and SIPI, then sent every kind of interrupt.
//!
//! The firmware's own start-up services are dead afterwards.

mod send;
mod start;

use x86::cpuid::leaf1_ecx;
use x86::msr::{IA32_APIC_BASE, apic_base};

use crate::options::Options;
use machine::cpu::{self, MAX_CPUS};
use machine::platform::Platform;
use machine::verdict::{check, equal, skip};
use machine::{apic, insn, smp, trampoline};

/// The processors of one run: numbers 1 to `count` are those started.
pub struct Others {
    /// How many.
    pub count: usize,
    /// The page with the start-up code.
    pub page: u64,
}

impl Others {
    /// The numbers of the processors.
    pub fn all(&self) -> core::ops::RangeInclusive<usize> {
        1..=self.count
    }

    /// Vector of the SIPI that starts at the page.
    pub fn sipi(&self) -> u32 {
        apic::icr::STARTUP | (self.page >> 12) as u32
    }
}

/// Runs the group.
pub fn run(_: &Options, platform: &Platform) {
    apic::notice_mode();
    apic::quiet();
    let own = apic::id();
    let ids = platform.processors().iter().filter(|id| **id != own);
    let count = ids.clone().count().min(MAX_CPUS - 1);
    if count == 0 {
        skip("ipi", "the machine has one processor");
        return;
    }
    if platform.trampoline == 0 {
        check("ipi: there is a page below 1 MiB", false);
        return;
    }
    let others = Others {
        count,
        page: platform.trampoline,
    };
    trampoline::install(others.page);
    let mut started = true;
    for (number, id) in others.all().zip(ids.clone()) {
        started &= start::one("xAPIC", &others, number, *id);
    }
    if !started {
        return;
    }
    equal(
        "ipi: each processor has its own id",
        distinct(&others),
        count as u64 + 1,
    );
    start::clocks(&others);
    send::run("xAPIC", &others);
    start::corners("xAPIC", &others);
    start::broadcast("xAPIC", &others);
    send::run("xAPIC, restarted", &others);

    if insn::cpuid(1, 0).ecx & leaf1_ecx::X2APIC == 0 {
        skip("ipi: x2APIC mode", "the processor has none");
        park(&others);
        return;
    }
    crate::group::apic::enter_x2apic();
    send::mixed(&others);
    for number in others.all() {
        equal(
            "x2APIC: a processor switches",
            smp::on(number, to_x2apic, 0).unwrap_or(0),
            apic_base::EXTD,
        );
    }
    send::run("x2APIC", &others);
    start::corners("x2APIC", &others);
    start::broadcast("x2APIC", &others);
    send::run("x2APIC, restarted", &others);
    cpu::this().forget();
    park(&others);
}

/// Halts the others, so that they take no time from an emulator during the groups that follow.
fn park(others: &Others) {
    for number in others.all() {
        smp::ask(
            number,
            |_| loop {
                insn::halt_forever();
            },
            0,
        );
    }
}

/// Switches the calling processor, and returns the mode bit.
fn to_x2apic(_: u64) -> u64 {
    let base = insn::rdmsr(IA32_APIC_BASE);
    insn::wrmsr(IA32_APIC_BASE, base | apic_base::EXTD);
    apic::notice_mode();
    insn::rdmsr(IA32_APIC_BASE) & apic_base::EXTD
}

fn distinct(others: &Others) -> u64 {
    let ids = |number: usize| {
        if number == 0 {
            apic::id()
        } else {
            smp::apic_id(number)
        }
    };
    (0..=others.count)
        .filter(|a| (0..*a).all(|b| ids(b) != ids(*a)))
        .count() as u64
}
