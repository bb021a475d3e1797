//! IA32_APIC_BASE: where the register page is, and which mode the APIC is in.

use addr::Gpa;
use x86::msr::apic_base::{BSP, ENABLE, EXTD};

use crate::inbox::Inbox;
use crate::registers::icr;
use crate::state::{Apic, GeneralProtection};

/// The mode of an APIC, by bits EN and EXTD of IA32_APIC_BASE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Mode {
    /// Off: no registers, and only NMI and INTR pins.
    Disabled = 0,
    /// Registers in a page of memory, 8-bit IDs.
    XApic = 1,
    /// Registers in MSRs, 32-bit IDs.
    X2Apic = 2,
}

impl Mode {
    /// The mode that an IA32_APIC_BASE value names; `None` for EXTD without EN.
    pub(crate) const fn from_base(value: u64) -> Option<Self> {
        match (value & ENABLE != 0, value & EXTD != 0) {
            (false, false) => Some(Self::Disabled),
            (true, false) => Some(Self::XApic),
            (true, true) => Some(Self::X2Apic),
            (false, true) => None,
        }
    }
}

/// What a write of IA32_APIC_BASE changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BaseChange {
    /// The new mode, when it is another. After a change to [`Mode::Disabled`] all registers are in
    /// their reset state: timer, LVTs and the logical destination changed too.
    pub mode: Option<Mode>,
    /// The new address of the register page, when it moved.
    pub address: Option<Gpa>,
}

impl Apic {
    /// IA32_APIC_BASE.
    pub const fn apic_base(&self) -> u64 {
        self.base
    }

    /// The current mode.
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// The address of the register page in xAPIC mode.
    pub const fn page(&self) -> Gpa {
        Gpa::new(self.base & !0xFFF)
    }

    /// Writes IA32_APIC_BASE (SDM vol. 3A, "x2APIC State Transitions"). BSP stays as it is.
    ///
    /// From xAPIC to x2APIC everything is kept but the high half of ICR, which has another layout.
    /// Disabling puts every register but the ID in its reset state.
    ///
    /// # Errors
    /// #GP, and nothing changed, for reserved bits, an address beyond the physical width, EXTD without
    /// EN, EXTD without the feature, x2APIC to xAPIC, and disabled to x2APIC.
    pub fn write_apic_base(&mut self, value: u64) -> Result<BaseChange, GeneralProtection> {
        match (self.mode, Mode::from_base(value)) {
            (Mode::X2Apic, Some(Mode::XApic)) | (Mode::Disabled, Some(Mode::X2Apic)) => {
                Err(GeneralProtection)
            }
            _ => self.load_apic_base((value & !BSP) | (self.base & BSP)),
        }
    }

    /// Sets IA32_APIC_BASE as a parent does that restores or resets a VP: every change of mode is possible, and BSP
    /// is taken over. Registers are kept or reset as by [`Apic::write_apic_base`].
    ///
    /// # Errors
    /// As there, but for the changes of mode.
    pub fn load_apic_base(&mut self, value: u64) -> Result<BaseChange, GeneralProtection> {
        if value & !self.base_bits() != 0 {
            return Err(GeneralProtection);
        }
        let mode = Mode::from_base(value).ok_or(GeneralProtection)?;
        let mut change = BaseChange::default();
        let old = self.page();
        self.base = value;
        if self.page() != old {
            change.address = Some(self.page());
        }
        if mode != self.mode {
            change.mode = Some(mode);
            self.mode = mode;
            match mode {
                Mode::Disabled => self.reset_registers(),
                Mode::XApic => self.icr &= icr::XAPIC_DESTINATION | 0xFFFF_FFFF,
                Mode::X2Apic => self.icr &= 0xFFFF_FFFF,
            }
            self.update_enabled();
        }
        Ok(change)
    }

    /// The bits of IA32_APIC_BASE that may be set.
    const fn base_bits(&self) -> u64 {
        let width = if self.features.physical_bits < 52 {
            self.features.physical_bits
        } else {
            52
        };
        let address = ((1 << width) - 1) & !0xFFF;
        let extended = if self.features.x2apic { EXTD } else { 0 };
        address | BSP | ENABLE | extended
    }

    /// Shows senders how this APIC is addressed now. Call it after every effect that changes this:
    /// [`crate::Effect::LogicalId`], the two of SVR, a [`BaseChange`], INIT.
    pub fn publish(&self, inbox: &Inbox) {
        inbox.show(self.addressee());
    }
}
