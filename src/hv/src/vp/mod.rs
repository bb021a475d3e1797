//! A VP, and the loop that runs it on an LP until it has nothing to do or its time is over.
//!
//! Every turn: work that others left, timers, one event into the guest, entry, exit. The parts that answer exits lie
//! in the other files of this folder, each an `impl` block of [`Vp`]: here what all VPs do, in `parent` and `child`
//! what only those do, behind [`Role`].
//!
//! The loop and the answers to the most frequent exits are compiled for each vendor. The rest is [`AnyVp`]'s, which reaches
//! the back end through a trait object: it is compiled once.
#![expect(unsafe_code, reason = "finds the back end's type again")]

mod apic_access;
mod calls;
pub mod child;
mod control;
mod events;
mod exit;
mod fetch;
mod hyperv;
mod instruction;
mod ipi;
mod mmio;
mod msr;
pub mod parent;
mod role;

use core::any::Any;
use core::sync::atomic::Ordering;

use addr::VpIndex;
use apic::{Apic, StartEvent};
use hypercall::PartitionIdentity;
use synic::LazyEoi;
use vpcore::seam::{Event, Register, VpBackend};
use vpcore::startup;

use crate::arch::x86::insn;
use crate::arch::x86::lp::{LpArea, NEVER};
use crate::diagnostics::{Counter, Counters};
use crate::mm::phys::SharedFrame;
use crate::partition::{Partition, VpShared};
use crate::shootdown;
use crate::virt::{Svm, Virt, Vmx};

pub(crate) use hyperv::fill_overlay;
pub use role::{Refused, Role};

use role::ApicChange;

/// What a VP does when it is not held by INIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Activity {
    /// Runs instructions.
    Running,
    /// Waits for an interrupt that it can take, after HLT.
    Halted,
    /// Waits for any interrupt, masked or not, or for this time: a C-state port or MWAIT.
    Idle {
        /// In TSC ticks.
        until: u64,
    },
    /// Stopped for good: triple fault.
    ShutDown,
}

/// Longest pause after MWAIT, in fractions of a second: it may wait for a store that nobody announces.
const MWAIT_SLICES_PER_SECOND: u64 = 1000;

/// Shortest time that a VP runs before its own timer stops it, in fractions of a second.
const MOMENTS_PER_SECOND: u64 = 100_000;

/// A VP of a partition of kind `R`, with back end `B`.
pub struct Vp<B: VpBackend + ?Sized, R: Role> {
    partition: &'static R::Partition,
    shared: &'static VpShared,
    lp: &'static LpArea,
    index: VpIndex,
    apic: Apic,
    counters: Counters,
    activity: Activity,
    /// Event whose delivery an exit interrupted.
    interrupted: Option<Event>,
    /// An acknowledged interrupt or NMI that an exception went ahead of.
    deferred: Option<Event>,
    /// Exception that the hypervisor raises in the guest.
    raised: Option<Event>,
    /// Where the processor last refused to enter.
    refused_at: Option<u64>,
    /// The back end was asked for an interrupt window.
    window_open: bool,
    /// Nothing has changed since the last entry that decides what the next one delivers: no event is on its way but
    /// interrupts that wait for their window, and timers and the virtual APIC are as they were. Cleared by every exit
    /// that may change them.
    is_settled: bool,
    /// CR8 as the back end shows it.
    shown_cr8: u8,
    /// When the SynIC must be served next, in TSC ticks; [`NEVER`].
    synic_due: u64,
    /// The VP assist page, where it is on.
    assist: Option<SharedFrame>,
    /// Whether the guest may end the interrupt in service by itself.
    lazy_eoi: LazyEoi,
    /// No message waits for an end of interrupt. Asked where an interrupt can be delivered.
    is_quiet: bool,
    /// The interrupt last delivered is the 8259's, not the local APIC's.
    is_extint: bool,
    /// When this turn on the LP ends at the latest, in TSC ticks.
    limit: u64,
    /// Ticks per second, for pauses.
    tsc_hz: u64,
    /// What its partition is told of itself.
    identity: PartitionIdentity,
    /// Lines that this VP may still write to the log by its own actions.
    log_budget: u32,
    role: R,
    /// Last, so that a reference to the VP can forget its type.
    backend: B,
}

