//! What the common exits cost, in TSC ticks: instructions on Bochs and with QEMU's `-icount`.
//!
//! One line per operation: `# bench NAME TICKS`, the average of 1000 runs; `# bench NAME.min TICKS` is the
//! fastest. The ticks of an empty measurement are taken off.
#![expect(
    unsafe_code,
    reason = "the hypercall page is called through its address"
)]

use core::sync::atomic::Ordering;

use x86::msr::{IA32_APIC_BASE, apic_base};

use crate::group::hypercall::page::{self, Page};
use crate::options::Options;
use machine::mark::mark;
use machine::platform::Platform;
use machine::verdict::{check, note, skip};
use machine::{apic, cpu, insn, probe};

const RUNS: u64 = 1000;
const TIME_REF_COUNT: u32 = 0x4000_0020;
const NOTIFY_LONG_SPIN_WAIT: u64 = 0x8;
const FAST: u64 = 1 << 16;
const SELF_VECTOR: u32 = 0x51;

/// Runs the group.
pub fn run(_: &Options, _: &Platform) {
    apic::notice_mode();
    let empty = measure(0, || {}).0;
    report("cpuid", empty, || {
        insn::cpuid(0x4000_0000, 0);
    });
    report("port-read", empty, || {
        insn::in8(0x80);
    });
    if probe::rdmsr(TIME_REF_COUNT).is_ok_and(|count| count != 0) {
        report("msr-read", empty, || {
            insn::rdmsr(TIME_REF_COUNT);
        });
    } else {
        skip("bench msr-read", "no reference counter");
    }
    hypercall(empty);
    apic::quiet();
    if cpu::this().x2apic.load(Ordering::SeqCst) {
        skip(
            "bench of xAPIC mode",
            "a group before this one left the mode",
        );
    } else {
        report("eoi-xapic", empty, apic::end_of_interrupt);
        report("self-ipi-xapic", empty, || {
            apic::write(apic::reg::ICR_LOW, apic::icr::SELF | SELF_VECTOR);
            insn::sti();
            insn::cli();
        });
    }
    if insn::cpuid(1, 0).ecx & x86::cpuid::leaf1_ecx::X2APIC != 0 {
        let base = insn::rdmsr(IA32_APIC_BASE);
        insn::wrmsr(IA32_APIC_BASE, base | apic_base::EXTD);
        apic::notice_mode();
        report("eoi-x2apic", empty, apic::end_of_interrupt);
        report("self-ipi-x2apic", empty, || {
            apic::write(apic::reg::SELF_IPI, SELF_VECTOR);
            insn::sti();
            insn::cli();
        });
        // No way back: Bochs' own APIC would stay disabled. This group is the last.
    } else {
        skip("bench eoi-x2apic", "no x2APIC");
    }
    check(
        "bench: the machine survived",
        cpu::this().count(SELF_VECTOR as u8) > 0,
    );
}

fn hypercall(empty: u64) {
    let Some(address) = page::enable() else {
        skip("bench hypercall", "no hypercall page");
        return;
    };
    // The slow form takes its eight bytes of input from memory.
    static INPUT: Page = Page::new();
    report("hypercall", empty, || {
        call(address, NOTIFY_LONG_SPIN_WAIT | FAST, 0);
    });
    report("hypercall-slow", empty, || {
        call(address, NOTIFY_LONG_SPIN_WAIT, INPUT.address());
    });
    page::disable();
}

fn call(address: u64, control: u64, input: u64) {
    // SAFETY: the page holds VMCALL or VMMCALL and a return; the call reads memory at most and changes RAX.
    unsafe {
        core::arch::asm!(
            "call {}",
            in(reg) address,
            inout("rcx") control => _,
            inout("rdx") input => _,
            out("rax") _,
            out("r8") _,
            out("r9") _,
            out("r10") _,
            out("r11") _,
        );
    }
}

fn report(name: &str, empty: u64, operation: impl FnMut()) {
    mark(name);
    let (min, average) = measure(empty, operation);
    mark(name);
    note(format_args!("bench {name} {average}"));
    note(format_args!("bench {name}.min {min}"));
}

fn measure(empty: u64, mut operation: impl FnMut()) -> (u64, u64) {
    let (mut min, mut sum) = (u64::MAX, 0);
    for _ in 0..RUNS {
        let start = insn::rdtsc();
        operation();
        let ticks = insn::rdtsc().wrapping_sub(start).saturating_sub(empty);
        min = min.min(ticks);
        sum += ticks;
    }
    (min, sum / RUNS)
}
