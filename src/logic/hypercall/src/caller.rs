//! Who may call, and which registers carry a call (TLFS, "Hypercall Interface": "Legal Hypercall Environments",
//! "Alignment Requirements", "Hypercall Inputs").

use addr::Gpa;
use tlfs::{Control, ResultWord};
use x86::{Gp, GpRegs, Segment, cr0, efer};

use crate::Outcome;

/// Which set of registers the caller uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 64-bit code: RCX, RDX, R8, result in RAX.
    Long,
    /// Every other protected mode: EDX:EAX, EBX:ECX, EDI:ESI, result in EDX:EAX.
    Legacy,
}

impl Mode {
    /// The mode of a VP with these registers. `None` when it may not call at all (CPL other than 0, or real
    /// mode): the instruction raises #UD.
    #[inline(always)]
    pub const fn of(cpl: u8, cr0: u64, efer: u64, cs: &Segment) -> Option<Self> {
        if cpl != 0 || cr0 & cr0::PE == 0 {
            return None;
        }
        if efer & efer::LMA != 0 && cs.attributes & Segment::LONG != 0 {
            Some(Self::Long)
        } else {
            Some(Self::Legacy)
        }
    }

    /// What the registers say.
    #[inline(always)]
    pub const fn read(self, gp: &GpRegs) -> Registers {
        match self {
            Self::Long => Registers {
                control: Control(gp.get(Gp::Rcx)),
                input: gp.get(Gp::Rdx),
                output: gp.get(Gp::R8),
            },
            Self::Legacy => Registers {
                control: Control(gp.edx_eax()),
                input: pair(gp.get(Gp::Rbx), gp.get(Gp::Rcx)),
                output: pair(gp.get(Gp::Rdi), gp.get(Gp::Rsi)),
            },
        }
    }

    /// Puts `outcome` into the registers, and tells what becomes of RIP. All other registers stay.
    #[inline(always)]
    pub const fn finish(self, gp: &mut GpRegs, outcome: Outcome) -> Rip {
        let (word, rip) = match outcome {
            Outcome::Complete(ResultWord(word)) => (word, Rip::Advance),
            Outcome::Continue(Control(word)) => (word, Rip::Stay),
            Outcome::NoAccess { .. } => return Rip::Stay,
        };
        match (self, rip) {
            (Self::Long, Rip::Advance) => gp.set(Gp::Rax, word),
            (Self::Long, Rip::Stay) => gp.set(Gp::Rcx, word),
            (Self::Legacy, _) => gp.set_edx_eax(word),
        }
        rip
    }
}

const fn pair(high: u64, low: u64) -> u64 {
    high << 32 | low & 0xFFFF_FFFF
}

/// The parameters of one call, whatever the registers were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    /// The control word.
    pub control: Control,
    /// GPA of the input block, or its bytes 0 to 7 in the fast form.
    pub input: u64,
    /// GPA of the output block, or bytes 8 to 15 of the input in the fast form.
    pub output: u64,
}

impl Registers {
    pub(crate) const fn input_gpa(&self) -> Gpa {
        Gpa::new(self.input)
    }

    pub(crate) const fn output_gpa(&self) -> Gpa {
        Gpa::new(self.output)
    }
}

/// Whether the call instruction is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Rip {
    /// Go on behind it.
    Advance,
    /// It is executed again.
    Stay,
}
