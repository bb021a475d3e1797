//! What the processor offers of AMD-V, and switching it on.
#![expect(unsafe_code, reason = "switches the extension on")]

use bootinfo::Status;
use vpcore::seam::{FrameSource, Lp};
use vpcore::tags::Tags;
use x86::{efer, msr as number};

use super::entry;
use crate::arch::x86::{insn, lp, msr};

const VM_CR_SVMDIS: u64 = 1 << 4;
const NESTED_PAGING: u32 = 1 << 0;
const NEXT_RIP: u32 = 1 << 3;
const FLUSH_BY_ASID: u32 = 1 << 6;
const PAUSE_FILTER: u32 = 1 << 10;

/// What varies between processors that have AMD-V and nested paging.
#[derive(Clone, Copy, Debug)]
pub struct Capabilities {
    /// The VMCB gives the next RIP.
    pub next_rip: bool,
    /// One ASID can be flushed alone.
    pub flush_by_asid: bool,
    /// Loops of PAUSE can be intercepted.
    pub pause_filter: bool,
    /// Number of ASIDs, that of the host included.
    pub asids: u32,
}

/// Whether this LP can run guests. Changes nothing.
///
/// # Errors
/// [`Status::NO_VIRTUALIZATION`], [`Status::LOCKED`] or [`Status::MISSING_FEATURE`].
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
            pause_filter: features.edx & PAUSE_FILTER != 0,
            asids: features.ebx,
        }),
    }
}

/// AMD-V switched on for one LP. Dropping it switches it off; no VP may run after that.
#[derive(Debug)]
pub struct On(());

/// Switches AMD-V on for the calling LP, which has its area and its task register already.
///
/// # Errors
/// As for [`check`]; [`Status::NO_MEMORY`]; [`Status::ENABLE_FAILED`]. The LP is as it was then.
pub(super) fn enable(frames: &mut dyn FrameSource) -> Result<(Lp, On), Status> {
    let capabilities = check()?;
    let save = frames.frames(1).ok_or(Status::NO_MEMORY)?;
    let host = frames.frames(1).ok_or(Status::NO_MEMORY)?;
    let value = msr::read(number::EFER);
    // SAFETY: adds SVME, which by itself changes nothing.
    unsafe { msr::write(number::EFER, value | efer::SVME) };
    let on = On(());
    // SAFETY: the frame is the hypervisor's and used for nothing else.
    if unsafe { msr::try_write(number::AMD_VM_HSAVE_PA, save.get()) }.is_err() {
        return Err(Status::ENABLE_FAILED);
    }
    // SAFETY: AMD-V is on, and the frame is ours.
    unsafe { entry::save_host(host) };
    let tags = Tags::new(lp::current().index.get(), capabilities.asids - 1);
    Ok((Lp { tags, frame: host }, on))
}

impl Drop for On {
    fn drop(&mut self) {
        let value = msr::read(number::EFER);
        // SAFETY: takes back what `enable` added; no guest of this LP runs any more.
        unsafe { msr::write(number::EFER, value & !efer::SVME) };
    }
}
