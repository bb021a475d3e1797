//! Whatever the bytes are: no panic, and flags as plain arithmetic gives them.

use insn::{MmioBus, Mode, Width, decode_mmio, execute, length, mov_from_cr, mov_to_cr};
use proptest::prelude::*;
use x86::{Gp, GpRegs, Segment, cr0, efer, rflags};

const MODES: [Mode; 3] = [Mode::Bits16, Mode::Bits32, Mode::Bits64];
const ARITHMETIC: u64 = rflags::CF | rflags::PF | rflags::AF | rflags::ZF | rflags::SF | rflags::OF;

struct Cell(u64);

impl MmioBus for Cell {
    fn read(&mut self, _: Width) -> u64 {
        self.0
    }
    fn write(&mut self, _: Width, value: u64) {
        self.0 = value;
    }
}

/// Result and flags of `a op b` by the numbers of group 1, from integers wide enough to hold any result.
fn model(op: u8, a: u64, b: u64, bits: u32, carry_in: bool) -> (u64, u64) {
    let signed = |value: u64| i128::from((value << (64 - bits)) as i64 >> (64 - bits));
    let unsigned = i128::from;
    let c = i128::from(carry_in);
    let (exact, signed_exact, nibble) = match op {
        0 => (
            unsigned(a) + unsigned(b),
            signed(a) + signed(b),
            (a & 15) as i128 + (b & 15) as i128,
        ),
        2 => (
            unsigned(a) + unsigned(b) + c,
            signed(a) + signed(b) + c,
            (a & 15) as i128 + (b & 15) as i128 + c,
        ),
        3 => (
            unsigned(a) - unsigned(b) - c,
            signed(a) - signed(b) - c,
            (a & 15) as i128 - (b & 15) as i128 - c,
        ),
        5 | 7 => (
            unsigned(a) - unsigned(b),
            signed(a) - signed(b),
            (a & 15) as i128 - (b & 15) as i128,
        ),
        1 => (unsigned(a | b), signed(a | b), 0),
        4 => (unsigned(a & b), signed(a & b), 0),
        _ => (unsigned(a ^ b), signed(a ^ b), 0),
    };
    let result = (exact & ((1i128 << bits) - 1)) as u64;
    let mut flags = 0;
    let mut set = |flag, is_set: bool| flags |= if is_set { flag } else { 0 };
    set(rflags::CF, exact != i128::from(result));
    set(rflags::OF, signed_exact != signed(result));
    set(rflags::AF, !(0..=15).contains(&nibble));
    set(rflags::ZF, result == 0);
    set(rflags::SF, signed(result) < 0);
    set(rflags::PF, (result & 0xFF).count_ones().is_multiple_of(2));
    (result, flags)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_in_any_mode(
        bytes in prop::collection::vec(any::<u8>(), 0..16),
        regs in any::<[u64; 16]>(),
        flags in any::<u64>(),
        value in any::<u64>(),
    ) {
        for mode in MODES {
            let len = length(&bytes, mode);
            let _ = (mov_to_cr(&bytes, mode), mov_from_cr(&bytes, mode));
            if let Ok(insn) = decode_mmio(&bytes, mode) {
                prop_assert_eq!(Ok(insn.length), len);
                let (mut regs, mut after) = (GpRegs(regs), flags);
                let _ = execute(&insn, &mut regs, &mut after, &mut Cell(value));
                // Only arithmetic flags ever change.
                prop_assert_eq!((after ^ flags) & !ARITHMETIC, 0);
            }
        }
    }

    /// Every opcode that touches memory, so that decoding gets further than with random bytes.
    #[test]
    fn any_opcode_with_memory(
        prefix in prop::sample::select(&[0x66u8, 0x67, 0xF0, 0xF3, 0x40, 0x44, 0x48, 0x4D][..]),
        escape in any::<bool>(), opcode in any::<u8>(), modrm in 0u8..0xC0, rest in any::<[u8; 12]>(),
        regs in any::<[u64; 16]>(), flags in any::<u64>(), value in any::<u64>(),
    ) {
        let mut bytes = vec![prefix];
        bytes.extend(escape.then_some(0x0F));
        bytes.extend([opcode, modrm]);
        bytes.extend(rest);
        for mode in MODES {
            if let Ok(insn) = decode_mmio(&bytes, mode) {
                let (mut regs, mut after) = (GpRegs(regs), flags);
                let _ = execute(&insn, &mut regs, &mut after, &mut Cell(value));
                prop_assert_eq!((after ^ flags) & !ARITHMETIC, 0);
            }
        }
    }

    #[test]
    fn arithmetic_follows_the_model(
        op in 0u8..8, a in any::<u64>(), b in any::<u64>(), close in any::<bool>(), flags in any::<u64>(), size in 0..4usize,
        to_memory in any::<bool>(),
    ) {
        let bits = [8, 16, 32, 64][size];
        let mask = u64::MAX >> (64 - bits);
        // Random pairs hardly ever are equal or adjacent.
        let b = if close { a.wrapping_add(b & 3).wrapping_sub(1) } else { b };
        let prefix: &[u8] = [&[][..], &[0x66], &[], &[0x48]][size];
        let opcode = op << 3 | u8::from(bits != 8) | if to_memory { 0 } else { 2 };
        let insn = decode_mmio(&[prefix, &[opcode, 0x01]].concat(), Mode::Bits64).unwrap();
        let mut regs = GpRegs::default();
        let (memory, register) = if to_memory { (a, b) } else { (b, a) };
        regs.set(Gp::Rax, register);
        let (mut cell, mut after) = (Cell(memory), flags);
        prop_assert!(execute(&insn, &mut regs, &mut after, &mut cell).is_ok());
        let (result, expected) = model(op, a & mask, b & mask, bits, flags & rflags::CF != 0);
        prop_assert_eq!(after, flags & !ARITHMETIC | expected);
        if op != 7 {
            let found = if to_memory { cell.0 } else { regs.get(Gp::Rax) };
            prop_assert_eq!(found & mask, result);
        }
    }

    #[test]
    fn unary_operations_follow_the_model(a in any::<u64>(), near in 0u64..3, edge in any::<bool>(), flags in any::<u64>(), size in 0..4usize) {
        let bits = [8, 16, 32, 64][size];
        let mask = u64::MAX >> (64 - bits);
        let a = if edge { (1u64 << (bits - 1)).wrapping_add(near).wrapping_sub(1) } else { a };
        let prefix: &[u8] = [&[][..], &[0x66], &[], &[0x48]][size];
        let run = |opcode: u8, modrm: u8| {
            let insn = decode_mmio(&[prefix, &[opcode | u8::from(bits != 8), modrm]].concat(), Mode::Bits64).unwrap();
            let (mut cell, mut after) = (Cell(a), flags);
            assert!(execute(&insn, &mut GpRegs::default(), &mut after, &mut cell).is_ok());
            (cell.0 & mask, after)
        };
        let rest = flags & !ARITHMETIC;
        let (result, expected) = model(0, a & mask, 1, bits, false);
        prop_assert_eq!(run(0xFE, 0x01), (result, rest | expected & !rflags::CF | flags & rflags::CF));
        let (result, expected) = model(5, a & mask, 1, bits, false);
        prop_assert_eq!(run(0xFE, 0x09), (result, rest | expected & !rflags::CF | flags & rflags::CF));
        let (result, expected) = model(5, 0, a & mask, bits, false);
        prop_assert_eq!(run(0xF6, 0x19), (result, rest | expected));
        prop_assert_eq!(run(0xF6, 0x11), (!a & mask, flags));
    }
}

