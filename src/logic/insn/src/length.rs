//! Length of an instruction, and recognition of control register writes.

use x86::Gp;

use crate::opcode::Map;
use crate::operand::gp;
use crate::raw::{DecodeError, Mode, Raw};

/// Length in bytes, 1 to 15, of the instruction at the start of `bytes`.
///
/// It is exact for every instruction that the processor executes. Of encodings that raise #UD some are measured
/// and others refused.
///
/// # Errors
/// [`DecodeError::Incomplete`], [`DecodeError::TooLong`] or [`DecodeError::Undefined`].
pub fn length(bytes: &[u8], mode: Mode) -> Result<u8, DecodeError> {
    // What exits most and has no operand: the same in every mode.
    match bytes {
        [0xF4, ..] => Ok(1),
        // INVD, WBINVD, WRMSR to RDPMC, CPUID.
        [0x0F, 0x08 | 0x09 | 0x30..=0x33 | 0xA2, ..] => Ok(2),
        // VMCALL, MONITOR, MWAIT, XSETBV, VMMCALL.
        [0x0F, 0x01, 0xC1 | 0xC8 | 0xC9 | 0xD1 | 0xD9, ..] => Ok(3),
        _ => Raw::decode(bytes, mode).map(|raw| raw.length),
    }
}

/// A MOV between a control register and a general one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MovCr {
    /// Number of the control register, 0 to 15.
    pub cr: u8,
    /// The other end: all 64 bits in 64-bit mode, the low 32 elsewhere.
    pub gp: Gp,
    /// Length of the instruction in bytes.
    pub length: u8,
}

/// The MOV to a control register at the start of `bytes`, or `None` when it is something else.
pub fn mov_to_cr(bytes: &[u8], mode: Mode) -> Option<MovCr> {
    mov_cr(bytes, mode, 0x22)
}

/// The MOV from a control register at the start of `bytes`, or `None` when it is something else.
pub fn mov_from_cr(bytes: &[u8], mode: Mode) -> Option<MovCr> {
    mov_cr(bytes, mode, 0x20)
}

fn mov_cr(bytes: &[u8], mode: Mode, opcode: u8) -> Option<MovCr> {
    let raw = Raw::decode(bytes, mode).ok()?;
    let modrm = raw.modrm?;
    if raw.map != Map::Of || raw.opcode != opcode {
        return None;
    }
    let number = modrm.reg() | raw.prefixes.rex.r();
    let cr = match (raw.prefixes.lock, number) {
        (false, number) => number,
        // AMD's way to CR8 outside 64-bit mode (APM vol. 3, "MOV CRn").
        (true, 0) => 8,
        (true, _) => return None,
    };
    Some(MovCr {
        cr,
        gp: gp(modrm.rm() | raw.prefixes.rex.b()),
        length: raw.length,
    })
}
