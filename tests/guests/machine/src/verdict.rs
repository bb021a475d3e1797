//! TAP version 13 on COM1, and the way out of the machine.

use core::fmt::{Arguments, Display, Write};
use core::sync::atomic::{AtomicU32, Ordering};

use uefi::Status;
use uefi::runtime::{ResetType, reset};

use crate::console::{Com1, line};
use crate::{clock, insn};

/// QEMU's isa-debug-exit device: the exit status is twice the value plus one.
const DEBUG_EXIT: u16 = 0xF4;
const PASS: u32 = 0x10;
const FAIL: u32 = 0x11;

static RUN: AtomicU32 = AtomicU32::new(0);
static FAILED: AtomicU32 = AtomicU32::new(0);

/// Opens the report.
pub fn begin() {
    Com1::set_up();
    line(format_args!("TAP version 13"));
}

/// Reports one test.
pub fn check(name: impl Display, holds: bool) -> bool {
    report(holds, format_args!("{name}"));
    holds
}

/// Reports one test of equality; a failure shows both values.
pub fn equal(name: impl Display, got: u64, wanted: u64) -> bool {
    let holds = got == wanted;
    if holds {
        report(true, format_args!("{name}"));
    } else {
        report(
            false,
            format_args!("{name} # got {got:#x}, wanted {wanted:#x}"),
        );
    }
    holds
}

/// Reports that `value` lies in `low..=high`.
pub fn within(name: impl Display, value: u64, low: u64, high: u64) -> bool {
    let holds = value >= low && value <= high;
    if holds {
        report(true, format_args!("{name}"));
    } else {
        report(
            false,
            format_args!("{name} # got {value}, wanted {low} to {high}"),
        );
    }
    holds
}

/// Reports one test of a rule that bare emulators are known to break: on the bare machine a failure is a skip.
pub fn check_strict(name: impl Display, holds: bool) -> bool {
    if holds || clock::has_reference() {
        return check(name, holds);
    }
    skip(name, "this bare machine does otherwise");
    false
}

/// Reports a test that this machine cannot run.
pub fn skip(name: impl Display, why: impl Display) {
    let number = RUN.fetch_add(1, Ordering::SeqCst) + 1;
    line(format_args!("ok {number} - {name} # SKIP {why}"));
}

/// Writes a line that is no result.
pub fn note(text: Arguments<'_>) {
    line(format_args!("# {text}"));
}

fn report(holds: bool, text: Arguments<'_>) {
    let number = RUN.fetch_add(1, Ordering::SeqCst) + 1;
    let word = if holds { "ok" } else { "not ok" };
    line(format_args!("{word} {number} - {text}"));
    if !holds {
        FAILED.fetch_add(1, Ordering::SeqCst);
    }
}

/// Closes the report and leaves the machine.
pub fn finish() -> ! {
    let (run, failed) = (RUN.load(Ordering::SeqCst), FAILED.load(Ordering::SeqCst));
    line(format_args!("1..{run}"));
    note(format_args!("{failed} of {run} failed"));
    leave(run != 0 && failed == 0)
}

/// Ends the run at once, as a failure.
pub fn bail_out(why: Arguments<'_>) -> ! {
    line(format_args!("Bail out! {why}"));
    leave(false)
}

fn leave(pass: bool) -> ! {
    line(format_args!(
        "# verdict: {}",
        if pass { "pass" } else { "fail" }
    ));
    Com1::flush();
    insn::cli();
    insn::out32(DEBUG_EXIT, if pass { PASS } else { FAIL });
    // Still here: there is no such device.
    reset(ResetType::SHUTDOWN, Status::SUCCESS, None)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let mut port = Com1;
    let _ = port.write_str("\n");
    bail_out(format_args!("{info}"))
}
