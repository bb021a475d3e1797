//! What this processor's VMX can do, and which controls the hypervisor takes from it.
//!
//! Source: SDM vol. 3D, "VMX Capability Reporting Facility". Every LP reads its own registers: nothing promises that
//! they agree.

use bootinfo::Status;
use vpcore::cpuid::Missing;
use x86::cpuid::leaf1_ecx;
use x86::msr::{
    IA32_FEATURE_CONTROL, IA32_VMX_BASIC, IA32_VMX_CR0_FIXED0, IA32_VMX_CR0_FIXED1,
    IA32_VMX_CR4_FIXED0, IA32_VMX_CR4_FIXED1, IA32_VMX_EPT_VPID_CAP, IA32_VMX_PROCBASED_CTLS2,
    IA32_VMX_TRUE_ENTRY_CTLS, IA32_VMX_TRUE_EXIT_CTLS, IA32_VMX_TRUE_PINBASED_CTLS,
    IA32_VMX_TRUE_PROCBASED_CTLS,
};

use super::fields::{entry, exit, pin, primary, secondary};
use crate::arch::x86::{insn, msr};

/// Bits of IA32_FEATURE_CONTROL.
mod feature_control {
    pub const LOCKED: u64 = 1 << 0;
    pub const VMX: u64 = 1 << 2;
}

/// Bits of IA32_VMX_BASIC.
mod basic {
    pub const REVISION: u64 = 0x7FFF_FFFF;
    pub const MEMORY_TYPE_SHIFT: u32 = 50;
    pub const WRITE_BACK: u64 = 6;
    pub const TRUE_CONTROLS: u64 = 1 << 55;
}

/// Bits of IA32_VMX_EPT_VPID_CAP.
mod ept_vpid {
    pub const FOUR_LEVELS: u64 = 1 << 6;
    pub const FIVE_LEVELS: u64 = 1 << 7;
    pub const WRITE_BACK: u64 = 1 << 14;
    pub const PAGES_2_MIB: u64 = 1 << 16;
    pub const PAGES_1_GIB: u64 = 1 << 17;
    pub const INVEPT: u64 = 1 << 20;
    pub const ACCESSED_AND_DIRTY: u64 = 1 << 21;
    pub const INVEPT_SINGLE: u64 = 1 << 25;
    pub const INVEPT_ALL: u64 = 1 << 26;
    pub const INVVPID: u64 = 1 << 32;
    pub const INVVPID_SINGLE: u64 = 1 << 41;
    pub const INVVPID_ALL: u64 = 1 << 42;
}

/// Bits of a control register that VMX operation requires.
#[derive(Clone, Copy, Debug)]
pub(super) struct FixedBits {
    /// Bits that are 1.
    ones: u64,
    /// Bits that may be 1.
    allowed: u64,
}

impl FixedBits {
    /// `value` with the required bits set and the impossible ones clear.
    pub(super) const fn apply(self, value: u64) -> u64 {
        (value | self.ones) & self.allowed
    }

    /// The same without the demand for the bits of `exempt`.
    pub(super) const fn without(self, exempt: u64) -> Self {
        Self {
            ones: self.ones & !exempt,
            allowed: self.allowed,
        }
    }
}

/// The capabilities of one LP, checked: everything that is required is there.
#[derive(Clone, Copy, Debug)]
pub struct Capabilities {
    /// First word of a VMXON region and of a VMCS.
    pub(super) revision: u32,
    /// Pin-based controls in use.
    pub(super) pin: u32,
    /// Primary processor-based controls in use, windows closed.
    pub(super) primary: u32,
    /// Secondary processor-based controls in use.
    pub(super) secondary: u32,
    /// Exit controls in use.
    pub(super) exit: u32,
    /// Entry controls in use, for a guest outside long mode.
    pub(super) entry: u32,
    /// Primary controls that a child's VP has beside.
    pub(super) child_primary: u32,
    /// Secondary controls that a child's VP has beside.
    pub(super) child_secondary: u32,
    /// The entry control that loads the supervisor's shadow stack state, where there is one.
    pub(super) load_cet: u32,
    /// CR0 in VMX operation.
    pub(super) cr0: FixedBits,
    /// CR4 in VMX operation.
    pub(super) cr4: FixedBits,
    ept_vpid: u64,
}