/// A VP whose back end is one of the two.
pub type AnyVp<R> = Vp<dyn VpBackend, R>;

/// The VP as [`AnyVp`], if it is not that already.
trait Erase<R: Role> {
    fn erased(&mut self) -> &mut AnyVp<R>;
}

impl<B: VpBackend, R: Role> Erase<R> for Vp<B, R> {
    fn erased(&mut self) -> &mut AnyVp<R> {
        self
    }
}

impl<R: Role> Erase<R> for AnyVp<R> {
    fn erased(&mut self) -> &mut Self {
        self
    }
}

/// What [`Vp::new`] takes over.
pub struct VpParts<R: Role> {
    /// Its partition.
    pub partition: &'static R::Partition,
    /// The part that all LPs see.
    pub shared: &'static VpShared,
    /// The LP that calls.
    pub lp: &'static LpArea,
    /// Its virtual APIC.
    pub apic: Apic,
    /// What its partition is told of itself.
    pub identity: PartitionIdentity,
    /// Its counters.
    pub counters: Counters,
    /// What its kind of partition adds.
    pub role: R,
}

impl<B: VpBackend, R: Role> Vp<B, R> {
    /// A VP that has not run yet. `backend`: its registers and control structure.
    pub fn new(parts: VpParts<R>, backend: B) -> Self {
        parts.apic.publish(&parts.shared.inbox);
        Self {
            backend,
            partition: parts.partition,
            shared: parts.shared,
            lp: parts.lp,
            index: parts.shared.index,
            apic: parts.apic,
            counters: parts.counters,
            activity: Activity::Running,
            interrupted: None,
            deferred: None,
            refused_at: None,
            raised: None,
            window_open: false,
            is_settled: false,
            shown_cr8: 0,
            synic_due: NEVER,
            assist: None,
            lazy_eoi: LazyEoi::default(),
            is_quiet: true,
            is_extint: false,
            limit: u64::MAX,
            tsc_hz: parts.partition.core().tsc_hz,
            identity: parts.identity,
            log_budget: 64,
            role: parts.role,
        }
    }

    /// See [`AnyVp::run`].
    fn run_as_is(&mut self) {
        while (self.is_settled && self.announce()) || self.prepare() {
            self.counters.add(Counter::Entries);
            let exit = self.backend.run();
            self.lp.shared.in_guest.store(false, Ordering::Release);
            if let Some(vector) = self.backend.undelivered_interrupt() {
                self.erased().put_back(vector);
            }
            if let Some(event) = self.backend.interrupted_event() {
                self.interrupted = Some(event);
                self.is_settled = false;
            }
            self.handle(exit);
        }
    }

    /// Announces the guest's run, where that is all there is to do before it. Otherwise does nothing and gives false.
    ///
    /// A timer that has become due shows as an interrupt that ends the run at once: the physical one is armed for it.
    #[inline(always)]
    fn announce(&self) -> bool {
        if self.lp.has_taken() {
            return false;
        }
        self.lp.shared.in_guest.store(true, Ordering::SeqCst);
        if self.lp.shared.attention.load(Ordering::SeqCst) {
            self.lp.shared.in_guest.store(false, Ordering::SeqCst);
            return false;
        }
        true
    }

    /// Does everything that comes before an entry. False when there is nothing to enter: the VP waits.
    #[inline(never)]
    fn prepare(&mut self) -> bool {
        if !self.erased().do_what_is_due() {
            return false;
        }
        if self.wake() {
            self.deliver();
            return true;
        }
        self.lp.shared.in_guest.store(false, Ordering::SeqCst);
        false
    }
}

