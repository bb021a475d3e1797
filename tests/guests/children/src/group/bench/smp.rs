//! What takes two processors: an IPI to a VP that runs.

use core::sync::atomic::Ordering;

use machine::insn;
use machine::mark::mark;
use machine::verdict::note;

use super::{RUNS, VECTOR, run_vp_1, x2apic};
use crate::child::guest::Guest;
use crate::child::runtime::{self, Shared};
use crate::client::vp::PATIENCE;
use crate::group::{destroy, need, stopped};

/// `child-ipi-running`: from a VP to one that runs on another processor, half of the way there and back. Neither halts.
pub fn run() {
    let Some(mut guest) = need("bench: a child", Guest::new(2)) else {
        return;
    };
    run_vp_1(&mut guest, echo);
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
