//! What the parent sees of the processor's own CPUID leaves.
//!
//! Leaves are executed on the VP's own LP and then edited: what the hypervisor keeps for itself disappears, what
//! depends on the CR4 of whoever executes CPUID is taken from the guest's. The hypervisor's own leaves
//! (0x4000_0000 to 0x4000_FFFF) come from the `hypercall` crate.

use x86::cpuid::{CpuidResult, leaf1_ecx, leaf1_edx};
use x86::cr4;

/// State of the VP that CPUID depends on, and what its LP cannot offer.
#[derive(Clone, Copy, Debug, Default)]
pub struct View {
    /// CR4 as the guest sees it.
    pub cr4: u64,
    /// `IA32_APIC_BASE` has the APIC switched on.
    pub apic_enabled: bool,
    /// Features that the processor has and this implementor does not pass on.
    pub missing: Missing,
}

/// Features that need a control which the LP's virtualization extension lacks or the hypervisor leaves off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// RDTSCP, and with it TSC_AUX.
    pub rdtscp: bool,
    /// INVPCID.
    pub invpcid: bool,
    /// XSAVES and XRSTORS.
    pub xsaves: bool,
    /// TPAUSE, UMONITOR, UMWAIT.
    pub waitpkg: bool,
    /// ENCLS, ENCLV, PCONFIG, SEAM and key locker instructions.
    pub enclaves: bool,
}

/// Whether `leaf` belongs to the hypervisor interface and never reaches the hardware.
pub const fn is_hypervisor_leaf(leaf: u32) -> bool {
    leaf >> 16 == 0x4000
}

/// Edits `raw`, what the LP answered to `leaf` and `subleaf`.
///
/// Without what the hypervisor keeps: VMX and SVM, MONITOR/MWAIT, debug store, performance counters, processor
/// trace, instruction-based sampling, AMD's extended APIC space, memory encryption, FRED.
pub fn parent(leaf: u32, subleaf: u32, raw: CpuidResult, view: &View) -> CpuidResult {
    let mut r = raw;
    match leaf {
        1 => {
            use leaf1_ecx as c;
            r.ecx &= !(c::VMX
                | c::MONITOR
                | c::PDCM
                | c::DTES64
                | c::DS_CPL
                | c::SMX
                | c::SDBG
                | c::OSXSAVE);
            r.ecx |= c::HYPERVISOR;
            if view.cr4 & cr4::OSXSAVE != 0 {
                r.ecx |= c::OSXSAVE;
            }
            r.edx &= !(leaf1_edx::DS | leaf1_edx::APIC);
            if view.apic_enabled {
                r.edx |= leaf1_edx::APIC;
            }
        }
        // MONITOR/MWAIT parameters.
        5 => r = CpuidResult::default(),
        7 => leaf_7(subleaf, &mut r, view),
        // Performance monitoring, processor trace, enclaves, key locker, last branch records: hidden.
        0x0A | 0x12 | 0x14 | 0x19 | 0x1B | 0x1C | 0x23 => r = CpuidResult::default(),
        0x0D if subleaf == 1 => {
            const XSAVES: u32 = 1 << 3;
            const PROCESSOR_TRACE_STATE: u32 = 1 << 8;
            if view.missing.xsaves {
                r.eax &= !XSAVES;
            }
            r.ecx &= !PROCESSOR_TRACE_STATE;
        }
        0x8000_0001 => {
            const SVM: u32 = 1 << 2;
            const EXTENDED_APIC_SPACE: u32 = 1 << 3;
            const IBS: u32 = 1 << 10;
            const SKINIT: u32 = 1 << 12;
            const LWP: u32 = 1 << 15;
            // Bochs offers it and refuses a VMCB whose EFER has it.
            const TRANSLATION_CACHE_EXTENSION: u32 = 1 << 17;
            const PERFORMANCE: u32 = 1 << 23 | 1 << 24 | 1 << 28;
            const MONITORX: u32 = 1 << 29;
            const RDTSCP: u32 = 1 << 27;
            r.ecx &= !(SVM
                | EXTENDED_APIC_SPACE
                | IBS
                | SKINIT
                | LWP
                | TRANSLATION_CACHE_EXTENSION
                | PERFORMANCE
                | MONITORX);
            r.edx &= !leaf1_edx::APIC;
            // AMD repeats the bit of leaf 1; Intel's leaf has a zero there.
            if view.apic_enabled && raw.edx & leaf1_edx::APIC != 0 {
                r.edx |= leaf1_edx::APIC;
            }
            if view.missing.rdtscp {
                r.edx &= !RDTSCP;
            }
        }
        0x8000_0008 => {
            // INVLPGB and TLBSYNC are #UD in a guest unless the VMCB says otherwise, and reach other LPs' guests.
            const INVLPGB: u32 = 1 << 3;
            const INVLPGB_NESTED: u32 = 1 << 21;
            r.ebx &= !(INVLPGB | INVLPGB_NESTED);
        }
        // SVM, instruction-based sampling, lightweight profiling, memory encryption, performance monitoring 2.
        0x8000_000A | 0x8000_001B | 0x8000_001C | 0x8000_001F | 0x8000_0022 => {
            r = CpuidResult::default()
        }
        _ => {}
    }
    r
}

