//! The LP that runs this, as `lp_check` asks it. Allocates nothing and prints nothing: it runs on every processor.
#![expect(unsafe_code, reason = "reads and writes MSRs")]

use bootinfo::Status;
use lp_check::Processor;
use x86::cpuid::CpuidResult;
use x86::msr;

use crate::cpu;

struct ThisLp;

impl Processor for ThisLp {
    fn cpuid(&self, leaf: u32, subleaf: u32) -> CpuidResult {
        cpu::cpuid(leaf, subleaf)
    }

    fn msr(&self, msr: u32) -> u64 {
        // SAFETY: `lp_check` reads a register only after CPUID or another register has vouched for it.
        unsafe { cpu::rdmsr(msr) }
    }

    fn cr4(&self) -> u64 {
        cpu::cr4()
    }
}

/// Checks this LP and changes nothing. `levels` is the paging depth of the boot processor.
pub fn check(levels: u32) -> Status {
    lp_check::check(&ThisLp, levels)
}

/// Depth of paging on this LP.
pub fn paging_levels() -> u32 {
    lp_check::paging_levels(&ThisLp)
}

/// Whether leaves of 1 GiB exist.
pub fn has_giant_pages() -> bool {
    lp_check::has_giant_pages(&ThisLp)
}

/// Allows VMXON on this LP where the firmware left that open. To be called after [`check`] passed on every LP.
///
/// The register keeps the value until the next reset; nothing else depends on it.
pub fn open_feature_control() {
    if let Some(value) = lp_check::feature_control_to_set(&ThisLp) {
        // SAFETY: the register exists and is not locked, and both bits are defined wherever VMX is.
        unsafe { cpu::wrmsr(msr::IA32_FEATURE_CONTROL, value) };
    }
}
