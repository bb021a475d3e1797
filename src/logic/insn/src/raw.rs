//! The fields of an instruction: prefixes, opcode, ModRM, immediate, length.

use x86::{Segment, cr0, efer};

use crate::opcode::{Immediate, Map, Shape, shape};
use crate::string::SegmentName;

/// Most bytes in an instruction; a longer one raises #GP.
pub const LENGTH_MAX: usize = 15;

/// How a processor reads instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Real mode, virtual-8086 mode, 16-bit code segments.
    Bits16,
    /// 32-bit code segments.
    Bits32,
    /// 64-bit code segments.
    Bits64,
}

impl Mode {
    /// The mode of code in segment `cs` with these values of CR0 and EFER.
    pub const fn of(cs: &Segment, cr0: u64, efer: u64) -> Self {
        if cr0 & cr0::PE == 0 {
            // D/B counts in real mode too: it stays what it was before a switch from protected mode.
            if cs.attributes & Segment::DEFAULT_32 != 0 {
                Self::Bits32
            } else {
                Self::Bits16
            }
        } else if efer & efer::LMA != 0 && cs.attributes & Segment::LONG != 0 {
            Self::Bits64
        } else if cs.attributes & Segment::DEFAULT_32 != 0 {
            Self::Bits32
        } else {
            Self::Bits16
        }
    }
}

/// Why bytes could not be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The bytes end inside the instruction. More of them may decode.
    Incomplete,
    /// More than [`LENGTH_MAX`] bytes.
    TooLong,
    /// No instruction of this mode.
    Undefined,
    /// An instruction that is not emulated.
    Unsupported,
}

/// REX, with bit 6 set when there is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rex(u8);

