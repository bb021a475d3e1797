//! A reference time at the end of what the clock can show: a child's timers are then wrong at most.

use machine::verdict::{check, note};
use machine::{clock, insn};
use tlfs::property::PropertyCode;

use super::{VECTOR, apic_on};
use crate::child::guest::Guest;
use crate::child::runtime::{self, Shared, eoi};
use crate::client::synic;
use crate::client::vp::PATIENCE;
use crate::group::{destroy, need};

/// Periods of all four timers, in units of 100 ns: the shortest, one not so short, and one without end.
const PERIODS: [u64; 4] = [1, 10_000, u64::MAX, 1 << 62];
/// What the parent waits, in microseconds, and what that may take.
const WAIT: u64 = 50_000;
const LATE: u64 = 1_000_000;

/// Starts periodic timers, and counts.
extern "sysv64" fn count(shared: &'static Shared) -> ! {
    apic_on(shared, eoi::X2APIC);
    for (timer, period) in (0..).zip(PERIODS) {
        runtime::wrmsr(0x4000_00B0 + 2 * timer, 0b1011 | VECTOR << 4 | 1 << 12);
        runtime::wrmsr(0x4000_00B1 + 2 * timer, period);
    }
    insn::sti();
    loop {
        shared.set(0, shared.result(0) + 1);
        shared.set(1, runtime::rdmsr(0x4000_0020));
    }
}

/// Sets the time while such a child runs.
pub fn far_time() {
    let Some(mut guest) = need("far time: a child", Guest::new(1)) else {
        return;
    };
    let Some(mut other) = need("far time: another", Guest::new(1)) else {
        return;
    };
    need("far time: start", guest.start_entry(0, count, &[]));
    need("far time: start", other.start_entry(0, count, &[]));
    need("far time: go", guest.resume(0));
    need("far time: go", other.resume(0));
    let moves = |guest: &Guest| {
        let before = guest.shared(0).result(0);
        synic::sleep_until(PATIENCE, || guest.shared(0).result(0) != before)
    };
    check("far time: both run", moves(&guest) && moves(&other));
    for time in [
        i64::MAX as u64 - 100_000,
        i64::MAX as u64,
        u64::MAX,
        1 << 63,
        0,
    ] {
        let set = guest.set_property(PropertyCode::REFERENCE_TIME, time);
        note(format_args!("far time: {time:#x}: {set:?}"));
        let start = clock::reference();
        synic::sleep(WAIT);
        let took = (clock::reference() - start) / 10;
        check(
            format_args!("far time: {time:#x}: the parent is not late # {took} us"),
            took < WAIT + LATE,
        );
        check(
            format_args!("far time: {time:#x}: the other child goes on"),
            moves(&other),
        );
        check(
            format_args!("far time: {time:#x}: the child goes on"),
            moves(&guest),
        );
        need("far time: it can be stopped", guest.suspend(0));
        need("far time: and goes on", guest.resume(0));
    }
    need("far time: stop", other.suspend(0));
    destroy("far time", guest);
    destroy("far time: the other", other);
}
