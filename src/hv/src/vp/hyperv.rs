//! The hypervisor interface of the parent: synthetic registers, overlay pages, hypercalls.

use core::sync::atomic::Ordering;

use addr::Gpa;
use apic::Trigger;
use hypercall::{
    Body, CALLS, Call, Handler, HypercallMemory, Mode, NoAccess, Outcome, Progress, Rip,
};
use synic::{MsrEffect, Overlay, RefTime, Scope, SynicPage, WriteContext, scope};
use tlfs::HvError;
use vpcore::seam::{Register, SegmentName, VpBackend};

use super::Vp;
use super::msr::Refused;
use crate::arch::x86::insn;
use crate::mm::phys::SharedFrame;
use crate::partition::{PARENT, Partition};
use crate::shootdown;
use crate::virt::Virt;

impl<V: Virt> Vp<V> {
    fn reference_time(&self) -> RefTime {
        self.partition.clock.now(insn::rdtsc())
    }

    pub(super) fn read_synthetic(&mut self, number: u32) -> Result<u64, Refused> {
        let value = match scope(number) {
            Some(Scope::Partition) => self
                .partition
                .msrs
                .lock()
                .read(number, self.reference_time()),
            Some(Scope::Vp) => self.shared.synic.lock().read(number),
            None => return Err(Refused),
        };
        value.map_err(|_| Refused)
    }

    pub(super) fn write_synthetic(&mut self, number: u32, value: u64) -> Result<(), Refused> {
        let partition = self.partition;
        let context = WriteContext {
            now: self.reference_time(),
            is_page: &|page| partition.is_page(page),
        };
        let effect = match scope(number) {
            Some(Scope::Partition) => partition.msrs.lock().write(number, value, &context),
            Some(Scope::Vp) => self.shared.synic.lock().write(number, value, &context),
            None => return Err(Refused),
        };
        match effect.map_err(|_| Refused)? {
            MsrEffect::None => Ok(()),
            MsrEffect::Overlay { kind, page } => {
                let placed = self.place_overlay(kind, page);
                if matches!(kind, Overlay::EventFlags | Overlay::Messages) {
                    self.serve_synic();
                }
                placed
            }
            MsrEffect::Service => {
                self.serve_synic();
                Ok(())
            }
            MsrEffect::EndOfMessage => {
                // A crashing processor empties the slots of the others but writes its own EOM.
                for vp in partition.vps {
                    vp.rescan.store(true, Ordering::SeqCst);
                    self.call(vp);
                }
                Ok(())
            }
            MsrEffect::Crash(report) => {
                self.note(format_args!(
                    "the parent reports a crash: {:x?}",
                    report.parameters
                ));
                Ok(())
            }
        }
    }

    /// Shows the overlay at its new place and nowhere else, on all LPs.
    fn place_overlay(&mut self, kind: Overlay, page: Option<addr::Gpn>) -> Result<(), Refused> {
        let mut slat = self.partition.slat.lock();
        if page.is_some() {
            match kind {
                Overlay::Hypercall => {
                    fill_hypercall_page::<V>(slat.overlay_frame(kind, self.index))
                }
                Overlay::ReferenceTsc => {
                    fill_tsc_page(slat.overlay_frame(kind, self.index), &self.partition.clock);
                }
                _ => {}
            }
        }
        let Ok(cleanup) = slat.place_overlay(kind, self.index, page) else {
            drop(slat);
            self.note(format_args!("no memory to show {kind:?} at {page:?}"));
            return Err(Refused);
        };
        if cleanup.flush_needed() {
            shootdown::all_others(self.lp, &self.local);
            self.backend.flush_tlb();
        }
        slat.finish(cleanup);
        Ok(())
    }

    /// Expires this VP's synthetic timers and delivers its messages.
    pub(super) fn serve_synic(&mut self) {
        let now = self.reference_time();
        let frame = self
            .partition
            .slat
            .lock()
            .overlay_frame(Overlay::Messages, self.index);
        let mut synic = self.shared.synic.lock();
        for interrupt in synic.service(now, frame.map(Page).as_ref()) {
            if interrupt.auto_eoi {
                // Never in service, so nothing waits for an EOI: as an interrupt of the 8259.
                self.apic.accept_extint(interrupt.vector);
            } else {
                // Lost where the virtual APIC is off (TLFS, "Virtual Interrupts").
                let _ = self.apic.accept(interrupt.vector, Trigger::Edge);
            }
        }
        self.synic_due = synic
            .deadline()
            .map(|time| self.partition.clock.tsc_at(time));
    }

    /// Whether messages wait for this VP to make room.
    pub(super) fn synic_waits(&self) -> bool {
        self.shared.synic.lock().has_undelivered()
    }

