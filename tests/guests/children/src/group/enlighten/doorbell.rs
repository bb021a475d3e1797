//! A doorbell of a child.

use machine::insn;
use machine::verdict::{check, note};
use tlfs::call::*;
use tlfs::{CallCode, MessageType};

use super::talk::port;
use crate::child::guest::Guest;
use crate::child::runtime::{self, Shared};
use crate::client::call;
use crate::client::synic;
use crate::client::vp::PATIENCE;
use crate::group::stopped_for;
use crate::group::{need, stopped};

const BELL: u64 = 0x50_0000;

extern "sysv64" fn ring(shared: &'static Shared) -> ! {
    for n in 0..shared.arg(0) {
        runtime::write32(BELL, 7);
        shared.set(0, n + 1);
    }
    runtime::stop(0)
}

/// Writes to an address become entries of the parent's event ring.
pub fn doorbell(guest: &mut Guest) {
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
    stopped_for(
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
