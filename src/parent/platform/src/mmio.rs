//! What an intercepted instruction would have done to a device in memory.

use insn::{DecodeError, MmioBus, Mode, Progress, Width, decode_mmio, execute};
use tlfs::intercept::{ExecutionState, InterceptHeader, MemoryAccess, MemoryIntercept};
use x86::{GpRegs, cr0, efer};

use crate::Devices;

/// The registers of a VP that an access can change. The register page of an intercepted VP has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// General registers.
    pub gp: GpRegs,
    /// Instruction pointer.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
}

/// Why an access was not carried out. Nothing was read, written or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MmioError {
    /// The bytes end inside the instruction.
    #[error("the intercept has too few bytes of the instruction")]
    Incomplete,
    /// It is none that is carried out here: more than one memory operand, or no general register.
    #[error("the instruction does to a device what only memory can do")]
    Unsupported,
    /// The access was not to the operand: the child has page tables there.
    #[error("page tables in a device")]
    PageTable,
}

/// How a VP reads instructions, from what an intercept says of it.
pub fn mode(header: &InterceptHeader) -> Mode {
    let bit = |state, register_bit| {
        if header.state.contains(state) {
            register_bit
        } else {
            0
        }
    };
    let cr0 = bit(ExecutionState::PE, cr0::PE);
    let efer = bit(ExecutionState::LMA, efer::LMA);
    Mode::of(&header.cs, cr0, efer)
}

/// Carries out the instruction behind `intercept` on `registers` and `devices`: afterwards RIP is behind it, or at it
/// again when it repeats.
///
/// # Errors
/// See [`MmioError`].
pub fn carry_out(
    intercept: &MemoryIntercept,
    registers: &mut Registers,
    devices: &mut Devices,
) -> Result<(), MmioError> {
    let known = MemoryAccess::GVA_VALID;
    if intercept.info.contains(known) && !intercept.info.contains(MemoryAccess::GVA_GPA_VALID) {
        return Err(MmioError::PageTable);
    }
    let count = usize::from(intercept.instruction_count);
    let bytes = intercept.instruction.get(..count);
    let bytes = bytes.unwrap_or(&intercept.instruction);
    let mode = mode(&intercept.header);
    carry_out_bytes(bytes, mode, intercept.gpa.get(), registers, devices)
}

/// Carries out the instruction at the start of `bytes`, whose memory operand is at `gpa`. See [`carry_out`].
///
/// # Errors
/// [`MmioError::Incomplete`] and [`MmioError::Unsupported`].
pub fn carry_out_bytes(
    bytes: &[u8],
    mode: Mode,
    gpa: u64,
    registers: &mut Registers,
    devices: &mut Devices,
) -> Result<(), MmioError> {
    let insn = decode_mmio(bytes, mode).map_err(|error| match error {
        DecodeError::Incomplete => MmioError::Incomplete,
        _ => MmioError::Unsupported,
    })?;
    let mut bus = Bus { devices, gpa };
    let Registers { gp, rip, rflags } = registers;
    match execute(&insn, gp, rflags, &mut bus) {
        Ok(Progress::Done) => *rip = advance(*rip, insn.length, mode),
        Ok(Progress::Repeat) => {}
        Err(_) => return Err(MmioError::Unsupported),
    }
    Ok(())
}

/// `rip` behind an instruction of `length` bytes.
pub(crate) fn advance(rip: u64, length: u8, mode: Mode) -> u64 {
    let next = rip.wrapping_add(length.into());
    match mode {
        // A segment of 16 bits may end above 64 KiB only by prefixes that no code there uses.
        Mode::Bits16 => next & 0xFFFF,
        Mode::Bits32 => next & 0xFFFF_FFFF,
        Mode::Bits64 => next,
    }
}

struct Bus<'a> {
    devices: &'a mut Devices,
    gpa: u64,
}

impl MmioBus for Bus<'_> {
    fn read(&mut self, width: Width) -> u64 {
        let mut bytes = [0; 8];
        if let Some(bytes) = bytes.get_mut(..width.bytes().into()) {
            self.devices.mmio_read(self.gpa, bytes);
        }
        u64::from_le_bytes(bytes)
    }

    fn write(&mut self, width: Width, value: u64) {
        if let Some(bytes) = value.to_le_bytes().get(..width.bytes().into()) {
            self.devices.mmio_write(self.gpa, bytes);
        }
    }
}

#[cfg(test)]
mod tests;
