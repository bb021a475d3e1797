//! A signal of a child through VMBus to its worker, and the worker's back.

use machine::mark::mark;
use machine::verdict::{check, note};
use slot_proto::{AttachFlags, Notice};

use super::RUNS;
use crate::child::guest::Guest;
use crate::child::vmbus::{self as inside, out};
use crate::client::synic;
use crate::client::vp::PATIENCE;
use crate::group::slots::worker::{Worker, attach};
use crate::group::slots::{World, child};
use crate::group::{destroy, need, stopped};

/// `child-bus-round-trip`: HvCallSignalEvent of the child, the doorbell of its slot, the worker's signal, the child's event
/// flag. The worker is awake in an interrupt's time: it halts, as its processor does when nobody has work.
pub fn run() {
    let Some(world) = World::new() else { return };
    if let Some(mut control) = world.control() {
        if let Some(mut guest) = child() {
            if let Some(mut worker) = attach(&world, &mut control, &guest, AttachFlags::default()) {
                measure(&world, &mut worker, &mut guest);
                let generation = worker.line.client.generation();
                need("bench: DETACH", control.detach(0, generation));
                check("bench: the slot closes", worker.line.close(&world.bus));
                worker.pages.free();
            }
            destroy("bench: VMBus", guest);
        }
        check(
            "bench: the control channel closes",
            control.close(&world.bus),
        );
    }
    world.leave();
}

fn measure(world: &World, worker: &mut Worker, guest: &mut Guest) {
    let Some(relid) = worker.offer() else { return };
    need(
        "bench: VMBus",
        guest.start_entry(0, inside::client, &[inside::then::SIGNAL, RUNS]),
    );
    need("bench: VMBus goes", worker.resume());
    let opened = matches!(worker.notice(), Some(Notice::Open(..)));
    check("bench: the channel is opened", opened);
    need("bench: OPEN_RESULT", worker.opened(relid, 0));
    // The answer was an interrupt; the next one has to be asked for.
    let _ = worker.line.signal();
    mark("child-bus-round-trip");
    for _ in 0..RUNS {
        let mut is_signalled = false;
        let is_in_time = synic::sleep_until(PATIENCE, || {
            // As a driver does: while the flag is set, nobody is interrupted for it.
            world.bus.take_event(worker.line.relid);
            worker.watcher.take_signals(|_| is_signalled = true);
            is_signalled
        });
        if !is_in_time {
            break;
        }
        worker.signals.signal(relid);
        let _ = worker.line.signal();
    }
    mark("child-bus-round-trip");
    let stop = worker.stop(guest);
    let ticks = guest.shared(0).result(out::TICKS);
    if stopped("bench: signals end", stop).is_some() && check("bench: all are answered", ticks != 0)
    {
        note(format_args!("bench child-bus-round-trip {}", ticks / RUNS));
    }
}
