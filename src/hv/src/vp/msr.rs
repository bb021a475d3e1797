//! RDMSR and WRMSR: what both kinds of partition have.

use apic::Mode;
use vpcore::seam::{Register, VpBackend};
use x86::{Gp, cr0, efer};

use super::hyperv::is_timer_register;
use super::role::{MsrAnswer, Refused};
use super::{AnyVp, Erase, Role, Vp};
use crate::arch::x86::insn;
use crate::partition::Partition;

impl<B: VpBackend, R: Role> Vp<B, R> {
    #[inline(never)]
    pub(super) fn rdmsr(&mut self) {
        let number = self.backend.gp().get(Gp::Rcx) as u32;
        match R::read_msr(self.erased(), number) {
            MsrAnswer::Done(value) => {
                self.backend.gp_mut().set_edx_eax(value);
                self.skip();
            }
            MsrAnswer::Refused => self.erased().raise_gp(),
            MsrAnswer::Intercepted => {}
        }
    }

    #[inline(never)]
    pub(super) fn wrmsr(&mut self) {
        let number = self.backend.gp().get(Gp::Rcx) as u32;
        let value = self.backend.gp().edx_eax();
        if is_timer_register(number) {
            match self.erased().write_timer_register(number, value) {
                Ok(()) => self.skip(),
                Err(Refused) => self.erased().raise_gp(),
            }
            return;
        }
        // Any other may change what the next entry delivers.
        self.is_settled = false;
        match R::write_msr(self.erased(), number, value) {
            MsrAnswer::Done(()) => self.skip(),
            MsrAnswer::Refused => self.erased().raise_gp(),
            MsrAnswer::Intercepted => {}
        }
    }
}

impl<R: Role> AnyVp<R> {
    /// A register of the virtual APIC in x2APIC mode, or its deadline.
    pub(super) fn read_apic_msr(&mut self, number: u32) -> Result<u64, Refused> {
        if self.apic.mode() != Mode::X2Apic && number != x86::msr::IA32_TSC_DEADLINE {
            return Err(Refused);
        }
        self.settle_eoi(true);
        self.is_settled = false;
        Ok(self.apic.read_msr(number, insn::rdtsc())?)
    }

    /// See [`Vp::read_apic_msr`].
    pub(super) fn write_apic_msr(&mut self, number: u32, value: u64) -> Result<(), Refused> {
        if self.apic.mode() != Mode::X2Apic && number != x86::msr::IA32_TSC_DEADLINE {
            return Err(Refused);
        }
        self.settle_eoi(true);
        let effect = self.apic.write_msr(number, value, insn::rdtsc())?;
        self.apply(effect);
        Ok(())
    }

    pub(super) fn set_tsc_offset(&mut self, offset: u64) {
        self.backend.set(Register::TscOffset, offset);
        self.apic.set_tsc_offset(offset, insn::rdtsc());
    }

    /// PAT: types 2 and 3 and those above 7 are reserved.
    pub(super) fn write_pat(&mut self, value: u64) -> Result<(), Refused> {
        let is_valid = value
            .to_le_bytes()
            .iter()
            .all(|kind| matches!(kind, 0 | 1 | 4..=7));
        if !is_valid {
            return Err(Refused);
        }
        self.backend.set(Register::Pat, value);
        Ok(())
    }

    /// EFER, checked as hardware does: no bits that the processor does not offer, LME fixed while paging, LMA read-only.
    pub(super) fn write_efer(&mut self, value: u64) -> Result<(), Refused> {
        let old = self.backend.get(Register::Efer);
        let is_paging = self.backend.get(Register::Cr0) & cr0::PG != 0;
        if value & !self.partition.core().efer_mask != 0
            || (is_paging && (value ^ old) & efer::LME != 0)
        {
            return Err(Refused);
        }
        self.backend
            .set(Register::Efer, (value & !efer::LMA) | (old & efer::LMA));
        Ok(())
    }
}
