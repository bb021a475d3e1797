//! One child with its worker: bounds of the slot, intercepts, a channel, pages.

use addr::PartitionId;
use machine::verdict::{check, equal};
use slot_proto::{
    AttachFlags, Generation, GpadlName, GpadlPagesDone, GpadlPagesFrom, Notice, RelidOnly, Request,
};
use tlfs::call::{PARTITION_SELF, PartitionOnly, VpRegisters};
use tlfs::register::RegisterName as N;
use tlfs::wire::Zero;
use tlfs::{CallCode, HvError};
use vmbus_proto::Relid;

use super::{PATIENCE, Worker, attach};
use crate::child::code;
use crate::child::guest::Guest;
use crate::child::vmbus::{self as inside, out};
use crate::client::line::{Line, WorkerPages};
use crate::client::synic;
use crate::group::slots::World;
use crate::group::{destroy, need, refused};

/// Attaches a worker to `guest`, and goes through what it can do.
pub fn one_child(world: &World, control: &mut Line, mut guest: Guest) {
    let pages = WorkerPages::new();
    let none = AttachFlags::default();
    refused(
        "slot: ATTACH where it is not open",
        control.attach(0, &guest, &pages, none),
        HvError::INVALID_PARTITION_STATE,
    );
    pages.free();
    need("slot: TAG", control.tag(&guest, 0x1234_5678_9ABC));
    if let Some(mut worker) = attach(world, control, &guest, none) {
        let entry = control.entry(&guest);
        check(
            format_args!("slot: the list has it # {entry:?}"),
            entry.is_some_and(|entry| {
                entry.slot == 0
                    && entry.tag == 0x1234_5678_9ABC
                    && entry.deposited_pages >= 32
                    && entry.mapped_pages >= 512
                    && entry.generation == worker.line.client.generation()
            }),
        );
        refused(
            "slot: ATTACH twice",
            control.attach(0, &guest, &worker.pages, none),
            HvError::INVALID_PARTITION_STATE,
        );
        refused(
            "slot: ATTACH of a partition that has one",
            control.attach(1, &guest, &worker.pages, none),
            HvError::INVALID_PARTITION_STATE,
        );
        bounds(&mut worker, &guest);
        intercepts(&mut worker, &mut guest);
        bus(world, &mut worker, &mut guest);
        let generation = worker.line.client.generation();
        refused(
            "slot: DETACH of another session",
            control.detach(0, Generation(generation.0 + 9)),
            HvError::INVALID_PARTITION_STATE,
        );
        need("slot: DETACH", control.detach(0, generation));
        worker.line.look();
        check("slot: the worker is told", worker.line.over.is_some());
        check("slot: nobody answers it", worker.is_forgotten());
        check("slot: it closes", worker.line.close(&world.bus));
        worker.pages.free();
    }
    destroy("slot", guest);
}

/// What a slot's calls may not be.
fn bounds(worker: &mut Worker, guest: &Guest) {
    let id = |partition| PartitionOnly { partition }.encode();
    let denied = HvError::ACCESS_DENIED;
    refused(
        "slot: no deposits",
        worker.line.call(CallCode::DEPOSIT_MEMORY, &id(guest.id), 0),
        denied,
    );
    refused(
        "slot: no end of the partition",
        worker
            .line
            .call(CallCode::FINALIZE_PARTITION, &id(guest.id), 0),
        denied,
    );
    let read = |partition| {
        let mut input = VpRegisters {
            partition,
            ..VpRegisters::default()
        }
        .encode()
        .to_vec();
        input.extend_from_slice(&N::RIP.0.to_le_bytes());
        input
    };
    let call = CallCode::GET_VP_REGISTERS;
    let other = read(PartitionId::new(1));
    refused(
        "slot: nobody else's registers",
        worker.line.call(call, &other, 1),
        HvError::INVALID_PARTITION_ID,
    );
    let own = worker.line.call(call, &read(PARTITION_SELF), 1);
    let named = worker.line.call(call, &read(guest.id), 1);
    check(
        format_args!("slot: its own registers, by both names # {own:x?}"),
        own == named
            && own
                .as_ref()
                .is_ok_and(|(done, out)| *done == 1 && out.len() == 16),
    );
    // The first of two elements was done before, says the caller: what its answer would lie in is nobody's.
    let both = [read(PARTITION_SELF), N::RIP.0.to_le_bytes().to_vec()].concat();
    let full = worker.line.call(call, &both, 2);
    let half = worker.line.call_from(call, &both, 1, 2);
    check(
        format_args!("slot: no answer to what was not asked # {full:x?} {half:x?}"),
        full.as_ref()
            .is_ok_and(|(_, out)| out.iter().any(|byte| *byte != 0) && out.len() == 32)
            && half.as_ref().is_ok_and(|(done, out)| {
                *done == 2 && out.len() == 32 && out[..16].iter().all(|byte| *byte == 0)
            }),
    );
    let reserved = Zero;
    let list = Request::List(slot_proto::List { start: 0, reserved });
    refused(
        "slot: no request of the daemon",
        worker.line.ask(&list),
        HvError::INVALID_HYPERCALL_CODE,
    );
}

