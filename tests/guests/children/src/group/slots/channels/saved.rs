//! The state of the server, taken out and put into another child.

use alloc::vec::Vec;

use machine::verdict::{check, equal};
use slot_proto::{MAX_STATE_BYTES, Notice, Request, RestorePart, SaveDone, SaveFrom};
use tlfs::HvError;
use tlfs::property::PropertyCode;
use tlfs::wire::Zero;
use vmbus_client::{SINT, Wire};
use vmbus_proto::{GpadlHandle, Version};

use super::{QUOTA, begin, end, hears, open, plain};
use crate::child::guest::Guest;
use crate::client::line::Line;
use crate::group::slots::World;
use crate::group::slots::worker::Worker;
use crate::group::vmbus::conversation::connect;
use crate::group::{need, refused};

/// The server's state of a child with an open channel, in another child.
pub fn saved(world: &World, control: &mut Line) {
    let Some(mut child) = begin(world, control, QUOTA) else {
        return;
    };
    let Some(relid) = need("saved: an offer", child.wire.hand.offer_of(plain(1, 0))) else {
        return;
    };
    connect(&mut child, "saved", Version::V5_3);
    child.offers();
    open(&mut child, relid, 1);
    let save = |worker: &mut Worker, offset| {
        let reserved = Zero;
        worker
            .line
            .ask(&Request::VmbusSave(SaveFrom { offset, reserved }))
    };
    refused(
        "saved: not while it runs",
        save(&mut child.wire.hand, 0),
        HvError::INVALID_PARTITION_STATE,
    );
    let freeze = |guest: &Guest, value| {
        need(
            "saved: time",
            guest.set_property(PropertyCode::TIME_FREEZE, value),
        )
    };
    freeze(&child.wire.guest, 1);
    let mut state = Vec::new();
    loop {
        let body = save(&mut child.wire.hand, state.len() as u32).unwrap_or_default();
        let bytes = SaveDone::decode(&body).map_or(0, |done| done.bytes as usize);
        state.extend_from_slice(body.get(SaveDone::BYTES..).unwrap_or_default());
        if state.len() >= bytes || body.len() <= SaveDone::BYTES {
            check(
                format_args!("saved: all of it # {} of {bytes}", state.len()),
                bytes != 0 && state.len() == bytes,
            );
            break;
        }
    }
    end(world, child);
    let Some(mut child) = begin(world, control, QUOTA) else {
        return;
    };
    let whole = RestorePart {
        bytes: state.len() as u32,
        offset: 0,
    };
    let part = state.get(..MAX_STATE_BYTES).unwrap_or(&state);
    refused(
        "saved: not into one that runs",
        child.wire.hand.plainly(&Request::VmbusRestore(whole, part)),
        HvError::INVALID_PARTITION_STATE,
    );
    freeze(&child.wire.guest, 1);
    let mut restored = Ok(());
    for (n, part) in state.chunks(MAX_STATE_BYTES).enumerate() {
        let header = RestorePart {
            bytes: state.len() as u32,
            offset: (n * MAX_STATE_BYTES) as u32,
        };
        let asked = child
            .wire
            .hand
            .plainly(&Request::VmbusRestore(header, part));
        restored = restored.and(asked);
    }
    need("saved: restored", restored);
    let notice = child.wire.hand.notice();
    check(
        format_args!("saved: the worker hears what is open # {notice:?}"),
        matches!(notice, Some(Notice::Open(of, opening)) if of == relid && opening.is_open_already),
    );
    freeze(&child.wire.guest, 0);
    child.connection = 4;
    let connection = relid.0 | u32::from(SINT) << 12;
    check(
        "saved: signals pass as before",
        child.wire.signal(connection, 0) == 0 && child.wire.hand.is_signalled(relid),
    );
    equal("saved: the guest closes", child.close(relid), 0);
    hears(&mut child, "the worker is asked", Notice::Close(relid));
    need("saved: done", child.wire.hand.close_done(relid));
    check(
        "saved: the ring goes back",
        child.tear_down(relid, GpadlHandle(1)) == 0 && child.is_torn_down(GpadlHandle(1)),
    );
    end(world, child);
}
