//! Synthetic timers.

use machine::insn;
use machine::verdict::{equal, note};
use tlfs::CallCode;
use tlfs::call::*;

use super::{REFERENCE, VECTOR, apic_on};
use crate::child::guest::Guest;
use crate::child::layout;
use crate::child::runtime::{self, Shared, eoi};
use crate::client::call;
use crate::group::{destroy, need};

const CONFIG: u32 = 0x4000_00B0;
const COUNT: u32 = 0x4000_00B1;
const MS: u64 = 10_000;

/// Sets timers of each kind and waits for them.
pub extern "sysv64" fn timers(shared: &'static Shared) -> ! {
    apic_on(shared, eoi::X2APIC);
    let patience = shared.arg(0);
    let taken = |n: u64| u64::from(shared.count((VECTOR + n) as u8));
    let wait =
        |n: u64, wanted: u64| u64::from(runtime::spin_until(patience, || taken(n) >= wanted));
    // Timer 0, direct, one shot.
    let start = runtime::rdmsr(REFERENCE);
    runtime::wrmsr(CONFIG, 0b1001 | VECTOR << 4 | 1 << 12);
    runtime::wrmsr(COUNT, start + 2 * MS);
    shared.set(0, wait(0, 1));
    shared.set(1, u64::from(runtime::rdmsr(REFERENCE) >= start + 2 * MS));
    // Periodic, each millisecond.
    runtime::wrmsr(CONFIG, 0b1011 | (VECTOR + 1) << 4 | 1 << 12);
    runtime::wrmsr(COUNT, MS);
    shared.set(2, wait(1, 10));
    runtime::wrmsr(CONFIG, 0);
    runtime::spin_until(patience / 500, || false);
    let then = taken(1);
    runtime::spin_until(patience / 100, || false);
    shared.set(11, taken(1) - then);
    // Timer 1, a message to SINT 4.
    runtime::wrmsr(0x4000_0083, layout::MESSAGES | 1);
    runtime::wrmsr(0x4000_0080, 1);
    runtime::wrmsr(0x4000_0094, VECTOR + 2);
    runtime::wrmsr(CONFIG + 2, 0b1001 | 4 << 16);
    runtime::wrmsr(COUNT + 2, runtime::rdmsr(REFERENCE) + MS);
    shared.set(3, wait(2, 1));
    let slot = layout::MESSAGES + 4 * 256;
    shared.set(4, runtime::read(slot) & 0xFFFF_FFFF);
    shared.set(5, runtime::read(slot + 16) & 0xFFFF_FFFF);
    // The slot still full.
    runtime::wrmsr(COUNT + 2, runtime::rdmsr(REFERENCE) + MS);
    let pending = runtime::spin_until(patience, || runtime::read(slot) >> 40 & 1 != 0);
    shared.set(6, u64::from(pending && taken(2) == 1));
    runtime::write32(slot, 0);
    runtime::wrmsr(0x4000_0084, 0);
    shared.set(7, wait(2, 2));
    // The APIC's timer: one shot, then by deadline.
    runtime::wrmsr(0x83E, 0b1011);
    runtime::wrmsr(0x832, VECTOR + 3);
    runtime::wrmsr(0x838, 100_000);
    shared.set(8, wait(3, 1));
    if insn::cpuid(1, 0).ecx >> 24 & 1 != 0 {
        runtime::wrmsr(0x832, (VECTOR + 4) | 2 << 17);
        runtime::wrmsr(0x6E0, insn::rdtsc() + 1_000_000);
        shared.set(9, wait(4, 1));
    } else {
        shared.set(9, 1);
    }
    // Lazy, direct.
    runtime::wrmsr(CONFIG + 4, 0b1101 | (VECTOR + 5) << 4 | 1 << 12);
    runtime::wrmsr(COUNT + 4, runtime::rdmsr(REFERENCE) + MS);
    shared.set(10, wait(5, 1));
    insn::cli();
    runtime::stop(0)
}

/// Saved and restored state of APIC, vector unit and timers.
pub fn timer_state() {
    let Some(guest) = need("state: a child", Guest::new(1)) else {
        return;
    };
    let page = crate::arena::frame();
    for (name, kind, flags) in [
        ("local APIC", StateType::Lapic, 0),
        ("xsave", StateType::Xsave, 0x7),
        ("message page", StateType::MessagePage, 0),
        ("event page", StateType::EventFlagsPage, 0),
    ] {
        let header = VpState {
            partition: guest.id,
            kind,
            xsave_states: flags,
            ..VpState::default()
        }
        .encode();
        let pfn = (page / 4096).to_le_bytes();
        let mut get = call::ask_with::<0>(CallCode::GET_VP_STATE, &header, &pfn).map(|_| ());
        if matches!(kind, StateType::MessagePage | StateType::EventFlagsPage) && get.is_err() {
            note(format_args!("state: {name} while disabled: {get:?}"));
            get = Ok(());
            need(format_args!("state: {name} is read"), get);
            continue;
        }
        need(format_args!("state: {name} is read"), get);
        let set = call::ask_with::<0>(CallCode::SET_VP_STATE, &header, &pfn).map(|_| ());
        need(format_args!("state: {name} is written back"), set);
        if kind == StateType::Lapic {
            equal(
                "state: the APIC's version",
                insn::read_phys64(page) >> 32 & 0xF0,
                0x10,
            );
        }
    }
    let header = VpState {
        partition: guest.id,
        kind: StateType::Timers,
        ..VpState::default()
    }
    .encode();
    let state = need(
        "state: timers are read",
        call::ask_with::<200>(CallCode::GET_VP_STATE, &header, &[]),
    );
    if let Some(state) = state {
        need(
            "state: timers are written back",
            call::ask_with::<0>(CallCode::SET_VP_STATE, &header, &state).map(|_| ()),
        );
    }
    crate::arena::free(page);
    let _ = guest.suspend(0);
    destroy("state", guest);
}
