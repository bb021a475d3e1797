//! RDMSR and WRMSR of a child: no register of the processor, but for those that move with the VP.

use tlfs::register::RegisterName;
use vpstate::Effect;
use vpstate::msr::{ARCH_CAPABILITIES, Class, classify};
use x86::msr as n;

use super::{Child, ChildCore};
use crate::arch::x86::msr;
use crate::vp::role::{MsrAnswer, Refused, Role};

/// Registers that the VP has in the LP while it is loaded there.
const IN_THE_LP: [(RegisterName, u32); 2] = [
    (RegisterName::TSC_AUX, n::TSC_AUX),
    (RegisterName::SPEC_CTRL, n::IA32_SPEC_CTRL),
];

impl ChildCore {
    pub(super) fn read_child_msr(&mut self, number: u32) -> MsrAnswer<u64> {
        match classify(number) {
            Class::Apic if number == n::IA32_APIC_BASE => MsrAnswer::Done(self.apic.apic_base()),
            Class::Apic => self.read_apic_msr(number).into(),
            Class::Synthetic => self.read_synthetic(number).into(),
            Class::Register(name) => match in_the_lp(name) {
                Some(msr) => msr::try_read(msr).map_err(Refused::from).into(),
                None => self
                    .with_registers(|registers| registers.read_msr(name))
                    .map_err(|_| Refused)
                    .into(),
            },
            Class::Constant(value) | Class::Ignored(value) => MsrAnswer::Done(value),
            Class::Capabilities => msr::try_read(number)
                .map(|value| value & ARCH_CAPABILITIES)
                .map_err(Refused::from)
                .into(),
            Class::Absent => MsrAnswer::Refused,
            Class::Unlisted => self.unlisted_msr(number, false, 0),
        }
    }

    pub(super) fn write_child_msr(&mut self, number: u32, value: u64) -> MsrAnswer<()> {
        match classify(number) {
            Class::Apic if number == n::IA32_APIC_BASE => {
                if Child::write_apic_base(self, value) {
                    MsrAnswer::Done(())
                } else {
                    MsrAnswer::Refused
                }
            }
            Class::Apic => self.write_apic_msr(number, value).into(),
            Class::Synthetic => self.write_synthetic(number, value).into(),
            Class::Register(name) => match in_the_lp(name) {
                Some(msr) => self.write_lp_msr(name, msr, value).into(),
                None => {
                    let written = self.with_registers(|registers| registers.write_msr(name, value));
                    match written {
                        Ok(effect) => {
                            self.settle(effect);
                            MsrAnswer::Done(())
                        }
                        Err(_) => MsrAnswer::Refused,
                    }
                }
            },
            Class::Ignored(_) => MsrAnswer::Done(()),
            Class::Constant(_) | Class::Capabilities | Class::Absent => MsrAnswer::Refused,
            Class::Unlisted => self.unlisted_msr(number, true, ()),
        }
    }

    /// A register that nobody named: the parent's to answer where it wants to.
    fn unlisted_msr<T>(&mut self, number: u32, is_write: bool, nothing: T) -> MsrAnswer<T> {
        let properties = self.partition.properties.lock();
        let (is_intercepted, action) = (
            properties.msr_intercept,
            properties.unimplemented_msr_action,
        );
        drop(properties);
        if is_intercepted {
            self.intercept_msr(number, is_write);
            MsrAnswer::Intercepted
        } else if action == 1 {
            MsrAnswer::Done(nothing)
        } else {
            MsrAnswer::Refused
        }
    }

    fn write_lp_msr(&mut self, name: RegisterName, number: u32, value: u64) -> Result<(), Refused> {
        let is_valid = match name {
            RegisterName::TSC_AUX => value >> 32 == 0,
            _ => value & !self.role.limits.spec_ctrl == 0,
        };
        if !is_valid {
            return Err(Refused);
        }
        msr::try_read(number)?;
        write_own(number, value)
    }

    /// What a register that was set asks for.
    pub(super) fn settle(&mut self, effect: Effect) {
        match effect {
            Effect::None | Effect::Timer | Effect::Run(_) => {}
            Effect::Translation => self.backend.flush_guest_tlb(),
            Effect::ApicBase(_) => self.apic.publish(&self.shared.inbox),
        }
    }
}

fn in_the_lp(name: RegisterName) -> Option<u32> {
    IN_THE_LP
        .iter()
        .find(|&&(known, _)| known == name)
        .map(|&(_, msr)| msr)
}

#[expect(unsafe_code, reason = "writes registers that move with the VP")]
fn write_own(number: u32, value: u64) -> Result<(), Refused> {
    // SAFETY: TSC_AUX is a number for the guest; the bits of SPEC_CTRL restrict speculation of whoever runs, and the
    // next VP's value replaces them.
    Ok(unsafe { msr::try_write(number, value) }?)
}
