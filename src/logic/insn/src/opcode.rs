//! The opcode maps: which opcodes have a ModRM byte and an immediate.

use crate::raw::{DecodeError, Mode, Prefixes};

/// An opcode map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Map {
    /// One byte.
    One,
    /// After 0F.
    Of,
    /// After 0F 38.
    Of38,
    /// After 0F 3A.
    Of3a,
    /// VEX and EVEX encodings of the map after 0F.
    Vex1,
    /// Of the map after 0F 38.
    Vex2,
    /// Of the map after 0F 3A.
    Vex3,
    /// EVEX only.
    Evex56,
    /// XOP maps, AMD only.
    Xop8,
    Xop9,
    XopA,
}

/// What follows ModRM and displacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Immediate {
    None,
    Byte,
    Word,
    /// ENTER.
    WordByte,
    Dword,
    /// Operand size, at most 4 bytes.
    Operand,
    /// Operand size.
    OperandFull,
    /// Relative branch: operand size, but 4 bytes in 64-bit mode.
    Near,
    /// Far pointer.
    Far,
    /// Offset of address size.
    Address,
    /// Group 3: only TEST has one.
    Test,
    /// 0F 78: two bytes with 66 or F2 (EXTRQ, INSERTQ), none otherwise (VMREAD).
    Extract,
}

pub(crate) struct Shape {
    pub has_modrm: bool,
    pub immediate: Immediate,
}

const fn plain(immediate: Immediate) -> Option<Shape> {
    Some(Shape {
        has_modrm: false,
        immediate,
    })
}

const fn modrm(immediate: Immediate) -> Option<Shape> {
    Some(Shape {
        has_modrm: true,
        immediate,
    })
}

/// The shape of `opcode` in `map`.
pub(crate) fn shape(
    map: Map,
    opcode: u8,
    mode: Mode,
    prefixes: &Prefixes,
) -> Result<Shape, DecodeError> {
    match map {
        Map::One => one(opcode, mode),
        Map::Of => of(opcode, prefixes),
        Map::Of38 | Map::Vex2 | Map::Evex56 | Map::Xop9 => modrm(Immediate::None),
        Map::Of3a | Map::Vex3 | Map::Xop8 => modrm(Immediate::Byte),
        Map::XopA => modrm(Immediate::Dword),
        Map::Vex1 => vex(opcode),
    }
    .ok_or(DecodeError::Undefined)
}

fn one(opcode: u8, mode: Mode) -> Option<Shape> {
    use Immediate::{
        Address, Byte, Far, Near, None as No, Operand, OperandFull, Test, Word, WordByte,
    };
    if mode == Mode::Bits64
        && matches!(
            opcode,
            0x06 | 0x07
                | 0x0E
                | 0x16
                | 0x17
                | 0x1E
                | 0x1F
                | 0x27
                | 0x2F
                | 0x37
                | 0x3F
                | 0x60
                | 0x61
                | 0x62
                | 0x82
                | 0x9A
                | 0xC4
                | 0xC5
                | 0xCE
                | 0xD4..=0xD6 | 0xEA
        )
    {
        return None;
    }
    match opcode {
        0x00..=0x3F => match opcode & 7 {
            0..=3 => modrm(No),
            4 => plain(Byte),
            5 => plain(Operand),
            _ => plain(No),
        },
        0x40..=0x61 => plain(No),
        0x62 | 0x63 => modrm(No),
        0x68 => plain(Operand),
        0x69 => modrm(Operand),
        0x6A => plain(Byte),
        0x6B => modrm(Byte),
        0x6C..=0x6F => plain(No),
        0x70..=0x7F => plain(Byte),
        0x80 | 0x82 | 0x83 => modrm(Byte),
        0x81 => modrm(Operand),
        0x84..=0x8F => modrm(No),
        0x90..=0x99 | 0x9B..=0x9F => plain(No),
        0x9A | 0xEA => plain(Far),
        0xA0..=0xA3 => plain(Address),
        0xA4..=0xA7 | 0xAA..=0xAF => plain(No),
        0xA8 => plain(Byte),
        0xA9 => plain(Operand),
        0xB0..=0xB7 => plain(Byte),
        0xB8..=0xBF => plain(OperandFull),
        0xC0 | 0xC1 | 0xC6 => modrm(Byte),
        0xC2 | 0xCA => plain(Word),
        0xC4 | 0xC5 => modrm(No),
        0xC7 => modrm(Operand),
        0xC8 => plain(WordByte),
        0xC3 | 0xC9 | 0xCB | 0xCC | 0xCE | 0xCF => plain(No),
        0xCD => plain(Byte),
        0xD0..=0xD3 => modrm(No),
        0xD4 | 0xD5 => plain(Byte),
        0xD6 | 0xD7 => plain(No),
        0xD8..=0xDF => modrm(No),
        0xE0..=0xE7 | 0xEB => plain(Byte),
        0xE8 | 0xE9 => plain(Near),
        0xEC..=0xEF => plain(No),
        0xF1 | 0xF4 | 0xF5 | 0xF8..=0xFD => plain(No),
        0xF6 | 0xF7 => modrm(Test),
        0xFE | 0xFF => modrm(No),
        // The rest are prefixes, which were taken before.
        _ => None,
    }
}

fn of(opcode: u8, prefixes: &Prefixes) -> Option<Shape> {
    use Immediate::{Byte, Extract, Near, None as No};
    match opcode {
        0x05..=0x09 | 0x0B | 0x0E | 0x30..=0x35 | 0x37 | 0x77 => plain(No),
        0x80..=0x8F => plain(Near),
        0xA0..=0xA2 | 0xA8..=0xAA | 0xC8..=0xCF => plain(No),
        // 3DNow!: the opcode proper comes last.
        0x0F => modrm(Byte),
        0x70..=0x73 | 0xA4 | 0xAC | 0xBA | 0xC2 | 0xC4..=0xC6 => modrm(Byte),
        0x78 => modrm(Extract),
        // POPCNT; without F3 it is nothing.
        0xB8 if prefixes.repeat.is_none() => None,
        0x04 | 0x0A | 0x0C | 0x24..=0x27 | 0x36 | 0x38..=0x3F | 0x7A | 0x7B | 0xA6 | 0xA7 => None,
        _ => modrm(No),
    }
}

fn vex(opcode: u8) -> Option<Shape> {
    match opcode {
        0x77 => plain(Immediate::None),
        0x70..=0x73 | 0xC2 | 0xC4..=0xC6 => modrm(Immediate::Byte),
        _ => modrm(Immediate::None),
    }
}
