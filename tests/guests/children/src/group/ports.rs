//! Ports and connections: of the parent with itself, between it and a child both ways, and doorbells.
#![expect(unsafe_code, reason = "a child's stores are assembly")]

use core::sync::atomic::Ordering;

use addr::{Gpa, PartitionId, VpIndex};
use machine::platform::Platform;
use machine::verdict::{check, equal};
use machine::{cpu, insn};
use tlfs::call::*;
use tlfs::register::RegisterName as N;
use tlfs::state::event_ring as ring;
use tlfs::wire::SintIndex;
use tlfs::{CallCode, HvError, MessageType, msr};

use super::{destroy, need, refused, stopped};
use crate::arena;
use crate::child::code::{self, Program};
use crate::child::guest::{Guest, Mode};
use crate::child::layout;
use crate::child::runtime::{self, Shared, eoi};
use crate::client::call;
use crate::client::partition::with_own_pool;
use crate::client::synic;
use crate::options::Options;
use crate::program;

/// Source of the parent's ports.
const SINT: u8 = 6;
/// Its vector.
const VECTOR: u8 = 0xCC;
/// Source of doorbells.
const BELLS: u8 = 5;
/// Source of the child's ports, and its vector.
const CHILD_SINT: u8 = 2;
const CHILD_VECTOR: u8 = 0x55;
/// Messages that wait at a port.
const QUEUE: u64 = 256;
/// Where doorbells are: nothing is mapped there.
const AWAY: u64 = 0x40_0010;
const PARENT: PartitionId = PARTITION_SELF;

program!(store_8, ".code64": "mov [rsi], al", "out 0xF0, al", "2:", "hlt", "jmp 2b");
program!(store_16, ".code64": "mov [rsi], ax", "out 0xF0, al", "2:", "hlt", "jmp 2b");
program!(store_32, ".code64": "mov [rsi], eax", "out 0xF0, al", "2:", "hlt", "jmp 2b");
program!(store_constant, ".code64": "mov qword ptr [rsi], -2", "out 0xF0, al", "2:", "hlt", "jmp 2b");
program!(store_string, ".code64": "mov rdi, rsi", "stosd", "out 0xF0, al", "2:", "hlt", "jmp 2b");
program!(store_strings, ".code64": "mov rdi, rsi", "mov ecx, 2", "rep stosd", "out 0xF0, al", "2:", "hlt", "jmp 2b");
program!(add, ".code64": "add [rsi], eax", "out 0xF0, al", "2:", "hlt", "jmp 2b");

/// Runs the group.
pub fn run(_: &Options, _: &Platform) {
    let page = synic::page();
    let (events, rings) = (arena::frame(), arena::frame());
    insn::wrmsr(msr::SIEFP, events | 1);
    insn::wrmsr(msr::SINT0 + u32::from(SINT), u64::from(VECTOR));
    insn::wrmsr(msr::SIRBP, rings | 1);
    // Told of by a message to SINT 0.
    let bells = u64::from(synic::DOORBELL_VECTOR) | 1 << 19;
    insn::wrmsr(msr::SINT0 + u32::from(BELLS), bells);
    equal(
        "ring page: its register",
        insn::rdmsr(msr::SIRBP),
        rings | 1,
    );
    insn::write_phys64(rings + 0xF00, 5);
    equal(
        "ring page: it is there",
        insn::read_phys64(rings + 0xF00),
        5,
    );
    insn::write_phys64(rings + 0xF00, 0);

    let slot = page + u64::from(SINT) * 256;
    alone(slot, events + u64::from(SINT) * 256);
    if let Some(mut guest) = need("ports: a child", Guest::new(1)) {
        let id = guest.id;
        from_child(&mut guest, slot, events + u64::from(SINT) * 256);
        to_child(&mut guest);
        doorbells(&mut guest, rings + u64::from(BELLS) * 256);
        // With ports and connections of both kinds on both sides.
        need(
            "ports: one more of the child",
            guest.feed(|child| create(child.id, 0x77, PARENT, message(CHILD_SINT))),
        );
        need(
            "ports: one more of the parent",
            own(|| create(PARENT, 0x78, id, message(SINT))),
        );
        need(
            "ports: to the child",
            own(|| connect(PARENT, 0x77, id, 0x77, ConnectionKind::Message)),
        );
        need("ports: a message that waits", post(0x77, 9, &[1]));
        destroy("ports", guest);
        refused(
            "ports: a port of nobody",
            post(0x77, 9, &[1]),
            HvError::INVALID_PORT_ID,
        );
        need(
            "ports: the connection goes",
            disconnect(PARENT, 0x77, false),
        );
        need("ports: the port for nobody goes", delete(PARENT, 0x78));
    }
    storms(slot, rings + u64::from(BELLS) * 256);
    reset();
    insn::wrmsr(msr::SINT0 + u32::from(BELLS), 1 << 16);
    insn::wrmsr(msr::SINT0 + u32::from(SINT), 1 << 16);
    insn::wrmsr(msr::SIRBP, 0);
    insn::wrmsr(msr::SIEFP, 0);
    arena::free(events);
    arena::free(rings);
}

