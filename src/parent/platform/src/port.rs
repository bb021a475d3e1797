//! What an intercepted IN or OUT would have done to a device.

use insn::length;
use tlfs::intercept::{AccessType, IoPortIntercept, PortAccess};

use crate::mmio::{advance, mode};
use crate::{Devices, Outcome};

/// What the VP goes on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// RIP behind the instruction.
    pub rip: u64,
    /// RAX, changed by IN alone.
    pub rax: u64,
    /// What the access asks for.
    pub outcome: Outcome,
}

/// Why an access was not carried out. Nothing was read, written or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// INS or OUTS, which no kernel uses with the devices that a child has.
    #[error("a string instruction to a port")]
    String,
    /// The intercept is none of an IN or OUT, or leaves open where the instruction ends.
    #[error(
        "an intercept of a port without a width of 1, 2 or 4, or without the instruction's length"
    )]
    Malformed,
}

/// Carries out the instruction behind `intercept` on `devices`.
///
/// # Errors
/// See [`PortError`].
pub fn carry_out(
    intercept: &IoPortIntercept,
    devices: &mut Devices,
) -> Result<Completion, PortError> {
    let IoPortIntercept { header, info, .. } = intercept;
    if info.contains(PortAccess::STRING) {
        return Err(PortError::String);
    }
    let width = info.bits() & PortAccess::BYTES.bits();
    if !matches!(width, 1 | 2 | 4) {
        return Err(PortError::Malformed);
    }
    let mode = mode(header);
    let length = match header.length_and_cr8 & 0xF {
        0 => {
            let count = usize::from(intercept.instruction_count);
            let bytes = intercept.instruction.get(..count).unwrap_or_default();
            length(bytes, mode).map_err(|_| PortError::Malformed)?
        }
        length => length,
    };
    let (rax, outcome) = if header.access == AccessType::Write {
        let value = intercept.rax as u32;
        let outcome = devices.io_write(intercept.port, width, value);
        (intercept.rax, outcome)
    } else {
        let value = u64::from(devices.io_read(intercept.port, width));
        let kept = match width {
            1 => intercept.rax & !0xFF,
            2 => intercept.rax & !0xFFFF,
            // A write of 32 bits clears the others.
            _ => 0,
        };
        (kept | value, Outcome::Nothing)
    };
    Ok(Completion {
        rip: advance(header.rip, length, mode),
        rax,
        outcome,
    })
}

#[cfg(test)]
mod tests;