fn leaf_7(subleaf: u32, r: &mut CpuidResult, view: &View) {
    match subleaf {
        0 => {
            const INVPCID: u32 = 1 << 10;
            const SGX: u32 = 1 << 2;
            const PROCESSOR_TRACE: u32 = 1 << 25;
            const OSPKE: u32 = 1 << 4;
            const WAITPKG: u32 = 1 << 5;
            const RDPID: u32 = 1 << 22;
            const USER_INTERRUPTS: u32 = 1 << 5;
            const KEY_LOCKER: u32 = 1 << 23;
            const BUS_LOCK_DETECT: u32 = 1 << 24;
            const ENQCMD: u32 = 1 << 29;
            const SGX_LAUNCH: u32 = 1 << 30;
            const PCONFIG: u32 = 1 << 18;
            const ARCH_LBR: u32 = 1 << 19;
            r.ebx &= !PROCESSOR_TRACE;
            // ENQCMD translates PASIDs through tables that only an IOMMU owner could give.
            r.ecx &= !(OSPKE | ENQCMD | BUS_LOCK_DETECT);
            if view.cr4 & cr4::PKE != 0 {
                r.ecx |= OSPKE;
            }
            // User interrupts keep state in MSRs that nothing here switches.
            r.edx &= !(ARCH_LBR | USER_INTERRUPTS);
            if view.missing.rdtscp {
                r.ecx &= !RDPID;
            }
            if view.missing.invpcid {
                r.ebx &= !INVPCID;
            }
            if view.missing.waitpkg {
                r.ecx &= !WAITPKG;
            }
            if view.missing.enclaves {
                r.ebx &= !SGX;
                r.ecx &= !(KEY_LOCKER | SGX_LAUNCH);
                r.edx &= !PCONFIG;
            }
        }
        1 => {
            const FRED: u32 = 1 << 17;
            const LKGS: u32 = 1 << 18;
            const WRMSRNS: u32 = 1 << 19;
            const NMI_SOURCE: u32 = 1 << 20;
            const HRESET: u32 = 1 << 22;
            const MSR_LIST: u32 = 1 << 27;
            const USER_MSR: u32 = 1 << 15;
            // WRMSRNS and the list forms exit with reasons of their own on some processors.
            r.eax &= !(FRED | LKGS | WRMSRNS | NMI_SOURCE | HRESET | MSR_LIST);
            // Would read and write MSRs from user mode past the allow-list.
            r.edx &= !USER_MSR;
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: CpuidResult = CpuidResult {
        eax: !0,
        ebx: !0,
        ecx: !0,
        edx: !0,
    };

    #[test]
    fn virtualization_is_hidden_and_the_hypervisor_bit_shows() {
        let one = parent(1, 0, ALL, &View::default());
        assert_eq!(one.ecx & (leaf1_ecx::VMX | leaf1_ecx::MONITOR), 0);
        assert_ne!(one.ecx & leaf1_ecx::HYPERVISOR, 0);
        assert_eq!(
            parent(0x8000_0001, 0, ALL, &View::default()).ecx & 1 << 2,
            0
        );
        assert_eq!(
            parent(0x8000_000A, 0, ALL, &View::default()),
            CpuidResult::default()
        );
    }

    #[test]
    fn bits_that_mirror_cr4_follow_the_guest() {
        for (cr4, expected) in [(0, false), (cr4::OSXSAVE, true)] {
            let view = View {
                cr4,
                ..View::default()
            };
            assert_eq!(
                parent(1, 0, ALL, &view).ecx & leaf1_ecx::OSXSAVE != 0,
                expected
            );
            assert_eq!(
                parent(1, 0, CpuidResult::default(), &view).ecx & leaf1_ecx::OSXSAVE != 0,
                expected
            );
        }
        let view = View {
            cr4: cr4::PKE,
            ..View::default()
        };
        assert_ne!(parent(7, 0, CpuidResult::default(), &view).ecx & 1 << 4, 0);
    }

    #[test]
    fn a_switched_off_apic_is_not_reported() {
        let off = View::default();
        let on = View {
            apic_enabled: true,
            ..off
        };
        assert_eq!(parent(1, 0, ALL, &off).edx & leaf1_edx::APIC, 0);
        assert_ne!(parent(1, 0, ALL, &on).edx & leaf1_edx::APIC, 0);
        let intel = CpuidResult::default();
        assert_eq!(parent(0x8000_0001, 0, intel, &on).edx & leaf1_edx::APIC, 0);
    }

    #[test]
    fn features_without_their_control_disappear() {
        let missing = Missing {
            rdtscp: true,
            invpcid: true,
            xsaves: true,
            waitpkg: true,
            enclaves: true,
        };
        let view = View {
            missing,
            ..View::default()
        };
        assert_eq!(parent(7, 0, ALL, &view).ebx & 1 << 10, 0);
        assert_eq!(parent(7, 0, ALL, &view).ecx & 1 << 5, 0);
        assert_eq!(parent(0xD, 1, ALL, &view).eax & 1 << 3, 0);
        assert_eq!(parent(0x8000_0001, 0, ALL, &view).edx & 1 << 27, 0);
    }

    #[test]
    fn only_one_sixteenth_of_the_upper_leaves_is_the_hypervisors() {
        assert!(is_hypervisor_leaf(0x4000_0000) && is_hypervisor_leaf(0x4000_FFFF));
        assert!(!is_hypervisor_leaf(0x4001_0000) && !is_hypervisor_leaf(0x3FFF_FFFF));
    }
}
