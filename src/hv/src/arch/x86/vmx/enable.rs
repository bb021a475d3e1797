//! Switching VMX on and off for one LP.
#![expect(unsafe_code, reason = "enters and leaves VMX operation")]

use bootinfo::Status;
use vpcore::seam::{FrameSource, Lp};
use vpcore::tags::Tags;
use x86::cr4;

use super::caps::{self, Capabilities};
use super::{insn as vmx_insn, vmcs};
use crate::arch::x86::{insn, lp};

/// VPID 0 is the hypervisor's.
const VPIDS: u32 = 0xFFFF;

/// VMX operation of the LP that made it. Dropping it leaves VMX operation; no VP may be used after that.
#[derive(Debug)]
pub struct On {
    cr0: u64,
    cr4: u64,
}

/// Switches VMX on for the calling LP, which has its area already.
///
/// # Errors
/// As for [`Capabilities::read`]; [`Status::NO_MEMORY`]; [`Status::ENABLE_FAILED`]: VMX was on already. CR0 and CR4
/// are as before; IA32_FEATURE_CONTROL may be locked with VMX allowed, which only a reset undoes.
pub(super) fn enable(frames: &mut dyn FrameSource) -> Result<(Lp, On), Status> {
    let caps = Capabilities::read()?;
    let region = frames.frames(1).ok_or(Status::NO_MEMORY)?;
    vmcs::begin(region, caps.revision);
    caps::unlock()?;
    let on = On {
        cr0: insn::read_cr0(),
        cr4: insn::read_cr4(),
    };
    // SAFETY: only adds bits that VMX requires (PE, NE, PG) and takes none that the hypervisor has set.
    unsafe { insn::write_cr0(caps.cr0.apply(on.cr0)) };
    // SAFETY: only adds VMXE.
    unsafe { insn::write_cr4(caps.cr4.apply(on.cr4 | cr4::VMXE)) };
    // SAFETY: the frame is new and begins with the revision; control registers and the MSR have just been set.
    if unsafe { vmx_insn::vmxon(region) }.is_err() {
        on.restore();
        core::mem::forget(on);
        return Err(Status::ENABLE_FAILED);
    }
    let tags = Tags::new(lp::current().index.get(), VPIDS);
    Ok((
        Lp {
            tags,
            frame: region,
        },
        on,
    ))
}

impl On {
    fn restore(&self) {
        // SAFETY: the value that was there before, VMXE as it was.
        unsafe { insn::write_cr4(self.cr4) };
        // SAFETY: the value that was there before.
        unsafe { insn::write_cr0(self.cr0) };
    }
}

impl Drop for On {
    fn drop(&mut self) {
        // SAFETY: the LP is in VMX root operation, as this value exists; its VPs are not used any more.
        let left = unsafe { vmx_insn::vmxoff() };
        // A refused VMXOFF (dual-monitor SMM) leaves VMX on, and VMXE cannot be cleared then.
        if left.is_ok() {
            self.restore();
        }
    }
}
