//! Ports and connections: of the parent with itself, between it and a child both ways, and doorbells.

mod alone;
mod child;
mod doorbells;
mod storm;

use addr::PartitionId;
use machine::insn;
use machine::platform::Platform;
use machine::verdict::equal;
use tlfs::call::*;
use tlfs::{HvError, msr};

use super::{destroy, need, refused};
use crate::arena;
use crate::child::guest::Guest;
use crate::client::port::{connect, create, delete, disconnect, message, own, post};
use crate::client::synic;
use crate::options::Options;
use alone::{alone, reset};
use child::{from_child, to_child};
use doorbells::doorbells;
use storm::storms;

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