fn message(sint: u8) -> PortInfo {
    info(PortKind::Message, sint)
}

fn info(kind: PortKind, sint: u8) -> PortInfo {
    let (sint, vp) = (SintIndex::new(sint), VpIndex::new(0));
    PortInfo { kind, sint, vp }
}

fn create(
    owner: PartitionId,
    port: u32,
    sender: PartitionId,
    info: PortInfo,
) -> Result<(), HvError> {
    let port = PortId(port);
    let input = CreatePort {
        owner,
        port,
        sender,
        info,
        ..CreatePort::default()
    };
    call::simple(CallCode::CREATE_PORT, &input.encode())
}

fn delete(owner: PartitionId, port: u32) -> Result<(), HvError> {
    call::fast(CallCode::DELETE_PORT, owner.get(), port.into())
}

fn connect(
    sender: PartitionId,
    connection: u32,
    owner: PartitionId,
    port: u32,
    kind: ConnectionKind,
) -> Result<(), HvError> {
    let input = ConnectPort {
        sender,
        connection: ConnectionId(connection),
        owner,
        port: PortId(port),
        kind,
        ..ConnectPort::default()
    };
    call::simple(CallCode::CONNECT_PORT, &input.encode())
}

fn disconnect(sender: PartitionId, connection: u32, is_doorbell: bool) -> Result<(), HvError> {
    let second = u64::from(connection) | u64::from(is_doorbell) << 32;
    call::fast(CallCode::DISCONNECT_PORT, sender.get(), second)
}

/// A call for which the parent's own pool pays.
fn own(call: impl FnMut() -> Result<(), HvError>) -> Result<(), HvError> {
    with_own_pool(call)
}

fn post(connection: u32, kind: u32, payload: &[u8]) -> Result<(), HvError> {
    let mut input = [0; 256];
    input[..4].copy_from_slice(&connection.to_le_bytes());
    input[8..12].copy_from_slice(&kind.to_le_bytes());
    input[12..16].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    input[16..16 + payload.len()].copy_from_slice(payload);
    call::simple(CallCode::POST_MESSAGE, &input)
}

fn signal(connection: u32, flag: u16) -> Result<(), HvError> {
    let input = u64::from(connection) | u64::from(flag) << 32;
    call::fast(CallCode::SIGNAL_EVENT, input, 0)
}

/// Type, size, origin and first eight bytes of what comes into `slot`; empties it, and says whether more waits.
fn take(slot: u64) -> Option<([u64; 4], bool)> {
    let head = || insn::read_phys64(slot);
    if !synic::sleep_until(500_000, || head() as u32 != 0) {
        return None;
    }
    let first = head();
    let found = [
        first & 0xFFFF_FFFF,
        first >> 32 & 0xFF,
        insn::read_phys64(slot + 8),
        insn::read_phys64(slot + 16),
    ];
    insn::write_mmio32(slot, 0);
    let more = insn::read_mmio32(slot + 4) & 0x100 != 0;
    if more {
        insn::wrmsr(msr::EOM, 0);
    }
    Some((found, more))
}

