//! Registers of a VP by name (TLFS, "Virtual Processor Register"; HvCallGetVpRegisters, HvCallSetVpRegisters).
//!
//! A value that the hardware would refuse by itself is refused here ([`crate::check`]). One register of a call is set
//! after the other, so what they get wrong together shows when the VP is entered.

use apic::{Apic, BaseChange};
use tlfs::HvError;
use tlfs::register::RegisterName as N;
use vpcore::seam::{Event, Register, VpBackend};
use x86::msr::IA32_TSC_DEADLINE;
use x86::{Segment, TableRegister, cr0, vector};

use crate::check::Limits;
use crate::names::Place;
use crate::pending::{self, Asked};
use crate::stored::{MTRR_CAP, Stored};
use crate::suspend::{Change, Reasons, Suspend};
use crate::xsave::{self, Layout};

/// Registers that the hardware holds only while the VP is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switched {
    /// DR0 to DR3.
    Breakpoint(u8),
    /// XCR0.
    Xcr0,
    /// TSC_AUX.
    TscAux,
    /// IA32_SPEC_CTRL.
    SpecCtrl,
}

/// What a switch of VPs moves, as it lies in memory while the VP is not loaded.
pub trait Extended {
    /// The register, `None` when the processor has none.
    fn register(&mut self, which: Switched) -> Option<&mut u64>;
    /// The XSAVE image.
    fn area(&mut self) -> &mut [u8];
}

/// The synthetic MSRs of a VP and its partition: SynIC, timers, overlay pages, identity, crash.
pub trait Synthetic {
    /// Reads `msr` on behalf of the parent.
    ///
    /// # Errors
    /// There is no such register, or it cannot be read.
    fn read(&mut self, msr: u32) -> Result<u64, HvError>;
    /// Writes `msr` on behalf of the parent: the guest's privileges do not count.
    ///
    /// # Errors
    /// As for reading, or [`HvError::INVALID_REGISTER_VALUE`]. Nothing was changed.
    fn write(&mut self, msr: u32, value: u64) -> Result<(), HvError>;
}

/// What setting a register asks of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Effect {
    /// Nothing.
    None,
    /// Translations of the VP are stale: flush before the next entry.
    Translation,
    /// IA32_APIC_BASE changed: publish the APIC, move the page that is trapped, take the timer's deadline anew.
    ApicBase(BaseChange),
    /// The APIC timer's deadline may be another.
    Timer,
    /// The VP may run now, or may not any more.
    Run(Change),
}

/// Everything that makes up the registers of one VP. Whoever holds this holds its core.
///
/// What [`Extended`] has is in memory: the VP is not loaded, or was just saved and only reads are made. For RDMSR and
/// WRMSR of the guest itself that does not matter: they reach none of it.
pub struct Registers<'a, E, S> {
    /// The back end, attached where its registers need that.
    pub backend: &'a mut dyn VpBackend,
    /// What a switch moves.
    pub extended: &'a mut E,
    /// Synthetic MSRs.
    pub synthetic: &'a mut S,
    /// The virtual APIC.
    pub apic: &'a mut Apic,
    /// Where start-up IPIs arrive.
    pub inbox: &'a apic::Inbox,
    /// Why it does not run.
    pub suspend: &'a Suspend,
    /// Registers without effect.
    pub stored: &'a mut Stored,
    /// The event whose delivery an exit interrupted and that is to be delivered again.
    pub interrupted: &'a mut Option<Event>,
    /// The exception that was raised and is not delivered.
    pub raised: &'a mut Option<Event>,
    /// Layout of the XSAVE image.
    pub layout: &'a Layout,
    /// What values may be.
    pub limits: &'a Limits,
    /// TSC of the LP.
    pub now: u64,
}

/// A segment register as a 128-bit value.
pub fn encode_segment(s: &Segment) -> u128 {
    u128::from(s.base)
        | u128::from(s.limit) << 64
        | u128::from(s.selector) << 96
        | u128::from(s.attributes) << 112
}

/// The segment register in a 128-bit value.
pub const fn decode_segment(value: u128) -> Segment {
    Segment {
        base: value as u64,
        limit: (value >> 64) as u32,
        selector: (value >> 96) as u16,
        attributes: (value >> 112) as u16,
    }
}

const REFUSED: HvError = HvError::INVALID_REGISTER_VALUE;

