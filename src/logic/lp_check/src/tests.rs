extern crate std;

use std::collections::BTreeMap;

use super::*;

/// An LP that knows only what it was given: reading an MSR that it does not have is a test's failure, as it
/// would be a #GP.
#[derive(Clone, Default)]
struct Scripted {
    leaves: BTreeMap<u32, CpuidResult>,
    msrs: BTreeMap<u32, u64>,
    cr4: u64,
}

impl Processor for Scripted {
    fn cpuid(&self, leaf: u32, _: u32) -> CpuidResult {
        self.leaves.get(&leaf).copied().unwrap_or_default()
    }

    fn msr(&self, msr: u32) -> u64 {
        *self
            .msrs
            .get(&msr)
            .unwrap_or_else(|| panic!("MSR {msr:#x} does not exist"))
    }

    fn cr4(&self) -> u64 {
        self.cr4
    }
}

const NX: u32 = 1 << 20;

fn intel() -> Scripted {
    let mut lp = Scripted::default();
    lp.leaves.insert(
        1,
        CpuidResult {
            ecx: leaf1_ecx::VMX,
            ..Default::default()
        },
    );
    lp.leaves.insert(
        CPUID_EXTENDED,
        CpuidResult {
            edx: NX,
            ..Default::default()
        },
    );
    lp.msrs.insert(msr::IA32_FEATURE_CONTROL, 5);
    lp.msrs.insert(msr::IA32_VMX_PROCBASED_CTLS, 1 << 63);
    lp.msrs.insert(
        msr::IA32_VMX_PROCBASED_CTLS2,
        (1 << 1 | 1 << 5 | 1 << 7) << 32,
    );
    lp.msrs.insert(
        msr::IA32_VMX_EPT_VPID_CAP,
        1 << 6 | 1 << 14 | 1 << 16 | 1 << 20 | 1 << 32,
    );
    lp
}

fn amd() -> Scripted {
    let mut lp = Scripted::default();
    lp.leaves.insert(
        CPUID_EXTENDED,
        CpuidResult {
            ecx: 1 << 2,
            edx: NX,
            ..Default::default()
        },
    );
    lp.leaves.insert(
        CPUID_SVM,
        CpuidResult {
            ebx: 16,
            edx: 1,
            ..Default::default()
        },
    );
    lp.msrs.insert(msr::AMD_VM_CR, 0);
    lp
}

fn with(mut lp: Scripted, change: impl FnOnce(&mut Scripted)) -> Status {
    change(&mut lp);
    check(&lp, 4)
}

#[test]
fn both_vendors_pass() {
    assert_eq!(check(&intel(), 4), Status::SUCCESS);
    assert_eq!(check(&amd(), 4), Status::SUCCESS);
    assert_eq!(
        (extension(&intel()), extension(&amd())),
        (Some(Extension::Vmx), Some(Extension::Svm))
    );
}

#[test]
fn without_an_extension_no_register_is_touched() {
    assert_eq!(check(&Scripted::default(), 4), Status::NO_VIRTUALIZATION);
    assert_eq!(feature_control_to_set(&Scripted::default()), None);
}

#[test]
fn a_lock_without_vmx_is_a_refusal_and_no_lock_is_none() {
    let status = |control| {
        with(intel(), |lp| {
            *lp.msrs.get_mut(&msr::IA32_FEATURE_CONTROL).unwrap() = control
        })
    };
    assert_eq!(status(1), Status::LOCKED);
    // Allowed inside SMX only.
    assert_eq!(status(1 | 1 << 1), Status::LOCKED);
    assert_eq!(status(0), Status::SUCCESS);
    assert_eq!(status(4), Status::SUCCESS);
    assert_eq!(
        with(amd(), |lp| *lp.msrs.get_mut(&msr::AMD_VM_CR).unwrap() =
            1 << 4),
        Status::LOCKED
    );
}

#[test]
fn feature_control_is_set_only_where_it_is_open() {
    let to_set = |control| {
        let mut lp = intel();
        lp.msrs.insert(msr::IA32_FEATURE_CONTROL, control);
        feature_control_to_set(&lp)
    };
    assert_eq!(to_set(5), None);
    assert_eq!(to_set(0), Some(5));
    // Other bits, such as machine check by LMCE, stay.
    assert_eq!(to_set(1 << 20), Some(5 | 1 << 20));
    assert_eq!(feature_control_to_set(&amd()), None);
}

#[test]
fn each_missing_feature_is_a_refusal() {
    for bit in [33, 37, 39] {
        let status = with(intel(), |lp| {
            *lp.msrs.get_mut(&msr::IA32_VMX_PROCBASED_CTLS2).unwrap() &= !(1 << bit)
        });
        assert_eq!(status, Status::MISSING_FEATURE);
    }
    for bit in [6, 14, 16, 20, 32] {
        let status = with(intel(), |lp| {
            *lp.msrs.get_mut(&msr::IA32_VMX_EPT_VPID_CAP).unwrap() &= !(1 << bit)
        });
        assert_eq!(status, Status::MISSING_FEATURE);
    }
    assert_eq!(
        with(amd(), |lp| lp.leaves.get_mut(&CPUID_SVM).unwrap().edx = 0),
        Status::MISSING_FEATURE
    );
    assert_eq!(
        with(amd(), |lp| lp.leaves.get_mut(&CPUID_SVM).unwrap().ebx = 1),
        Status::MISSING_FEATURE
    );
    assert_eq!(
        with(amd(), |lp| lp
            .leaves
            .get_mut(&CPUID_EXTENDED)
            .unwrap()
            .edx = 0),
        Status::MISSING_FEATURE
    );
}

#[test]
fn without_secondary_controls_their_registers_are_not_read() {
    let status = with(intel(), |lp| {
        lp.msrs.insert(msr::IA32_VMX_PROCBASED_CTLS, 0);
        lp.msrs.remove(&msr::IA32_VMX_PROCBASED_CTLS2);
        lp.msrs.remove(&msr::IA32_VMX_EPT_VPID_CAP);
    });
    assert_eq!(status, Status::MISSING_FEATURE);
}

#[test]
fn an_lp_of_another_paging_depth_is_refused() {
    let mut deep = amd();
    deep.cr4 = cr4::LA57;
    assert_eq!(check(&deep, 4), Status::MISSING_FEATURE);
    assert_eq!(check(&deep, 5), Status::SUCCESS);
}
