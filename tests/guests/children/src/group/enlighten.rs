//! What a child is offered to run well: clocks, timers, pages, the SynIC.

use core::sync::atomic::Ordering;

use machine::platform::Platform;
use machine::verdict::{check, equal, note};
use machine::{clock, insn};
use tlfs::call::*;
use tlfs::register::RegisterName as N;
use tlfs::{CallCode, Control, MessageType};

use super::{destroy, need, stopped};
use crate::child::guest::Guest;
use crate::child::layout;
use crate::child::runtime::{self, Shared, eoi};
use crate::client::call;
use crate::client::synic;
use crate::client::vp::PATIENCE;
use crate::options::Options;

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

/// The time that the reference TSC page tells (TLFS, "Partition Reference Time Enlightenment").
fn page_time() -> u64 {
    let scale = runtime::read(layout::TSC_PAGE + 8);
    let offset = runtime::read(layout::TSC_PAGE + 16);
    let product = u128::from(insn::rdtsc()) * u128::from(scale);
    ((product >> 64) as u64).wrapping_add(offset)
}

extern "sysv64" fn clocks(shared: &'static Shared) -> ! {
    runtime::enable_calls();
    let code = runtime::read(layout::CALL_PAGE) & 0xFFFF_FFFF;
    shared.set(0, u64::from(matches!(code, 0xC3D9_010F | 0xC3C1_010F)));
    let first = runtime::rdmsr(REFERENCE);
    let moved = runtime::spin_until(u64::MAX / 4, || runtime::rdmsr(REFERENCE) > first);
    shared.set(1, moved.into());
    runtime::wrmsr(0x4000_0021, layout::TSC_PAGE | 1);
    let sequence = runtime::read(layout::TSC_PAGE) & 0xFFFF_FFFF;
    let scale = runtime::read(layout::TSC_PAGE + 8);
    shared.set(2, u64::from(sequence != 0 && scale != 0));
    let mut good = 0;
    for _ in 0..1000 {
        let before = runtime::rdmsr(REFERENCE);
        let page = page_time();
        let after = runtime::rdmsr(REFERENCE);
        // One unit for rounding in each.
        if page + 1 >= before && page <= after + 1 {
            good += 1;
        } else {
            shared.set(127, page.wrapping_sub(before));
        }
    }
    shared.set(3, good);
    shared.set(4, runtime::rdmsr(0x4000_0002));
    shared.set(5, u64::from(runtime::rdmsr(0x4000_0022) > 1_000_000));
    shared.set(6, u64::from(runtime::rdmsr(0x4000_0023) > 1_000));
    let code = runtime::read(layout::CALL_PAGE) & 0xFFFF_FFFF;
    shared.set(7, u64::from(matches!(code, 0xC3D9_010F | 0xC3C1_010F)));
    shared.set(8, runtime::call_page(0x8 | Control::FAST, 0, 0));
    // Offered only where the machine's own TSC is invariant.
    let privileges = insn::cpuid(0x4000_0003, 0).eax;
    let offered = privileges >> 15 & 1 != 0;
    shared.set(9, u64::from(runtime::try_wrmsr(0x4000_0118, 1) == offered));
    runtime::stop(0)
}

fn apic_on(shared: &Shared, how: u64) {
    shared.eoi.store(how, Ordering::SeqCst);
    runtime::wrmsr(0x1B, runtime::rdmsr(0x1B) | 1 << 10);
    runtime::wrmsr(0x80F, 0x1FF);
    insn::sti();
}

const CONFIG: u32 = 0x4000_00B0;
const COUNT: u32 = 0x4000_00B1;
const MS: u64 = 10_000;

