//! Registers of a VP by name (TLFS, "Virtual Processor Register"; HvCallGetVpRegisters, HvCallSetVpRegisters).
//!
//! A value that the hardware would refuse by itself is refused here ([`crate::check`]). One register of a call is set
//! after the other, so what they get wrong together shows when the VP is entered.

use apic::{Apic, BaseChange};
use tlfs::HvError;
use tlfs::msr as synthetic;
use tlfs::register::RegisterName as N;
use vpcore::seam::{Event, Register, SegmentName, TableName, VpBackend};
use x86::{Gp, Segment, TableRegister, cr0, vector};

use crate::check::Limits;
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

/// Everything that makes up the registers of one VP. Whoever holds this holds its core, and the VP is not loaded: its
/// registers are in memory.
#[derive(Debug)]
pub struct Registers<'a, B, E, S> {
    /// The back end, attached where its registers need that.
    pub backend: &'a mut B,
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

/// The segment register at place `index` of the names.
const SEGMENTS: [SegmentName; 8] = [
    SegmentName::Es,
    SegmentName::Cs,
    SegmentName::Ss,
    SegmentName::Ds,
    SegmentName::Fs,
    SegmentName::Gs,
    SegmentName::Ldtr,
    SegmentName::Tr,
];

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

/// The general register called `name`.
fn general(name: N) -> Option<Gp> {
    const ALL: [Gp; 16] = [
        Gp::Rax,
        Gp::Rcx,
        Gp::Rdx,
        Gp::Rbx,
        Gp::Rsp,
        Gp::Rbp,
        Gp::Rsi,
        Gp::Rdi,
        Gp::R8,
        Gp::R9,
        Gp::R10,
        Gp::R11,
        Gp::R12,
        Gp::R13,
        Gp::R14,
        Gp::R15,
    ];
    ALL.get(name.index_from(N::RAX, 16)?).copied()
}

/// The segment register called `name`.
pub(crate) fn segment(name: N) -> Option<SegmentName> {
    SEGMENTS.get(name.index_from(N::ES, 8)?).copied()
}

/// The register of the back end called `name`.
pub(crate) const fn plain(name: N) -> Option<Register> {
    Some(match name {
        N::RIP => Register::Rip,
        N::RFLAGS => Register::Rflags,
        N::CR0 | N::INTERMEDIATE_CR0 => Register::Cr0,
        N::CR2 => Register::Cr2,
        N::CR3 | N::INTERMEDIATE_CR3 => Register::Cr3,
        N::CR4 | N::INTERMEDIATE_CR4 => Register::Cr4,
        N::EFER => Register::Efer,
        N::DR6 => Register::Dr6,
        N::DR7 => Register::Dr7,
        N::KERNEL_GS_BASE => Register::KernelGsBase,
        N::PAT => Register::Pat,
        N::SYSENTER_CS => Register::SysenterCs,
        N::SYSENTER_EIP => Register::SysenterEip,
        N::SYSENTER_ESP => Register::SysenterEsp,
        N::STAR => Register::Star,
        N::LSTAR => Register::Lstar,
        N::CSTAR => Register::Cstar,
        N::SFMASK => Register::Sfmask,
        N::DEBUG_CTL => Register::DebugCtl,
        N::INTERRUPT_STATE => Register::InterruptState,
        _ => return None,
    })
}

/// The synthetic MSR behind `name`.
fn synthetic_msr(name: N) -> Option<u32> {
    let ranges = [
        (N::SINT0, 16, synthetic::SINT0),
        (N::SCONTROL, 6, synthetic::SCONTROL),
        (N::STIMER0_CONFIG, 8, synthetic::STIMER0_CONFIG),
        (N::CRASH_P0, 6, synthetic::CRASH_P0),
        (N::HYPERCALL, 1, synthetic::HYPERCALL),
        (N::GUEST_OS_ID, 1, synthetic::GUEST_OS_ID),
        (N::VP_INDEX, 1, synthetic::VP_INDEX),
        (N::TIME_REF_COUNT, 1, synthetic::TIME_REF_COUNT),
        (N::VP_RUNTIME, 1, synthetic::VP_RUNTIME),
        (N::VP_ASSIST_PAGE, 1, synthetic::VP_ASSIST_PAGE),
        (N::REFERENCE_TSC, 1, synthetic::REFERENCE_TSC),
    ];
    let (at, msr) = ranges
        .iter()
        .find_map(|&(first, count, msr)| Some((name.index_from(first, count)?, msr)))?;
    // The page registers are in another order than their MSRs.
    Some(match name {
        N::SIEFP => synthetic::SIEFP,
        N::SIMP => synthetic::SIMP,
        _ => msr.wrapping_add(at as u32),
    })
}

