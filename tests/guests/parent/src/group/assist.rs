//! The VP assist page: interrupts that end without an exit (TLFS, "EOI Assist").

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::options::Options;
use machine::apic::{self, icr};
use machine::cpu::{self, Cpu};
use machine::page::Page;
use machine::platform::Platform;
use machine::verdict::{check, equal};
use machine::{clock, insn};

const VP_ASSIST_PAGE: u32 = 0x4000_0073;
const STIMER_CONFIG: u32 = 0x4000_00B0;
const STIMER_COUNT: u32 = 0x4000_00B1;
/// Enabled by its count, direct mode.
const ARMED_BY_COUNT: u64 = 1 << 3 | 1 << 12;
const MS: u64 = 10_000;

/// Of the class above the timer's.
const HIGH: u8 = 0xE5;
const TIMER: u8 = 0xD5;

static PAGE: Page = Page::new();
/// The bit was there when the handler of [`HIGH`] began.
static WAS_OFFERED: AtomicBool = AtomicBool::new(false);
/// And when it was over.
static WAS_LEFT: AtomicBool = AtomicBool::new(false);
/// TSC until which that handler stays.
static UNTIL: AtomicU64 = AtomicU64::new(0);

/// Runs the group.
pub fn run(_: &Options, _: &Platform) {
    if !check(
        "assist: the machine runs under Hyper-V's interface",
        clock::has_reference(),
    ) {
        return;
    }
    apic::notice_mode();
    apic::quiet();
    let cpu = cpu::this();
    // What firmware left behind comes first.
    insn::sti();
    clock::spin(1000);
    insn::cli();
    insn::wrmsr(VP_ASSIST_PAGE, PAGE.address() | 1);
    alone(cpu);
    due_in_between(cpu);
    insn::wrmsr(VP_ASSIST_PAGE, 0);
    insn::wrmsr(STIMER_CONFIG, 0);
    cpu.forget();
    apic::quiet();
}

/// Ends as the TLFS says: by the bit where it is there, else by the register.
fn end() -> bool {
    let is_left = PAGE.clear_bit(0);
    if !is_left {
        apic::end_of_interrupt();
    }
    is_left
}

fn handler(_: &'static Cpu, vector: u8) {
    if vector != HIGH {
        end();
        return;
    }
    WAS_OFFERED.store(PAGE.word(0) & 1 != 0, Ordering::SeqCst);
    // What comes meanwhile waits by its priority. Without an exit of our own.
    insn::sti();
    while insn::rdtsc() < UNTIL.load(Ordering::SeqCst) {}
    insn::cli();
    WAS_LEFT.store(end(), Ordering::SeqCst);
}

/// Takes [`HIGH`], whose handler lasts `us` microseconds.
fn take_high(cpu: &'static Cpu, us: u64) {
    cpu.forget();
    cpu.set_hook(handler);
    UNTIL.store(insn::rdtsc() + clock::ticks(us), Ordering::SeqCst);
    apic::command(0, icr::SELF | u32::from(HIGH));
    insn::sti();
    clock::wait_for(1_000_000, || cpu.count(HIGH) != 0);
    insn::cli();
}

fn alone(cpu: &'static Cpu) {
    for time in 1..=2 {
        take_high(cpu, 0);
        equal(
            format_args!("assist: interrupt {time} comes"),
            cpu.count(HIGH).into(),
            1,
        );
        check(
            "assist: it may be ended by the bit",
            WAS_OFFERED.load(Ordering::SeqCst) && WAS_LEFT.load(Ordering::SeqCst),
        );
    }
    check(
        "assist: and is not in service any more",
        !apic::bit(apic::reg::ISR, HIGH),
    );
}

/// A timer expires in the handler of an interrupt of a higher class. Nothing else exits afterwards.
fn due_in_between(cpu: &'static Cpu) {
    insn::wrmsr(STIMER_CONFIG, ARMED_BY_COUNT | u64::from(TIMER) << 4);
    insn::wrmsr(STIMER_COUNT, clock::reference() + 100 * MS);
    take_high(cpu, 300_000);
    check(
        "assist: the bit was there before the timer's time",
        WAS_OFFERED.load(Ordering::SeqCst),
    );
    check(
        "assist: and was taken back when it came",
        !WAS_LEFT.load(Ordering::SeqCst),
    );
    insn::sti();
    let fired = clock::wait_for(200_000, || cpu.count(TIMER) != 0);
    insn::cli();
    check("assist: the timer's interrupt comes next", fired);
}