/// The parent sends to itself.
fn alone(slot: u64, flags: u64) {
    let (port, connection) = (0x10, 0x20);
    let taken = || cpu::this().count(VECTOR);
    need(
        "alone: a message port",
        own(|| create(PARENT, port, PARENT, message(SINT))),
    );
    refused(
        "alone: its number is taken",
        create(PARENT, port, PARENT, message(SINT)),
        HvError::INVALID_PORT_ID,
    );
    refused(
        "alone: no port 0",
        create(PARENT, 0, PARENT, message(SINT)),
        HvError::INVALID_PORT_ID,
    );
    let nobody = PartitionId::new(0x1234_5678);
    refused(
        "alone: nobody's port",
        create(nobody, 1, PARENT, message(SINT)),
        HvError::INVALID_PARTITION_ID,
    );
    refused(
        "alone: a port for nobody",
        create(PARENT, 1, nobody, message(SINT)),
        HvError::INVALID_PARTITION_ID,
    );
    let far = PortInfo {
        vp: VpIndex::new(4000),
        ..message(SINT)
    };
    refused(
        "alone: a port of no VP",
        create(PARENT, 1, PARENT, far),
        HvError::INVALID_VP_INDEX,
    );

    let to = |port, kind| connect(PARENT, connection, PARENT, port, kind);
    refused(
        "alone: no such port",
        to(0x11, ConnectionKind::Message),
        HvError::INVALID_PORT_ID,
    );
    refused(
        "alone: not for events",
        to(port, ConnectionKind::Event),
        HvError::INVALID_PARAMETER,
    );
    let bell = ConnectionKind::Doorbell(Doorbell::default());
    refused(
        "alone: no doorbell of the parent",
        to(port, bell),
        HvError::INVALID_PARAMETER,
    );
    need(
        "alone: a connection",
        own(|| to(port, ConnectionKind::Message)),
    );
    refused(
        "alone: it is taken",
        to(port, ConnectionKind::Message),
        HvError::INVALID_CONNECTION_ID,
    );

    let before = taken();
    for n in 0..3_u8 {
        need(
            "alone: post",
            post(connection, 0x100 + u32::from(n), &[n; 8]),
        );
    }
    for n in 0..3_u64 {
        insn::halt_once();
        let wanted = [0x100 + n, 8, port.into(), n * 0x0101_0101_0101_0101];
        let got = take(slot);
        check(
            format_args!("alone: message {n} # {got:x?}"),
            got.is_some_and(|(found, _)| found == wanted)
                && (n != 1 || got.is_some_and(|(_, more)| more)),
        );
    }
    equal(
        "alone: an interrupt for each",
        u64::from(taken() - before),
        3,
    );
    let mut posted = 0;
    while posted < 2 * QUEUE && post(connection, 1, &posted.to_le_bytes()).is_ok() {
        posted += 1;
    }
    // One lies in the slot.
    equal("alone: the queue has its length", posted, QUEUE + 1);
    refused(
        "alone: then it is full",
        post(connection, 1, &[]),
        HvError::INSUFFICIENT_BUFFERS,
    );
    let in_order =
        (0..posted).all(|n| take(slot).is_some_and(|(found, _)| found == [1, 8, port.into(), n]));
    check("alone: all come in order", in_order);
    refused(
        "alone: no event through it",
        signal(connection, 0),
        HvError::INVALID_CONNECTION_ID,
    );

    need("alone: post", post(connection, 7, &[]));
    need("alone: post", post(connection, 8, &[]));
    need("alone: the port goes", delete(PARENT, port));
    refused(
        "alone: it is gone",
        post(connection, 1, &[]),
        HvError::INVALID_PORT_ID,
    );
    refused(
        "alone: it goes once",
        delete(PARENT, port),
        HvError::INVALID_PORT_ID,
    );
    check("alone: what lay in the slot stays", take(slot).is_some());
    equal(
        "alone: what waited is gone",
        insn::read_phys64(slot) as u32 as u64,
        0,
    );
    need(
        "alone: the same number again",
        own(|| create(PARENT, port, PARENT, message(SINT))),
    );
    refused(
        "alone: is not what was connected",
        post(connection, 1, &[]),
        HvError::INVALID_PORT_ID,
    );
    need(
        "alone: the connection goes",
        disconnect(PARENT, connection, false),
    );
    refused(
        "alone: it is gone",
        post(connection, 1, &[]),
        HvError::INVALID_CONNECTION_ID,
    );
    need("alone: the port goes", delete(PARENT, port));

    let range = |base, count| info(PortKind::Event { base, count }, SINT);
    refused(
        "alone: flags past the end",
        create(PARENT, port, PARENT, range(2047, 2)),
        HvError::INVALID_PARAMETER,
    );
    need(
        "alone: an event port",
        own(|| create(PARENT, port, PARENT, range(100, 4))),
    );
    need(
        "alone: a connection",
        own(|| to(port, ConnectionKind::Event)),
    );
    let before = taken();
    need("alone: signal", signal(connection, 3));
    need("alone: again", signal(connection, 3));
    refused(
        "alone: a flag too many",
        signal(connection, 4),
        HvError::INVALID_PARAMETER,
    );
    check(
        "alone: its interrupt",
        synic::sleep_until(100_000, || taken() != before),
    );
    equal(
        "alone: one for a flag that was set",
        u64::from(taken() - before),
        1,
    );
    // Flag 103.
    equal(
        "alone: the flag",
        insn::read_phys64(flags + 8),
        1 << (103 - 64),
    );
    insn::write_phys64(flags + 8, 0);
    need("alone: the event port goes", delete(PARENT, port));
    refused(
        "alone: it is gone",
        signal(connection, 0),
        HvError::INVALID_PORT_ID,
    );
    need(
        "alone: its connection goes",
        disconnect(PARENT, connection, false),
    );
}

