//! What the processor offers of AMD-V, and switching it on.
#![expect(unsafe_code, reason = "switches the extension on")]

use addr::Spa;
use bootinfo::Status;
use vpcore::seam::FrameSource;
use x86::{efer, msr as number};

use crate::arch::x86::{insn, msr};

const VM_CR_SVMDIS: u64 = 1 << 4;
const NESTED_PAGING: u32 = 1 << 0;
const NEXT_RIP: u32 = 1 << 3;
const FLUSH_BY_ASID: u32 = 1 << 6;

/// What varies between processors that have AMD-V and nested paging.
#[derive(Clone, Copy, Debug)]
pub struct Capabilities {
    /// The VMCB gives the next RIP.
    pub next_rip: bool,
    /// One ASID can be flushed alone.
    pub flush_by_asid: bool,
}

/// Whether this LP can run guests. Changes nothing.
pub fn check() -> Result<Capabilities, Status> {
    if insn::cpuid(0x8000_0000, 0).eax < 0x8000_000A
        || insn::cpuid(0x8000_0001, 0).ecx & 1 << 2 == 0
    {
        return Err(Status::NO_VIRTUALIZATION);
    }
    let features = insn::cpuid(0x8000_000A, 0);
    if features.edx & NESTED_PAGING == 0 || features.ebx < 2 {
        return Err(Status::MISSING_FEATURE);
    }
    match msr::try_read(number::AMD_VM_CR) {
        Ok(value) if value & VM_CR_SVMDIS != 0 => Err(Status::LOCKED),
        _ => Ok(Capabilities {
            next_rip: features.edx & NEXT_RIP != 0,
            flush_by_asid: features.edx & FLUSH_BY_ASID != 0,
        }),
    }
}

/// AMD-V switched on for one LP.
#[derive(Debug)]
pub struct Enabled {
    pub(super) capabilities: Capabilities,
    /// Where VMSAVE keeps the hypervisor's own FS, GS, TR and system call registers.
    pub(super) host: Spa,
}

/// Switches AMD-V on for this LP and names its host save area.
pub fn enable(frames: &mut dyn FrameSource) -> Result<Enabled, Status> {
    let capabilities = check()?;
    let save = frames.frames(1).ok_or(Status::NO_MEMORY)?;
    let host = frames.frames(1).ok_or(Status::NO_MEMORY)?;
    let value = msr::read(number::EFER);
    // SAFETY: adds SVME, which by itself changes nothing.
    unsafe { msr::write(number::EFER, value | efer::SVME) };
    let enabled = Enabled { capabilities, host };
    // SAFETY: the frame is the hypervisor's and used for nothing else.
    if unsafe { msr::try_write(number::AMD_VM_HSAVE_PA, save.get()) }.is_err() {
        return Err(Status::ENABLE_FAILED);
    }
    Ok(enabled)
}

impl Drop for Enabled {
    fn drop(&mut self) {
        let value = msr::read(number::EFER);
        // SAFETY: takes back what `enable` added; no guest of this LP runs any more.
        unsafe { msr::write(number::EFER, value & !efer::SVME) };
    }
}