fn intercepts(worker: &mut Worker, guest: &mut Guest) {
    need(
        "slot: a program",
        guest.start(0, crate::child::guest::Mode::Long, code::out_64, &[]),
    );
    need("slot: it goes on", worker.resume());
    let stop = worker.stop(guest);
    check(
        "slot: its end is in the intercept page, and the event area says so",
        stop.is_some_and(|stop| stop.is_out(code::STOP)),
    );
}

/// The child's VMBus, from contact to unload.
fn bus(world: &World, worker: &mut Worker, guest: &mut Guest) {
    let Some(relid) = worker.offer() else { return };
    equal(
        "bus: the same offer is the same channel",
        worker.offer().map_or(0, |again| again.0.into()),
        relid.0.into(),
    );
    guest.shared(0).set_arg(0, inside::then::CLOSE);
    need(
        "bus: the child's program",
        guest.start_entry(0, inside::client, &[]),
    );
    world.bus.take_event(worker.line.relid);
    need("bus: it goes on", worker.resume());
    let notice = worker.notice();
    let Some(Notice::Open(opened, opening)) = notice else {
        let step = guest.shared(0).result(out::STEP);
        check(
            format_args!("bus: the child opens # {notice:?} step {step}"),
            false,
        );
        return;
    };
    check(
        format_args!("bus: the child opens # {opening:?}"),
        opened == relid
            && opening.ring == inside::HANDLE
            && opening.downstream_page == inside::DOWNSTREAM
            && !opening.is_open_already,
    );
    check(
        "bus: the doorbell rings",
        world.bus.take_event(worker.line.relid),
    );
    pages(worker, relid);
    need("bus: OPEN_RESULT", worker.opened(relid, 0));
    refused(
        "bus: once only",
        worker.opened(relid, 0),
        HvError::INVALID_PARTITION_STATE,
    );
    let mut signalled = 0;
    synic::sleep_until(PATIENCE, || {
        worker.watcher.take_signals(|relid| signalled = relid.0);
        signalled != 0
    });
    equal("bus: the child's signal", signalled.into(), relid.0.into());
    worker.signals.signal(relid);
    need("bus: the worker signals the slot", worker.line.signal());
    let closed = worker.notice();
    check(
        format_args!("bus: the child closes # {closed:?}"),
        closed == Some(Notice::Close(relid)),
    );
    let close = Request::CloseDone(RelidOnly {
        relid,
        reserved: Zero,
    });
    need("bus: CLOSE_DONE", worker.line.ask(&close));
    let teardown = worker.notice();
    check(
        format_args!("bus: the child wants its pages # {teardown:?}"),
        teardown == Some(Notice::GpadlTeardown(relid, inside::HANDLE)),
    );
    let done = Request::GpadlDone(GpadlName {
        relid,
        handle: inside::HANDLE,
    });
    need("bus: GPADL_DONE", worker.line.ask(&done));
    let stop = worker.stop(guest);
    let seen = |what| guest.shared(0).result(what);
    check(
        format_args!(
            "bus: the child came to its end # step {} {:?}",
            seen(out::STEP),
            stop.map(|stop| stop.kind)
        ),
        stop.is_some_and(|stop| stop.is_out(code::STOP)) && seen(out::STEP) == 8,
    );
    let results = [
        (out::VERSION, 1),
        (out::RELID, relid.0.into()),
        (out::GPADL, 0),
        (out::OPEN, 0),
        (out::SIGNAL, 0),
        (out::SIGNALLED, 1),
        (out::TORNDOWN, inside::HANDLE.0.into()),
        (out::UNLOADED, 1),
    ];
    for (what, wanted) in results {
        equal(
            format_args!("bus: what the child saw ({what})"),
            seen(what) & 0xFFFF_FFFF,
            wanted,
        );
    }
}

fn pages(worker: &mut Worker, relid: Relid) {
    let from = |first| {
        Request::GpadlPages(GpadlPagesFrom {
            relid,
            handle: inside::HANDLE,
            first,
            reserved: Zero,
        })
    };
    let body = worker.line.ask(&from(0)).unwrap_or_default();
    let done = GpadlPagesDone::decode(&body);
    let numbers = body.get(GpadlPagesDone::BYTES..).unwrap_or_default();
    let is_right = numbers
        .chunks_exact(8)
        .zip(inside::RING / 4096..)
        .all(|(bytes, page)| bytes == page.to_le_bytes());
    check(
        format_args!("bus: the ring's pages # {done:?}"),
        is_right
            && numbers.len() == 8 * inside::RING_PAGES as usize
            && done.is_ok_and(|done| u64::from(done.pages) == inside::RING_PAGES),
    );
    refused(
        "bus: no page past the end",
        worker.line.ask(&from(9)),
        HvError::INVALID_PARAMETER,
    );
}
