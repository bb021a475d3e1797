//! What an LP does: it runs its own VP of the parent first, then those of children, and when nobody has work it halts.
//!
//! Who runs is [`sched`]'s choice. Each LP has a queue under a lock; the lock is held for single steps, never while a VP
//! is switched or runs. A VP's core is locked by the LP that has it loaded.

use core::sync::atomic::Ordering;

use sched::{Choice, EntityId, ParentState, Published, Refused, RunQueue, Wake};
use spin::{Mutex, MutexGuard, Once};
use vpcore::seam::Lp;

use crate::arch::x86::extended::Extended;
use crate::arch::x86::insn;
use crate::arch::x86::lp::{self, LpArea};
use crate::partition::directory::{self, Directory};
use crate::partition::statistics::LpTally;
use crate::partition::{Seat, VpShared};
use crate::shootdown;
use crate::vp::child::ChildCore;
use crate::vp::parent::ParentVp;

/// Slices in a second.
const SLICES_PER_SECOND: u64 = 1000;

/// The queue of one LP.
pub struct LpQueue {
    queue: Mutex<RunQueue<'static>>,
    published: &'static Published,
}

impl LpQueue {
    /// An empty queue of LP `index`.
    pub fn new(index: u32, tsc_hz: u64, published: &'static Published) -> Self {
        let slice = tsc_hz / SLICES_PER_SECOND;
        Self {
            queue: Mutex::new(RunQueue::new(index, slice, published)),
            published,
        }
    }
}

static QUEUES: Once<&'static [LpQueue]> = Once::new();

/// Makes the queues of all LPs known. Once, before any LP is launched.
pub fn init(queues: &'static [LpQueue]) {
    QUEUES.call_once(|| queues);
}

fn queue(lp: u32) -> Option<&'static LpQueue> {
    QUEUES.get()?.get(lp as usize)
}

fn published(lp: u32) -> Option<&'static Published> {
    queue(lp).map(|queue| queue.published)
}

fn lps() -> u32 {
    lp::all().len() as u32
}

/// A VP of a child that is loaded here.
struct Seated {
    id: EntityId,
    core: MutexGuard<'static, ChildCore>,
}

/// What one LP runs.
pub struct Processor {
    area: &'static LpArea,
    extension: Lp,
    parent: &'static mut ParentVp,
    /// Vector state of the parent's VP while another is loaded.
    parent_extended: Extended,
    /// The parent's VP waits for an interrupt.
    parent_waits: bool,
    /// An interrupt for the parent came while another VP was loaded.
    parent_called: bool,
    /// Whom the LP has loaded, if not the parent's VP.
    child: Option<Seated>,
    tally: LpTally,
}

impl Processor {
    /// The LP that calls, with its extension and its VP of the parent, which is loaded.
    pub fn new(
        area: &'static LpArea,
        extension: Lp,
        parent: &'static mut ParentVp,
        parent_extended: Extended,
    ) -> Self {
        parent.shared().set_loaded(Some(area));
        Self {
            area,
            extension,
            parent,
            parent_extended,
            parent_waits: false,
            parent_called: false,
            child: None,
            tally: LpTally::new(area.index, insn::rdtsc()),
        }
    }

    /// Runs VPs for ever.
    pub fn run(&mut self) -> ! {
        loop {
            match self.choose() {
                Choice::Parent { until } => {
                    self.seat_parent();
                    self.parent_called = false;
                    self.run_parent(until);
                }
                Choice::Vp { id, until } => self.run_child(id, until),
                Choice::Idle { until } => self.idle(until),
            }
        }
    }

    fn run_parent(&mut self, until: u64) {
        let begin = insn::rdtsc();
        let hz = self.parent.tsc_hz();
        self.parent
            .run(until.min(LpTally::limit(self.area.index, begin, hz)));
        self.parent_waits = !self.parent.is_runnable();
        let end = insn::rdtsc();
        self.tally.parent.ran(end.saturating_sub(begin));
        self.tally.show(self.area.index, end, hz);
    }

    fn choose(&mut self) -> Choice {
        self.area.shared.reschedule.store(false, Ordering::SeqCst);
        let now = insn::rdtsc();
        let has_pending = self.parent_called
            || self.area.has_taken()
            || self.parent.shared().attention.load(Ordering::SeqCst)
            || self.parent.alarm() <= now;
        let state = if self.parent_waits && !has_pending {
            ParentState::Idle
        } else {
            ParentState::Runnable { has_pending }
        };
        let index = self.area.index.get();
        let Some(own) = queue(index) else {
            return Choice::Parent { until: u64::MAX };
        };
        let mut guard = own.queue.lock();
        let choice = guard.choose(now, state, &Directory);
        let Some(victim) = guard.balance(lps(), published, &Directory) else {
            let has_surplus = guard.has_surplus(now);
            drop(guard);
            if has_surplus && let Some(idle) = sched::idle_peer(index, lps(), published) {
                self.nudge(idle);
            }
            return choice;
        };
        drop(guard);
        let stolen = queue(victim).and_then(|victim| victim.queue.lock().steal(index, &Directory));
        let Some(stolen) = stolen else {
            return choice;
        };
        let mut guard = own.queue.lock();
        // Refused where it was removed meanwhile: nothing is to be done.
        let _ = guard.adopt(stolen, now, &Directory);
        guard.choose(now, state, &Directory)
    }

    fn nudge(&self, index: u32) {
        if let Some(target) = shootdown::lp(index) {
            shootdown::nudge(self.area, target);
        }
    }

    /// Loads the parent's VP.
    fn seat_parent(&mut self) {
        if self.child.is_some() {
            self.unseat_child();
        }
    }

