//! Arithmetic and its flags (Intel SDM vol. 1, "EFLAGS Cross-Reference").

use x86::rflags::{AF, CF, OF, PF, SF, ZF};

use crate::operand::Width;

/// Operations of the first opcode columns, and TEST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AluOp {
    Add,
    Or,
    Adc,
    Sbb,
    And,
    Sub,
    Xor,
    Cmp,
    Test,
}

impl AluOp {
    /// The operation that opcodes and group 1 number by the low three bits of `number`.
    pub fn numbered(number: u8) -> Self {
        match number & 7 {
            0 => Self::Add,
            1 => Self::Or,
            2 => Self::Adc,
            3 => Self::Sbb,
            4 => Self::And,
            5 => Self::Sub,
            6 => Self::Xor,
            _ => Self::Cmp,
        }
    }

    /// Whether the result goes to the first operand.
    pub fn writes(self) -> bool {
        !matches!(self, Self::Cmp | Self::Test)
    }

    /// `a op b` of `width`, with the flags in `rflags` set by it. Both operands are zero-extended. AF, which
    /// the logical operations leave undefined, becomes 0.
    pub fn apply(self, a: u64, b: u64, width: Width, rflags: &mut u64) -> u64 {
        let carry = match self {
            Self::Adc | Self::Sbb => *rflags & CF,
            _ => 0,
        };
        match self {
            Self::Add | Self::Adc => add(a, b, carry, width, rflags),
            Self::Sub | Self::Sbb | Self::Cmp => subtract(a, b, carry, width, rflags),
            Self::And | Self::Test => logic(a & b, width, rflags),
            Self::Or => logic(a | b, width, rflags),
            Self::Xor => logic(a ^ b, width, rflags),
        }
    }
}

/// Bit tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BitOp {
    Test,
    Set,
    Reset,
    Complement,
}

impl BitOp {
    /// The operation with `number` in group 8.
    pub fn numbered(number: u8) -> Option<Self> {
        Some(match number {
            4 => Self::Test,
            5 => Self::Set,
            6 => Self::Reset,
            7 => Self::Complement,
            _ => return None,
        })
    }

    /// The value with bit `index` (below 64) changed. CF gets the old bit; ZF keeps its value and the other
    /// flags, which are undefined, theirs.
    pub fn apply(self, value: u64, index: u8, rflags: &mut u64) -> u64 {
        let bit = 1u64 << (index & 63);
        put(rflags, CF, value & bit != 0);
        match self {
            Self::Test => value,
            Self::Set => value | bit,
            Self::Reset => value & !bit,
            Self::Complement => value ^ bit,
        }
    }
}

/// NEG.
pub(crate) fn negate(value: u64, width: Width, rflags: &mut u64) -> u64 {
    subtract(0, value, 0, width, rflags)
}

/// INC: an addition that leaves CF.
pub(crate) fn increment(value: u64, width: Width, rflags: &mut u64) -> u64 {
    let carry = *rflags & CF;
    let result = add(value, 1, 0, width, rflags);
    put(rflags, CF, carry != 0);
    result
}

/// DEC: a subtraction that leaves CF.
pub(crate) fn decrement(value: u64, width: Width, rflags: &mut u64) -> u64 {
    let carry = *rflags & CF;
    let result = subtract(value, 1, 0, width, rflags);
    put(rflags, CF, carry != 0);
    result
}

fn put(rflags: &mut u64, flag: u64, is_set: bool) {
    if is_set {
        *rflags |= flag;
    } else {
        *rflags &= !flag;
    }
}

fn set_result(result: u64, width: Width, rflags: &mut u64) {
    put(rflags, ZF, result == 0);
    put(rflags, SF, result & width.sign() != 0);
    // PF looks at the low byte only.
    put(rflags, PF, (result as u8).count_ones().is_multiple_of(2));
}

fn add(a: u64, b: u64, carry: u64, width: Width, rflags: &mut u64) -> u64 {
    let result = a.wrapping_add(b).wrapping_add(carry) & width.mask();
    // A carry leaves bit n where both operands have it, or where one has it and the result lost it.
    let carries = (a & b) | ((a | b) & !result);
    put(rflags, CF, carries & width.sign() != 0);
    put(rflags, AF, carries & 8 != 0);
    put(rflags, OF, (a ^ result) & (b ^ result) & width.sign() != 0);
    set_result(result, width, rflags);
    result
}

fn subtract(a: u64, b: u64, borrow: u64, width: Width, rflags: &mut u64) -> u64 {
    let result = a.wrapping_sub(b).wrapping_sub(borrow) & width.mask();
    let borrows = (!a & b) | ((!a | b) & result);
    put(rflags, CF, borrows & width.sign() != 0);
    put(rflags, AF, borrows & 8 != 0);
    put(rflags, OF, (a ^ b) & (a ^ result) & width.sign() != 0);
    set_result(result, width, rflags);
    result
}

fn logic(result: u64, width: Width, rflags: &mut u64) -> u64 {
    put(rflags, CF, false);
    put(rflags, OF, false);
    put(rflags, AF, false);
    set_result(result, width, rflags);
    result
}
