//! RDMSR and WRMSR of a child.
//!
//! A child reaches no register of the processor but those of [`DIRECT`] and [`COMMANDS`]. The others are registers of
//! its VP, by the names that its parent uses for them; constants; or nothing. A kernel that probes without asking CPUID
//! finds what it finds under other hypervisors, so that it does not complain.

use tlfs::register::RegisterName as N;
use vpcore::seam::Register;
use x86::msr as n;
use x86::{cr0, efer};

use crate::registers::{Effect, Extended, Registers, Synthetic};
use crate::stored::MTRR_CAP;

/// Registers that a child may read and write without an exit: they are moved with the VP, and nothing else depends on
/// them. Those that the processor has not raise #GP there.
pub const DIRECT: [u32; 12] = [
    n::FS_BASE,
    n::GS_BASE,
    n::KERNEL_GS_BASE,
    n::STAR,
    n::LSTAR,
    n::CSTAR,
    n::SFMASK,
    n::IA32_SYSENTER_CS,
    n::IA32_SYSENTER_ESP,
    n::IA32_SYSENTER_EIP,
    n::TSC_AUX,
    n::IA32_SPEC_CTRL,
];

/// Registers whose writes may reach the processor without an exit if it has them: they only make it forget predictions.
/// Reads raise #GP on the processor too.
pub const COMMANDS: [u32; 1] = [n::IA32_PRED_CMD];

/// Bits of IA32_ARCH_CAPABILITIES that a child sees: what the processor is immune to, not what can be switched.
pub const ARCH_CAPABILITIES: u64 =
    0x3F | 1 << 6 | 1 << 8 | 7 << 13 | 1 << 17 | 3 << 19 | 1 << 24 | 7 << 26 | 1 << 62;

/// Who answers an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// The virtual APIC: `Apic::read_msr`, `Apic::write_msr`; and `Apic::write_apic_base`.
    Apic,
    /// The hypervisor interface.
    Synthetic,
    /// A register of the VP: [`Registers::read_msr`], [`Registers::write_msr`].
    Register(N),
    /// Reads as this, a write raises #GP.
    Constant(u64),
    /// Reads as this, a write does nothing.
    Ignored(u64),
    /// IA32_ARCH_CAPABILITIES: the processor's, in [`ARCH_CAPABILITIES`], where CPUID shows it; a write raises #GP.
    Capabilities,
    /// #GP.
    Absent,
    /// Not named here. A message to the parent when it intercepts MSRs; else #GP, or with the partition property
    /// "unimplemented MSR action" 1 zero for reads and nothing for writes.
    Unlisted,
}

