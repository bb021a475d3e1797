//! RDMSR and WRMSR of the parent, by the classes of [`vpcore::msr`].
#![expect(unsafe_code, reason = "writes registers that the allow-list names")]

use vpcore::msr::{
    DEBUGCTL_WRITABLE, HWCR_WRITABLE, MISC_ENABLE_WRITABLE, MsrClass, NB_CFG_WRITABLE, VirtualMsr,
    classify,
};
use vpcore::seam::Register;

use super::{Parent, ParentVp};
use crate::arch::x86::{insn, msr};
use crate::diagnostics::Counter;
use crate::vp::{Refused, Role};

/// VM_CR as the parent sees it: SVM disabled, and locked so.
const VM_CR_LOCKED_OFF: u64 = 1 << 3 | 1 << 4;
/// IA32_FEATURE_CONTROL as the parent sees it: locked, nothing enabled.
const FEATURE_CONTROL_LOCKED: u64 = 1;

impl ParentVp {
    #[inline(always)]
    pub(super) fn read_msr(&mut self, number: u32) -> Result<u64, Refused> {
        match classify(number) {
            MsrClass::Synthetic => self.read_synthetic(number),
            MsrClass::X2Apic => self.read_apic_msr(number),
            MsrClass::Virtual(register) => self.read_virtual(number, register),
            MsrClass::Absent => Err(Refused),
            MsrClass::Direct | MsrClass::Hardware | MsrClass::ReadOnly => {
                Ok(msr::try_read(number)?)
            }
            MsrClass::Unlisted => {
                self.counters.add(Counter::UnlistedRead);
                Ok(msr::try_read(number)?)
            }
        }
    }

    #[inline(always)]
    pub(super) fn write_msr(&mut self, number: u32, value: u64) -> Result<(), Refused> {
        match classify(number) {
            MsrClass::Synthetic => self.write_synthetic(number, value),
            MsrClass::X2Apic => self.write_apic_msr(number, value),
            MsrClass::Virtual(register) => self.write_virtual(number, register, value),
            MsrClass::Direct | MsrClass::Hardware => {
                // SAFETY: the classes name registers that nothing of the hypervisor depends on.
                Ok(unsafe { msr::try_write(number, value) }?)
            }
            MsrClass::Absent | MsrClass::ReadOnly => Err(Refused),
            MsrClass::Unlisted => {
                self.counters.add(Counter::UnlistedWrite);
                self.note(format_args!("WRMSR {number:#x} = {value:#x} refused"));
                Err(Refused)
            }
        }
    }

    fn read_virtual(&mut self, number: u32, register: VirtualMsr) -> Result<u64, Refused> {
        match register {
            VirtualMsr::Tsc => {
                Ok(insn::rdtsc().wrapping_add(self.backend.get(Register::TscOffset)))
            }
            VirtualMsr::TscAdjust => {
                // Exists where the hardware's does. The guest's begins at zero whatever firmware left in the real one:
                // reference time counts from the TSC as it is.
                msr::try_read(number)?;
                Ok(self.backend.get(Register::TscOffset))
            }
            VirtualMsr::ApicBase => Ok(self.apic.apic_base()),
            VirtualMsr::TscDeadline => self.read_apic_msr(number),
            VirtualMsr::Efer => Ok(self.backend.get(Register::Efer)),
            VirtualMsr::Pat => Ok(self.backend.get(Register::Pat)),
            VirtualMsr::DebugCtl => Ok(self.backend.get(Register::DebugCtl)),
            VirtualMsr::FeatureControl => {
                msr::try_read(number)?;
                Ok(FEATURE_CONTROL_LOCKED)
            }
            VirtualMsr::VmCr => {
                msr::try_read(number)?;
                Ok(VM_CR_LOCKED_OFF)
            }
            VirtualMsr::MtrrDefault => match self.role.mtrr_default {
                Some(value) => Ok(value),
                None => Ok(msr::try_read(number)?),
            },
            VirtualMsr::Mtrr
            | VirtualMsr::MicrocodeRevision
            | VirtualMsr::AmdConfiguration
            | VirtualMsr::NorthbridgeConfiguration
            | VirtualMsr::MiscEnable => Ok(msr::try_read(number)?),
        }
    }

    fn write_virtual(
        &mut self,
        number: u32,
        register: VirtualMsr,
        value: u64,
    ) -> Result<(), Refused> {
        match register {
            VirtualMsr::Tsc => self.set_tsc_offset(value.wrapping_sub(insn::rdtsc())),
            VirtualMsr::TscAdjust => {
                msr::try_read(number)?;
                self.set_tsc_offset(value);
            }
            VirtualMsr::ApicBase => {
                if !Parent::write_apic_base(self, value) {
                    return Err(Refused);
                }
            }
            VirtualMsr::TscDeadline => self.write_apic_msr(number, value)?,
            VirtualMsr::Efer => self.write_efer(value)?,
            VirtualMsr::Pat => self.write_pat(value)?,
            VirtualMsr::DebugCtl => {
                if value & !DEBUGCTL_WRITABLE != 0 {
                    return Err(Refused);
                }
                self.backend.set(Register::DebugCtl, value);
            }
            VirtualMsr::FeatureControl | VirtualMsr::VmCr => return Err(Refused),
            VirtualMsr::MtrrDefault => {
                const DEFINED: u64 = 0xCFF;
                if value & !DEFINED != 0 || !matches!(value & 0xFF, 0 | 1 | 4..=6) {
                    return Err(Refused);
                }
                msr::try_read(number)?;
                self.role.mtrr_default = Some(value);
            }
            VirtualMsr::Mtrr => {
                let old = msr::try_read(number)?;
                if old != value {
                    self.note(format_args!(
                        "a change of MTRR {number:#x} from {old:#x} to {value:#x} was dropped"
                    ));
                }
            }
            VirtualMsr::MicrocodeRevision => {
                // SAFETY: the register is a read-out that software clears before CPUID fills it.
                unsafe { msr::try_write(number, value) }?;
            }
            VirtualMsr::AmdConfiguration => self.write_masked(number, value, HWCR_WRITABLE)?,
            VirtualMsr::NorthbridgeConfiguration => {
                self.write_masked(number, value, NB_CFG_WRITABLE)?
            }
            VirtualMsr::MiscEnable => self.write_masked(number, value, MISC_ENABLE_WRITABLE)?,
        }
        Ok(())
    }

    /// Changes the bits of `writable`; a value that differs in others is noted, and those bits stay.
    fn write_masked(&mut self, number: u32, value: u64, writable: u64) -> Result<(), Refused> {
        let old = msr::try_read(number)?;
        if (old ^ value) & !writable != 0 {
            self.note(format_args!(
                "WRMSR {number:#x} = {value:#x}: bits outside {writable:#x} stay as in {old:#x}"
            ));
        }
        let new = (old & !writable) | (value & writable);
        if new != old {
            // SAFETY: `writable` holds bits that nothing of the hypervisor depends on.
            unsafe { msr::try_write(number, new) }?;
        }
        Ok(())
    }
}
