//! The assist page, and the registers of a crash.

use machine::insn;
use machine::verdict::equal;
use tlfs::register::RegisterName as N;

use super::{VECTOR, apic_on};
use crate::child::guest::Guest;
use crate::child::layout;
use crate::child::runtime::{self, Shared, eoi};
use crate::group::{destroy, need, stopped};

/// Interrupts and the TPR by MSR, and the assist page.
pub extern "sysv64" fn assist(shared: &'static Shared) -> ! {
    apic_on(shared, eoi::LAZY);
    let patience = shared.arg(0);
    runtime::wrmsr(0x4000_0073, layout::ASSIST | 1);
    let taken = |n: u64| u64::from(shared.count((VECTOR + n) as u8));
    for n in 1..=100 {
        // Self, fixed, by the MSR of the ICR.
        runtime::wrmsr(0x4000_0071, 1 << 18 | VECTOR);
        if !runtime::spin_until(patience, || taken(0) >= n) {
            break;
        }
    }
    shared.set(0, taken(0));
    runtime::write(layout::ASSIST + 0x800, 0x5A5A);
    shared.set(1, runtime::read(layout::ASSIST + 0x800));
    runtime::wrmsr(0x4000_0072, 0xF0);
    runtime::wrmsr(0x4000_0071, 1 << 18 | (VECTOR + 1));
    runtime::spin_until(patience / 1000, || false);
    shared.set(2, taken(1));
    runtime::wrmsr(0x4000_0072, 0);
    shared.set(
        3,
        u64::from(runtime::spin_until(patience, || taken(1) == 1)),
    );
    insn::cli();
    // How many ends of interrupts the page saved.
    shared.set(127, shared.result(126));
    runtime::stop(0)
}

/// Reads what a crash can tell.
pub extern "sysv64" fn crash(shared: &'static Shared) -> ! {
    shared.set(0, runtime::rdmsr(0x4000_0105));
    for n in 0..5 {
        runtime::wrmsr(0x4000_0100 + n, 0xC0 + u64::from(n));
    }
    runtime::wrmsr(0x4000_0105, 1 << 63);
    runtime::stop(0)
}

/// What the parent reads of a crash.
pub fn crash_registers() {
    let Some(mut guest) = need("crash: a child", Guest::new(1)) else {
        return;
    };
    need("crash: start", guest.start_entry(0, crash, &[]));
    stopped("crash: end", guest.run(0));
    for n in 0..5 {
        equal(
            format_args!("crash: the parent reads parameter {n}"),
            guest.reg(0, N(N::CRASH_P0.0 + n)),
            0xC0 + u64::from(n),
        );
    }
    destroy("crash", guest);
}
