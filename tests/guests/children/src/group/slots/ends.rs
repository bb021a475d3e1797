//! How sessions end: another worker, a slot that closes, a partition that goes, broken rings, the parent's own end.

use core::sync::atomic::Ordering;

use machine::verdict::{check, equal};
use ring::RingMem;
use ring_proto::Control;
use slot_proto::event::{AREA_PAGES, Faults, NOTICE_HEAD_WORD};
use slot_proto::{AttachFlags, NO_SLOT, Notice, RING_PAGES};
use tlfs::property::PropertyCode;
use vmbus_proto::Relid;

use super::worker::{Worker, attach};
use super::{World, child};
use crate::child::guest::Guest;
use crate::child::vmbus::{self as inside, out};
use crate::client::line::{Line, ring_of, words};
use crate::client::partition::{children, property_of};
use crate::client::synic;
use crate::group::{destroy, need};

pub fn run(world: &World) {
    let Some(mut control) = world.control() else {
        return;
    };
    if let Some(guest) = child() {
        another_worker(world, &mut control, guest);
    }
    if let Some(guest) = child() {
        broken_ring(world, &mut control, guest);
    }
    if let Some(guest) = child() {
        broken_queue(world, &mut control, guest);
    }
    if let Some(guest) = child() {
        control = match daemon_goes(world, control, guest) {
            Some(control) => control,
            None => return,
        };
    }
    if let Some(guest) = child() {
        partition_goes(world, &mut control, guest);
    }
    check(
        "ends: the control channel closes",
        control.close(&world.bus),
    );
}

/// A child that counts for ever, with a channel that is open.
fn busy(worker: &mut Worker, guest: &mut Guest) -> Option<Relid> {
    let relid = worker.offer()?;
    guest.shared(0).set_arg(0, inside::then::COUNT);
    need(
        "ends: the child's program",
        guest.start_entry(0, inside::client, &[]),
    )?;
    guest.shared(0).set_arg(0, inside::then::COUNT);
    need("ends: it goes on", worker.resume())?;
    let notice = worker.notice();
    check(
        "ends: the child opens",
        matches!(notice, Some(Notice::Open(..))),
    );
    need("ends: OPEN_RESULT", worker.opened(relid, 0))?;
    check("ends: it runs", counts(guest));
    Some(relid)
}

fn counts(guest: &Guest) -> bool {
    let before = guest.shared(0).result(out::COUNT);
    synic::sleep_until(2_000_000, || guest.shared(0).result(out::COUNT) != before)
}

/// Whether the child runs, after a time in which it would have counted.
fn stands(guest: &Guest) -> bool {
    let before = guest.shared(0).result(out::COUNT);
    synic::sleep(20_000);
    guest.shared(0).result(out::COUNT) == before
        && property_of(guest.id, PropertyCode::TIME_FREEZE) == Ok(1)
}

fn another_worker(world: &World, control: &mut Line, mut guest: Guest) {
    let none = AttachFlags::default();
    let Some(mut worker) = attach(world, control, &guest, none) else {
        destroy("ends", guest);
        return;
    };
    let relid = busy(&mut worker, &mut guest).unwrap_or(Relid(0));
    let first = worker.line.client.generation();
    need("ends: DETACH", control.detach(0, first));
    check("ends: the child stands still", stands(&guest));
    let Worker { line, pages, .. } = worker;
    let attached = control.attach(0, &guest, &pages, AttachFlags::STAYS_SUSPENDED);
    if let Some(second) = need("ends: ATTACH again", attached) {
        check("ends: another session", second > first);
        check("ends: the child still stands", stands(&guest));
        if let Some(mut worker) = Worker::begin(line, pages, second) {
            let notice = worker.notice();
            check(
                format_args!("ends: the new worker hears what is open # {notice:?}"),
                matches!(notice, Some(Notice::Open(open, opening)) if open == relid && opening.is_open_already),
            );
            need("ends: DETACH", control.detach(0, second));
            // The third session lets it run.
            let Worker { line, pages, .. } = worker;
            let third = need("ends: ATTACH", control.attach(0, &guest, &pages, none));
            check("ends: the child goes on", counts(&guest));
            // Nobody is left who has the slot open.
            check("ends: the slot closes", line.close(&world.bus));
            check(
                "ends: the child stands still without a slot",
                stands(&guest),
            );
            let entry = control.entry(&guest);
            check(
                "ends: the list says that it has none",
                third.is_some() && entry.is_some_and(|entry| entry.slot == NO_SLOT),
            );
            pages.free();
        }
    }
    destroy("ends", guest);
}

