//! Model-specific registers: access that survives a register that is not there.
#![expect(unsafe_code, reason = "the owner of RDMSR, WRMSR and XSETBV")]

use core::arch::asm;

/// The instruction raised #GP and changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GeneralProtection;

/// Reads `msr`, which is known to exist. A register that does not is a bug and ends in a panic.
#[inline]
pub fn read(msr: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: RDMSR touches no memory.
    unsafe {
        asm!("rdmsr", in("ecx") msr, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags))
    }
    (u64::from(high) << 32) | u64::from(low)
}

/// Writes `msr`, which is known to exist and to take `value`.
///
/// # Safety
/// The write must not take away what the hypervisor itself stands on (GS base, EFER, APIC base, PAT).
#[inline]
pub unsafe fn write(msr: u32, value: u64) {
    // SAFETY: passed on to the caller.
    unsafe {
        asm!("wrmsr", in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack, preserves_flags))
    }
}

/// Reads `msr` on behalf of a guest.
///
/// # Errors
/// The processor raised #GP.
pub fn try_read(msr: u32) -> Result<u64, GeneralProtection> {
    let (low, high, failed): (u32, u32, u32);
    // SAFETY: a #GP at label 2 is sent to label 4 by the fix-up table, with all registers kept.
    unsafe {
        asm!(
            "xor {failed:e}, {failed:e}",
            "2: rdmsr",
            "3:",
            ".pushsection .text.fixup, \"ax\"",
            "4: mov {failed:e}, 1",
            "jmp 3b",
            ".popsection",
            ".pushsection .fixup, \"a\"",
            ".quad 2b, 4b",
            ".popsection",
            failed = out(reg) failed,
            in("ecx") msr,
            inout("eax") 0 => low,
            inout("edx") 0 => high,
            options(nostack),
        )
    }
    if failed != 0 {
        return Err(GeneralProtection);
    }
    Ok((u64::from(high) << 32) | u64::from(low))
}

/// An instruction that writes EDX:EAX to the register numbered by ECX, and may raise #GP.
macro_rules! try_instruction {
    ($instruction:literal, $index:expr, $value:expr) => {{
        let (index, value): (u32, u64) = ($index, $value);
        let failed: u32;
        // SAFETY: a #GP at label 2 is sent to label 4 by the fix-up table, with all registers kept; what the write itself
        // may do is argued where the macro is used.
        unsafe {
            asm!(
                "xor {failed:e}, {failed:e}",
                concat!("2: ", $instruction),
                "3:",
                ".pushsection .text.fixup, \"ax\"",
                "4: mov {failed:e}, 1",
                "jmp 3b",
                ".popsection",
                ".pushsection .fixup, \"a\"",
                ".quad 2b, 4b",
                ".popsection",
                failed = out(reg) failed,
                in("ecx") index,
                in("eax") value as u32,
                in("edx") (value >> 32) as u32,
                options(nostack),
            )
        }
        if failed == 0 { Ok(()) } else { Err(GeneralProtection) }
    }};
}

/// Writes `msr` on behalf of a guest.
///
/// # Errors
/// The processor raised #GP; the register is as before.
///
/// # Safety
/// As for [`write`].
pub unsafe fn try_write(msr: u32, value: u64) -> Result<(), GeneralProtection> {
    try_instruction!("wrmsr", msr, value)
}

/// XCR0. The processor has XSAVE.
pub fn xgetbv() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads a register; CR4.OSXSAVE is set where there is XSAVE.
    unsafe {
        asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags))
    }
    u64::from(high) << 32 | u64::from(low)
}

/// XSETBV of register `index` on behalf of a guest, as the hardware checks it.
///
/// The hypervisor uses no vector state, so no value can harm it.
///
/// # Errors
/// The processor raised #GP; the register is as before.
pub fn try_xsetbv(index: u32, value: u64) -> Result<(), GeneralProtection> {
    try_instruction!("xsetbv", index, value)
}
