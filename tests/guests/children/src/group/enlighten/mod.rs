//! What a child is offered to run well: clocks, timers, pages, the SynIC.

mod assist;
mod clocks;
mod doorbell;
mod far_time;
mod talk;
mod timers;

use core::sync::atomic::Ordering;

use machine::platform::Platform;
use machine::verdict::{equal, note};
use machine::{clock, insn};
use tlfs::MessageType;

use super::{destroy, need, stopped};
use crate::child::guest::Guest;
use crate::child::runtime::{self, Shared};
use crate::client::vp::PATIENCE;
use crate::options::Options;
use assist::{assist, crash, crash_registers};
use clocks::clocks;
use talk::synic_of_child;
use timers::{timer_state, timers};

const REFERENCE: u32 = 0x4000_0020;
const VECTOR: u64 = 0x71;

/// Runs the group.
pub fn run(_: &Options, _: &Platform) {
    program(
        "clocks",
        clocks,
        &[],
        &[
            ("the hypercall page holds a call and a return", 0, 1),
            ("the reference counter moves", 1, 1),
            ("the TSC page has a sequence and a scale", 2, 1),
            (
                "the TSC page agrees with the counter, a thousand times",
                3,
                1000,
            ),
            ("the VP's index", 4, 0),
            ("the TSC's frequency is told", 5, 1),
            ("the APIC timer's frequency is told", 6, 1),
            ("the hypercall page is not written", 7, 1),
            ("a call through the page", 8, 0),
            ("the invariant TSC can be asked for", 9, 1),
        ],
    );
    program(
        "timers",
        timers,
        &[clock::ticks(1_000_000)],
        &[
            ("direct mode, one shot", 0, 1),
            ("and not before its time", 1, 1),
            ("direct mode, periodic, ten times", 2, 1),
            ("a message", 3, 1),
            ("its type", 4, MessageType::TIMER_EXPIRED.0.into()),
            ("its timer", 5, 1),
            ("with the slot busy the next waits", 6, 1),
            ("and comes at EOM", 7, 1),
            ("the APIC's own timer, one shot", 8, 1),
            ("the APIC's own timer by deadline", 9, 1),
            ("a lazy timer comes too", 10, 1),
            ("a stopped timer is quiet", 11, 0),
        ],
    );
    program(
        "assist",
        assist,
        &[clock::ticks(1_000_000)],
        &[
            ("interrupts by the MSR of the ICR", 0, 100),
            ("the assist page is a page of the child", 1, 0x5A5A),
            ("TPR by MSR holds an interrupt back", 2, 0),
            ("and lets it through", 3, 1),
        ],
    );
    program("crash", crash, &[], &[("capabilities", 0, 3 << 62)]);
    crash_registers();
    synic_of_child();
    timer_state();
    far_time::far_time();
}

/// Runs `entry` on a child of its own and compares what it leaves.
fn program(name: &str, entry: runtime::Entry, args: &[u64], wanted: &[(&str, usize, u64)]) {
    let Some(mut guest) = need(format_args!("{name}: a child"), Guest::new(1)) else {
        return;
    };
    need(
        format_args!("{name}: start"),
        guest.start_entry(0, entry, args),
    );
    let stop = guest.run_for(0, 4 * PATIENCE);
    if stopped(format_args!("{name}: runs to its end"), stop).is_some() {
        for (what, n, value) in wanted {
            equal(
                format_args!("{name}: {what}"),
                guest.shared(0).result(*n),
                *value,
            );
        }
        let extra = guest.shared(0).result(127);
        if extra != 0 {
            note(format_args!("{name}: {extra:#x}"));
        }
    }
    destroy(name, guest);
}

fn apic_on(shared: &Shared, how: u64) {
    shared.eoi.store(how, Ordering::SeqCst);
    runtime::wrmsr(0x1B, runtime::rdmsr(0x1B) | 1 << 10);
    runtime::wrmsr(0x80F, 0x1FF);
    insn::sti();
}