fn broken_ring(world: &World, control: &mut Line, mut guest: Guest) {
    let none = AttachFlags::default();
    let Some(mut worker) = attach(world, control, &guest, none) else {
        destroy("broken", guest);
        return;
    };
    busy(&mut worker, &mut guest);
    // An index that none can be.
    ring_of(&worker.line.pages[..RING_PAGES]).set_control(Control::WriteIndex, 0x1_0004);
    need("broken: the worker signals", worker.line.signal());
    check("broken: the child stands still", stands(&guest));
    let faults = worker.watcher.take_news().faults;
    check(
        format_args!("broken: the worker is told # {faults:?}"),
        faults.contains(Faults::RING_STOPPED),
    );
    let generation = worker.line.client.generation();
    need("broken: DETACH", control.detach(0, generation));
    let attached = control.attach(0, &guest, &worker.pages, none);
    if let Some(generation) = need("broken: ATTACH makes it whole", attached)
        && let Some(worker) = Worker::begin(worker.line, worker.pages, generation)
    {
        check("broken: the child goes on", counts(&guest));
        check("broken: the slot closes", worker.line.close(&world.bus));
        worker.pages.free();
    }
    destroy("broken", guest);
}

/// A head that no worker can have.
fn broken_queue(world: &World, control: &mut Line, mut guest: Guest) {
    let none = AttachFlags::default();
    if let Some(mut worker) = attach(world, control, &guest, none) {
        busy(&mut worker, &mut guest);
        let area = words(worker.pages.at, AREA_PAGES);
        area[NOTICE_HEAD_WORD].store(0x8000_0000, Ordering::SeqCst);
        need("queue: the worker signals", worker.line.signal());
        check("queue: the child stands still", stands(&guest));
        let faults = worker.watcher.take_news().faults;
        check(
            format_args!("queue: the worker is told # {faults:?}"),
            faults.contains(Faults::RING_STOPPED),
        );
        check("queue: nobody answers it", worker.is_forgotten());
        check("queue: the slot closes", worker.line.close(&world.bus));
        worker.pages.free();
    }
    destroy("queue", guest);
}

/// The daemon ends and comes again, while a worker and its child go on.
fn daemon_goes(world: &World, mut control: Line, mut guest: Guest) -> Option<Line> {
    let none = AttachFlags::default();
    need("daemon: TAG", control.tag(&guest, 77));
    let worker = attach(world, &mut control, &guest, none).and_then(|mut worker| {
        busy(&mut worker, &mut guest)?;
        Some(worker)
    });
    let before = control.hello().map(|done| done.boot_id);
    check("daemon: its channel closes", control.close(&world.bus));
    check("daemon: the child goes on", counts(&guest));
    let mut control = world.control()?;
    let after = control.hello().map(|done| done.boot_id);
    check(
        "daemon: the same hypervisor",
        before.is_ok() && before == after,
    );
    let entry = control.entry(&guest);
    let generation = worker
        .as_ref()
        .map(|worker| worker.line.client.generation());
    check(
        format_args!("daemon: it finds the child # {entry:?}"),
        entry.is_some_and(|entry| {
            entry.tag == 77 && entry.slot == 0 && Some(entry.generation) == generation
        }),
    );
    if let Some(mut worker) = worker {
        need("daemon: the worker's calls are answered", worker.resume());
        check("daemon: the slot closes", worker.line.close(&world.bus));
        worker.pages.free();
    }
    destroy("daemon", guest);
    Some(control)
}

fn partition_goes(world: &World, control: &mut Line, mut guest: Guest) {
    let none = AttachFlags::default();
    let Some(mut worker) = attach(world, control, &guest, none) else {
        destroy("gone", guest);
        return;
    };
    busy(&mut worker, &mut guest);
    destroy("gone", guest);
    worker.line.look();
    check("gone: the worker is told", worker.line.over.is_some());
    check("gone: nobody answers it", worker.is_forgotten());
    check("gone: the slot closes", worker.line.close(&world.bus));
    worker.pages.free();
}

/// The parent unloads, and contacts anew, with everything there is.
pub fn death() {
    for is_contact in [false, true] {
        let Some(world) = World::new() else { return };
        let Some(mut control) = world.control() else {
            return;
        };
        let Some(mut guest) = child() else { return };
        let none = AttachFlags::default();
        if let Some(mut worker) = attach(&world, &mut control, &guest, none) {
            busy(&mut worker, &mut guest);
        }
        let answered = if is_contact {
            world.bus.contact()
        } else {
            world.bus.unload()
        };
        check(
            format_args!("death: it is answered (by contact: {is_contact})"),
            answered,
        );
        equal("death: no child is left", children().len() as u64, 0);
        let before = guest.shared(0).result(out::COUNT);
        synic::sleep(20_000);
        equal(
            "death: nothing runs",
            guest.shared(0).result(out::COUNT),
            before,
        );
        // All frames are the parent's: the pages of the rings and of the worker, too.
        let pages = control.pages.clone();
        let Some(other) = need("death: a child after it", Guest::new(1)) else {
            return;
        };
        let reply = crate::client::partition::deposit_frames(other.id, &pages[..1]);
        need("death: a ring's page can be deposited", reply.status);
        let mut other = other;
        other.deposited.insert(pages[0]);
        destroy("death", other);
        guest.forget();
        if is_contact {
            world.leave();
        } else {
            world.bus.leave();
        }
    }
}
