//! Messages and events between the parent and a child, both ways.

use core::sync::atomic::Ordering;

use machine::insn;
use machine::verdict::{check, equal};
use tlfs::call::*;
use tlfs::register::RegisterName as N;
use tlfs::{HvError, msr};

use super::{CHILD_SINT, CHILD_VECTOR, PARENT, SINT};
use crate::child::code;
use crate::child::guest::Guest;
use crate::child::layout;
use crate::child::runtime::{self, Shared, eoi};
use crate::client::port::{
    connect, create, delete, disconnect, info, message, own, post, signal, take,
};
use crate::client::synic;
use crate::group::{need, refused, stopped};

extern "sysv64" fn sender(shared: &'static Shared) -> ! {
    const POST: u64 = 0x5C;
    const SIGNAL: u64 = 0x1_005D;
    runtime::enable_calls();
    for n in 0..3 {
        runtime::write(layout::CALL_INPUT, shared.arg(n));
        runtime::write(layout::CALL_INPUT + 8, 0x42 | 8 << 32);
        runtime::write(layout::CALL_INPUT + 16, 0xC0DE + n as u64);
        shared.set(n, runtime::call_page(POST, layout::CALL_INPUT, 0));
    }
    for n in 3..6 {
        shared.set(n, runtime::call_page(SIGNAL, shared.arg(n), 0));
    }
    runtime::stop(0)
}

/// A child posts and signals to ports of the parent.
pub fn from_child(guest: &mut Guest, slot: u64, flags: u64) {
    let id = guest.id;
    let events = info(PortKind::Event { base: 8, count: 2 }, SINT);
    need(
        "child sends: a port",
        own(|| create(PARENT, 0x30, id, message(SINT))),
    );
    need(
        "child sends: an event port",
        own(|| create(PARENT, 0x31, id, events)),
    );
    refused(
        "child sends: the parent may not",
        connect(PARENT, 0x30, PARENT, 0x30, ConnectionKind::Message),
        HvError::INVALID_PORT_ID,
    );
    need(
        "child sends: a connection",
        guest.feed(|_| connect(id, 1, PARENT, 0x30, ConnectionKind::Message)),
    );
    need(
        "child sends: one for events",
        guest.feed(|_| connect(id, 2, PARENT, 0x31, ConnectionKind::Event)),
    );
    let args = [1, 1, 3, 2 | 1 << 32, 2 | 2 << 32, 1];
    need(
        "child sends: its program",
        guest.start_entry(0, sender, &args),
    );
    stopped("child sends: it runs to its end", guest.run(0));
    let wanted = [
        0,
        0,
        HvError::INVALID_CONNECTION_ID.0,
        0,
        HvError::INVALID_PARAMETER.0,
        HvError::INVALID_CONNECTION_ID.0,
    ];
    for (n, wanted) in wanted.into_iter().enumerate() {
        equal(
            format_args!("child sends: call {n}"),
            guest.shared(0).result(n),
            wanted.into(),
        );
    }
    for n in 0..2 {
        let got = take(slot);
        check(
            format_args!("child sends: message {n} # {got:x?}"),
            got.is_some_and(|(found, _)| found == [0x42, 8, 0x30, 0xC0DE + n]),
        );
    }
    equal("child sends: the flag", insn::read_phys64(flags), 1 << 9);
    insn::write_phys64(flags, 0);
    need("child sends: the port goes", delete(PARENT, 0x30));
    need("child sends: the other goes", delete(PARENT, 0x31));
}