impl Rex {
    pub fn is_present(self) -> bool {
        self.0 != 0
    }
    pub fn w(self) -> bool {
        self.0 & 8 != 0
    }
    /// The bit that extends the register field, in place.
    pub fn r(self) -> u8 {
        (self.0 & 4) << 1
    }
    /// The bit that extends the register of a ModRM r/m field, in place.
    pub fn b(self) -> u8 {
        (self.0 & 1) << 3
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    F2,
    F3,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Prefixes {
    pub operand_size: bool,
    pub address_size: bool,
    pub lock: bool,
    pub repeat: Option<Repeat>,
    pub segment: Option<SegmentName>,
    pub rex: Rex,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ModRm(u8);

impl ModRm {
    pub fn is_memory(self) -> bool {
        self.0 < 0xC0
    }
    pub fn reg(self) -> u8 {
        self.0 >> 3 & 7
    }
    pub fn rm(self) -> u8 {
        self.0 & 7
    }
    fn mode(self) -> u8 {
        self.0 >> 6
    }
}

/// An instruction taken apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Raw {
    pub mode: Mode,
    pub prefixes: Prefixes,
    pub map: Map,
    pub opcode: u8,
    pub modrm: Option<ModRm>,
    /// The immediate as it stands, not extended.
    pub immediate: u64,
    /// Its length in bytes.
    pub immediate_len: u8,
    /// Length of the whole instruction in bytes.
    pub length: u8,
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn peek(&self) -> Result<u8, DecodeError> {
        if self.at >= LENGTH_MAX {
            return Err(DecodeError::TooLong);
        }
        self.bytes
            .get(self.at)
            .copied()
            .ok_or(DecodeError::Incomplete)
    }

    fn take(&mut self) -> Result<u8, DecodeError> {
        let byte = self.peek()?;
        self.at += 1;
        Ok(byte)
    }

    /// A little-endian number of `len` bytes, of which the first eight count.
    fn number(&mut self, len: u8) -> Result<u64, DecodeError> {
        let mut value = 0;
        for index in 0..u32::from(len) {
            value |= u64::from(self.take()?).checked_shl(8 * index).unwrap_or(0);
        }
        Ok(value)
    }
}

impl Raw {
    pub fn decode(bytes: &[u8], mode: Mode) -> Result<Self, DecodeError> {
        let mut cursor = Cursor { bytes, at: 0 };
        let mut prefixes = Prefixes::default();
        let first = prefixes.take(&mut cursor, mode)?;
        let (map, opcode) = opcode(first, &mut cursor, mode, &prefixes)?;
        let Shape {
            has_modrm,
            immediate,
        } = shape(map, opcode, mode, &prefixes)?;
        let modrm = if has_modrm {
            Some(ModRm(cursor.take()?))
        } else {
            None
        };
        let mut raw = Self {
            mode,
            prefixes,
            map,
            opcode,
            modrm,
            immediate: 0,
            immediate_len: 0,
            length: 0,
        };
        if let Some(modrm) = modrm
            && modrm.is_memory()
            && !raw.is_control_register_move()
        {
            let displacement = raw.displacement(modrm, &mut cursor)?;
            cursor.number(displacement)?;
        }
        raw.immediate_len = raw.immediate_size(immediate);
        raw.immediate = cursor.number(raw.immediate_len)?;
        // At most LENGTH_MAX, which the cursor enforces.
        raw.length = cursor.at as u8;
        Ok(raw)
    }

    /// MOV to and from control and debug registers read ModRM as two registers, whatever its mod field.
    fn is_control_register_move(&self) -> bool {
        self.map == Map::Of && matches!(self.opcode, 0x20..=0x23)
    }

    /// Operand size in bytes of an instruction whose default is that of the mode: 2, 4 or 8.
    pub fn operand_size(&self) -> u8 {
        match (self.mode, self.prefixes.operand_size) {
            (Mode::Bits64, _) if self.prefixes.rex.w() => 8,
            (Mode::Bits16, false) | (Mode::Bits32 | Mode::Bits64, true) => 2,
            _ => 4,
        }
    }

    /// Address size in bytes: 2, 4 or 8.
    pub fn address_size(&self) -> u8 {
        match (self.mode, self.prefixes.address_size) {
            (Mode::Bits64, false) => 8,
            (Mode::Bits32, false) | (Mode::Bits64 | Mode::Bits16, true) => 4,
            (Mode::Bits16, false) | (Mode::Bits32, true) => 2,
        }
    }

    /// Takes the SIB byte where there is one and tells the length of the displacement.
    fn displacement(&self, modrm: ModRm, cursor: &mut Cursor<'_>) -> Result<u8, DecodeError> {
        if self.address_size() == 2 {
            return Ok(match (modrm.mode(), modrm.rm()) {
                (0, 6) | (2, _) => 2,
                (1, _) => 1,
                _ => 0,
            });
        }
        let base = if modrm.rm() == 4 {
            cursor.take()? & 7
        } else {
            modrm.rm()
        };
        Ok(match (modrm.mode(), base) {
            (0, 5) | (2, _) => 4,
            (1, _) => 1,
            _ => 0,
        })
    }

    fn immediate_size(&self, immediate: Immediate) -> u8 {
        let operand = self.operand_size();
        match immediate {
            Immediate::None => 0,
            Immediate::Byte => 1,
            Immediate::Word => 2,
            Immediate::WordByte => 3,
            Immediate::Dword => 4,
            Immediate::Operand => operand.min(4),
            Immediate::OperandFull => operand,
            Immediate::Near if self.mode == Mode::Bits64 => 4,
            Immediate::Near => operand,
            Immediate::Far => operand.min(4) + 2,
            Immediate::Address => self.address_size(),
            Immediate::Test if self.modrm.is_some_and(|modrm| modrm.reg() < 2) => {
                if self.opcode & 1 == 0 {
                    1
                } else {
                    operand.min(4)
                }
            }
            Immediate::Test => 0,
            Immediate::Extract
                if self.prefixes.operand_size || self.prefixes.repeat == Some(Repeat::F2) =>
            {
                2
            }
            Immediate::Extract => 0,
        }
    }
}

impl Prefixes {
    /// Takes all prefixes and returns the first byte after them.
    fn take(&mut self, cursor: &mut Cursor<'_>, mode: Mode) -> Result<u8, DecodeError> {
        loop {
            let byte = cursor.take()?;
            // A REX counts only right before the opcode.
            let rex = core::mem::take(&mut self.rex);
            match byte {
                0x66 => self.operand_size = true,
                0x67 => self.address_size = true,
                0xF0 => self.lock = true,
                0xF2 => self.repeat = Some(Repeat::F2),
                0xF3 => self.repeat = Some(Repeat::F3),
                0x26 => self.segment = Some(SegmentName::Es),
                0x2E => self.segment = Some(SegmentName::Cs),
                0x36 => self.segment = Some(SegmentName::Ss),
                0x3E => self.segment = Some(SegmentName::Ds),
                0x64 => self.segment = Some(SegmentName::Fs),
                0x65 => self.segment = Some(SegmentName::Gs),
                0x40..=0x4F if mode == Mode::Bits64 => self.rex = Rex(byte),
                _ => {
                    self.rex = rex;
                    return Ok(byte);
                }
            }
        }
    }

    /// VEX, EVEX and XOP allow none of these before them.
    fn forbid_before_vex(&self) -> Result<(), DecodeError> {
        if self.operand_size || self.lock || self.repeat.is_some() || self.rex.is_present() {
            return Err(DecodeError::Undefined);
        }
        Ok(())
    }
}

/// The opcode map and the opcode, `first` being the byte after the prefixes.
fn opcode(
    first: u8,
    cursor: &mut Cursor<'_>,
    mode: Mode,
    prefixes: &Prefixes,
) -> Result<(Map, u8), DecodeError> {
    match first {
        0x0F => match cursor.take()? {
            0x38 => Ok((Map::Of38, cursor.take()?)),
            0x3A => Ok((Map::Of3a, cursor.take()?)),
            opcode => Ok((Map::Of, opcode)),
        },
        // Outside 64-bit mode these are LES, LDS and BOUND, which have no register form.
        0xC4 | 0xC5 | 0x62 if mode == Mode::Bits64 || cursor.peek()? >= 0xC0 => {
            prefixes.forbid_before_vex()?;
            let payload = cursor.take()?;
            let (map, skip) = match first {
                0xC5 => (1, 0),
                0xC4 => (payload & 0x1F, 1),
                _ => (payload & 7, 2),
            };
            cursor.number(skip)?;
            let map = match (map, first) {
                (1, _) => Map::Vex1,
                (2, _) => Map::Vex2,
                (3, _) => Map::Vex3,
                (5 | 6, 0x62) => Map::Evex56,
                _ => return Err(DecodeError::Undefined),
            };
            Ok((map, cursor.take()?))
        }
        // POP has 0 in the register field, so that bits 4:3 are clear.
        0x8F if cursor.peek()? & 0x1F >= 8 => {
            prefixes.forbid_before_vex()?;
            let map = match cursor.take()? & 0x1F {
                8 => Map::Xop8,
                9 => Map::Xop9,
                10 => Map::XopA,
                _ => return Err(DecodeError::Undefined),
            };
            cursor.number(1)?;
            Ok((map, cursor.take()?))
        }
        opcode => Ok((Map::One, opcode)),
    }
}
