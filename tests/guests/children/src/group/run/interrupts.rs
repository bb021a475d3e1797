//! Interrupts that the parent asserts.

use machine::insn;
use machine::verdict::{check, equal, note};
use tlfs::call::*;
use tlfs::register::RegisterName as N;
use tlfs::{CallCode, HvError, MessageType};

use super::QUIET;
use crate::child::guest::Guest;
use crate::child::runtime::{self, Shared, eoi};
use crate::client::call;
use crate::client::synic;
use crate::client::vp::PATIENCE;
use crate::group::{destroy, fails, need, stopped_for};

/// Enables the APIC in the mode of argument 0, and halts with interrupts on; argument 1 is the handler's EOI.
extern "sysv64" fn wait_for_interrupts(shared: &'static Shared) -> ! {
    shared
        .eoi
        .store(shared.arg(1), core::sync::atomic::Ordering::SeqCst);
    if shared.arg(0) == 1 {
        runtime::wrmsr(0x1B, runtime::rdmsr(0x1B) | 1 << 10);
        runtime::wrmsr(0x80F, 0x1FF);
    } else {
        runtime::write32(0xFEE0_00F0, 0x1FF);
    }
    runtime::pause(1);
    loop {
        insn::halt_once();
        shared.set(0, shared.result(0) + 1);
    }
}

fn assert(
    guest: &Guest,
    kind: InterruptType,
    vector: u32,
    flags: InterruptFlags,
) -> Result<(), HvError> {
    let input = AssertInterrupt {
        partition: guest.id,
        kind,
        flags,
        vector,
        ..AssertInterrupt::default()
    };
    call::simple(CallCode::ASSERT_VIRTUAL_INTERRUPT, &input.encode())
}

/// Fixed, lowest priority, NMI, ExtINT and level interrupts, in each mode of the local APIC.
pub fn interrupts() {
    for (mode, how) in [(0, eoi::XAPIC), (1, eoi::X2APIC), (1, eoi::SYNTHETIC)] {
        let Some(mut guest) = need("interrupts: a child", Guest::new(1)) else {
            return;
        };
        interrupts_of(&mut guest, mode, how);
        destroy(format_args!("interrupts {mode} {how}"), guest);
    }
}

fn interrupts_of(guest: &mut Guest, mode: u64, how: u64) {
    let edge = InterruptFlags::empty();
    need(
        "interrupts: start",
        guest.start_entry(0, wait_for_interrupts, &[mode, how]),
    );
    let stop = guest.run(0);
    let Some(stop) = stopped_for("interrupts: ready", stop, MessageType::IO_PORT_INTERCEPT) else {
        return;
    };
    let rip = stop.header().rip + stop.length();
    need("interrupts: skip", guest.set_one(0, N::RIP, rip));
    need("interrupts: go", guest.resume(0));
    let shared = guest.shared(0);
    let came =
        |vector: u8, count: u32| synic::sleep_until(PATIENCE, || shared.count(vector) >= count);
    synic::sleep(QUIET);
    for count in 1..=3 {
        need(
            "interrupts: fixed",
            assert(guest, InterruptType::Fixed, 0x51, edge),
        );
        check(
            format_args!("interrupts: fixed wakes from HLT, {count}"),
            came(0x51, count),
        );
    }
    need(
        "interrupts: NMI",
        assert(guest, InterruptType::Nmi, 0, edge),
    );
    check("interrupts: NMI arrives", came(2, 1));
    need(
        "interrupts: lowest",
        assert(guest, InterruptType::LowestPriority, 0x61, edge),
    );
    check("interrupts: lowest priority arrives", came(0x61, 1));
    synic::sleep(QUIET);
    need(
        "interrupts: ExtINT",
        assert(guest, InterruptType::ExtInt, 0x41, edge),
    );
    note(format_args!("ExtINT taken: {}", came_shortly(shared, 0x41)));
    need(
        "interrupts: level",
        assert(guest, InterruptType::Fixed, 0x71, InterruptFlags::LEVEL),
    );
    let stop = guest.stop_within(0, PATIENCE);
    if let Some(stop) = stopped_for(
        "interrupts: EOI of a level interrupt",
        stop,
        MessageType::APIC_EOI,
    ) {
        let told = stop.eoi().unwrap_or_default();
        equal("interrupts: its vector", told.vector.into(), 0x71);
        equal("interrupts: its VP", told.vp.get().into(), 0);
    }
    equal(
        "interrupts: the level interrupt was taken",
        shared.count(0x71).into(),
        1,
    );
    need("interrupts: go", guest.resume(0));
    need(
        "interrupts: fixed",
        assert(guest, InterruptType::Fixed, 0x51, edge),
    );
    check("interrupts: it lives on", came(0x51, 4));
    for vector in [0, 15] {
        fails(
            format_args!("interrupts: vector {vector} is refused"),
            assert(guest, InterruptType::Fixed, vector, edge),
        );
    }
    fails(
        "interrupts: vector 256 is refused",
        assert(guest, InterruptType::Fixed, 256, edge),
    );
    // Halted costs nothing and goes nowhere.
    synic::sleep(QUIET);
    let then = shared.result(0);
    synic::sleep(QUIET);
    equal("interrupts: halted, it stands", shared.result(0), then);
    need("interrupts: stop", guest.suspend(0));
    equal(
        "interrupts: the activity state says halted",
        guest.reg(0, N::INTERNAL_ACTIVITY_STATE) & 2,
        2,
    );
}

fn came_shortly(shared: &Shared, vector: u8) -> bool {
    synic::sleep_until(QUIET, || shared.count(vector) != 0)
}