extern "sysv64" fn receiver(shared: &'static Shared) -> ! {
    const PATIENCE: u64 = 2_000_000_000;
    let slot = layout::MESSAGES + u64::from(CHILD_SINT) * 256;
    shared.eoi.store(eoi::XAPIC, Ordering::SeqCst);
    runtime::write32(0xFEE0_00F0, 0x1FF);
    runtime::wrmsr(msr::SIMP, layout::MESSAGES | 1);
    runtime::wrmsr(msr::SIEFP, layout::EVENTS | 1);
    runtime::wrmsr(msr::SINT0 + u32::from(CHILD_SINT), CHILD_VECTOR.into());
    runtime::wrmsr(msr::SCONTROL, 1);
    runtime::pause(1);
    insn::sti();
    for n in 0..2 {
        let came = runtime::spin_until(PATIENCE, || runtime::read(slot) as u32 != 0);
        if !came {
            runtime::stop(1);
        }
        shared.set(n * 2, runtime::read(slot + 8));
        shared.set(n * 2 + 1, runtime::read(slot + 16));
        runtime::write32(slot, 0);
        runtime::wrmsr(msr::EOM, 0);
    }
    runtime::spin_until(PATIENCE, || shared.count(CHILD_VECTOR) >= 2);
    shared.set(4, shared.count(CHILD_VECTOR).into());
    shared.set(
        5,
        runtime::read(layout::EVENTS + u64::from(CHILD_SINT) * 256),
    );
    // Halts until the next message, which a third processor may send.
    while runtime::read(slot) as u32 == 0 {
        insn::halt_once();
        insn::sti();
    }
    shared.set(6, runtime::read(slot + 16));
    insn::cli();
    runtime::stop(0)
}

/// The parent posts and signals to ports of a child.
pub fn to_child(guest: &mut Guest) {
    let id = guest.id;
    let events = info(PortKind::Event { base: 0, count: 64 }, CHILD_SINT);
    let any = PortInfo {
        vp: VP_ANY,
        ..message(CHILD_SINT)
    };
    need(
        "to a child: a port of it",
        guest.feed(|_| create(id, 5, PARENT, any)),
    );
    need(
        "to a child: an event port of it",
        guest.feed(|_| create(id, 6, PARENT, events)),
    );
    need(
        "to a child: a connection",
        own(|| connect(PARENT, 0x40, id, 5, ConnectionKind::Message)),
    );
    need(
        "to a child: one for events",
        own(|| connect(PARENT, 0x41, id, 6, ConnectionKind::Event)),
    );
    refused(
        "to a child: an event it does not take",
        signal(0x41, 4),
        HvError::INVALID_SYNIC_STATE,
    );
    need(
        "to a child: its program",
        guest.start_entry(0, receiver, &[]),
    );
    if !guest.run(0).is_some_and(|stop| stop.is_out(code::PORT)) {
        check("to a child: it takes messages", false);
        return;
    }
    need("to a child: post", post(0x40, 3, &0x1111_u64.to_le_bytes()));
    need("to a child: post", post(0x40, 3, &0x2222_u64.to_le_bytes()));
    need("to a child: signal", signal(0x41, 4));
    let at = guest.intercept_page(0);
    let rip = at.header().rip + at.length();
    need("to a child: on", guest.set_one(0, N::RIP, rip));
    need("to a child: on", guest.resume(0));
    let shared = guest.shared(0);
    synic::sleep_until(2_000_000, || shared.result(5) != 0);
    // It halts.
    synic::sleep(20_000);
    need("to a child: post", post(0x40, 3, &0x3333_u64.to_le_bytes()));
    stopped(
        "to a child: it runs to its end",
        guest.stop_within(0, 4_000_000),
    );
    for (n, wanted) in [5, 0x1111, 5, 0x2222].into_iter().enumerate() {
        equal(
            format_args!("to a child: word {n}"),
            shared.result(n),
            wanted,
        );
    }
    check("to a child: interrupts", shared.result(4) >= 2);
    equal("to a child: the flag", shared.result(5), 1 << 4);
    equal("to a child: what woke it", shared.result(6), 0x3333);
    need("to a child: the port goes", delete(id, 5));
    need("to a child: the other goes", delete(id, 6));
    need(
        "to a child: the connection goes",
        disconnect(PARENT, 0x40, false),
    );
    need(
        "to a child: the other goes",
        disconnect(PARENT, 0x41, false),
    );
}