impl Capabilities {
    /// Reads and checks the capabilities of the calling LP. Changes nothing.
    ///
    /// # Errors
    /// - [`Status::NO_VIRTUALIZATION`]: the processor has no VMX.
    /// - [`Status::LOCKED`]: firmware locked VMX off.
    /// - [`Status::MISSING_FEATURE`]: a control, EPT with unrestricted guest, or a form of it that we need is missing.
    pub(super) fn read() -> Result<Self, Status> {
        if insn::cpuid(1, 0).ecx & leaf1_ecx::VMX == 0 {
            return Err(Status::NO_VIRTUALIZATION);
        }
        // A hypervisor below us may offer VMX without this register; it reads as unlocked then.
        let control = msr::try_read(IA32_FEATURE_CONTROL).unwrap_or(0);
        if control & feature_control::LOCKED != 0 && control & feature_control::VMX == 0 {
            return Err(Status::LOCKED);
        }
        let vmx_basic = msr::read(IA32_VMX_BASIC);
        // The "true" controls came with unrestricted guest; without them CR3 accesses always exit.
        if vmx_basic & basic::TRUE_CONTROLS == 0
            || vmx_basic >> basic::MEMORY_TYPE_SHIFT & 0xF != basic::WRITE_BACK
        {
            return Err(Status::MISSING_FEATURE);
        }

        let pin = Allowed::read(IA32_VMX_TRUE_PINBASED_CTLS).choose(
            pin::INTERRUPT_EXITING | pin::NMI_EXITING | pin::VIRTUAL_NMIS,
            0,
        )?;
        let allowed = Allowed::read(IA32_VMX_TRUE_PROCBASED_CTLS);
        let child_primary = allowed.may_be_set & primary::RDPMC_EXITING;
        let primary = allowed.choose(
            primary::TSC_OFFSETTING
                | primary::HLT_EXITING
                | primary::MWAIT_EXITING
                | primary::MONITOR_EXITING
                | primary::CR8_LOAD_EXITING
                | primary::CR8_STORE_EXITING
                | primary::IO_BITMAPS
                | primary::MSR_BITMAPS
                | primary::SECONDARY,
            0,
        )?;
        if primary & (primary::CR3_LOAD_EXITING | primary::CR3_STORE_EXITING) != 0 {
            return Err(Status::MISSING_FEATURE);
        }
        let allowed = Allowed::read(IA32_VMX_PROCBASED_CTLS2);
        let child_secondary = allowed.may_be_set
            & (secondary::WBINVD_EXITING
                | secondary::PAUSE_LOOP_EXITING
                | secondary::ENCLS_EXITING);
        let secondary = allowed.choose(
            secondary::EPT | secondary::UNRESTRICTED_GUEST,
            secondary::VPID | secondary::RDTSCP | secondary::INVPCID | secondary::XSAVES,
        )?;
        let exit = Allowed::read(IA32_VMX_TRUE_EXIT_CTLS).choose(
            exit::SAVE_DEBUG
                | exit::HOST_64_BIT
                | exit::SAVE_PAT
                | exit::LOAD_PAT
                | exit::SAVE_EFER
                | exit::LOAD_EFER,
            0,
        )?;
        let allowed = Allowed::read(IA32_VMX_TRUE_ENTRY_CTLS);
        let load_cet = allowed.may_be_set & entry::LOAD_CET;
        let entry = allowed.choose(entry::LOAD_DEBUG | entry::LOAD_PAT | entry::LOAD_EFER, 0)?;

        let ept_vpid = msr::read(IA32_VMX_EPT_VPID_CAP);
        let needed = ept_vpid::WRITE_BACK | ept_vpid::PAGES_2_MIB | ept_vpid::INVEPT;
        if ept_vpid & needed != needed
            || ept_vpid & (ept_vpid::INVEPT_SINGLE | ept_vpid::INVEPT_ALL) == 0
        {
            return Err(Status::MISSING_FEATURE);
        }
        // A VPID that cannot be flushed is of no use.
        let invvpid = ept_vpid & ept_vpid::INVVPID != 0
            && ept_vpid & (ept_vpid::INVVPID_SINGLE | ept_vpid::INVVPID_ALL) != 0;
        let secondary = if invvpid {
            secondary
        } else {
            secondary & !secondary::VPID
        };

        let fixed = |ones, allowed| FixedBits {
            ones: msr::read(ones),
            allowed: msr::read(allowed),
        };
        Ok(Self {
            revision: (vmx_basic & basic::REVISION) as u32,
            pin,
            primary,
            secondary,
            exit,
            entry,
            child_primary,
            child_secondary,
            load_cet,
            cr0: fixed(IA32_VMX_CR0_FIXED0, IA32_VMX_CR0_FIXED1),
            cr4: fixed(IA32_VMX_CR4_FIXED0, IA32_VMX_CR4_FIXED1),
            ept_vpid,
        })
    }

