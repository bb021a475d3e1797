//! A VP of the parent, and the loop that runs it on its LP.
//!
//! Every turn: work that others left, timers, one event into the guest, entry, exit. The parts that answer exits lie
//! in the other files of this folder, each an `impl` block of [`Vp`].

mod apic_access;
mod control;
mod events;
mod exit;
mod fetch;
mod hyperv;
mod instruction;
mod interrupts;
mod io;
mod ipi;
mod mmio;
mod msr;

use core::sync::atomic::Ordering;

use addr::VpIndex;
use apic::{Apic, EoiStack, StartEvent};
use vpcore::cpuid::Missing;
use vpcore::seam::{Event, Register, VpBackend};
use vpcore::startup;

use crate::arch::x86::insn;
use crate::arch::x86::local_apic::LocalApic;
use crate::arch::x86::lp::LpArea;
use crate::diagnostics::{Counter, Counters};
use crate::partition::{Partition, VpShared};
use crate::shootdown;
use crate::virt::Virt;

pub use io::trap_ports;

/// What a VP does when it is not held by INIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Activity {
    /// Runs instructions.
    Running,
    /// Waits for an interrupt that it can take, after HLT.
    Halted,
    /// Waits for any interrupt, masked or not: a C-state port.
    Idle,
    /// Stopped for good: triple fault.
    ShutDown,
}

/// Longest pause after MWAIT, in fractions of a second: it may wait for a store that nobody announces.
const MWAIT_SLICES_PER_SECOND: u64 = 1000;

/// Shortest time that a VP runs before its own timer stops it, in fractions of a second.
const MOMENTS_PER_SECOND: u64 = 100_000;

/// A VP and everything its LP needs to run it.
pub struct Vp<V: Virt> {
    backend: V::Vp,
    partition: &'static Partition<V>,
    shared: &'static VpShared,
    lp: &'static LpArea,
    index: VpIndex,
    apic: Apic,
    local: LocalApic,
    /// Level interrupts that are in service in the physical APIC.
    open_levels: EoiStack,
    counters: Counters,
    activity: Activity,
    /// Features of this LP that the guest cannot have.
    missing: Missing,
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
    /// When the SynIC must be served next, in TSC ticks.
    synic_due: Option<u64>,
    /// What the physical timer is armed for.
    armed: Option<u64>,
    /// Parameters of the hypercall under way.
    scratch: &'static mut hypercall::Scratch,
    /// IA32_MTRR_DEF_TYPE as the guest wrote it.
    mtrr_default: Option<u64>,
    /// Ticks per second, for pauses.
    tsc_hz: u64,
    /// Lines that this VP may still write to the log by its own actions.
    log_budget: u32,
}

/// What [`Vp::new`] takes over.
pub struct VpParts<V: Virt> {
    /// The VP's registers and control structure.
    pub backend: V::Vp,
    /// Its partition.
    pub partition: &'static Partition<V>,
    /// Its LP, which is the one that calls.
    pub lp: &'static LpArea,
    /// Its virtual APIC, which goes on where the physical one was.
    pub apic: Apic,
    /// The physical one.
    pub local: LocalApic,
    /// Room for hypercall parameters.
    pub scratch: &'static mut hypercall::Scratch,
    /// Frequency of the time-stamp counter.
    pub tsc_hz: u64,
}

impl<V: Virt> Vp<V> {
    /// The VP of this LP. `None` for an LP that the partition does not have.
    pub fn new(parts: VpParts<V>) -> Option<Self> {
        let index = VpIndex::new(parts.lp.index.get());
        let shared = parts.partition.vps.get(index.get() as usize)?;
        parts.apic.publish(&shared.inbox);
        Some(Self {
            backend: parts.backend,
            partition: parts.partition,
            shared,
            lp: parts.lp,
            index,
            apic: parts.apic,
            local: parts.local,
            open_levels: EoiStack::new(),
            counters: Counters::of(index.get()),
            activity: Activity::Running,
            missing: V::missing(),
            interrupted: None,
            deferred: None,
            refused_at: None,
            raised: None,
            window_open: false,
            is_settled: false,
            shown_cr8: 0,
            synic_due: None,
            armed: None,
            scratch: parts.scratch,
            mtrr_default: None,
            tsc_hz: parts.tsc_hz,
            log_budget: 64,
        })
    }

    /// Runs the VP for ever.
    pub fn run(&mut self) -> ! {
        loop {
            if (self.is_settled && self.announce()) || self.prepare() {
                self.counters.add(Counter::Entries);
                let exit = self.backend.run();
                self.lp.shared.in_guest.store(false, Ordering::Release);
                if let Some(event) = self.backend.interrupted_event() {
                    self.interrupted = Some(event);
                    self.is_settled = false;
                }
                self.handle(exit);
            } else {
                self.wait();
            }
        }
    }