    /// Takes the child's VP off and lets the parent's registers come back.
    fn unseat_child(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        child.core.unseat();
        drop(child);
        self.tally.switched();
        self.tally.parent.dispatched(self.area.index);
        self.parent.load(&mut self.extension);
        self.parent_extended.restore();
        self.parent.shared().set_loaded(Some(self.area));
    }

    /// Loads the VP `id`. False where another LP has its core at the moment.
    fn seat_child(&mut self, id: EntityId) -> bool {
        if self.child.as_ref().is_some_and(|child| child.id == id) {
            return true;
        }
        let core = directory::at(directory::slot_of_entity(id)).and_then(|child| {
            child
                .vp(directory::vp_of_entity(id))
                .and_then(crate::partition::child::ChildVp::try_core)
        });
        let Some(mut core) = core else {
            return false;
        };
        match self.child.take() {
            Some(mut before) => before.core.unseat(),
            None => {
                self.parent_extended.save();
                self.parent.unload();
                self.parent.shared().set_loaded(None);
            }
        }
        self.tally.switched();
        core.seat(self.area, &mut self.extension);
        self.child = Some(Seated { id, core });
        true
    }

    fn run_child(&mut self, id: EntityId, until: u64) {
        if !self.seat_child(id) {
            // Another LP reads or writes its registers, for a moment.
            crate::panic::stop_if_asked();
            core::hint::spin_loop();
            return;
        }
        let until = until.min(self.parent.alarm());
        let Some(child) = &mut self.child else { return };
        let is_parent_passed =
            self.area.has_taken() || self.parent.shared().attention.load(Ordering::SeqCst);
        child.core.take_turn(until, is_parent_passed);
        let waits = child.core.waits();
        let is_wanted = child.core.is_wanted();
        if let Some(vector) = self.area.take_vector() {
            self.parent_called |= self.parent.physical_interrupt(vector);
        }
        if waits.is_some() || is_wanted {
            self.unseat_child();
        }
        if let Some(deadline) = waits
            && let Some(own) = queue(self.area.index.get())
        {
            // Refused where it was removed, and false where it was woken: the next choice knows.
            let _ = own
                .queue
                .lock()
                .block(id, deadline, insn::rdtsc(), &Directory);
        }
    }

    /// Halts until an interrupt, and takes that.
    fn idle(&mut self, until: u64) {
        // Nobody waits for a core that an idle LP holds.
        self.unseat_child();
        let now = insn::rdtsc();
        let until = until.min(self.parent.alarm()).min(LpTally::limit(
            self.area.index,
            now,
            self.parent.tsc_hz(),
        ));
        self.area.arm(until, now, now);
        let shared = self.area.shared;
        shared.in_guest.store(true, Ordering::SeqCst);
        if !shared.attention.load(Ordering::SeqCst) {
            insn::halt_with_interrupts();
        }
        shared.in_guest.store(false, Ordering::SeqCst);
        shared.attention.store(false, Ordering::SeqCst);
        let end = insn::rdtsc();
        self.tally.halted(end.saturating_sub(now));
        self.tally.show(self.area.index, end, self.parent.tsc_hz());
        crate::panic::stop_if_asked();
        if let Some(vector) = self.area.take_vector() {
            self.parent_called |= self.parent.physical_interrupt(vector);
        }
    }
}

/// Makes `vp` of a child run where it waits. What it is woken for is there already.
pub fn wake(me: &LpArea, vp: &VpShared) {
    let Seat::Scheduled(scheduled) = &vp.seat else {
        return;
    };
    loop {
        let home = scheduled.entity.home();
        let Some(own) = queue(home) else { return };
        let now = insn::rdtsc();
        let woken = {
            let mut own = own.queue.lock();
            // Under the lock: whoever stops it for ever takes it off the queue after that. Who lets it run again wakes it,
            // and it looks at what was left for it.
            if scheduled.is_stopped() {
                return;
            }
            own.wake(scheduled.id, now, &Directory)
        };
        let idle = match woken {
            Ok(Wake::Preempt) => {
                if let Some(target) = shootdown::lp(home) {
                    target.reschedule.store(true, Ordering::SeqCst);
                }
                Some(home)
            }
            Ok(Wake::Queued) => sched::idle_peer(home, lps(), published),
            Ok(Wake::Already) => None,
            Err(Refused::Elsewhere) => continue,
            Err(_) => return,
        };
        if let Some(target) = idle.and_then(shootdown::lp) {
            shootdown::nudge(me, target);
        }
        if let Some(target) = vp.loaded_on() {
            shootdown::nudge(me, target);
        }
        return;
    }
}

/// Returns when nobody uses a VP any more that a queue's lock let it look up before this call. To be called before the
/// frames of a VP that is off all queues are freed.
pub fn settle() {
    for own in (0..lps()).filter_map(queue) {
        drop(own.queue.lock());
    }
}

/// Takes `vp` of a child off its queue. It may still be loaded: whoever locks its core then knows that it does not run.
pub fn remove(me: &LpArea, vp: &VpShared) {
    let Seat::Scheduled(scheduled) = &vp.seat else {
        return;
    };
    loop {
        let Some(own) = queue(scheduled.entity.home()) else {
            return;
        };
        let removed = own
            .queue
            .lock()
            .remove(scheduled.id, insn::rdtsc(), &Directory);
        match removed {
            Err(Refused::Elsewhere) => continue,
            _ => break,
        }
    }
    if let Some(target) = vp.loaded_on() {
        shootdown::nudge(me, target);
    }
}
