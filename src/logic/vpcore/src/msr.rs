//! Which model-specific registers the parent may touch, and how.
//!
//! Writes go by an allow-list: a register that is not named here is refused, because it may shift time for others,
//! write memory past the second-level tables, or take virtualization away. Reads of registers that are not named are
//! executed, since the parent owns the machine, and counted.

use x86::msr as n;

/// How an access is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MsrClass {
    /// Reads and writes reach the hardware without an exit: the register is kept per VP, or harmless.
    Direct,
    /// Exits; the hardware then checks and takes the value on this LP.
    Hardware,
    /// Only read; a write raises #GP.
    ReadOnly,
    /// A synthetic register of the hypervisor interface.
    Synthetic,
    /// A register of the virtual local APIC in x2APIC mode.
    X2Apic,
    /// One that the hypervisor keeps itself.
    Virtual(VirtualMsr),
    /// There is no such register for the parent: #GP.
    Absent,
    /// Not named by this table. Reads are executed and counted, writes raise #GP and are logged.
    Unlisted,
}

/// Registers that the hypervisor keeps itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VirtualMsr {
    /// IA32_TIME_STAMP_COUNTER: a write moves the VP's offset only.
    Tsc,
    /// IA32_TSC_ADJUST, likewise.
    TscAdjust,
    /// IA32_APIC_BASE.
    ApicBase,
    /// IA32_TSC_DEADLINE.
    TscDeadline,
    /// EFER, without SVME.
    Efer,
    /// IA32_PAT of this VP.
    Pat,
    /// IA32_MTRR_DEF_TYPE: kernels switch the ranges off while they look at them. Kept for the VP to read back;
    /// the LP's own stays as it is.
    MtrrDefault,
    /// A memory type range register, or one of AMD's memory map (SYSCFG, TOP_MEM, IORRs). A write that changes nothing is
    /// taken, one that does is dropped and logged.
    Mtrr,
    /// IA32_FEATURE_CONTROL: locked, without VMX.
    FeatureControl,
    /// VM_CR: SVM disabled and locked.
    VmCr,
    /// IA32_DEBUGCTL.
    DebugCtl,
    /// IA32_BIOS_SIGN_ID: a write of 0 announces a read of the revision.
    MicrocodeRevision,
    /// HWCR: the bits of [`HWCR_WRITABLE`] may change.
    AmdConfiguration,
    /// NB_CFG: PCI configuration by extended CF8 addresses may be switched on.
    NorthbridgeConfiguration,
    /// IA32_MISC_ENABLE: some bits may change.
    MiscEnable,
}

/// Bits of IA32_MISC_ENABLE that the parent may change: fast strings, thermal control, SpeedStep, CPUID limit,
/// xTPR disable, turbo disable. XD disable and MONITOR stay as they are.
pub const MISC_ENABLE_WRITABLE: u64 = 1 | 1 << 3 | 1 << 16 | 1 << 22 | 1 << 23 | 1 << 38;

/// Bits of AMD's HWCR that the parent may change: CPB disable, IRPerf enable, MCA status write enable.
pub const HWCR_WRITABLE: u64 = 1 << 25 | 1 << 30 | 1 << 18;

/// Bits of AMD's NB_CFG that the parent may change: extended configuration addresses in CF8.
pub const NB_CFG_WRITABLE: u64 = 1 << 46;

/// Bits of IA32_DEBUGCTL that the parent may set: LBR and BTF.
pub const DEBUGCTL_WRITABLE: u64 = 0b11;

