//! Switching VMX on and off for one LP.
#![expect(unsafe_code, reason = "enters and leaves VMX operation")]

use bootinfo::Status;
use vpcore::seam::FrameSource;
use x86::cr4;

use super::caps::{self, Capabilities};
use super::{insn as vmx_insn, vmcs};
use crate::arch::x86::insn;

/// VMX operation of the LP that made it. Dropping it leaves VMX operation; no VP may be used after that.
#[derive(Debug)]
pub struct Enabled {
    cr0: u64,
    cr4: u64,
}

/// Whether [`enable`] would find what it needs on the calling LP. Changes nothing.
///
/// # Errors
/// [`Status::NO_VIRTUALIZATION`], [`Status::LOCKED`] or [`Status::MISSING_FEATURE`].
pub fn check() -> Result<(), Status> {
    Capabilities::read().map(|_| ())
}

/// What the calling LP can do.
///
/// # Errors
/// As for [`check`].
pub fn capabilities() -> Result<Capabilities, Status> {
    Capabilities::read()
}

/// Switches VMX on for the calling LP.
///
/// # Errors
/// As for [`check`]; [`Status::NO_MEMORY`]; [`Status::ENABLE_FAILED`]: VMX was on already. CR0 and CR4 are as
/// before; IA32_FEATURE_CONTROL may be locked with VMX allowed, which only a reset undoes.
pub fn enable(frames: &mut dyn FrameSource) -> Result<Enabled, Status> {
    let caps = Capabilities::read()?;
    let region = vmcs::region(frames, caps.revision)?;
    caps::unlock()?;
    let before = Enabled {
        cr0: insn::read_cr0(),
        cr4: insn::read_cr4(),
    };
    // SAFETY: only adds bits that VMX requires (PE, NE, PG) and takes none that the hypervisor has set.
    unsafe { insn::write_cr0(caps.cr0.apply(before.cr0)) };
    // SAFETY: only adds VMXE.
    unsafe { insn::write_cr4(caps.cr4.apply(before.cr4 | cr4::VMXE)) };
    // SAFETY: the frame is new and begins with the revision; control registers and the MSR have just been set.
    if unsafe { vmx_insn::vmxon(region) }.is_err() {
        before.restore();
        core::mem::forget(before);
        return Err(Status::ENABLE_FAILED);
    }
    Ok(before)
}

impl Enabled {
    fn restore(&self) {
        // SAFETY: the value that was there before, VMXE as it was.
        unsafe { insn::write_cr4(self.cr4) };
        // SAFETY: the value that was there before.
        unsafe { insn::write_cr0(self.cr0) };
    }
}

impl Drop for Enabled {
    fn drop(&mut self) {
        // SAFETY: the LP is in VMX root operation, as this value exists; its VPs are not used any more.
        let left = unsafe { vmx_insn::vmxoff() };
        // A refused VMXOFF (dual-monitor SMM) leaves VMX on, and VMXE cannot be cleared then.
        if left.is_ok() {
            self.restore();
        }
    }
}