/// The next kernel of the parent finds no ports of the last.
fn reset() {
    let made = || own(|| create(PARENT, 0x60, PARENT, message(SINT)));
    let connected = || own(|| connect(PARENT, 0x60, PARENT, 0x60, ConnectionKind::Message));
    for round in 0..2 {
        need(format_args!("reset {round}: a port"), made());
        need(format_args!("reset {round}: a connection"), connected());
        need(format_args!("reset {round}: post"), post(0x60, 1, &[]));
        for n in 0..40 {
            need(
                "reset: ports",
                own(|| create(PARENT, 0x100 + n, PARENT, message(SINT))),
            );
        }
        call::disable();
        check("reset: the interface comes back", call::enable());
        refused(
            "reset: no connection",
            post(0x60, 1, &[]),
            HvError::INVALID_CONNECTION_ID,
        );
        refused(
            "reset: no port",
            delete(PARENT, 0x60),
            HvError::INVALID_PORT_ID,
        );
    }
    let slot = synic::page() + u64::from(SINT) * 256;
    insn::write_mmio32(slot, 0);
}

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

fn from_child(guest: &mut Guest, slot: u64, flags: u64) {
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

fn to_child(guest: &mut Guest) {
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

/// Messages that each VP sends in a storm.
const STORM: u64 = 400;

extern "sysv64" fn storm(shared: &'static Shared) -> ! {
    const POST: u64 = 0x5C;
    const FULL: u64 = HvError::INSUFFICIENT_BUFFERS.0 as u64;
    let vp = shared.arg(0);
    let input = layout::CALL_INPUT + vp * 0x100;
    runtime::write(input, 3);
    runtime::write(input + 8, (0x50 + vp) | 8 << 32);
    for n in 0..STORM {
        runtime::write(input + 16, vp << 32 | n);
        loop {
            let status = runtime::call(POST, input, 0);
            if status == 0 {
                break;
            }
            if status != FULL {
                runtime::stop(1);
            }
            shared.set(1, shared.result(1) + 1);
            insn::pause();
        }
        runtime::write32(AWAY + 0x1000, n as u32);
    }
    shared.set(0, 1);
    runtime::stop(0)
}

/// Several VPs send through one connection and ring one doorbell, while the parent takes what comes.
fn storms(slot: u64, page: u64) {
    const VPS: u64 = 3;
    let Some(mut guest) = need("storm: a child", Guest::new(VPS as u32)) else {
        return;
    };
    let id = guest.id;
    need(
        "storm: a port",
        own(|| {
            create(
                PARENT,
                0x70,
                id,
                PortInfo {
                    vp: VP_ANY,
                    ..message(SINT)
                },
            )
        }),
    );
    need(
        "storm: a doorbell",
        own(|| create(PARENT, 0x71, id, info(PortKind::Doorbell, BELLS))),
    );
    need(
        "storm: a connection",
        guest.feed(|_| connect(id, 3, PARENT, 0x70, ConnectionKind::Message)),
    );
    let bell = Doorbell {
        gpa: Gpa::new(AWAY + 0x1000),
        value: None,
        bytes: Some(4),
    };
    need(
        "storm: one that rings",
        guest.feed(|_| connect(id, 3, PARENT, 0x71, ConnectionKind::Doorbell(bell))),
    );
    clear(page);
    for vp in 0..VPS {
        need("storm: start", guest.start_entry(vp as u32, storm, &[vp]));
        need(
            "storm: no SIPI",
            guest.set_one(vp as u32, N::INTERNAL_ACTIVITY_STATE, 0),
        );
        need("storm: go", guest.resume(vp as u32));
    }
    let (mut next, mut strange, mut rung) = ([0_u64; VPS as usize], 0, 0);
    let is_over = synic::sleep_until(20_000_000, || {
        for _ in 0..8 {
            if insn::read_phys64(slot) as u32 == 0 {
                break;
            }
            let Some(([kind, _, port, word], _)) = take(slot) else {
                break;
            };
            match next.get_mut((word >> 32) as usize) {
                Some(next)
                    if port == 0x70
                        && kind == 0x50 + (word >> 32)
                        && *next == word & 0xFFFF_FFFF =>
                {
                    *next += 1
                }
                _ => strange += 1,
            }
        }
        for n in 0..ring::ENTRY_COUNT as u64 {
            let entry = page + ring::ENTRIES as u64 + n * 4;
            if insn::read_mmio32(entry) == 0x71 {
                insn::write_mmio32(entry, 0);
                rung += 1;
            }
        }
        if insn::read_mmio32(page) >> 8 & 0xFF != 0 {
            insn::write_mmio32(page, 0);
            let _ = call::fast(CallCode::NOTIFY_PORT_RING_EMPTY, BELLS.into(), 0);
        }
        next == [STORM; VPS as usize] && (0..VPS).all(|vp| guest.shared(vp as u32).result(0) == 1)
    });
    check(format_args!("storm: all came # {next:?}"), is_over);
    equal("storm: out of order, twice, or lost", strange, 0);
    check(
        format_args!("storm: it rang # {rung}"),
        (1..=VPS * STORM).contains(&rung),
    );
    let full: u64 = (0..VPS).map(|vp| guest.shared(vp as u32).result(1)).sum();
    machine::verdict::note(format_args!(
        "{full} times the queue was full, {rung} entries in the ring"
    ));
    need("storm: the port goes", delete(PARENT, 0x70));
    need("storm: the doorbell goes", delete(PARENT, 0x71));
    destroy("storm", guest);
    synic::drain();
}

/// Whether the store of `value` at `gpa` rings; `None` when something else happens.
fn rings(guest: &mut Guest, program: Program, gpa: u64, value: u64) -> Option<bool> {
    let registers = [(N(N::RAX.0 + 6), gpa.into()), (N::RAX, value.into())];
    guest.start(0, Mode::Long, program, &registers).ok()?;
    let stop = guest.run(0)?;
    match stop.kind {
        MessageType::UNMAPPED_GPA => Some(false),
        _ => stop.is_out(code::STOP).then_some(true),
    }
}

fn clear(page: u64) {
    for word in 0..ring::BYTES as u64 / 4 {
        insn::write_mmio32(page + word * 4, 0);
    }
}

fn told() -> bool {
    let told = synic::wait(200_000, |message| {
        message.kind == MessageType::SINT_INTERCEPT
    });
    told.is_some_and(|message| message.payload[0] == BELLS)
}

fn doorbells(guest: &mut Guest, page: u64) {
    let id = guest.id;
    let bell = |gpa, value, bytes| {
        ConnectionKind::Doorbell(Doorbell {
            gpa: Gpa::new(gpa),
            value,
            bytes,
        })
    };
    let kinds = [
        (0x51, bell(AWAY, Some(0x1122_3344), Some(4))),
        (0x52, bell(AWAY, None, Some(2))),
        (0x53, bell(AWAY + 8, Some(0xAB), None)),
        (0x54, bell(AWAY + 16, None, None)),
        (0x55, bell(layout::DATA, None, None)),
    ];
    for (port, kind) in kinds {
        let made = own(|| create(PARENT, port, id, info(PortKind::Doorbell, BELLS)));
        need("doorbells: a port", made);
        need(
            "doorbells: a connection",
            guest.feed(|_| connect(id, port, PARENT, port, kind)),
        );
    }
    refused(
        "doorbells: one for the same writes",
        guest.feed(|_| {
            connect(
                id,
                0x99,
                PARENT,
                0x51,
                bell(AWAY, Some(0x1122_3344), Some(4)),
            )
        }),
        HvError::INVALID_PARAMETER,
    );
    let entry = |n: u64| page + ring::ENTRIES as u64 + n % ring::ENTRY_COUNT as u64 * 4;
    // The hypervisor's cursor is its own: the first entry shows it.
    clear(page);
    check(
        "doorbells: the first",
        rings(guest, store_16, AWAY, 1) == Some(true),
    );
    check("doorbells: the first is told", told());
    let first = (0..ring::ENTRY_COUNT as u64).find(|n| insn::read_mmio32(entry(*n)) != 0);
    let Some(first) = first else {
        check("doorbells: the first is in the ring", false);
        return;
    };
    insn::write_mmio32(entry(first), 0);
    let mut cursor = first + 1;
    let cases: [(&str, Program, u64, u64, u32); 12] = [
        ("four bytes of the value", store_32, AWAY, 0x1122_3344, 0x51),
        ("four bytes of another", store_32, AWAY, 0x1122_3345, 0),
        ("two bytes of any", store_16, AWAY, 0x3344, 0x52),
        ("one byte", store_8, AWAY, 0x44, 0),
        ("any width, one byte", store_8, AWAY + 8, 0xFFAB, 0x53),
        (
            "any width, eight bytes",
            code::write_rsi,
            AWAY + 8,
            0xAB,
            0x53,
        ),
        (
            "eight bytes of another",
            code::write_rsi,
            AWAY + 8,
            0xFFAB,
            0,
        ),
        ("a constant", store_constant, AWAY + 16, 0, 0x54),
        ("STOS", store_string, AWAY + 16, 1, 0x54),
        ("REP STOS", store_strings, AWAY + 16, 1, 0),
        ("ADD", add, AWAY + 16, 1, 0),
        ("beside it", store_8, AWAY + 17, 1, 0),
    ];
    for (name, program, gpa, value, port) in cases {
        let found = rings(guest, program, gpa, value);
        check(
            format_args!("doorbells: {name} # {found:?}"),
            found == Some(port != 0),
        );
        if port != 0 {
            let got = insn::read_mmio32(entry(cursor));
            equal(
                format_args!("doorbells: {name}: in the ring"),
                got.into(),
                port.into(),
            );
            check(format_args!("doorbells: {name}: told"), told());
            insn::write_mmio32(entry(cursor), 0);
            cursor += 1;
        }
    }
    let read = rings(guest, code::read_rsi, AWAY + 16, 0);
    check("doorbells: a read does not ring", read == Some(false));
    guest.write(layout::DATA, 0);
    check(
        "doorbells: memory goes first",
        rings(guest, store_8, layout::DATA, 7) == Some(true),
    );
    equal("doorbells: memory is written", guest.read(layout::DATA), 7);
    equal(
        "doorbells: and does not ring",
        insn::read_mmio32(entry(cursor)).into(),
        0,
    );

    // Masked: no message. Then full: the rest is kept, once for each port.
    let signal_masked = page + ring::SIGNAL_MASKED as u64;
    insn::write_mmio32(signal_masked, 1);
    for _ in 0..ring::ENTRY_COUNT {
        rings(guest, store_16, AWAY, 1);
    }
    check("doorbells: a mask is kept to", !told());
    let full = || insn::read_mmio32(page) >> 8 & 0xFF != 0;
    check("doorbells: the ring is full but for the flag", !full());
    for (program, gpa) in [
        (store_8 as Program, AWAY + 16),
        (store_16, AWAY),
        (store_8, AWAY + 16),
    ] {
        check(
            "doorbells: a full ring rings",
            rings(guest, program, gpa, 1) == Some(true),
        );
    }
    check("doorbells: the flag", full());
    let all = (0..ring::ENTRY_COUNT as u64).all(|n| insn::read_mmio32(entry(n)) == 0x52);
    check("doorbells: nothing is overwritten", all);
    insn::write_mmio32(page, 0);
    for n in 0..ring::ENTRY_COUNT as u64 {
        insn::write_mmio32(entry(n), 0);
    }
    let empty = |sint: u8| call::fast(CallCode::NOTIFY_PORT_RING_EMPTY, sint.into(), 0);
    refused(
        "doorbells: no such ring",
        empty(16),
        HvError::INVALID_PARAMETER,
    );
    need("doorbells: it is empty", empty(BELLS));
    check("doorbells: what was kept is told", told());
    for wanted in [0x54, 0x52, 0] {
        equal(
            "doorbells: what was kept",
            insn::read_mmio32(entry(cursor)).into(),
            wanted,
        );
        insn::write_mmio32(entry(cursor), 0);
        cursor += 1;
    }

    // Nobody hears: the parent answers.
    need("doorbells: a port goes", delete(PARENT, 0x52));
    check(
        "doorbells: without it the parent answers",
        rings(guest, store_16, AWAY, 1) == Some(false),
    );
    insn::wrmsr(msr::SIRBP, insn::rdmsr(msr::SIRBP) & !1);
    check(
        "doorbells: so without a page",
        rings(guest, store_8, AWAY + 16, 1) == Some(false),
    );
    insn::wrmsr(msr::SIRBP, insn::rdmsr(msr::SIRBP) | 1);
    check(
        "doorbells: with it again",
        rings(guest, store_8, AWAY + 16, 1) == Some(true),
    );
    need("doorbells: disconnect", disconnect(id, 0x54, true));
    refused(
        "doorbells: once",
        disconnect(id, 0x54, true),
        HvError::INVALID_CONNECTION_ID,
    );
    let stop = rings(guest, store_8, AWAY + 16, 1);
    check(
        "doorbells: disconnected, the parent answers",
        stop == Some(false),
    );
    for port in [0x51, 0x53, 0x54, 0x55] {
        need("doorbells: a port goes", delete(PARENT, port));
    }
    synic::drain();
}
