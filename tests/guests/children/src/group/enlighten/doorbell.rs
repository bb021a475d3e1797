//! A doorbell of a child.

use machine::insn;
use machine::verdict::{check, note};
use tlfs::call::*;
use tlfs::{CallCode, MessageType};

use crate::child::guest::Guest;
use crate::child::runtime::{self, Shared};
use crate::client::call;
use crate::client::port::{connect, create, delete, disconnect, info, own};
use crate::client::synic;
use crate::client::vp::PATIENCE;
use crate::group::stopped_for;
use crate::group::{need, stopped};

const BELL: u64 = 0x50_0000;
/// The port and its connection.
const NUMBER: u32 = 0x60;

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
    let any = PortInfo {
        vp: VP_ANY,
        ..info(PortKind::Doorbell, 5)
    };
    let result = own(|| create(PARTITION_SELF, NUMBER, guest.id, any));
    need("doorbell: port", result);
    let kind = ConnectionKind::Doorbell(Doorbell {
        gpa: addr::Gpa::new(BELL),
        value: Some(7),
        bytes: Some(4),
    });
    let result = guest.feed(|child| connect(child.id, NUMBER, PARTITION_SELF, NUMBER, kind));
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
    need("doorbell: disconnected", disconnect(guest.id, NUMBER, true));
    need("doorbell: start", guest.start_entry(0, ring, &[1]));
    let stop = guest.run(0);
    stopped_for(
        "doorbell: then the write stops the VP",
        stop,
        MessageType::UNMAPPED_GPA,
    );
    need("doorbell: deleted", delete(PARTITION_SELF, NUMBER));
    insn::wrmsr(tlfs::msr::SINT0 + 5, 1 << 16);
    insn::wrmsr(tlfs::msr::SIRBP, 0);
    synic::drain();
    crate::arena::free(ring_page);
}