/// Registers of features that no child has, and counters of what never happens: 0, and nothing else can be written.
const fn is_always_zero(name: N) -> bool {
    matches!(
        name,
        N::INSTRUCTION_EMULATION_HINTS
            | N::PENDING_EVENT_1
            | N::DELIVERABILITY_NOTIFICATIONS
            | N::BNDCFGS
            | N::XSS
            | N::U_CET
            | N::S_CET
            | N::SSP
            | N::PL0_SSP
            | N::PL1_SSP
            | N::PL2_SSP
            | N::PL3_SSP
            | N::SSP_TABLE
            | N::XFD
            | N::XFD_ERR
            | N::ROOT_SIGNAL_COUNT
    )
}

const REFUSED: HvError = HvError::INVALID_REGISTER_VALUE;

impl<B: VpBackend, E: Extended, S: Synthetic> Registers<'_, B, E, S> {
    /// The value of register `name`.
    ///
    /// # Errors
    /// [`HvError::INVALID_PARAMETER`] when there is no such register; for synthetic ones what [`Synthetic`] says.
    pub fn get(&mut self, name: N) -> Result<u128, HvError> {
        if let Some(register) = general(name) {
            return Ok(self.backend.gp().get(register).into());
        }
        if let Some(register) = plain(name) {
            return Ok(self.backend.get(register).into());
        }
        if let Some(segment) = segment(name) {
            return Ok(encode_segment(&self.segment(segment)));
        }
        if let Some(index) = name.index_from(N::XMM0, 16) {
            return Ok(xsave::xmm(self.extended.area(), index));
        }
        if let Some(index) = name.index_from(N::FP_MMX0, 8) {
            return Ok(xsave::st(self.extended.area(), index));
        }
        if let Some(register) = switched(name) {
            return Ok(self
                .extended
                .register(register)
                .map_or(0, |value| *value)
                .into());
        }
        if let Some(slot) = self.stored.slot(name) {
            return Ok((*slot).into());
        }
        let reasons = self.suspend.reasons();
        let value: u64 = match name {
            N::FP_CONTROL_STATUS => return Ok(xsave::fp_control(self.extended.area())),
            N::XMM_CONTROL_STATUS => {
                return Ok(xsave::xmm_control(self.extended.area(), self.layout));
            }
            N::GDTR => return Ok(encode_table(&self.backend.table(TableName::Gdtr))),
            N::IDTR => return Ok(encode_table(&self.backend.table(TableName::Idtr))),
            N::PENDING_EVENT_0 => return Ok(pending::event(*self.raised)),
            N::PENDING_INTERRUPTION => {
                *self.interrupted = self
                    .interrupted
                    .or_else(|| self.backend.interrupted_event());
                pending::interruption(*self.interrupted)
            }
            N::CR8 | N::INTERMEDIATE_CR8 => self.apic.cr8().into(),
            N::TSC => self.tsc(),
            N::APIC_BASE => self.apic.apic_base(),
            N::INITIAL_APIC_ID => self.apic.id().get().into(),
            N::TSC_DEADLINE => return self.apic_msr(x86::msr::IA32_TSC_DEADLINE),
            N::MTRR_CAP => MTRR_CAP,
            N::EXPLICIT_SUSPEND => reasons.has(Reasons::EXPLICIT).into(),
            N::INTERCEPT_SUSPEND => reasons.has(Reasons::INTERCEPT).into(),
            N::DISPATCH_SUSPEND => reasons.has(Reasons::DISPATCH).into(),
            N::INTERNAL_ACTIVITY_STATE => reasons.activity(),
            name if is_always_zero(name) => 0,
            name => {
                let msr = synthetic_msr(name).ok_or(HvError::INVALID_PARAMETER)?;
                self.synthetic.read(msr)?
            }
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
        if let Some(register) = general(name) {
            self.backend.gp_mut().set(register, word);
            return Ok(Effect::None);
        }
        if let Some(register) = plain(name) {
            let held = self.limits.register(register, word).ok_or(REFUSED)?;
            self.backend.set(register, held);
            return Ok(match register {
                Register::Cr0 | Register::Cr3 | Register::Cr4 | Register::Efer | Register::Pat => {
                    Effect::Translation
                }
                _ => Effect::None,
            });
        }
        if let Some(segment) = segment(name) {
            let held = self
                .limits
                .segment(segment, decode_segment(value))
                .ok_or(REFUSED)?;
            self.backend.set_segment(segment, held);
            return Ok(Effect::None);
        }
        if let Some(index) = name.index_from(N::XMM0, 16) {
            xsave::set_xmm(self.extended.area(), index, value);
            return Ok(Effect::None);
        }
        if let Some(index) = name.index_from(N::FP_MMX0, 8) {
            xsave::set_st(self.extended.area(), index, value);
            return Ok(Effect::None);
        }
        if let Some(register) = switched(name) {
            let is_valid = match register {
                Switched::Breakpoint(_) => true,
                Switched::Xcr0 => self.limits.is_xcr0(word),
                Switched::TscAux => word >> 32 == 0,
                Switched::SpecCtrl => word & !self.limits.spec_ctrl == 0,
            };
            match self.extended.register(register) {
                Some(held) if is_valid => *held = word,
                // What does not exist reads as it does after reset.
                None if word == u64::from(register == Switched::Xcr0) => {}
                _ => return Err(REFUSED),
            }
            return Ok(Effect::None);
        }
        if let Some(slot) = self.stored.slot(name) {
            *slot = word;
            return Ok(Effect::None);
        }
        self.set_other(name, value)
    }

    fn set_other(&mut self, name: N, value: u128) -> Result<Effect, HvError> {
        let word = value as u64;
        match name {
            N::FP_CONTROL_STATUS => xsave::set_fp_control(self.extended.area(), value),
            N::XMM_CONTROL_STATUS => {
                xsave::set_xmm_control(self.extended.area(), self.layout, value)
                    .map_err(|_| REFUSED)?;
            }
            N::GDTR => self.set_table(TableName::Gdtr, value)?,
            N::IDTR => self.set_table(TableName::Idtr, value)?,
            N::PENDING_INTERRUPTION => {
                let event = pending::parse_interruption(word, self.is_protected());
                *self.interrupted = event.ok_or(REFUSED)?;
                // What the back end still holds is replaced with it.
                let _ = self.backend.interrupted_event();
            }
            N::PENDING_EVENT_0 => {
                match pending::parse_event(value, self.is_protected()).ok_or(REFUSED)? {
                    Asked::Nothing => *self.raised = None,
                    Asked::ExtInt(vector) => self.apic.accept_extint(vector),
                    Asked::Exception(event, parameter) => {
                        self.set_parameter(event, parameter);
                        *self.raised = Some(event);
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
                let msr = x86::msr::IA32_TSC_DEADLINE;
                let effect = self.apic.write_msr(msr, word, self.now);
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
            N::INITIAL_APIC_ID | N::MTRR_CAP if self.get(name)? == word.into() => {}
            N::INITIAL_APIC_ID | N::MTRR_CAP => return Err(REFUSED),
            name if is_always_zero(name) && value == 0 => {}
            name if is_always_zero(name) => return Err(REFUSED),
            name => {
                let msr = synthetic_msr(name).ok_or(HvError::INVALID_PARAMETER)?;
                self.synthetic.write(msr, word)?;
            }
        }
        Ok(Effect::None)
    }

    /// A segment register as it would be accepted: AMD keeps neither the busy bit nor the granularity as VT-x does.
    pub(crate) fn segment(&self, name: SegmentName) -> Segment {
        let raw = self.backend.segment(name);
        self.limits.segment(name, raw).unwrap_or(raw)
    }

    /// CR0.PE.
    fn is_protected(&self) -> bool {
        self.backend.get(Register::Cr0) & cr0::PE != 0
    }

    fn apic_msr(&mut self, msr: u32) -> Result<u128, HvError> {
        let value = self.apic.read_msr(msr, self.now);
        value
            .map(u128::from)
            .map_err(|_| HvError::INVALID_PARAMETER)
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

    fn set_table(&mut self, name: TableName, value: u128) -> Result<(), HvError> {
        let table = TableRegister {
            limit: (value >> 48) as u16,
            base: (value >> 64) as u64,
        };
        if !self.limits.is_table(&table) {
            return Err(REFUSED);
        }
        self.backend.set_table(name, table);
        Ok(())
    }

    /// What the processor would have put elsewhere when it raised `event`.
    fn set_parameter(&mut self, event: Event, parameter: u64) {
        match event {
            Event::Exception {
                vector: vector::PF, ..
            } => {
                self.backend.set(Register::Cr2, parameter);
            }
            Event::Exception {
                vector: vector::DB, ..
            } => {
                let held = self.limits.register(Register::Dr6, parameter & 0xFFFF_FFFF);
                self.backend.set(Register::Dr6, held.unwrap_or(0xFFFF_0FF0));
            }
            _ => {}
        }
    }

    fn set_reason(&mut self, reason: Reasons, value: u64) -> Result<Effect, HvError> {
        match value {
            0 => Ok(Effect::Run(self.suspend.clear(reason))),
            1 => Ok(Effect::Run(self.suspend.set(reason))),
            _ => Err(REFUSED),
        }
    }
}

/// The switched register called `name`.
fn switched(name: N) -> Option<Switched> {
    match name {
        N::XFEM => Some(Switched::Xcr0),
        N::TSC_AUX => Some(Switched::TscAux),
        N::SPEC_CTRL => Some(Switched::SpecCtrl),
        _ => name
            .index_from(N::DR0, 4)
            .map(|index| Switched::Breakpoint(index as u8)),
    }
}

fn encode_table(table: &TableRegister) -> u128 {
    u128::from(table.limit) << 48 | u128::from(table.base) << 64
}
