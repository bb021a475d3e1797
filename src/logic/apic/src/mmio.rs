//! Register accesses: the xAPIC page, and what both modes share.

use addr::ApicId;

use crate::base::Mode;
use crate::destination::{Destination, x2apic_logical_id};
use crate::icr::{Ipi, IpiKind, Unsendable};
use crate::interrupts::Trigger;
use crate::lvt::Lvt;
use crate::registers::{self as reg, esr, icr};
use crate::state::{Apic, Effect};

impl Apic {
    /// Reads 32 bits at `offset` of the register page, at host TSC `now`.
    ///
    /// A reserved register reads as 0 and sets ESR. Outside xAPIC mode there is no page: all ones.
    pub fn read(&mut self, offset: u16, now: u64) -> u32 {
        if self.mode != Mode::XApic {
            return u32::MAX;
        }
        let value = match register(offset) {
            Some(reg::ID) => Some(self.id.get() << 24),
            Some(reg::LDR) => Some(self.ldr),
            Some(reg::DFR) => Some(self.dfr),
            Some(reg::ICR) => Some(self.icr as u32),
            Some(reg::ICR_HIGH) => Some((self.icr >> 32) as u32),
            // Write-only, or of processors of old: nothing to see, and no error.
            Some(reg::EOI | reg::APR | reg::REMOTE_READ) => Some(0),
            Some(number) => self.read_shared(number, now),
            None => None,
        };
        value.unwrap_or_else(|| {
            self.raise_error(esr::ILLEGAL_REGISTER);
            0
        })
    }

    /// Writes 32 bits at `offset` of the register page, at host TSC `now`.
    ///
    /// Reserved bits and read-only registers (the ID is one here) are ignored; a reserved register
    /// sets ESR. Outside xAPIC mode nothing happens.
    #[inline]
    pub fn write(&mut self, offset: u16, value: u32, now: u64) -> Effect {
        if self.mode != Mode::XApic {
            return Effect::None;
        }
        match register(offset) {
            Some(reg::EOI) => self.eoi(),
            Some(reg::TPR) => {
                self.set_tpr(value as u8);
                Effect::None
            }
            Some(reg::ICR) => {
                let high = self.icr & !0xFFFF_FFFF;
                self.write_icr(high | u64::from(value))
            }
            Some(reg::ICR_HIGH) => {
                self.icr =
                    (self.icr & 0xFFFF_FFFF) | ((u64::from(value) << 32) & icr::XAPIC_DESTINATION);
                Effect::None
            }
            Some(reg::LDR) => {
                self.ldr = value & 0xFF00_0000;
                Effect::LogicalId
            }
            Some(reg::DFR) => {
                self.write_dfr(value);
                Effect::LogicalId
            }
            Some(
                reg::ID
                | reg::VERSION
                | reg::APR
                | reg::PPR
                | reg::REMOTE_READ
                | reg::CURRENT_COUNT,
            )
            | Some(reg::ISR_FIRST..=reg::IRR_LAST) => Effect::None,
            Some(number) => self
                .write_shared(number, value, now)
                .unwrap_or_else(|| self.illegal_register()),
            None => self.illegal_register(),
        }
    }

    #[cold]
    fn illegal_register(&mut self) -> Effect {
        self.raise_error(esr::ILLEGAL_REGISTER);
        Effect::None
    }

    /// Reads a register that both modes have in the same form; `None` when there is none.
    pub(crate) fn read_shared(&mut self, number: u16, now: u64) -> Option<u32> {
        let value = match number {
            reg::VERSION => {
                let highest_entry: u32 = if self.features.cmci { 6 } else { 5 };
                reg::VERSION_INTEGRATED | (highest_entry << 16)
            }
            reg::TPR => u32::from(self.tpr),
            reg::PPR => u32::from(self.ppr),
            reg::SVR => self.svr,
            reg::ISR_FIRST..=reg::ISR_LAST => self.isr.register(number as u8 & 7),
            reg::TMR_FIRST..=reg::TMR_LAST => self.tmr.register(number as u8 & 7),
            reg::IRR_FIRST..=reg::IRR_LAST => self.irr.register(number as u8 & 7),
            reg::ESR => self.esr,
            reg::INITIAL_COUNT => self.timer.initial(),
            reg::CURRENT_COUNT => {
                self.timer_tick(now);
                self.timer.current(now)
            }
            reg::DIVIDE => self.timer.divide(),
            _ => self.lvt(self.lvt_entry(number)?),
        };
        Some(value)
    }

