//! The VMCS of one VP: its frame, on which LP it is active, and access to its fields.
#![expect(unsafe_code, reason = "owner of the VMCS frames")]

use addr::Spa;
use bootinfo::Status;

use super::fields::Field;
use super::insn;
use crate::mm::phys;

/// A VMCS in a frame that nothing else uses.
///
/// Field access goes to whatever VMCS is current on the calling LP: [`super::VmxVp`] sees to it that this is the one. It
/// is active on an LP only while its VP is loaded or attached there.
#[derive(Debug)]
pub(super) struct Vmcs {
    region: Spa,
}

impl Vmcs {
    /// A VMCS in `region`, a zeroed frame of the caller's, active on no LP. The LP is in VMX operation.
    ///
    /// # Errors
    /// [`Status::ENABLE_FAILED`]: the processor refuses the frame.
    pub(super) fn new(region: Spa, revision: u32) -> Result<Self, Status> {
        begin(region, revision);
        let vmcs = Self { region };
        vmcs.clear().map_err(|_| Status::ENABLE_FAILED)?;
        Ok(vmcs)
    }

    /// Its frame.
    pub(super) fn region(&self) -> Spa {
        self.region
    }

    /// Makes this the current VMCS of the calling LP.
    pub(super) fn make_current(&self) {
        make_current(self.region);
    }

    /// Writes the VMCS to memory; it is active nowhere then, and must be launched anew.
    pub(super) fn clear(&self) -> Result<(), insn::VmxFailed> {
        // SAFETY: the LP is in VMX operation as long as there are VPs; the frame was made for a VMCS.
        unsafe { insn::vmclear(self.region) }
    }

    /// Reads `field`. 16- and 32-bit fields have zeros above.
    #[inline(always)]
    pub(super) fn read(&self, field: Field) -> u64 {
        // SAFETY: the LP is in VMX operation, and the VMCS of the VP is current while its registers are used.
        unsafe { insn::vmread(field) }
    }

    /// Reads the low half of `field`.
    #[inline(always)]
    pub(super) fn read32(&self, field: Field) -> u32 {
        self.read(field) as u32
    }

    /// Writes a field that is known to exist: every processor with the controls in use has it, or `control.rs` has
    /// written it once.
    #[inline(always)]
    pub(super) fn write(&mut self, field: Field, value: u64) {
        // SAFETY: as for `read`; host-state fields are written by `host.rs` only, from the LP's own registers.
        unsafe { insn::vmwrite_known(field, value) }
    }

    /// Writes `field`, not of the host state.
    ///
    /// # Errors
    /// [`Status::MISSING_FEATURE`]: this processor has no such field.
    #[inline(always)]
    pub(super) fn try_write(&mut self, field: Field, value: u64) -> Result<(), Status> {
        // SAFETY: as for `read`.
        unsafe { insn::vmwrite(field, value) }.map_err(|_| Status::MISSING_FEATURE)
    }
}

/// The VMCS that is current on the calling LP.
pub(super) fn current() -> Option<Spa> {
    // SAFETY: the LP is in VMX operation as long as there are VPs.
    let region = unsafe { insn::vmptrst() };
    (region.get() != u64::MAX).then_some(region)
}

/// Makes the VMCS at `region`, which is active on no other LP, the current one of the calling LP.
pub(super) fn make_current(region: Spa) {
    // SAFETY: the LP is in VMX operation as long as there are VPs; `Vmcs::new` wrote the revision. A VP is loaded on one
    // LP at most, and clears its VMCS when it leaves.
    let loaded = unsafe { insn::vmptrld(region) };
    debug_assert!(loaded.is_ok(), "VMPTRLD failed");
}

/// Puts the VMCS revision at the beginning of `region`, as VMXON and VMCLEAR want it. The frame is the caller's.
pub(super) fn begin(region: Spa, revision: u32) {
    // SAFETY: the frame is aligned, and nothing else uses it.
    unsafe { phys::pointer(region).cast::<u32>().write_volatile(revision) };
}
