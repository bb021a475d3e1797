//! The x2APIC MSRs, and IA32_TSC_DEADLINE.

use x86::msr::{IA32_APIC_BASE, IA32_TSC_DEADLINE, X2APIC_FIRST, X2APIC_LAST};

use crate::base::Mode;
use crate::interrupts::Trigger;
use crate::registers::{self as reg, esr, icr};
use crate::state::{Apic, Effect, GeneralProtection};

impl Apic {
    /// Reads IA32_APIC_BASE, IA32_TSC_DEADLINE or an x2APIC MSR, at host TSC `now`.
    ///
    /// # Errors
    /// #GP for a register that does not exist or cannot be read, for x2APIC registers outside x2APIC
    /// mode, and for every other MSR.
    pub fn read_msr(&mut self, msr: u32, now: u64) -> Result<u64, GeneralProtection> {
        match msr {
            IA32_APIC_BASE => return Ok(self.apic_base()),
            IA32_TSC_DEADLINE if self.features.tsc_deadline => {
                self.timer_tick(now);
                return Ok(self.timer.guest_deadline());
            }
            _ => {}
        }
        match self.x2apic_register(msr)? {
            reg::ID => Ok(u64::from(self.id.get())),
            reg::LDR => Ok(u64::from(self.logical_destination())),
            reg::ICR => Ok(self.icr),
            number => self
                .read_shared(number, now)
                .map(u64::from)
                .ok_or(GeneralProtection),
        }
    }

    /// Writes IA32_TSC_DEADLINE or an x2APIC MSR, at host TSC `now`. IA32_APIC_BASE has its own
    /// [`Apic::write_apic_base`].
    ///
    /// # Errors
    /// #GP, and nothing changed, for a register that does not exist or cannot be written, for reserved
    /// bits (read-only status bits may be set), for x2APIC registers outside x2APIC mode, and for
    /// every other MSR.
    #[inline]
    pub fn write_msr(
        &mut self,
        msr: u32,
        value: u64,
        now: u64,
    ) -> Result<Effect, GeneralProtection> {
        if msr == IA32_TSC_DEADLINE && self.features.tsc_deadline {
            self.timer_tick(now);
            self.timer.write_deadline(value, now);
            // A deadline that has passed is an interrupt now.
            self.timer_tick(now);
            return Ok(Effect::Timer);
        }
        let number = self.x2apic_register(msr)?;
        if number == reg::ICR {
            if value & 0xFFFF_FFFF & !icr::ALLOWED_LOW != 0 {
                return Err(GeneralProtection);
            }
            return Ok(self.write_icr(value));
        }
        let allowed = self.allowed(number).ok_or(GeneralProtection)?;
        let value = u32::try_from(value).map_err(|_| GeneralProtection)?;
        if value & !allowed != 0 {
            return Err(GeneralProtection);
        }
        match number {
            reg::EOI => Ok(self.eoi()),
            reg::TPR => {
                self.set_tpr(value as u8);
                Ok(Effect::None)
            }
            reg::SELF_IPI => {
                self.self_ipi(value as u8);
                Ok(Effect::None)
            }
            number => self
                .write_shared(number, value, now)
                .ok_or(GeneralProtection),
        }
    }

    /// The bits of an x2APIC register, other than ICR, that may be set; `None` when it cannot be
    /// written.
    fn allowed(&self, number: u16) -> Option<u32> {
        match number {
            reg::EOI | reg::ESR => Some(0),
            reg::TPR | reg::SELF_IPI => Some(0xFF),
            reg::SVR => Some(reg::SVR_WRITABLE),
            reg::INITIAL_COUNT => Some(u32::MAX),
            reg::DIVIDE => Some(reg::DIVIDE_WRITABLE),
            _ => self
                .lvt_entry(number)
                .map(|entry| entry.allowed(self.features.tsc_deadline)),
        }
    }

    /// The register of an x2APIC MSR.
    #[inline]
    fn x2apic_register(&self, msr: u32) -> Result<u16, GeneralProtection> {
        if self.mode != Mode::X2Apic || !(X2APIC_FIRST..=X2APIC_LAST).contains(&msr) {
            return Err(GeneralProtection);
        }
        Ok((msr - X2APIC_FIRST) as u16)
    }

    /// SELF IPI. An illegal vector is an error of the sender and of the receiver (SDM vol. 3A, "Error
    /// Handling").
    fn self_ipi(&mut self, vector: u8) {
        if vector < 16 {
            self.raise_error(esr::SEND_ILLEGAL_VECTOR | esr::RECEIVE_ILLEGAL_VECTOR);
        } else {
            let _ = self.accept(vector, Trigger::Edge);
        }
    }
}
