//! What takes two processors: an IPI to a VP that runs.

use core::sync::atomic::Ordering;

use machine::insn;
use machine::mark::mark;
use machine::verdict::{check, note};
use tlfs::register::RegisterName as N;

use super::{RUNS, VECTOR, x2apic};
use crate::child::guest::Guest;
use crate::child::runtime::{self, Shared};
use crate::client::synic;
use crate::client::vp::PATIENCE;
use crate::group::{destroy, need, stopped};

/// `child-ipi-running`: from a VP to one that runs on another processor, half of the way there and back. Neither halts.
pub fn run() {
    let Some(mut guest) = need("bench: a child", Guest::new(2)) else {
        return;
    };
    need("bench: VP 1", guest.start_entry(1, echo, &[]));
    need(
        "bench: VP 1 awake",
        guest.set_one(1, N::INTERNAL_ACTIVITY_STATE, 0),
    );
    need("bench: VP 1 goes", guest.resume(1));
    let shared = guest.shared(1);
    let is_there = synic::sleep_until(PATIENCE, || shared.result(0) == 1);
    check("bench: VP 1 runs", is_there);
    need("bench: VP 0", guest.start_entry(0, ping, &[]));
    mark("child-ipi-running");
    let stop = guest.run_for(0, 4 * PATIENCE);
    mark("child-ipi-running");
    if stopped("bench: IPIs end", stop).is_some() {
        let ticks = guest.shared(0).result(0);
        note(format_args!("bench child-ipi-running {}", ticks / RUNS / 2));
    }
    need("bench: VP 1 stands", guest.suspend(1));
    destroy("bench: IPIs", guest);
}

fn wait(shared: &Shared, count: u64) {
    while u64::from(shared.counts[VECTOR as usize].load(Ordering::Relaxed)) < count {
        insn::pause();
    }
}

extern "sysv64" fn echo(shared: &'static Shared) -> ! {
    x2apic(shared);
    insn::sti();
    shared.set(0, 1);
    for n in 1.. {
        wait(shared, n);
        runtime::wrmsr(0x830, VECTOR);
    }
    runtime::stop(0)
}

extern "sysv64" fn ping(shared: &'static Shared) -> ! {
    x2apic(shared);
    insn::sti();
    let start = insn::rdtsc();
    for n in 1..=RUNS {
        runtime::wrmsr(0x830, 1 << 32 | VECTOR);
        wait(shared, n);
    }
    shared.set(0, insn::rdtsc() - start);
    runtime::stop(0)
}
