//! VPs of the parent: the machine's own processors.

mod calls;
mod interrupts;
mod io;
mod memory;
mod msr;
mod sessions;

use core::sync::atomic::Ordering;

use addr::{Gpa, Gpn};
use apic::{BaseChange, EoiStack, Lvt, Mode};
use hypercall::{Access, Body, Call, Progress};
use synic::{CrashReport, Overlay};
use tlfs::HvError;
use tlfs::call::PostMessage;
use tlfs::msr::GUEST_OS_ID;
use vmbus_proto::Relid;
use vpcore::cpuid::{self, View};
use vpcore::seam::{Exit, Lp, Register, VpBackend};
use x86::Gp;
use x86::msr::apic_base;

use super::hyperv::fill_overlay;
use super::role::{ApicChange, MsrAnswer, Refused};
use super::{AnyVp, Role, Vp};
use crate::arch::x86::insn;
use crate::arch::x86::local_apic::register;
use crate::partition::messages::{Both, PortMessages};
use crate::partition::slots::Work;
use crate::partition::vmbus::parent::{self as server, Channel};
use crate::partition::vmbus::{self, BusMessages};
use crate::partition::{ParentPartition, notices, slots};

pub use io::trap_ports;

/// A VP of the parent.
pub type ParentVp = AnyVp<Parent>;

/// What only a VP of the parent has.
pub struct Parent {
    /// Level interrupts that are in service in the physical APIC.
    open_levels: EoiStack,
    /// IA32_MTRR_DEF_TYPE as the guest wrote it.
    mtrr_default: Option<u64>,
    /// Channels that it has signalled.
    work: Work,
}

impl Parent {
    /// Nothing is in service, and no channel signalled.
    pub const fn new() -> Self {
        Self {
            open_levels: EoiStack::new(),
            mtrr_default: None,
            work: Work::new(),
        }
    }
}

impl ParentVp {
    /// Makes this the VP that runs on its LP, whose extension is `lp`; no other is loaded there.
    pub fn load(&mut self, lp: &mut Lp) {
        self.backend.load(lp);
    }

    /// Takes it off its LP.
    pub fn unload(&mut self) {
        self.backend.unload();
    }
}

impl Role for Parent {
    const IS_TOLD: bool = true;

    type Partition = ParentPartition;
    type Messages = Both<notices::Source, Both<BusMessages, PortMessages<ParentPartition>>>;

    fn may_have_messages(vp: &ParentVp) -> bool {
        notices::are_waiting() || vp.partition.core.may_have_messages()
    }

    fn messages(vp: &ParentVp) -> Self::Messages {
        Both::new(
            notices::Source::new(vp.index),
            Both::new(
                BusMessages::new(vp.partition, vp.index),
                PortMessages::new(vp.partition, vp.index),
            ),
        )
    }