    /// Whether second-level tables may have 1 GiB leaves.
    pub const fn has_1_gib_pages(&self) -> bool {
        self.ept_vpid & ept_vpid::PAGES_1_GIB != 0
    }

    /// Whether second-level tables may have `levels` levels.
    pub const fn has_levels(&self, levels: u32) -> bool {
        match levels {
            4 => self.ept_vpid & ept_vpid::FOUR_LEVELS != 0,
            5 => self.ept_vpid & ept_vpid::FIVE_LEVELS != 0,
            _ => false,
        }
    }

    /// Whether the processor sets accessed and dirty bits in second-level tables.
    pub(super) const fn has_marks(&self) -> bool {
        self.ept_vpid & ept_vpid::ACCESSED_AND_DIRTY != 0
    }

    pub(super) const fn has_vpid(&self) -> bool {
        self.secondary & secondary::VPID != 0
    }

    pub(super) const fn has_single_invept(&self) -> bool {
        self.ept_vpid & ept_vpid::INVEPT_SINGLE != 0
    }

    pub(super) const fn has_single_invvpid(&self) -> bool {
        self.ept_vpid & ept_vpid::INVVPID_SINGLE != 0
    }

    /// Features whose instructions fault in a guest, because their control is missing or left off. RDPID goes with
    /// RDTSCP.
    pub const fn missing(&self) -> Missing {
        Missing {
            rdtscp: self.secondary & secondary::RDTSCP == 0,
            invpcid: self.secondary & secondary::INVPCID == 0,
            xsaves: self.secondary & secondary::XSAVES == 0,
            waitpkg: true,
            enclaves: true,
        }
    }
}

/// Makes IA32_FEATURE_CONTROL allow VMX on the calling LP, for good: the register can be locked only once.
#[expect(unsafe_code, reason = "writes an MSR")]
pub(super) fn unlock() -> Result<(), Status> {
    let Ok(control) = msr::try_read(IA32_FEATURE_CONTROL) else {
        return Ok(());
    };
    if control & feature_control::LOCKED != 0 {
        return if control & feature_control::VMX != 0 {
            Ok(())
        } else {
            Err(Status::LOCKED)
        };
    }
    let wanted = control | feature_control::VMX | feature_control::LOCKED;
    // SAFETY: the register decides about VMX and SGX only; the hypervisor stands on neither yet.
    unsafe { msr::try_write(IA32_FEATURE_CONTROL, wanted) }.map_err(|_| Status::LOCKED)
}

/// Which settings of a control word the processor accepts.
struct Allowed {
    ones: u32,
    may_be_set: u32,
}

impl Allowed {
    fn read(register: u32) -> Self {
        let value = msr::read(register);
        Self {
            ones: value as u32,
            may_be_set: (value >> 32) as u32,
        }
    }

    /// The word with all of `needed` and what there is of `wanted`.
    fn choose(&self, needed: u32, wanted: u32) -> Result<u32, Status> {
        if self.may_be_set & needed != needed {
            return Err(Status::MISSING_FEATURE);
        }
        Ok((needed | wanted | self.ones) & self.may_be_set)
    }
}
