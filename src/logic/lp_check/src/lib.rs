//! Whether a logical processor can carry the hypervisor, by what it says of itself.
//!
//! The checks read and never write, so that they can be made on every LP before anything is changed. A register
//! is read only after CPUID or another register has vouched for it.
#![no_std]
#![forbid(unsafe_code)]

use bootinfo::Status;
use x86::cpuid::{CpuidResult, leaf1_ecx};
use x86::{cr4, msr};

/// The LP that is asked.
pub trait Processor {
    /// CPUID of `leaf`, `subleaf`; zeroes for a leaf above the highest.
    fn cpuid(&self, leaf: u32, subleaf: u32) -> CpuidResult;
    /// The model-specific register `msr`, which is asked for only where it exists.
    fn msr(&self, msr: u32) -> u64;
    /// CR4.
    fn cr4(&self) -> u64;
}

/// A virtualization extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// Intel VT-x.
    Vmx,
    /// AMD-V.
    Svm,
}

/// Bits of `IA32_FEATURE_CONTROL`.
mod feature_control {
    /// No more writes until reset.
    pub const LOCK: u64 = 1 << 0;
    /// VMXON works outside SMX.
    pub const VMX: u64 = 1 << 2;
}

const CPUID_EXTENDED: u32 = 0x8000_0001;
const CPUID_SVM: u32 = 0x8000_000A;

/// The extension that the LP has, if it has one.
pub fn extension(lp: &impl Processor) -> Option<Extension> {
    if lp.cpuid(1, 0).ecx & leaf1_ecx::VMX != 0 {
        Some(Extension::Vmx)
    } else if lp.cpuid(CPUID_EXTENDED, 0).ecx & 1 << 2 != 0 {
        Some(Extension::Svm)
    } else {
        None
    }
}

/// Depth of paging that the LP is in, 4 or 5.
pub fn paging_levels(lp: &impl Processor) -> u32 {
    if lp.cr4() & cr4::LA57 != 0 { 5 } else { 4 }
}

/// Whether page tables may have leaves of 1 GiB.
pub fn has_giant_pages(lp: &impl Processor) -> bool {
    lp.cpuid(CPUID_EXTENDED, 0).edx & 1 << 26 != 0
}

/// Checks the LP. `levels` is the paging depth of the boot processor, whose tables all share.
///
/// Returns [`Status::SUCCESS`], or why the LP cannot be launched.
pub fn check(lp: &impl Processor, levels: u32) -> Status {
    const NO_EXECUTE: u32 = 1 << 20;
    match extension(lp) {
        None => Status::NO_VIRTUALIZATION,
        Some(_) if paging_levels(lp) != levels => Status::MISSING_FEATURE,
        Some(_) if lp.cpuid(CPUID_EXTENDED, 0).edx & NO_EXECUTE == 0 => Status::MISSING_FEATURE,
        Some(Extension::Vmx) => check_vmx(lp),
        Some(Extension::Svm) => check_svm(lp),
    }
}

/// Intel SDM vol. 3C, "Enabling and Entering VMX Operation"; vol. 3D, "VMX Capability Reporting Facility".
fn check_vmx(lp: &impl Processor) -> Status {
    let control = lp.msr(msr::IA32_FEATURE_CONTROL);
    if control & feature_control::LOCK != 0 && control & feature_control::VMX == 0 {
        return Status::LOCKED;
    }
    /// Activate secondary controls.
    const SECONDARY: u64 = 1 << 31;
    if allowed(lp, msr::IA32_VMX_PROCBASED_CTLS) & SECONDARY == 0 {
        return Status::MISSING_FEATURE;
    }
    const EPT: u64 = 1 << 1;
    const VPID: u64 = 1 << 5;
    const UNRESTRICTED_GUEST: u64 = 1 << 7;
    const CONTROLS: u64 = EPT | VPID | UNRESTRICTED_GUEST;
    if allowed(lp, msr::IA32_VMX_PROCBASED_CTLS2) & CONTROLS != CONTROLS {
        return Status::MISSING_FEATURE;
    }
    const WALK_OF_4: u64 = 1 << 6;
    const WRITE_BACK: u64 = 1 << 14;
    const LEAVES_2M: u64 = 1 << 16;
    const INVEPT: u64 = 1 << 20;
    const INVVPID: u64 = 1 << 32;
    const CAPABILITIES: u64 = WALK_OF_4 | WRITE_BACK | LEAVES_2M | INVEPT | INVVPID;
    if lp.msr(msr::IA32_VMX_EPT_VPID_CAP) & CAPABILITIES != CAPABILITIES {
        return Status::MISSING_FEATURE;
    }
    Status::SUCCESS
}

/// The controls that may be 1: the upper half of a capability register.
fn allowed(lp: &impl Processor, capability: u32) -> u64 {
    lp.msr(capability) >> 32
}

/// AMD APM vol. 2, "Enabling SVM".
fn check_svm(lp: &impl Processor) -> Status {
    /// SVMDIS of VM_CR.
    const DISABLED: u64 = 1 << 4;
    if lp.msr(msr::AMD_VM_CR) & DISABLED != 0 {
        return Status::LOCKED;
    }
    let svm = lp.cpuid(CPUID_SVM, 0);
    let (nested_paging, asids) = (svm.edx & 1 != 0, svm.ebx);
    // ASID 0 is the host's.
    if nested_paging && asids >= 2 {
        Status::SUCCESS
    } else {
        Status::MISSING_FEATURE
    }
}

/// The value that `IA32_FEATURE_CONTROL` needs so that VMXON works; `None` when nothing is to be done. For an LP
/// that passed [`check`].
pub fn feature_control_to_set(lp: &impl Processor) -> Option<u64> {
    if extension(lp) != Some(Extension::Vmx) {
        return None;
    }
    let control = lp.msr(msr::IA32_FEATURE_CONTROL);
    (control & feature_control::LOCK == 0)
        .then_some(control | feature_control::LOCK | feature_control::VMX)
}

#[cfg(test)]
mod tests;
