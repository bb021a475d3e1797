//! What each exit means.

use vpcore::seam::{Exit, Register, SegmentName, VpBackend};
use x86::Gp;

use super::{Activity, AnyVp, Erase, Role, Vp};
use crate::arch::x86::msr;
use crate::diagnostics::Counter;

impl<B: VpBackend, R: Role> Vp<B, R> {
    /// Answers one exit. No arm panics, and none loops longer than the guest's own instruction would.
    #[inline(always)]
    pub(super) fn handle(&mut self, exit: Exit) {
        match exit {
            // Common ones, which leave events, timers and the virtual APIC as they are, or say so if they do not.
            Exit::Cpuid => {
                self.counters.add(Counter::Cpuid);
                self.refused_at = None;
                R::cpuid(self);
            }
            Exit::Hypercall => {
                self.counters.add(Counter::Hypercall);
                self.refused_at = None;
                self.hypercall();
            }
            Exit::Rdmsr => {
                self.counters.add(Counter::Rdmsr);
                self.refused_at = None;
                self.rdmsr();
            }
            Exit::Wrmsr => {
                self.counters.add(Counter::Wrmsr);
                self.refused_at = None;
                self.wrmsr();
            }
            exit => {
                self.is_settled = false;
                self.erased().handle_rare(exit);
            }
        }
    }
}

impl<R: Role> AnyVp<R> {
    /// Answers an exit that none of the above has, and that may change what the next entry delivers.
    #[inline(never)]
    fn handle_rare(&mut self, exit: Exit) {
        self.counters.add(counter(&exit));
        if !matches!(exit, Exit::InvalidState { .. }) {
            self.refused_at = None;
        }
        match exit {
            // Answered above.
            Exit::Cpuid | Exit::Hypercall | Exit::Rdmsr | Exit::Wrmsr => {}
            Exit::InterruptWindow => {
                self.backend
                    .request_window(vpcore::seam::Window::Interrupt, false);
                self.window_open = false;
            }
            Exit::NmiWindow => {
                // On AMD-V both windows are one: the interrupt's is asked for anew.
                self.backend
                    .request_window(vpcore::seam::Window::Nmi, false);
                self.window_open = false;
            }
            Exit::Hlt => {
                // Where its bytes are gone the guest executes what is there now: nothing would end the shadow of an STI
                // before it, which keeps a halted VP from waking.
                if let Some(next) = self.next_rip() {
                    self.retire(next);
                    self.activity = Activity::Halted;
                }
            }
            Exit::Xsetbv => self.xsetbv(),
            Exit::Undefined => self.raise_ud(),
            Exit::Exception { vector, error_code } => {
                self.raise(vector, error_code);
                // The parent took its intercept back while the VP ran: the exit came before CR2 was written.
                if vector == x86::vector::PF && self.raised.is_some() {
                    let address = self.backend.fault_address();
                    self.backend.set(Register::Cr2, address);
                }
            }
            Exit::Pause => {}
            Exit::Control(access) => self.control(access),
            Exit::Slat(fault) if self.is_apic_page(fault.gpa) => self.apic_page(&fault),
            Exit::TripleFault => self.shut_down(),
            Exit::Init => self.note(format_args!("a physical INIT arrived and was ignored")),
            Exit::InvalidState { detail } => self.invalid_state(detail),
            Exit::Unknown { reason, info } => {
                self.note(format_args!(
                    "unknown exit {reason:#x} info {info:#x}, answered with #UD"
                ));
                self.raise_ud();
            }
            exit => R::exit(self, exit),
        }
    }

    fn xsetbv(&mut self) {
        let (index, value) = (
            self.backend.gp().get(Gp::Rcx) as u32,
            self.backend.gp().edx_eax(),
        );
        if self.backend.get(Register::Cr4) & x86::cr4::OSXSAVE == 0 {
            self.raise_ud();
            return;
        }
        // The hardware knows which combinations it takes; the privilege level was the guest's, so it is checked here.
        let is_allowed = self.backend.cpl() == 0 && R::may_enable(self, value);
        if !is_allowed || msr::try_xsetbv(index, value).is_err() {
            self.raise_gp();
        } else {
            self.skip();
        }
    }

    /// The hardware refused the guest's state. Some processors do so where others raise #GP at a move to a control
    /// register; RIP is then still at it.
    fn invalid_state(&mut self, detail: u64) {
        let rip = self.backend.get(Register::Rip);
        // Once: if the #GP cannot be entered with either, it is the state itself.
        if self.refused_at != Some(rip) && self.is_at_move_to_control() {
            self.refused_at = Some(rip);
            self.raise_gp();
            return;
        }
        R::refused(self, detail);
    }

    /// Writes the VP's registers to the log.
    pub(super) fn log_state(&self, why: &str) {
        let get = |register| self.backend.get(register);
        log::error!("vp{}: {why}", self.index.get());
        log::error!(
            "rip {:#x} rflags {:#x} cr0 {:#x} cr2 {:#x} cr3 {:#x} cr4 {:#x} efer {:#x} interruptible {}",
            get(Register::Rip),
            get(Register::Rflags),
            get(Register::Cr0),
            get(Register::Cr2),
            get(Register::Cr3),
            get(Register::Cr4),
            get(Register::Efer),
            self.backend.can_take_interrupt()
        );
        log::error!("gp {:x?}", self.backend.gp().0);
        for name in [
            SegmentName::Cs,
            SegmentName::Ss,
            SegmentName::Ds,
            SegmentName::Tr,
        ] {
            log::error!("{name:?} {:x?}", self.backend.segment(name));
        }
    }
}

const fn counter(exit: &Exit) -> Counter {
    match exit {
        Exit::Interrupt => Counter::Interrupt,
        Exit::Nmi => Counter::Nmi,
        Exit::MachineCheck => Counter::MachineCheck,
        Exit::InterruptWindow => Counter::InterruptWindow,
        Exit::NmiWindow => Counter::NmiWindow,
        Exit::Cpuid => Counter::Cpuid,
        Exit::Hlt => Counter::Hlt,
        Exit::Rdmsr => Counter::Rdmsr,
        Exit::Wrmsr => Counter::Wrmsr,
        Exit::Hypercall => Counter::Hypercall,
        Exit::Xsetbv => Counter::Xsetbv,
        Exit::Invd | Exit::Wbinvd => Counter::CacheFlush,
        Exit::Monitor | Exit::Mwait | Exit::Pause => Counter::Mwait,
        Exit::Undefined | Exit::Exception { .. } => Counter::Undefined,
        Exit::Control(_) => Counter::Control,
        Exit::Io(_) => Counter::Io,
        Exit::Slat(_) => Counter::Slat,
        Exit::TripleFault => Counter::TripleFault,
        Exit::Init => Counter::Init,
        Exit::InvalidState { .. } => Counter::InvalidState,
        Exit::Unknown { .. } => Counter::Unknown,
    }
}