extern "sysv64" fn timers(shared: &'static Shared) -> ! {
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

extern "sysv64" fn assist(shared: &'static Shared) -> ! {
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

extern "sysv64" fn crash(shared: &'static Shared) -> ! {
    shared.set(0, runtime::rdmsr(0x4000_0105));
    for n in 0..5 {
        runtime::wrmsr(0x4000_0100 + n, 0xC0 + u64::from(n));
    }
    runtime::wrmsr(0x4000_0105, 1 << 63);
    runtime::stop(0)
}

fn crash_registers() {
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

pub(super) fn port(
    owner: addr::PartitionId,
    sender: addr::PartitionId,
    number: u64,
    kind: PortKind,
    sint: u8,
    vp: u32,
) -> CreatePort {
    CreatePort {
        owner,
        port: PortId(number as u32),
        sender,
        info: PortInfo {
            kind,
            sint: tlfs::wire::SintIndex::new(sint),
            vp: addr::VpIndex::new(vp),
        },
        ..CreatePort::default()
    }
}

fn synic_of_child() {
    let Some(mut guest) = need("synic: a child", Guest::new(1)) else {
        return;
    };
    let child = guest.id;
    let event = PortKind::Event { base: 0, count: 64 };
    let list = [
        (
            port(child, child, id::CHILD_MESSAGE, PortKind::Message, 2, 0),
            ConnectionKind::Message,
        ),
        (
            port(child, child, id::CHILD_EVENT, event, 3, 0),
            ConnectionKind::Event,
        ),
        (
            port(
                PARTITION_SELF,
                child,
                id::PARENT_MESSAGE,
                PortKind::Message,
                6,
                0,
            ),
            ConnectionKind::Message,
        ),
        (
            port(PARTITION_SELF, child, id::PARENT_EVENT, event, 7, 0),
            ConnectionKind::Event,
        ),
    ];
    for (port, kind) in &list {
        let result = crate::client::partition::with_own_pool(|| {
            call::simple(CallCode::CREATE_PORT, &port.encode())
        });
        need(format_args!("synic: port {:#x}", port.port.0), result);
        let connect = ConnectPort {
            sender: child,
            connection: ConnectionId(port.port.0),
            owner: port.owner,
            port: port.port,
            kind: *kind,
            ..ConnectPort::default()
        };
        let result = guest.feed(|_| call::simple(CallCode::CONNECT_PORT, &connect.encode()));
        need(format_args!("synic: connection {:#x}", port.port.0), result);
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
        let stop = super::run::skip(&guest, 0, &stop, &[]);
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
        let stop = stop.and_then(|stop| super::run::skip(&guest, 0, &stop, &[]));
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
    for (port, _) in &list {
        let disconnect = DisconnectPort {
            sender: child,
            connection: ConnectionId(port.port.0),
            ..DisconnectPort::default()
        };
        need(
            "synic: disconnected",
            call::simple(CallCode::DISCONNECT_PORT, &disconnect.encode()),
        );
        let delete = DeletePort {
            owner: port.owner,
            port: port.port,
            ..DeletePort::default()
        };
        need(
            "synic: deleted",
            call::simple(CallCode::DELETE_PORT, &delete.encode()),
        );
    }
    insn::wrmsr(tlfs::msr::SINT0 + 6, 1 << 16);
    insn::wrmsr(tlfs::msr::SINT0 + 7, 1 << 16);
    insn::wrmsr(tlfs::msr::SIEFP, 0);
    crate::arena::free(events);
    destroy("synic", guest);
}

const BELL: u64 = 0x50_0000;

extern "sysv64" fn ring(shared: &'static Shared) -> ! {
    for n in 0..shared.arg(0) {
        runtime::write32(BELL, 7);
        shared.set(0, n + 1);
    }
    runtime::stop(0)
}

/// Writes to an address become entries of the parent's event ring.
fn doorbell(guest: &mut Guest) {
    let ring_page = crate::arena::frame();
    let ring_at = ring_page + 5 * 256;
    insn::wrmsr(tlfs::msr::SIRBP, ring_page | 1);
    insn::wrmsr(
        tlfs::msr::SINT0 + 5,
        u64::from(synic::DOORBELL_VECTOR) | 1 << 19,
    );
    let number = PortId(0x60);
    let port = CreatePort {
        port: number,
        ..port(
            PARTITION_SELF,
            guest.id,
            0x60,
            PortKind::Doorbell,
            5,
            VP_ANY.get(),
        )
    };
    let result = crate::client::partition::with_own_pool(|| {
        call::simple(CallCode::CREATE_PORT, &port.encode())
    });
    need("doorbell: port", result);
    let connect = ConnectPort {
        sender: guest.id,
        connection: ConnectionId(0x60),
        owner: PARTITION_SELF,
        port: number,
        kind: ConnectionKind::Doorbell(Doorbell {
            gpa: addr::Gpa::new(BELL),
            value: Some(7),
            bytes: Some(4),
        }),
        ..ConnectPort::default()
    };
    let result = guest.feed(|_| call::simple(CallCode::CONNECT_PORT, &connect.encode()));
    need("doorbell: connection", result);
    need("doorbell: start", guest.start_entry(0, ring, &[3]));
    let stop = guest.run(0);
    stopped("doorbell: the writes do not stop the VP", stop);
    let told = synic::wait(PATIENCE, |message| {
        message.kind == MessageType::SINT_INTERCEPT
    });
    check(
        "doorbell: the parent is told",
        told.is_some_and(|message| message.payload[0] == 5),
    );
    let entries = (0..63)
        .filter(|n| insn::read_mmio32(ring_at + 4 + n * 4) == 0x60)
        .count();
    check("doorbell: the port's number is in the ring", entries >= 1);
    note(format_args!("doorbell: {entries} entries for 3 writes"));
    let empty = RingEmpty {
        sint: tlfs::wire::SintIndex::new(5),
        ..RingEmpty::default()
    };
    need(
        "doorbell: ring empty",
        call::simple(CallCode::NOTIFY_PORT_RING_EMPTY, &empty.encode()),
    );
    let disconnect = DisconnectPort {
        sender: guest.id,
        connection: ConnectionId(0x60),
        is_doorbell: true,
        ..DisconnectPort::default()
    };
    need(
        "doorbell: disconnected",
        call::simple(CallCode::DISCONNECT_PORT, &disconnect.encode()),
    );
    need("doorbell: start", guest.start_entry(0, ring, &[1]));
    let stop = guest.run(0);
    super::stopped_for(
        "doorbell: then the write stops the VP",
        stop,
        MessageType::UNMAPPED_GPA,
    );
    let delete = DeletePort {
        owner: PARTITION_SELF,
        port: number,
        ..DeletePort::default()
    };
    need(
        "doorbell: deleted",
        call::simple(CallCode::DELETE_PORT, &delete.encode()),
    );
    insn::wrmsr(tlfs::msr::SINT0 + 5, 1 << 16);
    insn::wrmsr(tlfs::msr::SIRBP, 0);
    synic::drain();
    crate::arena::free(ring_page);
}

/// Saved and restored state of APIC, vector unit and timers.
fn timer_state() {
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