#[test]
fn control_register_writes() {
    let found = mov_to_cr(&[0x0F, 0x22, 0xDF], Mode::Bits64).unwrap();
    assert_eq!((found.cr, found.gp, found.length), (3, Gp::Rdi, 3));
    let found = mov_to_cr(&[0x45, 0x0F, 0x22, 0xC1], Mode::Bits64).unwrap();
    assert_eq!((found.cr, found.gp, found.length), (8, Gp::R9, 4));
    // The mod field does not count, and no displacement follows.
    assert_eq!(
        mov_to_cr(&[0x0F, 0x22, 0x20], Mode::Bits32).map(|found| (found.cr, found.length)),
        Some((4, 3))
    );
    assert_eq!(
        mov_to_cr(&[0xF0, 0x0F, 0x22, 0xC0], Mode::Bits32).map(|found| found.cr),
        Some(8)
    );
    for other in [
        &[0x0F, 0x20, 0xC0][..],
        &[0x0F, 0x23, 0xC0],
        &[0x0F, 0x22],
        &[0x22, 0xC0],
        &[],
    ] {
        assert_eq!(mov_to_cr(other, Mode::Bits64), None);
    }
}

#[test]
fn modes() {
    let segment = |attributes| Segment {
        attributes,
        ..Segment::default()
    };
    let long = efer::LMA | efer::LME;
    assert_eq!(
        Mode::of(&segment(Segment::LONG), cr0::PE, long),
        Mode::Bits64
    );
    assert_eq!(
        Mode::of(&segment(Segment::DEFAULT_32), cr0::PE, long),
        Mode::Bits32
    );
    assert_eq!(Mode::of(&segment(0), cr0::PE, long), Mode::Bits16);
    // L means nothing outside long mode.
    assert_eq!(Mode::of(&segment(Segment::LONG), cr0::PE, 0), Mode::Bits16);
    assert_eq!(Mode::of(&segment(0), 0, 0), Mode::Bits16);
    assert_eq!(Mode::of(&segment(Segment::DEFAULT_32), 0, 0), Mode::Bits32);
}
