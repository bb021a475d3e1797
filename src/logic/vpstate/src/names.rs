//! Where the register behind a name is kept.

use tlfs::msr;
use tlfs::register::RegisterName as N;
use vpcore::seam::{Register, SegmentName, TableName};

use crate::registers::Switched;

/// The place of a register.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// A general register, by its number.
    General(usize),
    /// A register of the back end.
    Backend(Register),
    /// A segment register.
    Segment(SegmentName),
    /// GDTR or IDTR.
    Table(TableName),
    /// In the XSAVE image, as [`crate::xsave::get`] numbers them.
    Image(usize),
    /// Moved by a switch.
    Switched(Switched),
    /// A synthetic MSR.
    Synthetic(u32),
    /// Of a feature that no child has, or a counter of what never happens: 0, and nothing else can be written.
    Zero,
    /// None of these.
    Other,
}

/// The segment register at each place of the names.
pub(crate) const SEGMENTS: [SegmentName; 8] = {
    use SegmentName::{Cs, Ds, Es, Fs, Gs, Ldtr, Ss, Tr};
    [Es, Cs, Ss, Ds, Fs, Gs, Ldtr, Tr]
};

impl Place {
    /// The place of the register called `name`.
    pub(crate) fn of(name: N) -> Self {
        let at = |first: N, count: u32| name.index_from(first, count);
        if let Some(number) = at(N::RAX, 16) {
            return Self::General(number);
        }
        if let Some(index) = at(N::XMM0, 26) {
            return Self::Image(index);
        }
        if let Some(segment) = at(N::ES, 8).and_then(|index| SEGMENTS.get(index)) {
            return Self::Segment(*segment);
        }
        for (first, count, msr) in [
            (N::SINT0, 16, msr::SINT0),
            (N::STIMER0_CONFIG, 8, msr::STIMER0_CONFIG),
            (N::CRASH_P0, 6, msr::CRASH_P0),
        ] {
            if let Some(index) = at(first, count) {
                return Self::Synthetic(msr.wrapping_add(index as u32));
            }
        }
        match name {
            N::RIP => Self::Backend(Register::Rip),
            N::RFLAGS => Self::Backend(Register::Rflags),
            N::CR0 | N::INTERMEDIATE_CR0 => Self::Backend(Register::Cr0),
            N::CR2 => Self::Backend(Register::Cr2),
            N::CR3 | N::INTERMEDIATE_CR3 => Self::Backend(Register::Cr3),
            N::CR4 | N::INTERMEDIATE_CR4 => Self::Backend(Register::Cr4),
            N::EFER => Self::Backend(Register::Efer),
            N::DR6 => Self::Backend(Register::Dr6),
            N::DR7 => Self::Backend(Register::Dr7),
            N::KERNEL_GS_BASE => Self::Backend(Register::KernelGsBase),
            N::PAT => Self::Backend(Register::Pat),
            N::SYSENTER_CS => Self::Backend(Register::SysenterCs),
            N::SYSENTER_EIP => Self::Backend(Register::SysenterEip),
            N::SYSENTER_ESP => Self::Backend(Register::SysenterEsp),
            N::STAR => Self::Backend(Register::Star),
            N::LSTAR => Self::Backend(Register::Lstar),
            N::CSTAR => Self::Backend(Register::Cstar),
            N::SFMASK => Self::Backend(Register::Sfmask),
            N::DEBUG_CTL => Self::Backend(Register::DebugCtl),
            N::INTERRUPT_STATE => Self::Backend(Register::InterruptState),
            N::GDTR => Self::Table(TableName::Gdtr),
            N::IDTR => Self::Table(TableName::Idtr),
            N(0x5_0000..=0x5_0003) => Self::Switched(Switched::Breakpoint(name.0 as u8)),
            N::XFEM => Self::Switched(Switched::Xcr0),
            N::TSC_AUX => Self::Switched(Switched::TscAux),
            N::SPEC_CTRL => Self::Switched(Switched::SpecCtrl),
            N::HYPERCALL => Self::Synthetic(msr::HYPERCALL),
            N::GUEST_OS_ID => Self::Synthetic(msr::GUEST_OS_ID),
            N::VP_INDEX => Self::Synthetic(msr::VP_INDEX),
            N::TIME_REF_COUNT => Self::Synthetic(msr::TIME_REF_COUNT),
            N::VP_RUNTIME => Self::Synthetic(msr::VP_RUNTIME),
            N::VP_ASSIST_PAGE => Self::Synthetic(msr::VP_ASSIST_PAGE),
            N::REFERENCE_TSC => Self::Synthetic(msr::REFERENCE_TSC),
            N::SCONTROL => Self::Synthetic(msr::SCONTROL),
            N::SVERSION => Self::Synthetic(msr::SVERSION),
            N::SIEFP => Self::Synthetic(msr::SIEFP),
            N::SIMP => Self::Synthetic(msr::SIMP),
            N::EOM => Self::Synthetic(msr::EOM),
            N::SIRBP => Self::Synthetic(msr::SIRBP),
            // XSS and shadow stacks, XFD.
            N(0x8_008B..=0x8_0093)
            | N::XFD
            | N::XFD_ERR
            | N::BNDCFGS
            | N::INSTRUCTION_EMULATION_HINTS
            | N::PENDING_EVENT_1
            | N::DELIVERABILITY_NOTIFICATIONS
            | N::ROOT_SIGNAL_COUNT => Self::Zero,
            _ => Self::Other,
        }
    }
}
