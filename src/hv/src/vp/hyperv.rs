//! The hypervisor interface of a partition: synthetic registers, overlay pages, hypercalls.

use core::sync::atomic::Ordering;

use addr::Gpa;
use apic::Trigger;
use hypercall::{
    Body, CALLS, Call, Handler, HypercallMemory, Mode, NoAccess, Outcome, Progress, Rip,
};
use synic::{Interrupts, MessageSource, MsrEffect, Overlay, RefTime, Scope, WriteContext, scope};
use tlfs::msr::TIME_REF_COUNT;
use tlfs::{HvError, Privileges};
use vpcore::seam::{Register, SegmentName, VpBackend};

use super::role::Refused;
use super::{AnyVp, Erase, Role, Vp};
use crate::arch::x86::insn;
use crate::arch::x86::lp::NEVER;
use crate::diagnostics::Counter;
use crate::mm::phys::SharedFrame;
use crate::partition::Partition;
use crate::virt::Facts;

impl<R: Role> AnyVp<R> {
    fn reference_time(&self) -> RefTime {
        self.partition.core().clock.now(insn::rdtsc())
    }

    pub(super) fn read_synthetic(&mut self, number: u32) -> Result<u64, Refused> {
        if let Some(register) = self.apic_register(number) {
            return self.read_apic_by_name(register);
        }
        match scope(number) {
            Some(Scope::Partition) => {
                // The one that is read often needs no lock.
                if number == TIME_REF_COUNT {
                    return Ok(self.reference_time().0);
                }
                let msrs = self.partition.core().msrs.lock();
                Ok(msrs.read(number, self.reference_time())?)
            }
            Some(Scope::Vp) => Ok(self.shared.synic.lock().read(number)?),
            None => Err(Refused),
        }
    }

    pub(super) fn write_synthetic(&mut self, number: u32, value: u64) -> Result<(), Refused> {
        if let Some(register) = self.apic_register(number) {
            return self.write_apic_by_name(register, value);
        }
        let partition = self.partition;
        let context = WriteContext {
            now: self.reference_time(),
            is_page: &|page| partition.is_page(page),
        };
        let old = is_overlay_register(number)
            .then(|| self.read_synthetic(number).ok())
            .flatten();
        let effect = match scope(number) {
            Some(Scope::Partition) => {
                let mut msrs = partition.core().msrs.lock();
                msrs.write(number, value, &context)
            }
            Some(Scope::Vp) => self.shared.synic.lock().write(number, value, &context),
            None => return Err(Refused),
        };
        let effect = effect?;
        let is_overlay = matches!(effect, MsrEffect::Overlay { .. });
        let done = self.carry_out(effect);
        if let (Err(Refused), true, Some(old)) = (&done, is_overlay, old) {
            // The page is not shown, so the register does not say that it is. What was there before needs no memory.
            let _ = match scope(number) {
                Some(Scope::Partition) => {
                    let mut msrs = partition.core().msrs.lock();
                    msrs.set(number, old, &context)
                }
                _ => self.shared.synic.lock().set(number, old, &context),
            };
        }
        done
    }

    /// A register of a synthetic timer, which kernels write with each interrupt of their clocks. Unless a timer is due at
    /// once, what the next entry delivers stays as it is.
    pub(super) fn write_timer_register(&mut self, number: u32, value: u64) -> Result<(), Refused> {
        let tsc = insn::rdtsc();
        let now = self.partition.core().clock.now(tsc);
        let mut synic = self.shared.synic.lock();
        synic.write_timer(number, value, now)?;
        let deadline = synic.deadline();
        drop(synic);
        self.set_synic_due(deadline);
        if self.synic_due <= tsc {
            self.is_settled = false;
        } else if self.is_settled {
            self.rearm(tsc);
        }
        Ok(())
    }

    /// The register of the local APIC behind a synthetic one, in either of its modes. For partitions that were told.
    fn apic_register(&self, number: u32) -> Option<ApicRegister> {
        if !self.identity.privileges.contains(Privileges::APIC_MSRS) {
            return None;
        }
        match number {
            tlfs::msr::EOI => Some(ApicRegister::Eoi),
            tlfs::msr::ICR => Some(ApicRegister::Icr),
            tlfs::msr::TPR => Some(ApicRegister::Tpr),
            _ => None,
        }
    }

    fn read_apic_by_name(&mut self, register: ApicRegister) -> Result<u64, Refused> {
        self.is_settled = false;
        self.settle_eoi(true);
        let now = insn::rdtsc();
        match (register, self.apic.mode()) {
            (ApicRegister::Eoi, _) | (_, apic::Mode::Disabled) => Err(Refused),
            (ApicRegister::Tpr, _) => Ok(u64::from(self.apic.cr8()) << 4),
            (ApicRegister::Icr, apic::Mode::X2Apic) => {
                Ok(self.apic.read_msr(x86::msr::X2APIC_FIRST + ICR / 16, now)?)
            }
            (ApicRegister::Icr, apic::Mode::XApic) => {
                let high = self.apic.read(ICR_HIGH as u16, now);
                Ok(u64::from(high) << 32 | u64::from(self.apic.read(ICR as u16, now)))
            }
        }
    }

