//! Control registers that the hypervisor shares with the guest, and CR8.
//!
//! Source: SDM vol. 3A, "Control Registers"; vol. 2, "MOV—Move to/from Control Registers".

use vpcore::seam::{ControlAccess, Register};
use x86::{Gp, cr0, cr4, efer};

use super::{AnyVp, Role};

impl<R: Role> AnyVp<R> {
    /// Carries out one access.
    pub(super) fn control(&mut self, access: ControlAccess) {
        match access {
            ControlAccess::WriteCr0(value) => self.write_cr0(value),
            ControlAccess::WriteCr4(value) => self.write_cr4(value),
            ControlAccess::Clts => {
                let value = self.backend.get(Register::Cr0) & !cr0::TS;
                self.write_cr0(value);
            }
            ControlAccess::Lmsw(value) => {
                // LMSW writes PE, MP, EM and TS, and cannot clear PE.
                const WORD: u64 = cr0::PE | cr0::MP | cr0::EM | cr0::TS;
                let old = self.backend.get(Register::Cr0);
                self.write_cr0((old & !(WORD & !cr0::PE)) | (u64::from(value) & WORD));
            }
            ControlAccess::WriteCr8(register) => self.cr8(register, true),
            ControlAccess::ReadCr8(register) => self.cr8(register, false),
        }
    }

    fn write_cr0(&mut self, value: u64) {
        let (pe, pg) = (value & cr0::PE != 0, value & cr0::PG != 0);
        let was_paging = self.backend.get(Register::Cr0) & cr0::PG != 0;
        let mode = self.backend.get(Register::Efer);
        let control = self.backend.get(Register::Cr4);
        let is_invalid = value >> 32 != 0
            || (pg && !pe)
            || (value & cr0::NW != 0 && value & cr0::CD == 0)
            // Paging cannot start in long mode without PAE, nor end in 64-bit code or under CR4.PCIDE.
            || (pg && !was_paging && mode & efer::LME != 0 && control & cr4::PAE == 0)
            || (!pg && was_paging && (self.backend.is_in_64_bit_code() || control & cr4::PCIDE != 0))
            || (value & cr0::WP == 0 && control & cr4::CET != 0);
        if is_invalid {
            self.raise_gp();
            return;
        }
        let Some(next) = self.next_rip() else { return };
        self.backend.set(Register::Cr0, value | cr0::ET);
        self.retire(next);
    }

    fn write_cr4(&mut self, value: u64) {
        let old = self.backend.get(Register::Cr4);
        let is_long = self.backend.get(Register::Efer) & efer::LMA != 0;
        let is_invalid = value & cr4::VMXE != 0
            || value >> 32 != 0
            || (is_long && (value & cr4::PAE == 0 || (value ^ old) & cr4::LA57 != 0))
            || (value & cr4::PCIDE != 0 && !is_long);
        if is_invalid {
            self.raise_gp();
            return;
        }
        let Some(next) = self.next_rip() else { return };
        self.backend.set(Register::Cr4, value);
        self.retire(next);
    }

    /// CR8 is the upper half of the virtual APIC's TPR.
    fn cr8(&mut self, register: Option<Gp>, is_write: bool) {
        let register = register.or_else(|| {
            let fetched = self.fetch();
            let mov = if is_write {
                insn::mov_to_cr
            } else {
                insn::mov_from_cr
            };
            mov(fetched.bytes(), fetched.mode).map(|mov| mov.gp)
        });
        let (Some(register), Some(next)) = (register, self.next_rip()) else {
            return;
        };
        if is_write {
            let value = self.backend.gp().get(register);
            if value > 15 {
                self.raise_gp();
                return;
            }
            self.settle_eoi(true);
            self.apic.set_cr8(value as u8);
        } else {
            let value = u64::from(self.apic.cr8());
            self.backend.gp_mut().set(register, value);
        }
        self.retire(next);
    }
}