    pub(super) fn hypercall(&mut self) {
        let cs = self.backend.segment(SegmentName::Cs);
        let (cr0, efer) = (
            self.backend.get(Register::Cr0),
            self.backend.get(Register::Efer),
        );
        let Some(mode) = Mode::of(self.backend.cpl(), cr0, efer, &cs) else {
            self.raise_ud();
            return;
        };
        let registers = mode.read(self.backend.gp());
        let outcome = hypercall::dispatch(
            &CALLS,
            self.partition.identity.privileges,
            &registers,
            &mut Memory(self.partition),
            self.scratch,
            &mut Calls,
        );
        if let Outcome::NoAccess { .. } = outcome {
            // The parent has no parent that could answer an intercept.
            self.raise_gp();
            return;
        }
        if mode.finish(self.backend.gp_mut(), outcome) == Rip::Advance {
            self.skip();
        }
    }
}

/// What the calls do for the parent.
struct Calls;

impl Handler<Call> for Calls {
    fn handle(&mut self, call: Call, body: &mut Body<'_>) -> Result<Progress, HvError> {
        match call {
            Call::NotifyLongSpinWait => Ok(Progress::Done),
            Call::GetPartitionId => {
                let id = PARENT.get().to_le_bytes();
                body.output()
                    .iter_mut()
                    .zip(id)
                    .for_each(|(to, from)| *to = from);
                Ok(Progress::Done)
            }
            // No port exists before the VMBus server does: every connection is unknown.
            Call::PostMessage => {
                tlfs::call::PostMessage::decode(body.header())?;
                Err(HvError::INVALID_CONNECTION_ID)
            }
            Call::SignalEvent => {
                tlfs::call::SignalEvent::decode(body.header())?;
                Err(HvError::INVALID_CONNECTION_ID)
            }
            // The mask of extended calls: none. The output is zero already.
            Call::ExtQueryCapabilities => Ok(Progress::Done),
        }
    }
}

struct Memory<V: Virt>(&'static Partition<V>);

impl<V: Virt> HypercallMemory for Memory<V> {
    fn read(&mut self, from: Gpa, to: &mut [u8]) -> Result<(), NoAccess> {
        if self.0.read(from, to) {
            Ok(())
        } else {
            Err(NoAccess)
        }
    }

    fn check_write(&mut self, at: Gpa) -> Result<(), NoAccess> {
        if self.0.write(at, &[]) {
            Ok(())
        } else {
            Err(NoAccess)
        }
    }

    fn write(&mut self, to: Gpa, from: &[u8]) -> Result<(), NoAccess> {
        if self.0.write(to, from) {
            Ok(())
        } else {
            Err(NoAccess)
        }
    }
}

/// A SynIC page in its overlay frame.
struct Page(SharedFrame);

impl SynicPage for Page {
    fn load_u32(&self, offset: usize) -> u32 {
        self.0
            .half(offset)
            .load(core::sync::atomic::Ordering::Acquire)
    }

    fn store_u32(&self, offset: usize, value: u32) {
        self.0
            .half(offset)
            .store(value, core::sync::atomic::Ordering::Release);
    }

    fn or_u8(&self, offset: usize, bits: u8) {
        self.0
            .byte(offset)
            .fetch_or(bits, core::sync::atomic::Ordering::SeqCst);
    }

    fn or_u32(&self, offset: usize, bits: u32) -> u32 {
        self.0
            .half(offset)
            .fetch_or(bits, core::sync::atomic::Ordering::SeqCst)
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        self.0.write(offset, bytes);
    }

    fn fence(&self) {
        core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
    }
}

/// The vendor's call instruction and a near return; the rest breaks.
fn fill_hypercall_page<V: Virt>(frame: Option<SharedFrame>) {
    const RET: u8 = 0xC3;
    const INT3: u8 = 0xCC;
    if let Some(frame) = frame {
        frame.fill(INT3);
        frame.write(0, &V::HYPERCALL);
        frame.write(V::HYPERCALL.len(), &[RET]);
    }
}

/// The clock never changes while the machine is up, so one sequence number does.
fn fill_tsc_page(frame: Option<SharedFrame>, clock: &synic::RefClock) {
    let page = clock.tsc_page(1);
    if let Some(frame) = frame {
        frame.half(0).store(0, core::sync::atomic::Ordering::SeqCst);
        frame
            .word(8)
            .store(page.scale, core::sync::atomic::Ordering::SeqCst);
        frame
            .word(16)
            .store(page.offset as u64, core::sync::atomic::Ordering::SeqCst);
        frame
            .half(0)
            .store(page.sequence, core::sync::atomic::Ordering::SeqCst);
    }
}