    fn write_apic_by_name(&mut self, register: ApicRegister, value: u64) -> Result<(), Refused> {
        self.settle_eoi(true);
        let now = insn::rdtsc();
        let (offset, value) = match register {
            ApicRegister::Eoi => (EOI, 0),
            ApicRegister::Tpr if value <= 0xFF => (TPR, value),
            ApicRegister::Tpr => return Err(Refused),
            ApicRegister::Icr => (ICR, value),
        };
        let effect = match self.apic.mode() {
            apic::Mode::Disabled => return Err(Refused),
            apic::Mode::X2Apic => {
                self.apic
                    .write_msr(x86::msr::X2APIC_FIRST + offset / 16, value, now)?
            }
            apic::Mode::XApic => {
                if register == ApicRegister::Icr {
                    let effect = self.apic.write(ICR_HIGH as u16, (value >> 32) as u32, now);
                    self.apply(effect);
                }
                self.apic.write(offset as u16, value as u32, now)
            }
        };
        self.apply(effect);
        Ok(())
    }

    /// Does what a write to a synthetic register asks for.
    pub(super) fn carry_out(&mut self, effect: MsrEffect) -> Result<(), Refused> {
        match effect {
            MsrEffect::None => Ok(()),
            MsrEffect::Overlay { kind, page } => {
                if kind == Overlay::VpAssist {
                    self.settle_eoi(true);
                    self.assist = None;
                }
                let placed = R::place_overlay(self, kind, page);
                // Who was not told of the synthetic EOI does not look for the bit.
                let is_told = self.identity.privileges.contains(Privileges::APIC_MSRS);
                if kind == Overlay::VpAssist && page.is_some() && placed.is_ok() && is_told {
                    self.assist = self.partition.overlay_frame(kind, self.index);
                }
                if matches!(kind, Overlay::EventFlags | Overlay::Messages) {
                    self.serve_synic();
                }
                placed
            }
            MsrEffect::Service => {
                self.serve_synic();
                Ok(())
            }
            MsrEffect::Timers => {
                let deadline = self.shared.synic.lock().deadline();
                self.set_synic_due(deadline);
                Ok(())
            }
            MsrEffect::EndOfMessage => {
                // A crashing processor empties the slots of the others but writes its own EOM.
                for vp in self.partition.core().vps.iter() {
                    vp.rescan.store(true, Ordering::SeqCst);
                    self.call(vp);
                }
                Ok(())
            }
            MsrEffect::Crash(report) => {
                R::crash(self, &report);
                Ok(())
            }
        }
    }

    /// Expires this VP's synthetic timers and delivers its messages.
    pub(super) fn serve_synic(&mut self) {
        let now = self.reference_time();
        let page = self.partition.overlay_frame(Overlay::Messages, self.index);
        let mut synic = self.shared.synic.lock();
        let interrupts = synic.service(now, page.as_ref(), &mut R::messages(self));
        let deadline = synic.deadline();
        drop(synic);
        self.raise_synthetic(interrupts);
        self.set_synic_due(deadline);
    }

    /// Expires this VP's synthetic timers. Messages are looked for only where one of its own waits: who leaves one elsewhere
    /// has this VP look.
    pub(super) fn expire_synthetic_timers(&mut self) {
        let now = self.reference_time();
        let mut synic = self.shared.synic.lock();
        let interrupts = synic.expire(now);
        let (deadline, has_message) = (synic.deadline(), synic.has_undelivered());
        drop(synic);
        self.raise_synthetic(interrupts);
        self.set_synic_due(deadline);
        if has_message {
            self.serve_synic();
        }
    }

    fn raise_synthetic(&mut self, interrupts: Interrupts) {
        for interrupt in interrupts {
            if interrupt.auto_eoi {
                // Never in service, so nothing waits for an EOI: as an interrupt of the 8259.
                self.apic.accept_extint(interrupt.vector);
            } else {
                // Lost where the virtual APIC is off (TLFS, "Virtual Interrupts").
                let _ = self.apic.accept(interrupt.vector, Trigger::Edge);
            }
        }
    }

    fn set_synic_due(&mut self, deadline: Option<RefTime>) {
        self.synic_due = match deadline {
            Some(time) => self.partition.core().clock.tsc_at(time),
            None => NEVER,
        };
    }

    /// Whether messages wait for this VP to make room.
    pub(super) fn synic_waits(&self) -> bool {
        self.shared.synic.lock().has_undelivered()
            || (R::may_have_messages(self) && R::messages(self).waiting() != 0)
    }

