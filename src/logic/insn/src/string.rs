//! String instructions: one element at a time.

use x86::{Gp, GpRegs, rflags};

use crate::operand::{Register, Width};

/// What a string instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StringKind {
    /// MOVS: from the source to the destination, both in memory.
    Movs,
    /// STOS: from the accumulator to the destination.
    Stos,
    /// LODS: from the source to the accumulator.
    Lods,
}

/// Name of a segment register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in the manuals")]
pub enum SegmentName {
    Es,
    Cs,
    Ss,
    Ds,
    Fs,
    Gs,
}

/// A string instruction. STOS and LODS are carried out by [`execute`](crate::execute). For MOVS one end only
/// is the device: the caller finds out which, reaches the other end through the guest's own translation, moves
/// one element and calls [`StringOp::advance`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StringOp {
    /// What it does.
    pub kind: StringKind,
    /// Width of an element.
    pub width: Width,
    /// Whether it repeats until the count is 0.
    pub repeats: bool,
    /// Segment of the source. That of the destination is always ES.
    pub source_segment: SegmentName,
    /// Width of the addresses and of the count: 2, 4 or 8 bytes.
    pub(crate) address: Width,
}

impl StringOp {
    /// Offset of the source in its segment.
    pub fn source_offset(&self, regs: &GpRegs) -> u64 {
        regs.get(Gp::Rsi) & self.address.mask()
    }

    /// Offset of the destination in ES.
    pub fn destination_offset(&self, regs: &GpRegs) -> u64 {
        regs.get(Gp::Rdi) & self.address.mask()
    }

    /// Elements left to move; 1 without a repeat prefix.
    pub fn count(&self, regs: &GpRegs) -> u64 {
        if self.repeats {
            regs.get(Gp::Rcx) & self.address.mask()
        } else {
            1
        }
    }

    /// Steps indexes and count over one element that was moved. Returns whether elements are left; if so the
    /// instruction is to run again at the same address. Nothing happens when none was left before.
    pub fn advance(&self, regs: &mut GpRegs, rflags: u64) -> bool {
        if self.count(regs) == 0 {
            return false;
        }
        let width = u64::from(self.width.bytes());
        let step = if rflags & rflags::DF != 0 {
            width.wrapping_neg()
        } else {
            width
        };
        let mut add = |gp, amount: u64| {
            let register = Register {
                gp,
                is_high_byte: false,
            };
            let value = register.read(regs, self.address).wrapping_add(amount);
            register.write(regs, self.address, value);
        };
        if self.kind != StringKind::Stos {
            add(Gp::Rsi, step);
        }
        if self.kind != StringKind::Lods {
            add(Gp::Rdi, step);
        }
        if self.repeats {
            add(Gp::Rcx, u64::MAX);
        }
        self.repeats && self.count(regs) != 0
    }
}