impl<E: Extended, S: Synthetic> Registers<'_, E, S> {
    /// The value of register `name`.
    ///
    /// # Errors
    /// [`HvError::INVALID_PARAMETER`] when there is no such register; for synthetic ones what [`Synthetic`] says.
    pub fn get(&mut self, name: N) -> Result<u128, HvError> {
        let value = match Place::of(name) {
            Place::General(number) => self.backend.gp().0.get(number).map_or(0, |value| *value),
            Place::Backend(register) => self.backend.get(register),
            Place::Segment(segment) => return Ok(encode_segment(&self.backend.segment(segment))),
            Place::Table(table) => {
                let table = self.backend.table(table);
                return Ok(u128::from(table.limit) << 48 | u128::from(table.base) << 64);
            }
            Place::Image(index) => {
                return Ok(xsave::get(self.extended.area(), self.layout, index));
            }
            Place::Switched(register) => self.extended.register(register).map_or(0, |value| *value),
            Place::Synthetic(msr) => self.synthetic.read(msr)?,
            Place::Zero => 0,
            Place::Other => return self.get_other(name),
        };
        Ok(value.into())
    }

    fn get_other(&mut self, name: N) -> Result<u128, HvError> {
        if let Some(slot) = self.stored.slot(name) {
            return Ok((*slot).into());
        }
        let reasons = self.suspend.reasons();
        let value: u64 = match name {
            N::PENDING_EVENT_0 => {
                let parameter = parameter_register(*self.raised);
                let parameter = parameter.map_or(0, |register| self.backend.get(register));
                return Ok(pending::event(*self.raised, parameter));
            }
            N::PENDING_INTERRUPTION => {
                let held = self.interrupted.take();
                *self.interrupted = held.or_else(|| self.backend.interrupted_event());
                pending::interruption(*self.interrupted)
            }
            N::CR8 | N::INTERMEDIATE_CR8 => self.apic.cr8().into(),
            N::TSC => self.tsc(),
            N::APIC_BASE => self.apic.apic_base(),
            N::INITIAL_APIC_ID => self.apic.id().get().into(),
            N::TSC_DEADLINE => {
                let value = self.apic.read_msr(IA32_TSC_DEADLINE, self.now);
                value.map_err(|_| HvError::INVALID_PARAMETER)?
            }
            N::MTRR_CAP => MTRR_CAP,
            N::EXPLICIT_SUSPEND => reasons.has(Reasons::EXPLICIT).into(),
            N::INTERCEPT_SUSPEND => reasons.has(Reasons::INTERCEPT).into(),
            N::DISPATCH_SUSPEND => reasons.has(Reasons::DISPATCH).into(),
            N::INTERNAL_ACTIVITY_STATE => reasons.activity(),
            _ => return Err(HvError::INVALID_PARAMETER),
        };
        Ok(value.into())
    }

    /// Sets register `name`. Of registers of 64 bits the upper half of `value` is ignored.
    ///
    /// # Errors
    /// [`HvError::INVALID_REGISTER_VALUE`] when the register cannot have this value,
    /// [`HvError::INVALID_PARAMETER`] when there is no such register; for synthetic ones what [`Synthetic`] says.
    /// Nothing was changed.
    pub fn set(&mut self, name: N, value: u128) -> Result<Effect, HvError> {
        let word = value as u64;
        match Place::of(name) {
            Place::General(number) => {
                if let Some(register) = self.backend.gp_mut().0.get_mut(number) {
                    *register = word;
                }
            }
            Place::Backend(register) => {
                let held = self.limits.register(register, word).ok_or(REFUSED)?;
                self.backend.set(register, held);
                if is_translating(register) {
                    return Ok(Effect::Translation);
                }
            }
            Place::Segment(name) => {
                let segment = decode_segment(value);
                accept(self.limits.is_segment(name, &segment))?;
                self.backend.set_segment(name, segment);
            }
            Place::Table(name) => {
                let table = TableRegister {
                    limit: (value >> 48) as u16,
                    base: (value >> 64) as u64,
                };
                accept(self.limits.is_table(&table))?;
                self.backend.set_table(name, table);
            }
            Place::Image(index) => {
                let area = self.extended.area();
                xsave::set(area, self.layout, index, value).map_err(|_| REFUSED)?;
            }
            Place::Switched(register) => {
                accept(match register {
                    Switched::Breakpoint(_) => true,
                    Switched::Xcr0 => self.limits.is_xcr0(word),
                    Switched::TscAux => word >> 32 == 0,
                    Switched::SpecCtrl => word & !self.limits.spec_ctrl == 0,
                })?;
                match self.extended.register(register) {
                    Some(held) => *held = word,
                    // What does not exist stays as it is after reset.
                    None => accept(word == u64::from(register == Switched::Xcr0))?,
                }
            }
            Place::Synthetic(msr) => self.synthetic.write(msr, word)?,
            Place::Zero => accept(value == 0)?,
            Place::Other => return self.set_other(name, value),
        }
        Ok(Effect::None)
    }

    fn set_other(&mut self, name: N, value: u128) -> Result<Effect, HvError> {
        let word = value as u64;
        if let Some(slot) = self.stored.slot(name) {
            *slot = word;
            return Ok(Effect::None);
        }
        let is_protected = self.backend.get(Register::Cr0) & cr0::PE != 0;
        match name {
            N::PENDING_INTERRUPTION => {
                let event = pending::parse_interruption(word, is_protected);
                *self.interrupted = event.ok_or(REFUSED)?;
                // What the back end still holds is replaced with it.
                let _ = self.backend.interrupted_event();
            }
            N::PENDING_EVENT_0 => {
                match pending::parse_event(value, is_protected).ok_or(REFUSED)? {
                    Asked::Nothing => *self.raised = None,
                    Asked::ExtInt(vector) => self.apic.accept_extint(vector),
                    Asked::Exception(event, parameter) => {
                        *self.raised = Some(event);
                        if let Some(register) = parameter_register(*self.raised) {
                            let low = parameter & 0xFFFF_FFFF;
                            let held = if register == Register::Dr6 {
                                low
                            } else {
                                parameter
                            };
                            self.backend.set(register, held);
                        }
                    }
                }
            }
            N::CR8 | N::INTERMEDIATE_CR8 => {
                let level = u8::try_from(word).ok().filter(|&v| v < 16).ok_or(REFUSED)?;
                self.apic.set_cr8(level);
                self.backend.show_cr8(level);
            }
            N::TSC => {
                self.set_tsc(word);
                return Ok(Effect::Timer);
            }
            N::APIC_BASE => {
                let change = self.apic.load_apic_base(word).map_err(|_| REFUSED)?;
                return Ok(Effect::ApicBase(change));
            }
            N::TSC_DEADLINE => {
                let effect = self.apic.write_msr(IA32_TSC_DEADLINE, word, self.now);
                return effect.map(|_| Effect::Timer).map_err(|_| REFUSED);
            }
            N::EXPLICIT_SUSPEND => return self.set_reason(Reasons::EXPLICIT, word),
            N::DISPATCH_SUSPEND => return self.set_reason(Reasons::DISPATCH, word),
            // The parent can only answer an intercept: one that it made up would have no message.
            N::INTERCEPT_SUSPEND if word == 0 => return self.set_reason(Reasons::INTERCEPT, 0),
            N::INTERNAL_ACTIVITY_STATE => {
                let reasons = Reasons::from_activity(word).ok_or(REFUSED)?;
                self.inbox.set_waiting(reasons.has(Reasons::STARTUP));
                let mask = Reasons::STARTUP.with(Reasons::HALTED).with(Reasons::IDLE);
                return Ok(Effect::Run(self.suspend.replace(mask, reasons)));
            }
            N::INTERCEPT_SUSPEND => return Err(REFUSED),
            // Read-only ones take what they hold, so that a snapshot can be written back whole.
            N::INITIAL_APIC_ID | N::MTRR_CAP => accept(self.get(name)? == word.into())?,
            _ => return Err(HvError::INVALID_PARAMETER),
        }
        Ok(Effect::None)
    }

    /// The guest's TSC.
    pub(crate) fn tsc(&self) -> u64 {
        self.now.wrapping_add(self.backend.get(Register::TscOffset))
    }

    /// Makes the guest's TSC `value` now.
    pub(crate) fn set_tsc(&mut self, value: u64) {
        let offset = value.wrapping_sub(self.now);
        self.backend.set(Register::TscOffset, offset);
        self.apic.set_tsc_offset(offset, self.now);
    }

    fn set_reason(&mut self, reason: Reasons, value: u64) -> Result<Effect, HvError> {
        match value {
            0 => Ok(Effect::Run(self.suspend.clear(reason))),
            1 => Ok(Effect::Run(self.suspend.set(reason))),
            _ => Err(REFUSED),
        }
    }
}

/// Whether translations depend on `register`.
const fn is_translating(register: Register) -> bool {
    use Register::{Cr0, Cr3, Cr4, Efer, Pat};
    matches!(register, Cr0 | Cr3 | Cr4 | Efer | Pat)
}

/// Where the processor puts more about the exception `raised`.
const fn parameter_register(raised: Option<Event>) -> Option<Register> {
    match raised {
        Some(Event::Exception { vector, .. }) => match vector {
            vector::PF => Some(Register::Cr2),
            vector::DB => Some(Register::Dr6),
            _ => None,
        },
        _ => None,
    }
}

fn accept(is_good: bool) -> Result<(), HvError> {
    if is_good { Ok(()) } else { Err(REFUSED) }
}