impl<B: VpBackend + ?Sized, R: Role> Vp<B, R> {
    /// Whether the VP runs: a halted one wakes when there is something for it.
    fn wake(&mut self) -> bool {
        if self.shared.inbox.is_held() {
            return false;
        }
        let wakes = match self.activity {
            Activity::Running => return true,
            Activity::ShutDown => false,
            Activity::Halted => {
                self.has_event() || (self.has_interrupt() && self.backend.can_take_interrupt())
            }
            Activity::Idle { until } => {
                self.has_event() || self.has_interrupt() || until <= insn::rdtsc()
            }
        };
        if wakes {
            self.activity = Activity::Running;
        }
        wakes
    }

    fn has_event(&self) -> bool {
        self.raised.is_some()
            || self.interrupted.is_some()
            || self.deferred.is_some()
            || self.apic.nmi_pending()
    }

    fn has_interrupt(&self) -> bool {
        self.apic.pending().is_some() || self.apic.pending_extint().is_some()
    }
}

impl<R: Role> AnyVp<R> {
    /// The part of it that all LPs see.
    pub fn shared(&self) -> &'static VpShared {
        self.shared
    }

    /// Ticks of the TSC per second.
    pub fn tsc_hz(&self) -> u64 {
        self.tsc_hz
    }

    /// Runs the VP until it waits for something, or `limit` (TSC ticks) is over, or its role says so.
    pub fn run(&mut self, limit: u64) {
        self.limit = limit;
        self.is_settled = false;
        if let Some(vp) = self.downcast::<<Vmx as Virt>::Vp>() {
            vp.run_as_is();
        } else if let Some(vp) = self.downcast::<<Svm as Virt>::Vp>() {
            vp.run_as_is();
        }
    }

    /// The VP with the type of its back end, if that is `B`.
    fn downcast<B: VpBackend>(&mut self) -> Option<&mut Vp<B, R>> {
        let backend: &dyn Any = &self.backend;
        if !backend.is::<B>() {
            return None;
        }
        let vp = (&raw mut *self).cast::<Vp<B, R>>();
        // SAFETY: a VP whose back end is a `B` is a `Vp<B, R>`, of which this is the only reference.
        Some(unsafe { &mut *vp })
    }

    /// What comes before an entry and has nothing to do with the back end: work that others left, timers. True when the LP
    /// has announced itself in the guest; false when the VP leaves its LP.
    fn do_what_is_due(&mut self) -> bool {
        self.is_settled = false;
        loop {
            self.lp.shared.attention.store(false, Ordering::SeqCst);
            crate::panic::stop_if_asked();
            if self.shared.attention.load(Ordering::SeqCst) {
                self.attend();
            }
            R::before_entry(self);
            // What expires here goes into the virtual APIC at once, not through the inbox that was emptied above.
            let now = insn::rdtsc();
            if self.deadline() <= now {
                self.expire(now);
            }
            // After all that may have requested an interrupt: the guest must not end one by itself that another waits behind.
            self.settle_eoi(false);
            // Locks of the whole machine are behind the question what waits: it is asked where the answer is wanted.
            self.is_quiet =
                self.assist.is_none() || (self.apic.pending().is_some() && !self.synic_waits());
            if !self.merge_exceptions()
                || now >= self.limit
                || self.lp.shared.reschedule.load(Ordering::SeqCst)
                || R::must_leave(self)
            {
                return false;
            }
            self.rearm(now);
            // From here on others interrupt this LP after they have left work. No lock is taken until the exit: its
            // holder may be waiting for this LP to leave the guest.
            self.lp.shared.in_guest.store(true, Ordering::SeqCst);
            if !self.lp.shared.attention.load(Ordering::SeqCst) {
                return true;
            }
            self.lp.shared.in_guest.store(false, Ordering::SeqCst);
        }
    }

    /// Whether there is something to run, as far as the VP itself goes: it is not held, and not halted without an event.
    pub fn is_runnable(&mut self) -> bool {
        self.wake()
    }

    /// Takes what others left for this VP.
    fn attend(&mut self) {
        self.shared.attention.store(false, Ordering::SeqCst);
        self.forget_translations();
        // INIT and SIPI can follow each other closely; a third event waits for the next turn.
        for _ in 0..2 {
            match self.shared.inbox.take_start() {
                Some(StartEvent::Init) => self.reset(),
                Some(StartEvent::Start(vector)) => {
                    startup::start(&mut self.backend, vector);
                    self.activity = Activity::Running;
                    R::after_start(self);
                }
                None => break,
            }
        }
        if self.shared.inbox.has_start() {
            self.shared.attention.store(true, Ordering::SeqCst);
        }
        self.apic.absorb(&self.shared.inbox);
        if self.shared.rescan.swap(false, Ordering::SeqCst) {
            self.serve_synic();
        }
    }

    /// Drops the translations that others asked to be dropped.
    fn forget_translations(&mut self) {
        if shootdown::is_due(self.partition.core(), self.shared) {
            self.backend.flush_tlb();
        }
        if self.shared.flush_guest.swap(false, Ordering::SeqCst) {
            self.backend.flush_tlb();
        }
    }

    /// INIT.
    fn reset(&mut self) {
        // A bit left in the page would have the guest end a later interrupt of which nobody hears.
        self.settle_eoi(true);
        startup::init(&mut self.backend, insn::cpuid(1, 0).eax);
        self.lazy_eoi = LazyEoi::default();
        self.apic.init_reset();
        self.apic.publish(&self.shared.inbox);
        R::apic_changed(self, ApicChange::Addressing);
        R::after_eoi(self, None, true);
        R::after_reset(self);
        self.activity = Activity::Running;
        self.interrupted = None;
        self.deferred = None;
        self.raised = None;
    }

    /// MWAIT: lets time pass, at most a slice, and goes on as if the store had come.
    fn pause(&mut self) {
        let slice = self.tsc_hz / MWAIT_SLICES_PER_SECOND;
        self.activity = Activity::Idle {
            until: insn::rdtsc().saturating_add(slice),
        };
    }

    /// When the VP's timers need service next, in TSC ticks; [`NEVER`].
    fn deadline(&self) -> u64 {
        let timer = self.apic.timer_deadline().unwrap_or(NEVER);
        timer.min(self.synic_due).min(R::work_due(self))
    }

    /// When the VP, which waits, wants to run again at the latest, in TSC ticks; [`NEVER`].
    pub fn alarm(&self) -> u64 {
        let until = match self.activity {
            Activity::Idle { until } => until,
            _ => NEVER,
        };
        self.deadline().min(until)
    }

    /// Serves the timers that are due.
    fn expire(&mut self, now: u64) {
        self.apic.timer_tick(now);
        if self.synic_due <= now {
            self.expire_synthetic_timers();
        }
    }

    /// Arms the physical timer for the next deadline or the end of the turn.
    fn rearm(&mut self, now: u64) {
        let soonest = now.saturating_add(self.tsc_hz / MOMENTS_PER_SECOND);
        self.lp.arm(self.deadline().min(self.limit), soonest, now);
    }

    /// Writes a line about something the guest did, unless it has used up its share. The VP is loaded.
    fn note(&mut self, line: core::fmt::Arguments<'_>) {
        let Some(last) = self.take_line() else {
            return;
        };
        let (index, rip) = (self.index.get(), self.backend.get(Register::Rip));
        if R::IS_TOLD {
            log::warn!("vp{index}: {line} at rip {rip:#x}{last}");
        } else {
            let id = self.partition.core().id.get();
            crate::diagnostics::log_line(format_args!(
                "partition {id:#x} vp{index}: {line} at rip {rip:#x}{last}"
            ));
        }
    }

    /// Takes a line of its share of the log, `None` where that is used up; gives what the line is to end with.
    fn take_line(&mut self) -> Option<&'static str> {
        self.log_budget = self.log_budget.checked_sub(1)?;
        Some(match self.log_budget {
            0 => " (no more such lines of this VP)",
            _ => "",
        })
    }
}
