//! Interrupts between VPs: by the local APIC and by the call.

use core::sync::atomic::Ordering;

use machine::insn;
use machine::verdict::{check, equal};
use tlfs::register::RegisterName as N;
use tlfs::{CallCode, Control};

use super::start::DONE;
use super::{VECTOR, send, to_x2apic};
use crate::child::guest::Guest;
use crate::child::layout;
use crate::child::runtime::{self, Shared, eoi};
use crate::client::synic;
use crate::client::vp::PATIENCE;
use crate::group::{destroy, need, stopped};

extern "sysv64" fn take_interrupts(shared: &'static Shared) -> ! {
    shared.eoi.store(eoi::X2APIC, Ordering::SeqCst);
    to_x2apic();
    shared.set(0, DONE);
    loop {
        insn::halt_once();
    }
}

/// The VPs of the interrupt test.
const VPS: u32 = 3;

extern "sysv64" fn send_interrupts(shared: &'static Shared) -> ! {
    shared.eoi.store(eoi::X2APIC, Ordering::SeqCst);
    to_x2apic();
    runtime::enable_calls();
    let other = |vp: u64| {
        // SAFETY-free way to another VP's page: its counters are atomics of the child's memory.
        layout::SHARED + vp * 0x1000 + core::mem::offset_of!(Shared, counts) as u64
    };
    let count = |vp: u64, vector: u64| u64::from(insn::read_mmio32(other(vp) + vector * 4));
    let wait = |vp: u64, vector: u64, wanted: u64| {
        runtime::spin_until(shared.arg(0), || count(vp, vector) >= wanted)
    };
    let vector = u64::from(VECTOR);
    // One target, ten times.
    for n in 1..=10 {
        send(true, 1, vector);
        if !wait(1, vector, n) {
            break;
        }
    }
    shared.set(0, count(1, vector));
    // All but self.
    send(true, 0, 3 << 18 | (vector + 1));
    shared.set(
        1,
        u64::from(wait(1, vector + 1, 1)) + u64::from(wait(2, vector + 1, 1)),
    );
    // The hypercall, to VPs 1 and 2, and to one that there is not.
    let control = Control::simple(CallCode::SEND_SYNTHETIC_CLUSTER_IPI).0 | Control::FAST;
    shared.set(2, runtime::call_page(control, vector + 2, 0b1000_0110));
    shared.set(
        3,
        u64::from(wait(1, vector + 2, 1)) + u64::from(wait(2, vector + 2, 1)),
    );
    // The same with a set.
    for (n, word) in [vector + 3, 0, 1, 0b110].into_iter().enumerate() {
        runtime::write(layout::CALL_INPUT + n as u64 * 8, word);
    }
    let control = Control::simple(CallCode::SEND_SYNTHETIC_CLUSTER_IPI_EX).0 | 1 << 17;
    shared.set(4, runtime::call_page(control, layout::CALL_INPUT, 0));
    shared.set(
        5,
        u64::from(wait(1, vector + 3, 1)) + u64::from(wait(2, vector + 3, 1)),
    );
    // To itself.
    runtime::wrmsr(0x83F, vector + 4);
    insn::sti();
    shared.set(6, u64::from(wait(0, vector + 4, 1)));
    insn::cli();
    // An NMI.
    send(true, 2, 0x400);
    shared.set(7, u64::from(wait(2, 2, 1)));
    // A vector below 16 is refused.
    let control = Control::simple(CallCode::SEND_SYNTHETIC_CLUSTER_IPI).0 | Control::FAST;
    shared.set(8, runtime::call_page(control, 15, 6));
    runtime::stop(0)
}

/// TSC ticks that children wait for each other: 2 seconds.
pub fn patience() -> u64 {
    machine::clock::ticks(2_000_000)
}

/// Runs VPs 1 and up in `others` until each reports, then VP 0 in `first` to its end.
pub fn together(
    name: &str,
    guest: &mut Guest,
    first: runtime::Entry,
    others: runtime::Entry,
    args: &[u64],
) -> bool {
    for vp in 1..guest.vps.len() as u32 {
        need(
            format_args!("{name}: VP {vp}"),
            guest.start_entry(vp, others, args),
        );
        need(
            format_args!("{name}: VP {vp} is awake"),
            guest.set_one(vp, N::INTERNAL_ACTIVITY_STATE, 0),
        );
        need(format_args!("{name}: VP {vp} goes"), guest.resume(vp));
        let shared = guest.shared(vp);
        let ready = synic::sleep_until(PATIENCE, || shared.result(0) == DONE);
        if !check(format_args!("{name}: VP {vp} is ready"), ready) {
            return false;
        }
    }
    need(
        format_args!("{name}: VP 0"),
        guest.start_entry(0, first, args),
    );
    let stop = guest.run_for(0, 4 * PATIENCE);
    let ended = stopped(format_args!("{name}: VP 0 ends"), stop).is_some();
    for vp in 1..guest.vps.len() as u32 {
        let _ = guest.suspend(vp);
    }
    ended
}

/// Each VP interrupts the others, in both modes of the local APIC.
pub fn interrupts() {
    let Some(mut guest) = need("IPIs: a child of three VPs", Guest::new(VPS)) else {
        return;
    };
    if together(
        "IPIs",
        &mut guest,
        send_interrupts,
        take_interrupts,
        &[patience()],
    ) {
        let shared = guest.shared(0);
        for (n, name, wanted) in [
            (0, "to one VP, ten times", 10),
            (1, "to all others", 2),
            (2, "by the call: status", 0),
            (3, "by the call: both", 2),
            (4, "by the call with a set: status", 0),
            (5, "by the call with a set: both", 2),
            (6, "to itself", 1),
            (7, "NMI", 1),
            (8, "vector 15 by the call", 5),
        ] {
            equal(format_args!("IPIs: {name}"), shared.result(n), wanted);
        }
    }
    destroy("IPIs", guest);
}
