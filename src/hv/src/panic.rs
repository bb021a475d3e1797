//! The end: stop every LP, write the record, halt or reset.
//!
//! The record names file and line of the panic, or the registers of an exception, and the return addresses on the
//! stack. `docs/panic.md` tells how to turn addresses into lines.
#![expect(
    unsafe_code,
    reason = "walks the frame pointers of a stack that may be damaged"
)]

use core::fmt::Write;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use bootinfo::{LP_AREA_BASE, PanicAction};
use spin::Once;

use crate::arch::x86::idt::{Frame, GP_NAMES};
use crate::arch::x86::{insn, local_apic, lp};
use crate::{console, power};

/// A panic is under way: every other LP stops at its next NMI or exit.
static STOPPING: AtomicBool = AtomicBool::new(false);
/// APIC identifier of the LP that writes the record.
static RECORDING: AtomicU32 = AtomicU32::new(u32::MAX);
static STOPPED: AtomicU64 = AtomicU64::new(0);
static ACTION: Once<PanicAction> = Once::new();

/// Most return addresses in the record.
const BACKTRACE: usize = 32;
/// Rounds of waiting for the other LPs to stop.
const STOP_ATTEMPTS: u32 = 10_000_000;

/// Sets what happens after the record.
pub fn init(action: PanicAction) {
    ACTION.call_once(|| action);
}

/// Halts this LP if another one panicked.
pub fn stop_if_asked() {
    if STOPPING.load(Ordering::Acquire) {
        STOPPED.fetch_add(1, Ordering::AcqRel);
        insn::stop();
    }
}

/// An exception in the hypervisor that no code foresaw.
pub fn exception(frame: &Frame) -> ! {
    record(frame.rip, frame.gp[8], |out| {
        let _ = writeln!(
            out,
            "exception {} error {:#x} rip {:#018x} cs {:#x} rflags {:#x} rsp {:#018x} cr2 {:#x}",
            frame.vector,
            frame.error_code,
            frame.rip,
            frame.cs,
            frame.rflags,
            frame.rsp,
            insn::read_cr2()
        );
        for (names, values) in GP_NAMES.chunks(4).zip(frame.gp.chunks(4)) {
            for (name, value) in names.iter().zip(values) {
                let _ = write!(out, "{name:>4} {value:#018x}");
            }
            let _ = writeln!(out);
        }
    })
}

#[cfg_attr(target_os = "none", panic_handler)]
fn panicked(info: &PanicInfo<'_>) -> ! {
    let frame: u64;
    // SAFETY: reads the frame pointer.
    unsafe { core::arch::asm!("mov {}, rbp", out(reg) frame, options(nomem, nostack)) };
    record(0, frame, |out| {
        let _ = writeln!(out, "{info}");
    })
}

fn record(rip: u64, frame_pointer: u64, write: impl FnOnce(&mut console::Sink)) -> ! {
    if STOPPING.swap(true, Ordering::AcqRel) {
        // A second panic: of another LP, which the first one resets too, or inside the record of the first.
        if lp::try_current().is_none_or(|me| RECORDING.load(Ordering::Acquire) == me.apic_id.get())
            && ACTION.get() == Some(&PanicAction::RESET)
        {
            power::reset();
        }
        STOPPED.fetch_add(1, Ordering::AcqRel);
        insn::stop();
    }
    RECORDING.store(
        lp::try_current().map_or(0, |me| me.apic_id.get()),
        Ordering::Release,
    );
    let running = stop_others();
    let mut out = console::emergency();
    let _ = writeln!(
        out,
        "\n=== verdigris: hypervisor panic on lp{} ===",
        lp::index_or_boot()
    );
    let _ = writeln!(out, "version {}", env!("CARGO_PKG_VERSION"));
    write(&mut out);
    let _ = write!(out, "backtrace");
    if rip != 0 {
        let _ = write!(out, " {rip:#x}");
    }
    backtrace(frame_pointer, |address| {
        let _ = write!(out, " {address:#x}");
    });
    let _ = writeln!(out, "\n{running} LPs did not stop");
    let _ = writeln!(out, "=== end of panic record ===");
    if ACTION.get() == Some(&PanicAction::RESET) {
        power::reset();
    }
    insn::stop()
}

/// Sends every other launched LP an NMI and waits, boundedly; gives the number that did not stop.
fn stop_others() -> u64 {
    let others = lp::launched().saturating_sub(1);
    let Some(me) = lp::try_current() else {
        return others;
    };
    for other in lp::all() {
        if other.apic_id != me.apic_id && other.is_launched() {
            local_apic::emergency_nmi(other.apic_id);
        }
    }
    for _ in 0..STOP_ATTEMPTS {
        if STOPPED.load(Ordering::Acquire) >= others {
            break;
        }
        core::hint::spin_loop();
    }
    others.saturating_sub(STOPPED.load(Ordering::Acquire))
}

/// Return addresses from the chain of frame pointers, as far as it stays in the LP stacks and rises.
fn backtrace(mut frame: u64, mut each: impl FnMut(u64)) {
    for _ in 0..BACKTRACE {
        if !(LP_AREA_BASE..LP_AREA_BASE + (1 << 32)).contains(&frame)
            || !frame.is_multiple_of(8)
            || frame % 4096 > 4096 - 16
        {
            return;
        }
        // SAFETY: an aligned pair of words inside one page of the stack area, which the frame's own code has just
        // used; a damaged chain that leaves the mapped part faults into the second-panic path above.
        let [next, address] = unsafe { (frame as *const [u64; 2]).read() };
        if address == 0 {
            return;
        }
        each(address);
        if next <= frame {
            return;
        }
        frame = next;
    }
}
