//! Carrying out an instruction against a device.

use x86::GpRegs;

use crate::alu::{self, AluOp, BitOp};
use crate::mmio::{Action, MmioInsn};
use crate::operand::{Register, Width};
use crate::string::StringKind;

/// The device at the address of the memory operand.
pub trait MmioBus {
    /// Reads `width`; bits above it are ignored.
    fn read(&mut self, width: Width) -> u64;
    /// Writes `value`, of which bits above `width` are zero.
    fn write(&mut self, width: Width, value: u64);
}

/// How far an instruction got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// It is done: advance RIP.
    Done,
    /// One element of a repeated string instruction is done and more are left: RIP stays. The next element is
    /// at another address.
    Repeat,
}

/// The instruction has a second memory operand (MOVS). Nothing was read, written or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsupported;

/// Carries out `insn` on the registers and on `bus`, at most one read and one write. LOCK is only as strong as
/// the caller makes the pair of them.
///
/// # Errors
/// [`Unsupported`] for MOVS, which the caller handles by [`MmioInsn::string`].
pub fn execute(
    insn: &MmioInsn,
    regs: &mut GpRegs,
    rflags: &mut u64,
    bus: &mut impl MmioBus,
) -> Result<Progress, Unsupported> {
    let width = insn.width;
    let read = |bus: &mut _| MmioBus::read(bus, width) & width.mask();
    match insn.action {
        Action::Load {
            to,
            to_width,
            is_signed,
        } => {
            let value = read(bus);
            let value = if is_signed {
                width.sign_extend(value)
            } else {
                value
            };
            to.write(regs, to_width, value);
        }
        Action::Store { from } => bus.write(width, from.read(regs, width)),
        Action::Onto { op, source } => {
            let result = op.apply(read(bus), source.read(regs, width), width, rflags);
            if op.writes() {
                bus.write(width, result);
            }
        }
        Action::Into { op, to } => {
            let result = op.apply(to.read(regs, width), read(bus), width, rflags);
            if op.writes() {
                to.write(regs, width, result);
            }
        }
        Action::Not => {
            let value = !read(bus) & width.mask();
            bus.write(width, value);
        }
        Action::Neg => {
            let value = alu::negate(read(bus), width, rflags);
            bus.write(width, value);
        }
        Action::Inc => {
            let value = alu::increment(read(bus), width, rflags);
            bus.write(width, value);
        }
        Action::Dec => {
            let value = alu::decrement(read(bus), width, rflags);
            bus.write(width, value);
        }
        Action::Bit { op, index } => {
            let value = op.apply(read(bus), index, rflags);
            if op != BitOp::Test {
                bus.write(width, value);
            }
        }
        Action::Exchange { with } => {
            let old = read(bus);
            bus.write(width, with.read(regs, width));
            with.write(regs, width, old);
        }
        Action::CompareExchange { with } => {
            let old = read(bus);
            let expected = Register::RAX.read(regs, width);
            AluOp::Cmp.apply(expected, old, width, rflags);
            if old == expected {
                bus.write(width, with.read(regs, width));
            } else {
                // The processor writes in both cases (SDM vol. 2A, "CMPXCHG").
                bus.write(width, old);
                Register::RAX.write(regs, width, old);
            }
        }
        Action::ExchangeAdd { with } => {
            let old = read(bus);
            let sum = AluOp::Add.apply(old, with.read(regs, width), width, rflags);
            bus.write(width, sum);
            with.write(regs, width, old);
        }
        Action::String(op) => {
            if op.count(regs) == 0 {
                return Ok(Progress::Done);
            }
            match op.kind {
                StringKind::Movs => return Err(Unsupported),
                StringKind::Stos => bus.write(width, Register::RAX.read(regs, width)),
                StringKind::Lods => {
                    let value = read(bus);
                    Register::RAX.write(regs, width, value);
                }
            }
            if op.advance(regs, *rflags) {
                return Ok(Progress::Repeat);
            }
        }
    }
    Ok(Progress::Done)
}