    fn parent(vp: &ParentVp) -> &'static ParentPartition {
        vp.partition
    }

    fn must_leave(_: &ParentVp) -> bool {
        false
    }

    fn before_entry(vp: &mut ParentVp) {
        vp.pass_on_what_the_host_took();
        vp.serve_sessions();
    }

    #[inline(always)]
    fn work_due(vp: &ParentVp) -> u64 {
        vp.role.work.due()
    }

    #[inline]
    fn cpuid<B: VpBackend>(vp: &mut Vp<B, Self>) {
        let (leaf, subleaf) = (
            vp.backend.gp().get(Gp::Rax) as u32,
            vp.backend.gp().get(Gp::Rcx) as u32,
        );
        #[cfg(feature = "test-panic")]
        if leaf == 0x4000_FFFE {
            provoked_panic();
        }
        let r = if cpuid::is_hypervisor_leaf(leaf) {
            hypercall::hypervisor_leaf(leaf, &vp.identity)
        } else {
            let view = match leaf {
                1 | 7 | 0xD | 0x8000_0001 => View {
                    cr4: vp.backend.get(Register::Cr4),
                    apic_enabled: vp.apic.apic_base() & apic_base::ENABLE != 0,
                    missing: vp.partition.facts.missing,
                },
                _ => View::default(),
            };
            cpuid::parent(leaf, subleaf, insn::cpuid(leaf, subleaf), &view)
        };
        vp.finish_cpuid(r);
    }

    #[inline(always)]
    fn read_msr(vp: &mut ParentVp, number: u32) -> MsrAnswer<u64> {
        vp.read_msr(number).into()
    }

    #[inline(always)]
    fn write_msr(vp: &mut ParentVp, number: u32, value: u64) -> MsrAnswer<()> {
        if number == GUEST_OS_ID && value == 0 {
            // Its kernel says good-bye. The instruction is executed again until all is undone.
            server::forget(vp.lp, vp.partition);
            if !vp.end_children() {
                return MsrAnswer::Intercepted;
            }
        }
        vp.write_msr(number, value).into()
    }

    fn exit(vp: &mut ParentVp, exit: Exit) {
        match exit {
            Exit::Interrupt => {
                insn::interrupt_window();
                if let Some(vector) = vp.lp.take_vector() {
                    vp.physical_interrupt(vector);
                }
            }
            Exit::Nmi => {
                crate::panic::stop_if_asked();
                // Where the host took it in its own window, its handler has left a note; there is one NMI, not two.
                vp.lp.nmi_taken.store(false, Ordering::Relaxed);
                vp.apic.accept_nmi();
            }
            Exit::MachineCheck => vp.raise(x86::vector::MC, None),
            Exit::Invd | Exit::Wbinvd => {
                // INVD would throw away what the hypervisor wrote: the parent's caches are everybody's.
                insn::wbinvd();
                vp.skip();
            }
            // MONITOR and MWAIT are not in CPUID, but firmware that began before us uses them.
            Exit::Monitor => vp.skip(),
            Exit::Mwait => {
                vp.skip();
                vp.pause();
            }
            Exit::Io(access) => vp.io(access),
            Exit::Slat(fault) => vp.slat_fault(&fault),
            _ => vp.raise_ud(),
        }
    }

    /// On hardware the chipset resets the machine when a processor shuts down, and so do we.
    fn triple_fault(vp: &mut ParentVp) {
        vp.log_state("triple fault of the parent, the machine is reset");
        crate::power::reset();
    }

    fn refused(vp: &mut ParentVp, detail: u64) {
        log::error!(
            "vp{}: the processor refuses the state of the guest, detail {detail:#x}",
            vp.index.get()
        );
        vp.shut_down();
    }

    fn after_start(_: &mut ParentVp) {}

    fn after_reset(vp: &mut ParentVp) {
        // INIT to the boot processor resets the partition.
        if vp.index.get() == 0 {
            server::forget(vp.lp, vp.partition);
            while !vp.end_children() {
                crate::panic::stop_if_asked();
            }
        }
    }

    fn after_eoi(vp: &mut ParentVp, vector: Option<u8>, _: bool) {
        // Whatever the virtual TMR says: an IPI with the same vector may have cleared it.
        let is_ready = match vector {
            Some(vector) => vp.role.open_levels.mark_ready(vector),
            None => {
                vp.role.open_levels.mark_all_ready();
                true
            }
        };
        if is_ready {
            vp.retire_levels();
        }
    }

    fn apic_changed(vp: &mut ParentVp, what: ApicChange) {
        let local = &vp.lp.local;
        match what {
            ApicChange::Lvt(Lvt::Lint0, value) => local.mirror(register::LVT_LINT0, value),
            ApicChange::Lvt(Lvt::Lint1, value) => local.mirror(register::LVT_LINT1, value),
            ApicChange::Lvt(..) => {}
            ApicChange::Addressing => vp.mirror_apic(),
        }
    }

    /// The physical APIC follows the mode, but is never switched off or moved.
    fn write_apic_base(vp: &mut ParentVp, value: u64) -> bool {
        const ADDRESS: u64 = !0xFFF;
        if (value ^ vp.apic.apic_base()) & ADDRESS != 0 {
            // All VPs share the hole in the second-level tables, and the physical APIC answers at the old address.
            vp.note(format_args!(
                "moving the local APIC to {:#x} refused",
                value & ADDRESS
            ));
            return false;
        }
        let Ok(BaseChange { mode, .. }) = vp.apic.write_apic_base(value) else {
            return false;
        };
        if let Some(mode) = mode {
            if mode != Mode::Disabled {
                if vp.lp.local.set_x2apic(mode == Mode::X2Apic) {
                    // Passing through the disabled state emptied the physical APIC.
                    vp.role.open_levels = EoiStack::new();
                }
                vp.lp.local.take();
                vp.lp.forget_timer();
            } else {
                Self::after_eoi(vp, None, true);
            }
            vp.apic.publish(&vp.shared.inbox);
            vp.mirror_apic();
        }
        true
    }

    /// The parent has no parent that could answer an intercept.
    fn no_access(vp: &mut ParentVp, _: Gpa, _: Access) {
        vp.raise_gp();
    }

    fn place_overlay(vp: &mut ParentVp, kind: Overlay, page: Option<Gpn>) -> Result<(), Refused> {
        let (index, clock) = (vp.index, &vp.partition.core.clock);
        let facts = &vp.partition.facts;
        let placed = vp.edit_slat(|slat| {
            if let (Some(_), Some(frame)) = (page, slat.overlay_frame(kind, index)) {
                fill_overlay(kind, frame, clock, facts);
            }
            slat.place_overlay(kind, index, page)
        });
        placed.map_err(|_| {
            vp.note(format_args!("no memory to show {kind:?} at {page:?}"));
            Refused
        })
    }

    fn crash(vp: &mut ParentVp, report: &CrashReport) {
        vp.note(format_args!(
            "the parent reports a crash: {:x?}",
            report.parameters
        ));
    }

    fn post_to_server(vp: &mut ParentVp, call: &PostMessage<'_>) -> Result<Progress, HvError> {
        let (index, partition) = (vp.index, vp.partition);
        // While the children go, the call is executed again and again; the message came with the first time.
        if !server::is_ending(partition, index) {
            vmbus::receive(partition, call)?;
            if !server::serve(vp.lp, partition, index) {
                return Ok(Progress::Done);
            }
        }
        if !vp.end_children() {
            return Ok(Progress::Yield);
        }
        server::finish(vp.lp, partition);
        Ok(Progress::Done)
    }

    fn channel_signalled(vp: &mut ParentVp, relid: Relid) {
        let channel = Channel::of(relid);
        slots::signalled(channel);
        vp.role.work.add(channel);
    }

    fn call(vp: &mut ParentVp, call: Call, body: &mut Body<'_>) -> Result<Progress, HvError> {
        vp.parent_call(call, body)
    }
}

/// A function of its own: inlined, the call that panics is merged with those of other places, and its address then leads to
/// none of them.
#[cfg(feature = "test-panic")]
#[cold]
#[inline(never)]
fn provoked_panic() -> ! {
    panic!("a panic provoked by CPUID leaf 0x4000FFFE")
}
