//! The VMCS of one VP: field access that exists only while the VMCS is current.
#![expect(unsafe_code, reason = "owner of the VMCS frames")]

use addr::Spa;
use bootinfo::Status;
use vpcore::seam::FrameSource;

use super::fields::Field;
use super::insn;
use crate::mm::phys;

/// A VMCS that is current on the LP that made it, and stays so: an LP runs one VP of the parent.
#[derive(Debug)]
pub(super) struct Vmcs(());

impl Vmcs {
    /// Clears a new VMCS and makes it current.
    ///
    /// # Errors
    /// [`Status::NO_MEMORY`]; [`Status::ENABLE_FAILED`] when the processor refuses it, which leaves no VMCS current.
    ///
    /// # Safety
    /// The calling LP must be in VMX root operation and stay so while the value lives; the value must be used on
    /// this LP only.
    pub(super) unsafe fn new(frames: &mut dyn FrameSource, revision: u32) -> Result<Self, Status> {
        let region = region(frames, revision)?;
        // SAFETY: the frame is new, ours, and begins with the revision; VMX operation is the caller's promise.
        unsafe { insn::vmclear(region) }.map_err(|_| Status::ENABLE_FAILED)?;
        // SAFETY: as above; active on no other LP, since no other has ever seen it.
        unsafe { insn::vmptrld(region) }.map_err(|_| Status::ENABLE_FAILED)?;
        Ok(Self(()))
    }

    /// Reads `field`. 16- and 32-bit fields have zeros above.
    #[inline(always)]
    pub(super) fn read(&self, field: Field) -> u64 {
        // SAFETY: the value's existence says that this LP is in VMX operation with this VMCS current.
        unsafe { insn::vmread(field) }
    }

    /// Reads the low half of `field`.
    #[inline(always)]
    pub(super) fn read32(&self, field: Field) -> u32 {
        self.read(field) as u32
    }

    /// Writes a guest-state or control field that `control.rs` has written once, so that it is known to exist.
    #[inline(always)]
    pub(super) fn write(&mut self, field: Field, value: u64) {
        // SAFETY: as for `read`; host-state fields go through `try_write`.
        unsafe { insn::vmwrite_known(field, value) }
    }

    /// Writes `field`.
    ///
    /// # Errors
    /// [`Status::MISSING_FEATURE`]: this processor has no such field.
    #[inline(always)]
    pub(super) fn try_write(&mut self, field: Field, value: u64) -> Result<(), Status> {
        // SAFETY: as for `read`; host-state fields are written by `host.rs` only, from the LP's own registers.
        unsafe { insn::vmwrite(field, value) }.map_err(|_| Status::MISSING_FEATURE)
    }
}

/// A zeroed frame that begins with the VMCS revision, as VMXON and VMCLEAR want it.
pub(super) fn region(frames: &mut dyn FrameSource, revision: u32) -> Result<Spa, Status> {
    let region = frames.frames(1).ok_or(Status::NO_MEMORY)?;
    // SAFETY: the frame is ours alone and aligned.
    unsafe { phys::pointer(region).cast::<u32>().write_volatile(revision) };
    Ok(region)
}
