//! VPs of children: no hardware, and what the hypervisor does not answer is their parent's.

mod calls;
mod cpuid;
mod doorbell;
mod intercept;
mod msr;
pub mod registers;

use core::sync::atomic::Ordering;

use addr::{Gpa, Gpn, Spa, VpIndex};
use apic::{Apic, BaseChange, Lvt};
use hypercall::{Access, Body, Call, PartitionIdentity, Progress};
use slot_proto::event::Faults;
use spin::Once;
use synic::{CrashReport, Overlay};
use tlfs::HvError;
use tlfs::call::PostMessage;
use vmbus_proto::Relid;
use vpcore::child_cpuid::{self, ChildView};
use vpcore::cpuid::Missing;
use vpcore::seam::{Exit, InterceptBitmaps, Lp, VpBackend};
use vpstate::xsave::Layout;
use vpstate::{Limits, Reasons, Stored};

use self::cpuid::Answers;
use super::hyperv::fill_overlay;
use super::role::{ApicChange, MsrAnswer, Refused};
use super::{Activity, AnyVp, Role, Vp, VpParts};
use crate::arch::x86::extended::Extended;
use crate::arch::x86::insn;
use crate::arch::x86::lp::{LpArea, NEVER};
use crate::diagnostics::Counters;
use crate::partition::child::{ChildPartition, ChildVp, Scheduled};
use crate::partition::messages::{Both, PortMessages};
use crate::partition::notices::parent_vp;
use crate::partition::statistics::Tally;
use crate::partition::vmbus::{self, BusMessages};
use crate::partition::{ParentPartition, Partition, PartitionCore, slots};

/// The part of a child's VP that one LP has at a time.
pub type ChildCore = AnyVp<Child>;

/// What only a VP of a child has.
pub struct Child {
    vp: &'static ChildVp,
    scheduled: &'static Scheduled,
    suspend: &'static vpstate::Suspend,
    extended: Extended,
    stored: Stored,
    limits: Limits,
    answers: Answers,
    /// The parent's VP of the LP had something to do when this one was chosen: that is no reason to leave.
    is_parent_passed: bool,
    tally: Tally,
}

/// What [`Child::core`] takes over.
pub struct NewCore {
    /// Its partition.
    pub partition: &'static ChildPartition,
    /// Vector state and what else a switch moves.
    pub extended: Extended,
    /// Its virtual APIC.
    pub apic: Apic,
    /// The LP that calls.
    pub lp: &'static LpArea,
    /// What its partition is told.
    pub identity: PartitionIdentity,
}

/// Bits of MXCSR on every processor with virtualization: DAZ is one. A value that one refuses nevertheless costs the VP its
/// vector state.
const MXCSR_BITS: u32 = 0xFFFF;

/// With fewer free frames in the pool, whoever feeds it is told: each overlay page may take one.
const LOW: u64 = 8;

/// Makes everything exit that VPs of children do not have for themselves.
pub fn choose_exits(bitmaps: &mut dyn InterceptBitmaps) {
    bitmaps.trap_all_ports();
    for msr in vpstate::msr::DIRECT {
        bitmaps.pass_msr_read(msr);
        bitmaps.pass_msr_write(msr);
    }
    for msr in vpstate::msr::COMMANDS {
        bitmaps.pass_msr_write(msr);
    }
}

/// Where components lie in an image of vector state.
pub fn layout() -> &'static Layout {
    static LAYOUT: Once<Layout> = Once::new();
    LAYOUT.call_once(|| Layout::of(insn::cpuid, MXCSR_BITS))
}

impl Child {
    /// What the core of `vp` begins with.
    pub fn parts(
        parts: NewCore,
        vp: &'static ChildVp,
        scheduled: &'static Scheduled,
    ) -> VpParts<Self> {
        let NewCore {
            partition,
            extended,
            apic,
            lp,
            identity,
        } = parts;
        let view = ChildView {
            vp: vp.shared.index,
            hypervisor_present: identity.is_present,
            ..view(partition)
        };
        let limits = Limits::of(|leaf, subleaf| {
            child_cpuid::before_overrides(leaf, subleaf, &insn::cpuid, &view)
        });
        VpParts {
            partition,
            shared: &vp.shared,
            lp,
            apic,
            identity,
            counters: Counters::take_row(partition.core().id.get(), vp.shared.index.get()),
            role: Self {
                vp,
                scheduled,
                suspend: &scheduled.suspend,
                extended,
                stored: Stored::new(),
                limits,
                answers: Answers::new(),
                is_parent_passed: false,
                tally: Tally::default(),
            },
        }
    }
}

/// What CPUID shows VPs of a child with this core, before anything was switched off.
pub fn view_of(core: &PartitionCore) -> ChildView<'static> {
    ChildView {
        vp: VpIndex::new(0),
        per_socket: 0,
        disabled: [0; 3],
        x2apic: core.apic_features.x2apic,
        tsc_deadline: core.apic_features.tsc_deadline,
        apic_enabled: true,
        cr4: 0,
        xcr0: 1,
        missing: Missing::default(),
        physical_bits: core.physical_bits,
        hypervisor_present: true,
        overrides: &[],
    }
}