    /// Writes a register that both modes have in the same form; `None` when there is none. Bits that
    /// the register has not are ignored.
    pub(crate) fn write_shared(&mut self, number: u16, value: u32, now: u64) -> Option<Effect> {
        let effect = match number {
            reg::SVR => self.write_svr(value, now),
            reg::ESR => {
                // A write of any value shows the errors since the last one (SDM, "Error Handling").
                self.esr = core::mem::take(&mut self.errors);
                Effect::None
            }
            reg::INITIAL_COUNT => {
                self.timer_tick(now);
                self.timer.write_initial(value, now);
                Effect::Timer
            }
            reg::DIVIDE => {
                self.timer_tick(now);
                self.timer.write_divide(value, now);
                Effect::Timer
            }
            _ => match self.lvt_entry(number)? {
                Lvt::Timer => self.write_lvt_timer(value, now),
                entry => self.write_lvt(entry, value),
            },
        };
        Some(effect)
    }

    /// The LVT entry at a register, if there is one.
    pub(crate) const fn lvt_entry(&self, number: u16) -> Option<Lvt> {
        match number {
            reg::LVT_CMCI if self.features.cmci => Some(Lvt::Cmci),
            reg::LVT_TIMER => Some(Lvt::Timer),
            reg::LVT_THERMAL => Some(Lvt::Thermal),
            reg::LVT_PERF => Some(Lvt::Perf),
            reg::LVT_LINT0 => Some(Lvt::Lint0),
            reg::LVT_LINT1 => Some(Lvt::Lint1),
            reg::LVT_ERROR => Some(Lvt::Error),
            _ => None,
        }
    }

    fn write_svr(&mut self, value: u32, now: u64) -> Effect {
        // What was due is delivered before the entry may be masked.
        self.timer_tick(now);
        let before = self.is_software_enabled();
        self.svr = value & reg::SVR_WRITABLE;
        self.update_enabled();
        match (before, self.is_software_enabled()) {
            (true, false) => {
                self.mask_lvts();
                Effect::SoftwareDisabled
            }
            (false, true) => Effect::SoftwareEnabled,
            _ => Effect::None,
        }
    }

    /// Writes the 64-bit ICR, in the layout of the current mode, and sends. The caller has checked
    /// reserved bits where they matter.
    ///
    /// A fixed interrupt or NMI to the sender alone is delivered here, so that its effect is
    /// [`Effect::None`]. An illegal vector sends nothing and sets ESR.
    #[inline]
    pub fn write_icr(&mut self, value: u64) -> Effect {
        let x2apic = self.mode == Mode::X2Apic;
        let high = if x2apic {
            !0xFFFF_FFFF
        } else {
            icr::XAPIC_DESTINATION
        };
        self.icr = value & (high | icr::WRITABLE_LOW);
        match Ipi::decode(self.icr, self.id, x2apic) {
            Ok(Ipi {
                kind,
                destination: Destination::SelfOnly,
                ..
            }) => self.send_to_self(kind),
            Ok(ipi) => Effect::Ipi(ipi),
            Err(Unsendable::IllegalVector) => {
                self.raise_error(esr::SEND_ILLEGAL_VECTOR);
                Effect::None
            }
            Err(Unsendable::ReservedMode) => Effect::None,
        }
    }

    fn send_to_self(&mut self, kind: IpiKind) -> Effect {
        match kind {
            IpiKind::Fixed(vector) | IpiKind::LowestPriority(vector) => {
                let _ = self.accept(vector, Trigger::Edge);
                Effect::None
            }
            IpiKind::Nmi => {
                self.accept_nmi();
                Effect::None
            }
            kind => Effect::Ipi(Ipi {
                kind,
                destination: Destination::SelfOnly,
                sender: self.id,
                x2apic: self.mode == Mode::X2Apic,
            }),
        }
    }

    /// LDR as the current mode shows it: written by the guest in xAPIC mode, derived in x2APIC mode.
    pub const fn logical_destination(&self) -> u32 {
        match self.mode {
            Mode::X2Apic => x2apic_logical_id(ApicId::get(self.id)),
            _ => self.ldr,
        }
    }

    /// DFR.
    pub const fn destination_format(&self) -> u32 {
        self.dfr
    }

    /// ICR as the guest last wrote it.
    pub const fn icr(&self) -> u64 {
        self.icr
    }
}

/// The register at `offset` of the page; `None` between registers and beyond the last.
const fn register(offset: u16) -> Option<u16> {
    if offset & 0xF == 0 && offset < 0x400 {
        Some(offset >> 4)
    } else {
        None
    }
}
