//! The local vector table: which bits exist, and what a local source delivers.

use crate::base::Mode;
use crate::interrupts::Trigger;
use crate::registers::esr;
use crate::state::{Apic, Effect};

/// An entry of the local vector table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lvt {
    /// Corrected machine check. Exists when [`crate::Features::cmci`] says so.
    Cmci,
    /// The APIC timer.
    Timer,
    /// Thermal monitor.
    Thermal,
    /// Performance counters.
    Perf,
    /// Pin LINT0: the 8259, on machines that have one.
    Lint0,
    /// Pin LINT1: NMI on PC platforms.
    Lint1,
    /// The APIC's own errors.
    Error,
}

/// What a local source delivered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivery {
    /// This vector was accepted into IRR.
    Fixed(u8),
    /// An NMI is pending now.
    Nmi,
    /// The source is wired to the 8259: pass the vector that it answered to
    /// [`Apic::accept_extint`].
    ExtInt,
}

/// Mask.
pub(crate) const MASKED: u32 = 1 << 16;
/// Delivery status: read-only, always idle here.
const STATUS: u32 = 1 << 12;
/// Remote IRR of LINT0 and LINT1: read-only, always clear here.
const REMOTE_IRR: u32 = 1 << 14;
/// Pin polarity.
const POLARITY: u32 = 1 << 13;
/// Level-triggered.
const LEVEL: u32 = 1 << 15;
const VECTOR: u32 = 0xFF;
const DELIVERY_MODE: u32 = 7 << 8;
const TIMER_PERIODIC: u32 = 1 << 17;
const TIMER_TSC_DEADLINE: u32 = 1 << 18;

/// Number of entries of [`Lvt`].
pub(crate) const ENTRIES: usize = 7;

impl Lvt {
    /// All entries, in the order of [`Lvt::index`].
    pub(crate) const ALL: [Self; ENTRIES] = [
        Self::Cmci,
        Self::Timer,
        Self::Thermal,
        Self::Perf,
        Self::Lint0,
        Self::Lint1,
        Self::Error,
    ];

    /// The entry's place in a table of [`ENTRIES`].
    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    /// The bits that a write can change.
    pub(crate) const fn writable(self, tsc_deadline: bool) -> u32 {
        match self {
            Self::Timer if tsc_deadline => VECTOR | MASKED | TIMER_PERIODIC | TIMER_TSC_DEADLINE,
            Self::Timer => VECTOR | MASKED | TIMER_PERIODIC,
            Self::Cmci | Self::Thermal | Self::Perf => VECTOR | DELIVERY_MODE | MASKED,
            Self::Lint0 | Self::Lint1 => VECTOR | DELIVERY_MODE | POLARITY | LEVEL | MASKED,
            Self::Error => VECTOR | MASKED,
        }
    }

    /// The bits whose setting is no error in x2APIC mode: those above and the read-only ones.
    pub(crate) const fn allowed(self, tsc_deadline: bool) -> u32 {
        let read_only = match self {
            Self::Lint0 | Self::Lint1 => STATUS | REMOTE_IRR,
            _ => STATUS,
        };
        self.writable(tsc_deadline) | read_only
    }
}

impl Apic {
    /// The guest's value of an entry. An entry that does not exist reads as masked.
    pub fn lvt(&self, entry: Lvt) -> u32 {
        self.lvt[entry.index()]
    }

    /// The local source `entry` raised its interrupt: delivers it by the entry's mask and mode.
    ///
    /// `None` when nothing was delivered: masked, SMI, INIT or a reserved mode, or a vector below 16
    /// (which sets ESR). With the APIC off in IA32_APIC_BASE the pins bypass it.
    pub fn lvt_event(&mut self, entry: Lvt) -> Option<Delivery> {
        if self.mode == Mode::Disabled {
            // The pins are then wired to INTR and NMI.
            return match entry {
                Lvt::Lint0 => Some(Delivery::ExtInt),
                Lvt::Lint1 => {
                    self.accept_nmi();
                    Some(Delivery::Nmi)
                }
                _ => None,
            };
        }
        let value = self.lvt(entry);
        // Disabled by SVR, every entry is masked.
        if value & MASKED != 0 {
            return None;
        }
        let vector = value as u8;
        // The timer and error entries have no mode field: fixed.
        match (value >> 8) & 7 {
            0 if vector < 16 => {
                // An error entry with a bad vector must not raise itself again.
                match entry {
                    Lvt::Error => self.errors |= esr::RECEIVE_ILLEGAL_VECTOR,
                    _ => self.raise_error(esr::RECEIVE_ILLEGAL_VECTOR),
                }
                None
            }
            0 => {
                // LINT1 is an edge whatever its trigger bit says (SDM, "Local Vector Table").
                let level = entry == Lvt::Lint0 && value & LEVEL != 0;
                let _ = self.accept(vector, if level { Trigger::Level } else { Trigger::Edge });
                Some(Delivery::Fixed(vector))
            }
            4 => {
                self.accept_nmi();
                Some(Delivery::Nmi)
            }
            7 if matches!(entry, Lvt::Lint0 | Lvt::Lint1) => Some(Delivery::ExtInt),
            _ => None,
        }
    }

    /// Records errors for ESR, and raises the error interrupt when one of them is new.
    pub(crate) fn raise_error(&mut self, bits: u32) {
        let new = bits & !self.errors;
        self.errors |= bits;
        if new != 0 {
            self.lvt_event(Lvt::Error);
        }
    }

    /// Stores an entry, `value` being masked already for what the entry has. The timer's entry goes
    /// through [`Apic::write_lvt_timer`].
    pub(crate) fn write_lvt(&mut self, entry: Lvt, value: u32) -> Effect {
        let mut value = value & entry.writable(self.features.tsc_deadline);
        if !self.is_software_enabled() {
            value |= MASKED;
        }
        self.lvt[entry.index()] = value;
        Effect::Lvt(entry, value)
    }

    /// Sets every mask bit, as software-disabling does.
    pub(crate) fn mask_lvts(&mut self) {
        for value in &mut self.lvt {
            *value |= MASKED;
        }
    }
}
