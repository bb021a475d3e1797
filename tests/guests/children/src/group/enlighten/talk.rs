//! Messages and events of a child that talks to its parent.

use machine::verdict::{check, equal, note};
use machine::{clock, insn};
use tlfs::call::*;
use tlfs::{CallCode, Control, MessageType};

use super::doorbell::doorbell;
use super::{VECTOR, apic_on};
use crate::child::guest::Guest;
use crate::child::layout;
use crate::child::runtime::{self, Shared, eoi};
use crate::client::call;
use crate::client::port::{connect, create, delete, disconnect, info, own};
use crate::client::synic;
use crate::group::run::skip;
use crate::group::{destroy, need, stopped};

/// Connections of the SynIC test.
mod id {
    pub const CHILD_MESSAGE: u64 = 0x51;
    pub const CHILD_EVENT: u64 = 0x52;
    pub const PARENT_MESSAGE: u64 = 0x53;
    pub const PARENT_EVENT: u64 = 0x54;
}

extern "sysv64" fn talk(shared: &'static Shared) -> ! {
    runtime::enable_calls();
    apic_on(shared, eoi::X2APIC);
    let patience = shared.arg(0);
    let taken = |n: u64| u64::from(shared.count((VECTOR + n) as u8));
    let wait =
        |n: u64, wanted: u64| u64::from(runtime::spin_until(patience, || taken(n) >= wanted));
    runtime::wrmsr(0x4000_0083, layout::MESSAGES | 1);
    runtime::wrmsr(0x4000_0082, layout::EVENTS | 1);
    runtime::wrmsr(0x4000_0080, 1);
    runtime::wrmsr(0x4000_0092, VECTOR);
    runtime::wrmsr(0x4000_0093, VECTOR + 1);
    runtime::pause(1);
    let post = |connection: u64, word: u64| {
        for (n, value) in [connection, 0x11 | 8 << 32, word].into_iter().enumerate() {
            runtime::write(layout::CALL_INPUT + n as u64 * 8, value);
        }
        let control = Control::simple(CallCode::POST_MESSAGE).0;
        runtime::call_page(control, layout::CALL_INPUT, 0)
    };
    let signal = |connection: u64, flag: u64| {
        let control = Control::simple(CallCode::SIGNAL_EVENT).0 | Control::FAST;
        runtime::call_page(control, connection | flag << 32, 0)
    };
    // A message to itself, and a queue behind it.
    let slot = layout::MESSAGES + 2 * 256;
    shared.set(0, post(id::CHILD_MESSAGE, 0xAB));
    shared.set(1, wait(0, 1));
    shared.set(2, runtime::read(slot));
    shared.set(3, runtime::read(slot + 16));
    let mut queued = 0;
    while queued < 2000 && post(id::CHILD_MESSAGE, queued) == 0 {
        queued += 1;
    }
    shared.set(4, queued);
    shared.set(5, post(id::CHILD_MESSAGE, 0));
    let mut in_order = 0;
    for n in 0..queued {
        runtime::write32(slot, 0);
        runtime::wrmsr(0x4000_0084, 0);
        if !runtime::spin_until(patience, || runtime::read(slot) & 0xFFFF_FFFF != 0) {
            break;
        }
        in_order += u64::from(runtime::read(slot + 16) == n);
    }
    runtime::write32(slot, 0);
    runtime::wrmsr(0x4000_0084, 0);
    shared.set(6, in_order);
    // An event flag to itself, twice: the second finds the flag set.
    shared.set(7, signal(id::CHILD_EVENT, 5));
    shared.set(8, wait(1, 1));
    shared.set(9, runtime::read(layout::EVENTS + 3 * 256));
    shared.set(10, signal(id::CHILD_EVENT, 64));
    // To the parent.
    shared.set(11, post(id::PARENT_MESSAGE, 0xCD));
    shared.set(12, signal(id::PARENT_EVENT, 0));
    shared.set(13, post(0x7777, 0));
    shared.set(14, signal(0x7777, 0));
    // From the parent, directly.
    runtime::pause(2);
    shared.set(15, wait(0, 2));
    shared.set(16, runtime::read(slot + 16));
    shared.set(17, wait(1, 2));
    shared.set(18, runtime::read(layout::EVENTS + 3 * 256 + 8));
    insn::cli();
    runtime::stop(0)
}