    /// Announces the guest's run, where that is all there is to do before it. Otherwise does nothing and gives false.
    ///
    /// A timer that has become due shows as an interrupt that ends the run at once: the physical one is armed for it.
    #[inline]
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
        self.is_settled = false;
        loop {
            if self.lp.shared.attention.load(Ordering::SeqCst) {
                self.attend();
            }
            self.pass_on_what_the_host_took();
            // What expires here goes into the virtual APIC at once, not through the inbox that was emptied above.
            let now = insn::rdtsc();
            if self.deadline().is_some_and(|due| due <= now) {
                self.expire(now);
            }
            self.rearm(now);
            // From here on others interrupt this LP after they have left work. No lock is taken until the exit: its
            // holder may be waiting for this LP to leave the guest.
            self.lp.shared.in_guest.store(true, Ordering::SeqCst);
            if !self.lp.shared.attention.load(Ordering::SeqCst) {
                break;
            }
            self.lp.shared.in_guest.store(false, Ordering::SeqCst);
        }
        if self.activity == Activity::ShutDown || self.shared.inbox.is_held() {
            return false;
        }
        self.wake() && {
            self.deliver();
            true
        }
    }

    /// Takes what others left for this LP.
    fn attend(&mut self) {
        self.lp.shared.attention.store(false, Ordering::SeqCst);
        crate::panic::stop_if_asked();
        if shootdown::is_due(self.lp) {
            self.backend.flush_tlb();
        }
        // INIT and SIPI can follow each other closely; a third event waits for the next turn.
        for _ in 0..2 {
            match self.shared.inbox.take_start() {
                Some(StartEvent::Init) => self.reset(),
                Some(StartEvent::Start(vector)) => {
                    startup::start(&mut self.backend, vector);
                    self.activity = Activity::Running;
                }
                None => break,
            }
        }
        if self.shared.inbox.has_start() {
            self.lp.shared.attention.store(true, Ordering::SeqCst);
        }
        self.apic.absorb(&self.shared.inbox);
        if self.shared.rescan.swap(false, Ordering::SeqCst) {
            self.serve_synic();
        }
    }

    /// INIT.
    fn reset(&mut self) {
        startup::init(&mut self.backend, insn::cpuid(1, 0).eax);
        self.apic.init_reset();
        self.apic.publish(&self.shared.inbox);
        self.mirror_apic();
        self.open_levels.mark_all_ready();
        self.retire_levels();
        self.activity = Activity::Running;
        self.interrupted = None;
        self.deferred = None;
        self.raised = None;
    }

    /// Whether the VP runs: a halted one wakes when there is something for it.
    fn wake(&mut self) -> bool {
        let wakes = match self.activity {
            Activity::Running => return true,
            Activity::ShutDown => false,
            Activity::Halted => {
                self.has_event() || (self.has_interrupt() && self.backend.can_take_interrupt())
            }
            Activity::Idle => self.has_event() || self.has_interrupt(),
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

    /// Halts the LP until an interrupt, and takes that.
    fn wait(&mut self) {
        insn::halt_with_interrupts();
        self.lp.shared.in_guest.store(false, Ordering::Release);
        crate::panic::stop_if_asked();
        if let Some(vector) = self.lp.take_vector() {
            self.physical_interrupt(vector);
        }
    }

    /// MWAIT: lets time pass, at most a slice, and goes on as if the store had come.
    fn pause(&mut self) {
        let now = insn::rdtsc();
        let slice = now.saturating_add(self.tsc_hz / MWAIT_SLICES_PER_SECOND);
        let until = self.deadline().map_or(slice, |due| due.min(slice));
        self.local.arm(Some(until), now);
        self.armed = None;
        self.lp.shared.in_guest.store(true, Ordering::SeqCst);
        if !self.lp.shared.attention.load(Ordering::SeqCst) && !self.has_interrupt() {
            self.wait();
        } else {
            self.lp.shared.in_guest.store(false, Ordering::SeqCst);
        }
    }

    /// When the VP's timers need service next, in TSC ticks.
    fn deadline(&self) -> Option<u64> {
        match (self.apic.timer_deadline(), self.synic_due) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Serves the timers that are due.
    fn expire(&mut self, now: u64) {
        self.apic.timer_tick(now);
        if self.synic_due.is_some_and(|due| due <= now) {
            self.serve_synic();
        }
    }

    /// Arms the physical timer for the next deadline, if that is another than before. Never for less than a moment
    /// ahead: a guest whose timer is due again before its first instruction would otherwise run none.
    fn rearm(&mut self, now: u64) {
        let due = self.deadline();
        if due != self.armed {
            let soonest = now.saturating_add(self.tsc_hz / MOMENTS_PER_SECOND);
            self.local.arm(due.map(|tick| tick.max(soonest)), now);
            self.armed = due;
        }
    }

    /// Writes a line about something the guest did, unless it has used up its share.
    fn note(&mut self, line: core::fmt::Arguments<'_>) {
        if let Some(left) = self.log_budget.checked_sub(1) {
            self.log_budget = left;
            let last = if left == 0 {
                " (no more such lines of this VP)"
            } else {
                ""
            };
            log::warn!(
                "vp{}: {line} at rip {:#x}{last}",
                self.index.get(),
                self.backend.get(Register::Rip)
            );
        }
    }
}