/// Who answers accesses of a child to `msr`. Registers that do not exist on this processor are told from others by
/// [`Registers::read_msr`].
pub fn classify(msr: u32) -> Class {
    use Class::{Absent, Apic, Capabilities, Constant, Ignored, Synthetic, Unlisted};
    let named = |first: u32, name: N| Class::Register(name.nth(msr.wrapping_sub(first)));
    match msr {
        n::IA32_APIC_BASE | n::IA32_TSC_DEADLINE | n::X2APIC_FIRST..=n::X2APIC_LAST => Apic,
        0x4000_0000..=0x4000_FFFF => Synthetic,

        n::IA32_TSC => Class::Register(N::TSC),
        n::IA32_TSC_ADJUST => Class::Register(N::TSC_ADJUST),
        n::IA32_SPEC_CTRL => Class::Register(N::SPEC_CTRL),
        n::TSC_AUX => Class::Register(N::TSC_AUX),
        n::EFER => Class::Register(N::EFER),
        n::IA32_PAT => Class::Register(N::PAT),
        n::IA32_DEBUGCTL => Class::Register(N::DEBUG_CTL),
        n::IA32_MISC_ENABLE => Class::Register(N::MISC_ENABLE),
        n::IA32_SYSENTER_CS => Class::Register(N::SYSENTER_CS),
        n::IA32_SYSENTER_ESP => Class::Register(N::SYSENTER_ESP),
        n::IA32_SYSENTER_EIP => Class::Register(N::SYSENTER_EIP),
        n::KERNEL_GS_BASE => Class::Register(N::KERNEL_GS_BASE),
        n::STAR..=n::SFMASK => named(n::STAR, N::STAR),
        n::IA32_MTRR_DEF_TYPE => Class::Register(N::MTRR_DEF_TYPE),
        n::IA32_MTRR_PHYSBASE0..=0x20F => {
            let first = if msr & 1 == 0 {
                N::MTRR_PHYS_BASE0
            } else {
                N::MTRR_PHYS_MASK0
            };
            Class::Register(first.nth((msr & 0xF) >> 1))
        }
        n::IA32_MTRR_FIX64K_00000 => Class::Register(N::MTRR_FIX_64K_00000),
        n::IA32_MTRR_FIX16K_80000 | n::IA32_MTRR_FIX16K_A0000 => {
            named(n::IA32_MTRR_FIX16K_80000, N::MTRR_FIX_64K_00000.nth(1))
        }
        n::IA32_MTRR_FIX4K_C0000..=0x26F => {
            named(n::IA32_MTRR_FIX4K_C0000, N::MTRR_FIX_64K_00000.nth(3))
        }
        // Supervisor state: there is none, so nothing but 0 goes in.
        n::IA32_XSS => Class::Register(N::XSS),
        n::IA32_MTRRCAP => Constant(MTRR_CAP),
        n::IA32_ARCH_CAPABILITIES => Capabilities,
        // Locked, and nothing is on.
        n::IA32_FEATURE_CONTROL => Constant(1),
        // No banks.
        n::IA32_MCG_CAP => Constant(0),
        n::IA32_MCG_STATUS => Ignored(0),
        // SVM is off and locked.
        n::AMD_VM_CR => Constant(0x18),
        // A write of 0 asks for the revision: one that no kernel takes for too old.
        n::IA32_BIOS_SIGN_ID => Ignored(u64::MAX),
        // Platform, microcode update, CPUID faulting.
        0x17 | 0xCE | n::IA32_BIOS_UPDT_TRIG | 0x140 => Ignored(0),
        // AMD: the TSC counts at the rate of P0; LFENCE serializes.
        n::AMD_HWCR => Ignored(1 << 24),
        0xC001_1029 => Ignored(1 << 1),
        // AMD: memory map of the machine, interrupts of the northbridge, configuration of the core.
        n::AMD_SYSCFG
        | 0xC001_0016..=n::AMD_PATCH_LOADER
        | 0xC001_0055
        | 0xC001_0058
        | 0xC001_0112
        | 0xC001_0113
        | 0xC001_0140
        | 0xC001_0141
        | 0xC001_1020..=0xC001_1028
        | 0xC001_102A..=0xC001_102D => Ignored(0),

        // Counters and their kin, which CPUID hides: kernels probe for them and expect #GP.
        0xC1..=0xC8
        | 0xE7
        | 0xE8
        | 0x186..=0x18D
        | 0x309..=0x30C
        | 0x38D..=0x390
        | 0x4C1..=0x4C8
        | 0xC001_0000..=0xC001_0007
        | 0xC001_0200..=0xC001_020B => Absent,
        // VMX and SVM, trace, debug store, SGX, shadow stacks, waiting, flush of L1, TSX control, banks.
        n::IA32_VMX_BASIC..=n::IA32_VMX_VMFUNC
        | n::AMD_VM_HSAVE_PA
        | 0x570..=0x58F
        | 0x600
        | 0x8C..=0x8F
        | 0x6A0..=0x6A8
        | 0xE1
        | n::IA32_FLUSH_CMD
        | 0x122
        | 0x123
        | 0x400..=0x47F => Absent,
        _ => Unlisted,
    }
}

/// The guest gets #GP(0); nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GeneralProtection;

impl<E: Extended, S: Synthetic> Registers<'_, E, S> {
    /// RDMSR of a register of the VP that is called `name`.
    ///
    /// # Errors
    /// There is no such register.
    pub fn read_msr(&mut self, name: N) -> Result<u64, GeneralProtection> {
        if !self.exists(name) {
            return Err(GeneralProtection);
        }
        self.get(name)
            .map(|value| value as u64)
            .map_err(|_| GeneralProtection)
    }

    /// WRMSR of a register of the VP that is called `name`.
    ///
    /// # Errors
    /// There is no such register, or it cannot have this value now.
    pub fn write_msr(&mut self, name: N, value: u64) -> Result<Effect, GeneralProtection> {
        let is_allowed = match name {
            // Long mode cannot be switched while paging is on; LMA is the processor's.
            N::EFER => {
                let is_paging = self.backend.get(Register::Cr0) & cr0::PG != 0;
                let changed = self.backend.get(Register::Efer) ^ value;
                !is_paging || changed & efer::LME == 0
            }
            _ => self.exists(name),
        };
        if !is_allowed {
            return Err(GeneralProtection);
        }
        let value = match name {
            N::EFER => value & !efer::LMA,
            // The two move together (SDM vol. 3B, "IA32_TSC_ADJUST Support").
            N::TSC_ADJUST => {
                let moved = value.wrapping_sub(self.stored.tsc_adjust);
                let tsc = self.tsc();
                self.set_tsc(tsc.wrapping_add(moved));
                self.stored.tsc_adjust = value;
                return Ok(Effect::Timer);
            }
            N::TSC => {
                let moved = value.wrapping_sub(self.tsc());
                self.stored.tsc_adjust = self.stored.tsc_adjust.wrapping_add(moved);
                value
            }
            _ => value,
        };
        self.set(name, value.into()).map_err(|_| GeneralProtection)
    }

    /// Whether the processor has the register, of those that not every one has.
    fn exists(&mut self, name: N) -> bool {
        match name {
            N::SPEC_CTRL => self.limits.spec_ctrl != 0,
            N::XSS => self.limits.has_xsaves,
            N::TSC_AUX => self
                .extended
                .register(crate::registers::Switched::TscAux)
                .is_some(),
            _ => true,
        }
    }
}
