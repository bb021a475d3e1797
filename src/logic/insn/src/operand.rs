//! Operands: widths, and registers with their parts.

use x86::{Gp, GpRegs};

/// Width of a memory access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Width {
    Byte,
    Word,
    Dword,
    Qword,
}

impl Width {
    /// Width in bytes.
    pub const fn bytes(self) -> u8 {
        match self {
            Self::Byte => 1,
            Self::Word => 2,
            Self::Dword => 4,
            Self::Qword => 8,
        }
    }

    /// Width in bits.
    pub const fn bits(self) -> u32 {
        self.bytes() as u32 * 8
    }

    /// All bits of this width.
    pub(crate) const fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits())
    }

    /// The highest bit of this width.
    pub(crate) const fn sign(self) -> u64 {
        1 << (self.bits() - 1)
    }

    /// `value` of this width with its sign extended to 64 bits.
    pub(crate) const fn sign_extend(self, value: u64) -> u64 {
        let unused = 64 - self.bits();
        ((value << unused) as i64 >> unused) as u64
    }

    /// The width of `bytes` bytes: 1, 2, 4, and 8 for all others.
    pub(crate) const fn from_bytes(bytes: u8) -> Self {
        match bytes {
            1 => Self::Byte,
            2 => Self::Word,
            4 => Self::Dword,
            _ => Self::Qword,
        }
    }
}

/// The general register numbered by the low four bits of `number`.
pub(crate) const fn gp(number: u8) -> Gp {
    match number & 15 {
        0 => Gp::Rax,
        1 => Gp::Rcx,
        2 => Gp::Rdx,
        3 => Gp::Rbx,
        4 => Gp::Rsp,
        5 => Gp::Rbp,
        6 => Gp::Rsi,
        7 => Gp::Rdi,
        8 => Gp::R8,
        9 => Gp::R9,
        10 => Gp::R10,
        11 => Gp::R11,
        12 => Gp::R12,
        13 => Gp::R13,
        14 => Gp::R14,
        _ => Gp::R15,
    }
}

/// A register operand: a whole register, its low part, or bits 15:8 of one of the first four.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Register {
    pub gp: Gp,
    pub is_high_byte: bool,
}

impl Register {
    pub const RAX: Self = Self {
        gp: Gp::Rax,
        is_high_byte: false,
    };

    /// The register numbered `number` as an operand of `width`. Without a REX the byte registers 4 to 7 are
    /// AH, CH, DH, BH.
    pub fn numbered(number: u8, width: Width, has_rex: bool) -> Self {
        match number {
            4..=7 if width == Width::Byte && !has_rex => Self {
                gp: gp(number - 4),
                is_high_byte: true,
            },
            _ => Self {
                gp: gp(number),
                is_high_byte: false,
            },
        }
    }

    /// Its value, zero-extended from `width`.
    pub fn read(self, regs: &GpRegs, width: Width) -> u64 {
        let value = regs.get(self.gp);
        if self.is_high_byte {
            value >> 8 & 0xFF
        } else {
            value & width.mask()
        }
    }

    /// Writes `width` bits: 32 clear the upper half, 8 and 16 leave the rest.
    pub fn write(self, regs: &mut GpRegs, width: Width, value: u64) {
        let old = regs.get(self.gp);
        let new = match width {
            Width::Byte if self.is_high_byte => (old & !0xFF00) | ((value & 0xFF) << 8),
            Width::Byte | Width::Word => (old & !width.mask()) | (value & width.mask()),
            Width::Dword | Width::Qword => value & width.mask(),
        };
        regs.set(self.gp, new);
    }
}

/// Where a value comes from that is not the memory operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Register(Register),
    /// Already extended to the width of the operation.
    Immediate(u64),
}

impl Source {
    pub fn read(self, regs: &GpRegs, width: Width) -> u64 {
        match self {
            Self::Register(register) => register.read(regs, width),
            Self::Immediate(value) => value & width.mask(),
        }
    }
}