/// What CPUID shows every VP of `partition`.
fn view(partition: &ChildPartition) -> ChildView<'static> {
    ChildView {
        per_socket: partition.vps_per_socket.load(Ordering::Relaxed),
        disabled: partition.disabled,
        missing: partition.parent.facts.missing,
        ..view_of(partition.core())
    }
}

impl ChildCore {
    /// Makes this the VP that runs on the calling LP.
    pub fn seat(&mut self, lp: &'static LpArea, extension: &mut Lp) {
        self.lp = lp;
        self.partition.has_run.store(true, Ordering::SeqCst);
        self.role.tally.dispatched(lp.index);
        self.backend.load(extension);
        self.role.extended.restore();
        self.shared.set_loaded(Some(lp));
        let is_halted = self.role.suspend.reasons().has(Reasons::HALTED);
        match self.activity {
            Activity::Running if is_halted => self.activity = Activity::Halted,
            Activity::Halted if !is_halted => self.activity = Activity::Running,
            _ => {}
        }
    }

    /// Takes the VP off its LP.
    pub fn unseat(&mut self) {
        let halted = if self.activity == Activity::Halted {
            Reasons::HALTED
        } else {
            Reasons::NONE
        };
        let _ = self.role.suspend.replace(Reasons::HALTED, halted);
        self.role.extended.save();
        self.backend.unload();
        self.shared.set_loaded(None);
    }

    /// Runs the VP as [`Vp::run`] does; `is_parent_passed`: it was chosen although its LP's VP of the parent has work.
    pub fn take_turn(&mut self, limit: u64, is_parent_passed: bool) {
        self.role.is_parent_passed = is_parent_passed;
        let begin = insn::rdtsc();
        self.run(limit);
        let tally = &mut self.role.tally;
        tally.ran(insn::rdtsc().saturating_sub(begin));
        tally.show(&self.role.vp.statistics, self.counters, self.tsc_hz);
    }

    /// Makes the exceptions exit that the parent intercepts.
    pub fn trap_exceptions(&mut self) {
        let vectors = self.partition.exceptions.load(Ordering::Relaxed);
        self.backend.trap_exceptions(vectors);
    }

    /// Whether another LP waits for the core.
    pub fn is_wanted(&self) -> bool {
        self.role.scheduled.wanted.load(Ordering::SeqCst) != 0
    }

    /// Whether the VP waits for somebody else, and until when at most, in TSC ticks. `None`: it could run on.
    pub fn waits(&mut self) -> Option<Option<u64>> {
        if self.role.scheduled.is_stopped() {
            // A timer that expires while the VP is stopped is served when it goes on.
            Some(None)
        } else if self.is_runnable() {
            None
        } else {
            let alarm = self.alarm();
            Some((alarm != NEVER).then_some(alarm))
        }
    }

    /// Gives the VP the registers of reset.
    pub fn init(&mut self) {
        let before = self.backend.attach();
        vpcore::startup::init(&mut self.backend, insn::cpuid(1, 0).eax);
        self.trap_exceptions();
        self.backend.detach(before);
    }

    /// The VP has ended: the frames of the control structure and of the vector state.
    pub fn end(&mut self) -> (Spa, Spa) {
        self.counters.give_back();
        (self.backend.frame(), self.role.extended.frame())
    }
}

impl Role for Child {
    /// Its parent would wait for it, and the other children.
    const IS_TOLD: bool = false;

    type Partition = ChildPartition;
    type Messages = Both<BusMessages, PortMessages<ChildPartition>>;

    fn may_have_messages(vp: &ChildCore) -> bool {
        vp.partition.core().may_have_messages()
    }

    fn messages(vp: &ChildCore) -> Self::Messages {
        Both::new(
            BusMessages::new(vp.partition, vp.index),
            PortMessages::new(vp.partition, vp.index),
        )
    }