/// The class of `msr`. Registers that do not exist on this processor keep their class: the hardware refuses them.
pub const fn classify(msr: u32) -> MsrClass {
    use MsrClass::{Absent, Direct, Hardware, ReadOnly, Synthetic, Unlisted, Virtual, X2Apic};
    match msr {
        n::FS_BASE | n::GS_BASE | n::KERNEL_GS_BASE | n::STAR | n::LSTAR | n::CSTAR | n::SFMASK => {
            Direct
        }
        n::IA32_SYSENTER_CS..=n::IA32_SYSENTER_EIP => Direct,
        // TSC_AUX and the speculation controls: nothing of the hypervisor depends on them.
        n::TSC_AUX | n::IA32_SPEC_CTRL | n::IA32_PRED_CMD | n::IA32_FLUSH_CMD => Direct,

        // APERF and MPERF: kernels read both on every tick.
        0xE7 | 0xE8 => Direct,

        n::IA32_TSC => Virtual(VirtualMsr::Tsc),
        n::IA32_TSC_ADJUST => Virtual(VirtualMsr::TscAdjust),
        n::IA32_APIC_BASE => Virtual(VirtualMsr::ApicBase),
        n::IA32_TSC_DEADLINE => Virtual(VirtualMsr::TscDeadline),
        n::EFER => Virtual(VirtualMsr::Efer),
        n::IA32_PAT => Virtual(VirtualMsr::Pat),
        n::IA32_FEATURE_CONTROL => Virtual(VirtualMsr::FeatureControl),
        n::AMD_VM_CR => Virtual(VirtualMsr::VmCr),
        n::IA32_DEBUGCTL => Virtual(VirtualMsr::DebugCtl),
        n::IA32_BIOS_SIGN_ID => Virtual(VirtualMsr::MicrocodeRevision),
        n::AMD_HWCR => Virtual(VirtualMsr::AmdConfiguration),
        n::AMD_NB_CFG => Virtual(VirtualMsr::NorthbridgeConfiguration),
        n::IA32_MISC_ENABLE => Virtual(VirtualMsr::MiscEnable),
        n::IA32_MTRRCAP => ReadOnly,
        n::IA32_MTRR_DEF_TYPE => Virtual(VirtualMsr::MtrrDefault),
        // Variable and fixed MTRRs; on AMD also SYSCFG, TOP_MEM and the IORRs.
        n::IA32_MTRR_PHYSBASE0..=0x23F
        | n::IA32_MTRR_FIX64K_00000
        | n::IA32_MTRR_FIX16K_80000
        | n::IA32_MTRR_FIX16K_A0000
        | n::IA32_MTRR_FIX4K_C0000..=0x26F
        | n::AMD_SYSCFG
        | 0xC001_0016..=0xC001_001D => Virtual(VirtualMsr::Mtrr),
        n::X2APIC_FIRST..=n::X2APIC_LAST => X2Apic,
        0x4000_0000..=0x4000_FFFF => Synthetic,

        // Performance counters, which CPUID hides: kernels probe the oldest of them without asking.
        0xC1..=0xC8 | 0x186..=0x18D | 0x309..=0x30C | 0x38D..=0x390 | 0x3F1 | 0x4C1..=0x4C8 => {
            Absent
        }
        0xC001_0000..=0xC001_0007 | 0xC001_0200..=0xC001_020B => Absent,
        // VMX capabilities, SVM's own registers, SMM, processor trace, debug store.
        n::IA32_VMX_BASIC..=n::IA32_VMX_VMFUNC
        | 0xC001_0115..=0xC001_0118
        | 0x570..=0x58F
        | 0x600
        | 0x9E => Absent,

        // Machine check: banks, global control and status, CMCI.
        n::IA32_MCG_STATUS | 0x17B | 0x280..=0x29F | 0x400..=0x47F | 0xC000_2000..=0xC000_23FF => {
            Hardware
        }
        // Speculation and feature control of the parent's own kernel.
        0x122 | 0x123 | 0x140 | 0xE1 | 0x6E1 => Hardware,
        // Extended state: XSS, XFD. The hypervisor uses none of it.
        n::IA32_XSS | 0x1C4 | 0x1C5 => Hardware,
        // Shadow stacks: entries load some of these, so that only the guest's own access reaches them.
        0x6A0 | 0x6A2 | 0x6A4..=0x6A8 => Direct,
        // Power and thermal management, which the parent owns: P-states, HWP, CPPC, limits, RAPL.
        0x199..=0x19C
        | 0x1A2
        | 0x1AD
        | 0x1B0..=0x1B2
        | 0x1FC
        | 0x601
        | 0x60A..=0x60D
        | 0x610
        | 0x614
        | 0x618
        | 0x61C
        | 0x620
        | 0x633..=0x634
        | 0x638
        | 0x63A
        | 0x640
        | 0x642
        | 0x64B..=0x64F
        | 0x65C
        | 0x770..=0x774 => Hardware,
        0xC001_0062 | 0xC001_02B1..=0xC001_02B3 => Hardware,
        // AMD: load/store and decode configuration, where the errata bits of the kernel live.
        0xC001_1020..=0xC001_102D | 0xC001_10E2 | 0xC001_10E3 => Hardware,
        // AMD: fixed knowledge that the kernel reads.
        0xC001_0140 | 0xC001_0141 => ReadOnly,
        _ => Unlisted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_that_could_take_the_machine_away_are_never_written_directly() {
        for msr in [
            n::EFER,
            n::IA32_APIC_BASE,
            n::IA32_FEATURE_CONTROL,
            n::AMD_VM_CR,
            n::AMD_VM_HSAVE_PA,
            n::IA32_BIOS_UPDT_TRIG,
            n::AMD_PATCH_LOADER,
            n::IA32_TSC,
            n::IA32_TSC_ADJUST,
            0x570, // IA32_RTIT_CTL writes physical memory
            0x600, // IA32_DS_AREA
        ] {
            assert!(
                !matches!(classify(msr), MsrClass::Direct | MsrClass::Hardware),
                "{msr:#x}"
            );
        }
    }

    #[test]
    fn the_synthetic_range_is_whole() {
        assert_eq!(classify(0x4000_0000), MsrClass::Synthetic);
        assert_eq!(classify(0x4000_FFFF), MsrClass::Synthetic);
        assert_eq!(classify(0x4001_0000), MsrClass::Unlisted);
    }
}
