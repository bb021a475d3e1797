//! Instructions with a device's registers as their memory operand.

use crate::alu::{AluOp, BitOp};
use crate::opcode::Map;
use crate::operand::{Register, Source, Width};
use crate::raw::{DecodeError, ModRm, Mode, Prefixes, Raw, Repeat};
use crate::string::{SegmentName, StringKind, StringOp};

/// A decoded instruction that touches one memory operand; MOVS, two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MmioInsn {
    /// Length in bytes: what RIP advances by when it is done.
    pub length: u8,
    /// Width of the memory operand.
    pub width: Width,
    pub(crate) action: Action,
}

impl MmioInsn {
    /// The string operation, if it is one.
    pub fn string(&self) -> Option<StringOp> {
        match self.action {
            Action::String(op) => Some(op),
            _ => None,
        }
    }

    /// Whether it writes its memory operand, perhaps after reading it. MOVS does one or the other.
    pub fn writes(&self) -> bool {
        match self.action {
            Action::Load { .. }
            | Action::Into { .. }
            | Action::Bit {
                op: BitOp::Test, ..
            } => false,
            Action::Onto { op, .. } => op.writes(),
            Action::String(op) => op.kind != StringKind::Lods,
            _ => true,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Memory to a register of width `to`.
    Load {
        to: Register,
        to_width: Width,
        is_signed: bool,
    },
    /// To memory.
    Store {
        from: Source,
    },
    /// memory = memory op source.
    Onto {
        op: AluOp,
        source: Source,
    },
    /// register = register op memory.
    Into {
        op: AluOp,
        to: Register,
    },
    Not,
    Neg,
    Inc,
    Dec,
    Bit {
        op: BitOp,
        index: u8,
    },
    Exchange {
        with: Register,
    },
    CompareExchange {
        with: Register,
    },
    ExchangeAdd {
        with: Register,
    },
    String(StringOp),
}

impl Action {
    /// Whether LOCK is allowed: it writes memory after reading it.
    fn is_lockable(self) -> bool {
        match self {
            Self::Onto { op, .. } => op.writes(),
            Self::Bit { op, .. } => op != BitOp::Test,
            Self::Not | Self::Neg | Self::Inc | Self::Dec => true,
            Self::Exchange { .. } | Self::CompareExchange { .. } | Self::ExchangeAdd { .. } => true,
            Self::Load { .. } | Self::Store { .. } | Self::Into { .. } | Self::String(_) => false,
        }
    }
}

/// Decodes the instruction at the start of `bytes`, which faulted on its memory operand.
///
/// Known: MOV in all forms between memory and a general register or an immediate, MOVZX, MOVSX, MOVSXD,
/// MOVNTI, XCHG, ADD, OR, ADC, SBB, AND, SUB, XOR, CMP, TEST, NOT, NEG, INC, DEC, BT, BTS, BTR and BTC with an
/// immediate, CMPXCHG, XADD, MOVS, STOS, LODS.
///
/// # Errors
/// Any [`DecodeError`]; [`DecodeError::Unsupported`] for all other instructions, and for register operands.
pub fn decode_mmio(bytes: &[u8], mode: Mode) -> Result<MmioInsn, DecodeError> {
    let raw = Raw::decode(bytes, mode)?;
    let (width, action) = match raw.map {
        Map::One => one(&raw),
        Map::Of => of(&raw),
        _ => Err(DecodeError::Unsupported),
    }?;
    if raw.prefixes.lock && !action.is_lockable() {
        return Err(DecodeError::Undefined);
    }
    Ok(MmioInsn {
        length: raw.length,
        width,
        action,
    })
}

impl Raw {
    /// Byte for even opcodes, operand size for odd ones.
    fn width(&self) -> Width {
        if self.opcode & 1 == 0 {
            Width::Byte
        } else {
            self.full_width()
        }
    }

    fn full_width(&self) -> Width {
        Width::from_bytes(self.operand_size())
    }

    /// The ModRM byte, if it names memory.
    fn memory(&self) -> Result<ModRm, DecodeError> {
        self.modrm
            .filter(|modrm| modrm.is_memory())
            .ok_or(DecodeError::Unsupported)
    }

    /// The register that ModRM names beside memory.
    fn register(&self, width: Width) -> Result<Register, DecodeError> {
        let Prefixes { rex, .. } = self.prefixes;
        Ok(Register::numbered(
            self.memory()?.reg() | rex.r(),
            width,
            rex.is_present(),
        ))
    }

    /// The immediate with its sign extended.
    fn signed_immediate(&self) -> Source {
        Source::Immediate(Width::from_bytes(self.immediate_len).sign_extend(self.immediate))
    }
}

fn one(raw: &Raw) -> Result<(Width, Action), DecodeError> {
    let width = raw.width();
    let register = || raw.register(width);
    let action = match raw.opcode {
        0x00..=0x3F if raw.opcode & 7 < 4 => {
            let op = AluOp::numbered(raw.opcode >> 3);
            if raw.opcode & 2 == 0 {
                Action::Onto {
                    op,
                    source: Source::Register(register()?),
                }
            } else {
                Action::Into {
                    op,
                    to: register()?,
                }
            }
        }
        0x63 if raw.mode == Mode::Bits64 => {
            let to_width = raw.full_width();
            let from = if to_width == Width::Word {
                Width::Word
            } else {
                Width::Dword
            };
            return Ok((
                from,
                Action::Load {
                    to: raw.register(to_width)?,
                    to_width,
                    is_signed: true,
                },
            ));
        }
        0x80..=0x83 => Action::Onto {
            op: AluOp::numbered(raw.memory()?.reg()),
            source: raw.signed_immediate(),
        },
        0x84 | 0x85 => Action::Onto {
            op: AluOp::Test,
            source: Source::Register(register()?),
        },
        0x86 | 0x87 => Action::Exchange { with: register()? },
        0x88 | 0x89 => Action::Store {
            from: Source::Register(register()?),
        },
        0x8A | 0x8B => Action::Load {
            to: register()?,
            to_width: width,
            is_signed: false,
        },
        0xA0 | 0xA1 => Action::Load {
            to: Register::RAX,
            to_width: width,
            is_signed: false,
        },
        0xA2 | 0xA3 => Action::Store {
            from: Source::Register(Register::RAX),
        },
        0xA4 | 0xA5 => string(raw, StringKind::Movs),
        0xAA | 0xAB => string(raw, StringKind::Stos),
        0xAC | 0xAD => string(raw, StringKind::Lods),
        0xC6 | 0xC7 => match raw.memory()?.reg() {
            0 => Action::Store {
                from: raw.signed_immediate(),
            },
            _ => return Err(DecodeError::Undefined),
        },
        0xF6 | 0xF7 => match raw.memory()?.reg() {
            0 | 1 => Action::Onto {
                op: AluOp::Test,
                source: raw.signed_immediate(),
            },
            2 => Action::Not,
            3 => Action::Neg,
            _ => return Err(DecodeError::Unsupported),
        },
        0xFE | 0xFF => match raw.memory()?.reg() {
            0 => Action::Inc,
            1 => Action::Dec,
            _ => return Err(DecodeError::Unsupported),
        },
        _ => return Err(DecodeError::Unsupported),
    };
    Ok((width, action))
}

fn of(raw: &Raw) -> Result<(Width, Action), DecodeError> {
    let width = raw.width();
    let register = || raw.register(width);
    let action = match raw.opcode {
        0xB0 | 0xB1 => Action::CompareExchange { with: register()? },
        0xC0 | 0xC1 => Action::ExchangeAdd { with: register()? },
        0xB6 | 0xB7 | 0xBE | 0xBF => {
            let from = if raw.opcode & 1 == 0 {
                Width::Byte
            } else {
                Width::Word
            };
            let to_width = raw.full_width();
            let is_signed = raw.opcode >= 0xBE;
            return Ok((
                from,
                Action::Load {
                    to: raw.register(to_width)?,
                    to_width,
                    is_signed,
                },
            ));
        }
        0xBA => {
            let width = raw.full_width();
            let op = BitOp::numbered(raw.memory()?.reg()).ok_or(DecodeError::Undefined)?;
            // An immediate index is taken modulo the width, so it never reaches beyond the operand.
            let index = (raw.immediate as u32 & (width.bits() - 1)) as u8;
            return Ok((width, Action::Bit { op, index }));
        }
        0xC3 => {
            if raw.prefixes.operand_size || raw.prefixes.repeat.is_some() {
                return Err(DecodeError::Undefined);
            }
            let width = if raw.prefixes.rex.w() {
                Width::Qword
            } else {
                Width::Dword
            };
            return Ok((
                width,
                Action::Store {
                    from: Source::Register(raw.register(width)?),
                },
            ));
        }
        _ => return Err(DecodeError::Unsupported),
    };
    Ok((width, action))
}

fn string(raw: &Raw, kind: StringKind) -> Action {
    Action::String(StringOp {
        kind,
        width: raw.width(),
        // REPNE repeats these too: they set no flag that it could look at.
        repeats: matches!(raw.prefixes.repeat, Some(Repeat::F2 | Repeat::F3)),
        source_segment: raw.prefixes.segment.unwrap_or(SegmentName::Ds),
        address: Width::from_bytes(raw.address_size()),
    })
}
