//! Message and event pages, and timers that post messages (TLFS, "Synthetic Interrupt Controller").

use crate::group::hypercall::page::Page;
use crate::options::Options;
use machine::cpu::Cpu;
use machine::platform::Platform;
use machine::verdict::{check, equal, within};
use machine::{apic, clock, cpu, insn};

const SCONTROL: u32 = 0x4000_0080;
const SIEFP: u32 = 0x4000_0082;
const SIMP: u32 = 0x4000_0083;
const EOM: u32 = 0x4000_0084;
const SINT0: u32 = 0x4000_0090;
const STIMER0_CONFIG: u32 = 0x4000_00B0;
const STIMER0_COUNT: u32 = 0x4000_00B1;

const MASKED: u64 = 1 << 16;
const SINT: u32 = 3;
const SLOT: usize = SINT as usize * 256;
const VECTOR: u8 = 0xC3;

const TIMER_EXPIRED: u64 = 0x8000_0010;
const MESSAGE_PENDING: u64 = 1 << 40;
const MS: u64 = 10_000;
const LATENESS: u64 = 1_000_000;

static MESSAGES: Page = Page::new();
static OTHER: Page = Page::new();
static EVENTS: Page = Page::new();

/// Runs the group.
pub fn run(_: &Options, _: &Platform) {
    if !check(
        "synic: the machine runs under Hyper-V's interface",
        clock::has_reference(),
    ) {
        return;
    }
    apic::notice_mode();
    apic::quiet();
    let cpu = cpu::this();
    cpu.forget();
    pages();
    timer_message(cpu);
    busy_slot(cpu);
    masked(cpu);
    for (msr, value) in [(SINT0 + SINT, MASKED), (SIMP, 0), (SIEFP, 0), (SCONTROL, 0)] {
        insn::wrmsr(msr, value);
    }
    cpu.forget();
    apic::quiet();
}

fn pages() {
    MESSAGES.fill(0);
    EVENTS.fill(0);
    OTHER.fill(0);
    insn::wrmsr(SIMP, MESSAGES.address() | 1);
    insn::wrmsr(SIEFP, EVENTS.address() | 1);
    MESSAGES.set(0x800, 0x5A5A);
    EVENTS.set(0x800, 0xA5A5);
    equal(
        "synic: the guest can write the message page",
        MESSAGES.word(0x800),
        0x5A5A,
    );
    equal(
        "synic: the guest can write the event page",
        EVENTS.word(0x800),
        0xA5A5,
    );
    MESSAGES.set(0x800, 0);
    EVENTS.set(0x800, 0);
    // A crash kernel sets a new page while the old one is still enabled. Whether the contents move along is left
    // open; that the guest can use the new page is not.
    insn::wrmsr(SIMP, OTHER.address() | 1);
    OTHER.set(0x800, 1);
    equal(
        "synic: pages can be replaced while enabled",
        OTHER.word(0x800),
        1,
    );
    OTHER.set(0x800, 0);
    insn::wrmsr(SIMP, MESSAGES.address() | 1);
    equal("synic: and replaced back", MESSAGES.word(0x800), 0);
    insn::wrmsr(SINT0 + SINT, u64::from(VECTOR));
    insn::wrmsr(SCONTROL, 1);
}

/// Arms timer 1, one-shot, to post to [`SINT`].
fn post_in(units: u64) -> u64 {
    // Enable, auto-enable, SINT number in bits 19:16.
    insn::wrmsr(STIMER0_CONFIG + 2, 0x9 | (u64::from(SINT) << 16));
    let due = clock::reference() + units;
    insn::wrmsr(STIMER0_COUNT + 2, due);
    due
}

fn arrives(cpu: &Cpu, times: u32) -> bool {
    insn::sti();
    let came = clock::wait_for(LATENESS, || cpu.count(VECTOR) >= times);
    insn::cli();
    came
}

fn timer_message(cpu: &'static Cpu) {
    cpu.forget();
    let due = post_in(5 * MS);
    check("synic: a timer's message interrupts", arrives(cpu, 1));
    equal(
        "synic: its type",
        MESSAGES.word(SLOT) & 0xFFFF_FFFF,
        TIMER_EXPIRED,
    );
    equal("synic: its size", (MESSAGES.word(SLOT) >> 32) & 0xFF, 24);
    equal(
        "synic: none pending behind it",
        MESSAGES.word(SLOT) & MESSAGE_PENDING,
        0,
    );
    equal(
        "synic: its timer",
        MESSAGES.word(SLOT + 16) & 0xFFFF_FFFF,
        1,
    );
    equal("synic: its time of expiry", MESSAGES.word(SLOT + 24), due);
    let now = clock::reference();
    within(
        "synic: its time of delivery",
        MESSAGES.word(SLOT + 32),
        due,
        now,
    );
    let elsewhere = (0..16)
        .filter(|slot| *slot != SINT as usize && MESSAGES.word(slot * 256) != 0)
        .count();
    equal("synic: the other slots are empty", elsewhere as u64, 0);
}

fn busy_slot(cpu: &'static Cpu) {
    // The first message still lies in the slot.
    cpu.forget();
    let first = MESSAGES.word(SLOT + 24);
    let due = post_in(2 * MS);
    clock::spin(20_000);
    insn::sti();
    clock::spin(100);
    insn::cli();
    equal(
        "synic: a busy slot keeps its message",
        MESSAGES.word(SLOT + 24),
        first,
    );
    check(
        "synic: and says that another waits",
        MESSAGES.word(SLOT) & MESSAGE_PENDING != 0,
    );
    equal("synic: without an interrupt", cpu.count(VECTOR).into(), 0);
    MESSAGES.set(SLOT, MESSAGES.word(SLOT) & !0xFFFF_FFFF);
    insn::wrmsr(EOM, 0);
    check("synic: end of message brings it", arrives(cpu, 1));
    equal("synic: the second message", MESSAGES.word(SLOT + 24), due);
    equal(
        "synic: with none behind it",
        MESSAGES.word(SLOT) & MESSAGE_PENDING,
        0,
    );
    MESSAGES.set(SLOT, 0);
    insn::wrmsr(EOM, 0);
    insn::sti();
    clock::spin(1000);
    insn::cli();
    equal(
        "synic: end of message with nothing waiting is quiet",
        cpu.count(VECTOR).into(),
        1,
    );
}

fn masked(cpu: &'static Cpu) {
    cpu.forget();
    insn::wrmsr(SINT0 + SINT, MASKED | u64::from(VECTOR));
    let due = post_in(2 * MS);
    clock::spin(20_000);
    insn::sti();
    clock::spin(100);
    insn::cli();
    equal(
        "synic: a masked source does not interrupt",
        cpu.count(VECTOR).into(),
        0,
    );
    insn::wrmsr(SINT0 + SINT, u64::from(VECTOR));
    // The message was queued (TLFS), or is delivered when the source is unmasked at the latest.
    check(
        "synic: unmasked, the message arrives",
        arrives(cpu, 1) || MESSAGES.word(SLOT + 24) == due,
    );
    MESSAGES.set(SLOT, 0);
    insn::wrmsr(EOM, 0);
    insn::wrmsr(STIMER0_COUNT + 2, 0);
    insn::wrmsr(STIMER0_CONFIG + 2, 0);
}