    #[cold]
    fn legacy_call_mode(&self) -> Option<Mode> {
        let cs = self.backend.segment(SegmentName::Cs);
        let get = |register| self.backend.get(register);
        Mode::of(
            self.backend.cpl(),
            get(Register::Cr0),
            get(Register::Efer),
            &cs,
        )
    }
}

impl<B: VpBackend, R: Role> Vp<B, R> {
    #[inline(always)]
    pub(super) fn hypercall(&mut self) {
        let mode = if self.backend.is_in_64_bit_code() {
            (self.backend.cpl() == 0).then_some(Mode::Long)
        } else {
            self.erased().legacy_call_mode()
        };
        let Some(mode) = mode else {
            self.erased().raise_ud();
            return;
        };
        let registers = mode.read(self.backend.gp());
        let lp = self.lp;
        let outcome = hypercall::dispatch(
            &CALLS,
            self.identity.privileges,
            &registers,
            &mut Memory(self.partition),
            || lp.scratch.lock(),
            &mut Calls(self.erased()),
        );
        match outcome {
            Outcome::NoAccess { gpa, access } => R::no_access(self.erased(), gpa, access),
            outcome => {
                if mode.finish(self.backend.gp_mut(), outcome) == Rip::Advance {
                    self.skip();
                }
            }
        }
    }
}

/// Registers of synthetic timers.
pub(super) const fn is_timer_register(number: u32) -> bool {
    use tlfs::msr as n;
    matches!(number, n::STIMER0_CONFIG..=n::STIMER3_COUNT)
}

/// Registers that place an overlay page.
const fn is_overlay_register(number: u32) -> bool {
    use tlfs::msr as n;
    matches!(
        number,
        n::HYPERCALL | n::REFERENCE_TSC | n::VP_ASSIST_PAGE | n::SIMP | n::SIEFP | n::SIRBP
    )
}

/// A register of the local APIC that has a synthetic MSR (TLFS, "Virtual Interrupt Controller").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ApicRegister {
    Eoi,
    Icr,
    Tpr,
}

/// Their offsets in the register page.
const TPR: u32 = 0x80;
const EOI: u32 = 0xB0;
const ICR: u32 = 0x300;
const ICR_HIGH: u32 = 0x310;

/// The calls, for the dispatcher.
struct Calls<'a, R: Role>(&'a mut AnyVp<R>);

impl<R: Role> Handler<Call> for Calls<'_, R> {
    fn handle(&mut self, call: Call, body: &mut Body<'_>) -> Result<Progress, HvError> {
        self.0.carry_out_call(call, body)
    }

    #[inline(always)]
    fn handle_frequent(&mut self, call: Call, input: u64) -> Option<Result<(), HvError>> {
        match call {
            Call::NotifyLongSpinWait => {
                self.0.counters.add(Counter::SpinWait);
                Some(Ok(()))
            }
            Call::SignalEvent => Some(self.0.signal_event(&input.to_le_bytes())),
            _ => None,
        }
    }
}

struct Memory<P: 'static>(&'static P);

impl<P: Partition> HypercallMemory for Memory<P> {
    fn read(&mut self, from: Gpa, to: &mut [u8]) -> Result<(), NoAccess> {
        self.0.read(from, to)
    }

    fn check_write(&mut self, at: Gpa) -> Result<(), NoAccess> {
        self.0.write(at, &[])
    }

    fn write(&mut self, to: Gpa, from: &[u8]) -> Result<(), NoAccess> {
        self.0.write(to, from)
    }
}

/// The vendor's call instruction and a near return; the rest breaks.
fn fill_hypercall_page(frame: SharedFrame, instruction: &[u8; 3]) {
    const RET: u8 = 0xC3;
    const INT3: u8 = 0xCC;
    frame.fill(INT3);
    frame.write(0, instruction);
    frame.write(instruction.len(), &[RET]);
}

/// Gives an overlay that the hypervisor writes its contents.
pub(crate) fn fill_overlay(
    kind: Overlay,
    frame: SharedFrame,
    clock: &synic::RefClock,
    facts: &Facts,
) {
    match kind {
        Overlay::Hypercall => fill_hypercall_page(frame, &facts.hypercall),
        Overlay::ReferenceTsc => fill_tsc_page(frame, clock),
        _ => {}
    }
}

/// Writes the page anew. `clock` has another sequence number with each change; 0 in between has a reader ask the register.
fn fill_tsc_page(frame: SharedFrame, clock: &synic::RefClock) {
    let page = clock.tsc_page();
    let order = Ordering::SeqCst;
    frame.half(0).store(0, order);
    frame.word(8).store(page.scale, order);
    frame.word(16).store(page.offset as u64, order);
    frame.half(0).store(page.sequence, order);
}