/// Messages and events of the child to itself, to the parent, and back.
pub fn synic_of_child() {
    let Some(mut guest) = need("synic: a child", Guest::new(1)) else {
        return;
    };
    let child = guest.id;
    let event = PortKind::Event { base: 0, count: 64 };
    let list = [
        (
            child,
            id::CHILD_MESSAGE,
            PortKind::Message,
            2,
            ConnectionKind::Message,
        ),
        (child, id::CHILD_EVENT, event, 3, ConnectionKind::Event),
        (
            PARTITION_SELF,
            id::PARENT_MESSAGE,
            PortKind::Message,
            6,
            ConnectionKind::Message,
        ),
        (
            PARTITION_SELF,
            id::PARENT_EVENT,
            event,
            7,
            ConnectionKind::Event,
        ),
    ];
    for (owner, number, port, sint, connection) in list {
        let number = number as u32;
        let result = own(|| create(owner, number, child, info(port, sint)));
        need(format_args!("synic: port {number:#x}"), result);
        let result = guest.feed(|_| connect(child, number, owner, number, connection));
        need(format_args!("synic: connection {number:#x}"), result);
    }
    let events = crate::arena::frame();
    insn::wrmsr(tlfs::msr::SIEFP, events | 1);
    let messages = insn::rdmsr(tlfs::msr::SIMP) & !0xFFF;
    insn::wrmsr(tlfs::msr::SINT0 + 6, u64::from(synic::WAKE));
    insn::wrmsr(tlfs::msr::SINT0 + 7, u64::from(synic::WAKE));
    need(
        "synic: start",
        guest.start_entry(0, talk, &[clock::ticks(1_000_000)]),
    );
    if let Some(stop) = guest.run(0) {
        let stop = skip(&guest, 0, &stop, &[]);
        check(
            "synic: it comes to what the parent sends",
            stop.is_some_and(|stop| stop.is_out(crate::child::code::PORT)),
        );
        let slot = messages + 6 * 256;
        equal(
            "synic: a message to the parent",
            insn::read_phys64(slot) & 0xFFFF_FFFF,
            0x11,
        );
        equal(
            "synic: its sender's port",
            insn::read_phys64(slot + 8),
            id::PARENT_MESSAGE,
        );
        equal("synic: its payload", insn::read_phys64(slot + 16), 0xCD);
        insn::write_mmio32(slot, 0);
        insn::wrmsr(tlfs::msr::EOM, 0);
        equal(
            "synic: an event to the parent",
            insn::read_phys64(events + 7 * 256),
            1,
        );
        let message = tlfs::Message::new(MessageType(0x22), 0x99, &0xEE_u64.to_le_bytes());
        let post = PostMessageDirect {
            partition: child,
            sint: tlfs::wire::SintIndex::new(2),
            message: message.unwrap_or_default(),
            ..PostMessageDirect::default()
        };
        need(
            "synic: a message straight to the child",
            call::simple(CallCode::POST_MESSAGE_DIRECT, &post.encode()),
        );
        let signal = SignalEventDirect {
            partition: child,
            sint: tlfs::wire::SintIndex::new(3),
            flag: FlagNumber::new(70),
            ..SignalEventDirect::default()
        };
        let first = call::ask::<8>(CallCode::SIGNAL_EVENT_DIRECT, &signal.encode());
        check(
            "synic: an event straight to the child",
            first.is_ok_and(|out| out[0] == 1),
        );
        let second = call::ask::<8>(CallCode::SIGNAL_EVENT_DIRECT, &signal.encode());
        check(
            "synic: which is not newly signalled twice",
            second.is_ok_and(|out| out[0] == 0),
        );
        let stop = stop.and_then(|stop| skip(&guest, 0, &stop, &[]));
        if stopped("synic: end", stop).is_some() {
            let shared = guest.shared(0);
            for (n, name, wanted) in [
                (0, "a message to itself: status", 0),
                (1, "a message to itself: interrupt", 1),
                (3, "its payload", 0xAB),
                (5, "a full queue says so", 0x13),
                (7, "an event to itself: status", 0),
                (8, "an event to itself: interrupt", 1),
                (9, "its flag", 1 << 5),
                (10, "a flag beyond the port's", 5),
                (11, "a message to the parent: status", 0),
                (12, "an event to the parent: status", 0),
                (13, "a message to nobody", 0x12),
                (14, "an event to nobody", 0x12),
                (15, "the parent's message: interrupt", 1),
                (16, "the parent's message: payload", 0xEE),
                (17, "the parent's event: interrupt", 1),
                (18, "the parent's event: flag", 1 << 6),
            ] {
                equal(format_args!("synic: {name}"), shared.result(n), wanted);
            }
            equal(
                "synic: type and size",
                shared.result(2) & 0xFF_FFFF_FFFF,
                0x11 | 8 << 32,
            );
            check(
                "synic: the queue holds 256 messages",
                shared.result(4) >= 256,
            );
            equal(
                "synic: which come in order",
                shared.result(6),
                shared.result(4),
            );
            note(format_args!("{} messages were queued", shared.result(4)));
        }
    }
    doorbell(&mut guest);
    for (owner, number, ..) in list {
        let number = number as u32;
        need("synic: disconnected", disconnect(child, number, false));
        need("synic: deleted", delete(owner, number));
    }
    insn::wrmsr(tlfs::msr::SINT0 + 6, 1 << 16);
    insn::wrmsr(tlfs::msr::SINT0 + 7, 1 << 16);
    insn::wrmsr(tlfs::msr::SIEFP, 0);
    crate::arena::free(events);
    destroy("synic", guest);
}