    fn parent(vp: &ChildCore) -> &'static ParentPartition {
        vp.partition.parent
    }

    fn must_leave(vp: &ChildCore) -> bool {
        let scheduled = vp.role.scheduled;
        scheduled.wanted.load(Ordering::SeqCst) != 0
            || scheduled.is_stopped()
            || vp.lp.has_vector()
            || (!vp.role.is_parent_passed && vp.lp.has_taken())
            || (!vp.role.is_parent_passed
                && parent_vp(vp.lp.index.get())
                    .is_some_and(|parent| parent.attention.load(Ordering::SeqCst)))
    }

    fn before_entry(_: &mut ChildCore) {}

    /// What is moved with the VP, and no more: other components are another VP's.
    fn may_enable(vp: &ChildCore, value: u64) -> bool {
        vp.role.limits.is_xcr0(value)
    }

    #[inline(always)]
    fn cpuid<B: VpBackend>(vp: &mut Vp<B, Self>) {
        vp.cpuid();
    }

    fn read_msr(vp: &mut ChildCore, number: u32) -> MsrAnswer<u64> {
        vp.read_child_msr(number)
    }

    fn write_msr(vp: &mut ChildCore, number: u32, value: u64) -> MsrAnswer<()> {
        vp.write_child_msr(number, value)
    }

    fn exit(vp: &mut ChildCore, exit: Exit) {
        match exit {
            // The vector stays in the LP's record: it is the parent's, or the hypervisor's own.
            Exit::Interrupt => insn::interrupt_window(),
            Exit::Nmi => {
                crate::panic::stop_if_asked();
                vp.lp.nmi_taken.store(true, Ordering::Relaxed);
            }
            Exit::MachineCheck => vp.lp.machine_check_taken.store(true, Ordering::Relaxed),
            // No device of the child reads memory past the caches.
            Exit::Invd | Exit::Wbinvd => vp.skip(),
            Exit::Io(access) => vp.intercept_port(&access),
            Exit::Slat(fault) if vp.rings_doorbell(&fault) => {}
            Exit::Slat(fault) => vp.intercept_memory(&fault),
            // MONITOR and MWAIT are not in CPUID.
            _ => vp.raise_ud(),
        }
    }

    fn triple_fault(vp: &mut ChildCore) {
        // The parent may set registers and let it run again.
        vp.activity = Activity::Running;
        vp.intercept_triple_fault();
    }

    fn intercepts_exception(vp: &mut ChildCore, vector: u8, code: Option<u32>) -> bool {
        let intercepted = vp.partition.exceptions.load(Ordering::Relaxed);
        let is_intercepted = intercepted.checked_shr(vector.into()).unwrap_or(0) & 1 != 0;
        if is_intercepted {
            vp.intercept_exception(vector, code);
        }
        is_intercepted
    }

    fn refused(vp: &mut ChildCore, _: u64) {
        vp.intercept_invalid_state();
    }

    fn after_reset(vp: &mut ChildCore) {
        let _ = vp.role.suspend.set(Reasons::STARTUP);
    }

    fn after_start(vp: &mut ChildCore) {
        let _ = vp.role.suspend.clear(Reasons::STARTUP);
    }

    fn after_eoi(vp: &mut ChildCore, vector: Option<u8>, is_level: bool) {
        if let (Some(vector), true) = (vector, is_level) {
            vp.intercept_eoi(vector);
        }
    }

    fn apic_changed(_: &mut ChildCore, what: ApicChange) {
        match what {
            // No pin leads to the APIC of a child.
            ApicChange::Lvt(Lvt::Lint0 | Lvt::Lint1, _) => {}
            ApicChange::Lvt(..) | ApicChange::Addressing => {}
        }
    }

    fn write_apic_base(vp: &mut ChildCore, value: u64) -> bool {
        const ADDRESS: u64 = !0xFFF;
        if (value ^ vp.apic.apic_base()) & ADDRESS != 0 {
            // All VPs share one address space, and the page is a hole in it.
            return false;
        }
        let Ok(BaseChange { .. }) = vp.apic.write_apic_base(value) else {
            return false;
        };
        vp.apic.publish(&vp.shared.inbox);
        true
    }

    fn no_access(vp: &mut ChildCore, gpa: Gpa, access: Access) {
        vp.intercept_memory(&vpcore::seam::SlatFault {
            gpa,
            gva: None,
            is_write: access == Access::Write,
            is_execute: false,
            is_protection: true,
            is_table_walk: false,
        });
    }

    fn place_overlay(vp: &mut ChildCore, kind: Overlay, page: Option<Gpn>) -> Result<(), Refused> {
        if let (Some(_), Some(frame)) = (page, vp.partition.overlay_frame(kind, vp.index)) {
            let core = vp.partition.core();
            fill_overlay(kind, frame, &core.clock, &vp.partition.parent.facts);
        }
        let placed = vp.partition.place_overlay(vp.lp, kind, vp.index, page);
        if vp.partition.pool.lock().usage().0 < LOW {
            slots::fault(vp.lp, vp.partition, Faults::DEPOSIT_LOW);
        }
        match placed {
            Ok(is_flush_needed) => {
                if is_flush_needed {
                    vp.backend.flush_tlb();
                }
                Ok(())
            }
            Err(_) => Err(Refused),
        }
    }

    /// The registers stay readable for the parent, who sees it in the log of the guest or by its own means.
    fn crash(vp: &mut ChildCore, report: &CrashReport) {
        vp.note(format_args!(
            "partition {:#x} reports a crash: {:x?}",
            vp.partition.core().id.get(),
            report.parameters
        ));
        slots::fault(vp.lp, vp.partition, Faults::CRASHED);
    }

    fn post_to_server(vp: &mut ChildCore, call: &PostMessage<'_>) -> Result<Progress, HvError> {
        vmbus::receive(vp.partition, call)?;
        vmbus::settle(vp.lp, vp.partition);
        Ok(Progress::Done)
    }

    fn channel_signalled(vp: &mut ChildCore, relid: Relid) {
        slots::child_signalled(vp.lp, vp.partition, relid);
    }

    fn call(vp: &mut ChildCore, call: Call, body: &mut Body<'_>) -> Result<Progress, HvError> {
        vp.child_call(call, body)
    }
}
