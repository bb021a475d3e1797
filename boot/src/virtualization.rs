//! Whether the LP that asks can carry the hypervisor. Changes nothing, allocates nothing, prints nothing: it runs
//! on every processor.
#![allow(unsafe_code)]

use bootinfo::Status;
use x86::{cr4, msr};

use crate::cpu::{cpuid, rdmsr, wrmsr};

const CPUID_EXT: u32 = 0x8000_0001;
const CPUID_SVM: u32 = 0x8000_000A;

/// FEATURE_CONTROL: written once until reset.
const FEATURE_LOCK: u64 = 1 << 0;
/// FEATURE_CONTROL: VMXON works outside SMX.
const FEATURE_VMX: u64 = 1 << 2;

/// Which extension the LP has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// Intel VT-x.
    Vmx,
    /// AMD-V.
    Svm,
}

/// The extension of this LP, if it has one at all.
pub fn extension() -> Option<Extension> {
    if cpuid(1, 0).ecx & x86::cpuid::leaf1_ecx::VMX != 0 {
        Some(Extension::Vmx)
    } else if cpuid(CPUID_EXT, 0).ecx & 1 << 2 != 0 {
        Some(Extension::Svm)
    } else {
        None
    }
}

/// Whether leaves of 1 GiB exist.
pub fn has_giant_pages() -> bool {
    cpuid(CPUID_EXT, 0).edx & 1 << 26 != 0
}

/// Checks this LP. `levels` is the paging depth of the boot processor.
///
/// Returns [`Status::SUCCESS`] or why it cannot be launched.
pub fn check(levels: u32) -> Status {
    // Tables are shared, so all LPs page with one depth; and W^X needs the no-execute bit.
    if paging_levels() != levels || cpuid(CPUID_EXT, 0).edx & 1 << 20 == 0 {
        return Status::MISSING_FEATURE;
    }
    match extension() {
        Some(Extension::Vmx) => check_vmx(),
        Some(Extension::Svm) => check_svm(),
        None => Status::NO_VIRTUALIZATION,
    }
}

/// Depth of paging on this LP.
pub fn paging_levels() -> u32 {
    if crate::cpu::cr4() & cr4::LA57 != 0 {
        5
    } else {
        4
    }
}

/// Intel SDM vol. 3D, "VMX Capability Reporting Facility".
fn check_vmx() -> Status {
    // SAFETY: IA32_FEATURE_CONTROL exists where CPUID reports VMX.
    let control = unsafe { rdmsr(msr::IA32_FEATURE_CONTROL) };
    if control & FEATURE_LOCK != 0 && control & FEATURE_VMX == 0 {
        return Status::LOCKED;
    }
    // SAFETY: the capability registers up to 0x48A exist where CPUID reports VMX.
    let primary = unsafe { rdmsr(msr::IA32_VMX_PROCBASED_CTLS) } >> 32;
    if primary & 1 << 31 == 0 {
        return Status::MISSING_FEATURE;
    }
    const EPT: u64 = 1 << 1;
    const VPID: u64 = 1 << 5;
    const UNRESTRICTED: u64 = 1 << 7;
    // SAFETY: secondary controls are allowed, so their capability register exists.
    let secondary = unsafe { rdmsr(msr::IA32_VMX_PROCBASED_CTLS2) } >> 32;
    if secondary & (EPT | VPID | UNRESTRICTED) != EPT | VPID | UNRESTRICTED {
        return Status::MISSING_FEATURE;
    }
    const WALK_4: u64 = 1 << 6;
    const WRITE_BACK: u64 = 1 << 14;
    const LEAVES_2M: u64 = 1 << 16;
    const INVEPT: u64 = 1 << 20;
    const INVVPID: u64 = 1 << 32;
    const NEEDED: u64 = WALK_4 | WRITE_BACK | LEAVES_2M | INVEPT | INVVPID;
    // SAFETY: EPT or VPID is allowed, so this register exists.
    let caps = unsafe { rdmsr(msr::IA32_VMX_EPT_VPID_CAP) };
    if caps & NEEDED != NEEDED {
        Status::MISSING_FEATURE
    } else {
        Status::SUCCESS
    }
}

/// AMD APM vol. 2, "Enabling SVM".
fn check_svm() -> Status {
    const SVM_DISABLE: u64 = 1 << 4;
    // SAFETY: VM_CR exists where CPUID reports SVM.
    if unsafe { rdmsr(msr::AMD_VM_CR) } & SVM_DISABLE != 0 {
        return Status::LOCKED;
    }
    let svm = cpuid(CPUID_SVM, 0);
    let (nested_paging, asids) = (svm.edx & 1, svm.ebx);
    if nested_paging == 0 || asids < 2 {
        Status::MISSING_FEATURE
    } else {
        Status::SUCCESS
    }
}

/// Allows VMXON on this LP where the firmware left that open. To be called after [`check`] passed on every LP.
///
/// The register keeps the value until the next reset. It changes nothing but that VMXON works.
pub fn open_feature_control() {
    if extension() != Some(Extension::Vmx) {
        return;
    }
    // SAFETY: IA32_FEATURE_CONTROL exists where CPUID reports VMX.
    let control = unsafe { rdmsr(msr::IA32_FEATURE_CONTROL) };
    if control & FEATURE_LOCK == 0 {
        // SAFETY: unlocked, and both bits are defined on every processor with VMX.
        unsafe {
            wrmsr(
                msr::IA32_FEATURE_CONTROL,
                control | FEATURE_LOCK | FEATURE_VMX,
            )
        };
    }
}
