//! The processor instructions that the loader needs, on the LP that calls.
#![expect(unsafe_code, reason = "reads and writes MSRs")]

use core::arch::asm;
use core::arch::x86_64::{__cpuid_count, _mm_lfence, _rdtsc};

use x86::cpuid::CpuidResult;

/// CPUID of `leaf`, `subleaf`. Zeroes for a leaf above the highest.
pub fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    let highest = __cpuid_count(leaf & 0xC000_0000, 0).eax;
    if leaf > highest {
        return CpuidResult::default();
    }
    let r = __cpuid_count(leaf, subleaf);
    CpuidResult {
        eax: r.eax,
        ebx: r.ebx,
        ecx: r.ecx,
        edx: r.edx,
    }
}

/// Reads a model-specific register.
///
/// # Safety
/// The register must exist, or the firmware's exception handler ends the boot.
pub unsafe fn rdmsr(msr: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller vouches for the register; reading touches no memory.
    unsafe {
        asm!("rdmsr", in("ecx") msr, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags))
    };
    u64::from(high) << 32 | u64::from(low)
}

/// Writes a model-specific register.
///
/// # Safety
/// The register must exist and accept `value`, and the change must not break the code that runs now.
pub unsafe fn wrmsr(msr: u32, value: u64) {
    // SAFETY: the caller vouches for register and value.
    unsafe {
        asm!("wrmsr", in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack, preserves_flags));
    };
}

/// CR4 of this LP.
pub fn cr4() -> u64 {
    let value: u64;
    // SAFETY: UEFI applications run at privilege level 0.
    unsafe { asm!("mov {}, cr4", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// The time-stamp counter, read after every instruction before it is done.
pub fn tsc() -> u64 {
    // SAFETY: LFENCE is SSE2, which every x86-64 processor has.
    unsafe { _mm_lfence() };
    // SAFETY: RDTSC is allowed at privilege level 0.
    let value = unsafe { _rdtsc() };
    // SAFETY: as above.
    unsafe { _mm_lfence() };
    value
}

/// Identifier of this LP's local APIC, 32 bits where the processor has them (leaf 0x1F or 0xB), as the firmware
/// numbers them.
pub fn apic_id() -> u32 {
    for leaf in [0x1F, 0xB] {
        let topology = cpuid(leaf, 0);
        if topology.ebx & 0xFFFF != 0 {
            return topology.edx;
        }
    }
    cpuid(1, 0).ebx >> 24
}
