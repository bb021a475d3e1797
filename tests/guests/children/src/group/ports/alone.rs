//! The parent with itself: queues, flags, and what is gone with the interface.

use addr::{PartitionId, VpIndex};
use machine::verdict::{check, equal};
use machine::{cpu, insn};
use tlfs::HvError;
use tlfs::call::*;

use super::{PARENT, QUEUE, SINT, VECTOR};
use crate::client::call;
use crate::client::port::{
    connect, create, delete, disconnect, info, message, own, post, signal, take,
};
use crate::client::synic;
use crate::group::{need, refused};

/// The parent sends to itself.
pub fn alone(slot: u64, flags: u64) {
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
pub fn reset() {
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
