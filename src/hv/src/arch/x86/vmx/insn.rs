//! One wrapper per VMX instruction.
//!
//! Source: SDM vol. 3D, "VMX Instruction Reference". Each instruction reports failure in CF (VMfailInvalid: there is
//! no current VMCS) or ZF (VMfailValid: the current VMCS holds an error number).
#![expect(unsafe_code, reason = "the owner of the VMX instructions")]

use core::arch::asm;

use addr::Spa;

use super::fields::Field;

/// A VMX instruction set CF or ZF and did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmxFailed;

/// Descriptor in memory of INVEPT and INVVPID.
#[repr(C, align(16))]
struct InvalidateOperand([u64; 2]);

/// VMXON: enters VMX root operation.
///
/// # Safety
/// `region` must be a 4 KiB frame of the hypervisor that begins with the VMCS revision and that nothing else uses
/// until VMXOFF; CR0, CR4 and IA32_FEATURE_CONTROL must allow VMX, or the instruction faults.
pub unsafe fn vmxon(region: Spa) -> Result<(), VmxFailed> {
    let operand = region.get();
    // SAFETY: passed on to the caller.
    unsafe {
        asm!("vmxon [{}]", "jbe {}", in(reg) &raw const operand, label { return Err(VmxFailed) }, options(nostack))
    }
    Ok(())
}

/// VMXOFF: leaves VMX operation.
///
/// # Safety
/// The LP must be in VMX root operation, and must not touch a VMCS afterwards.
pub unsafe fn vmxoff() -> Result<(), VmxFailed> {
    // SAFETY: passed on to the caller.
    unsafe { asm!("vmxoff", "jbe {}", label { return Err(VmxFailed) }, options(nostack)) }
    Ok(())
}

/// VMCLEAR: writes the VMCS at `region` back to memory and makes it neither active nor launched.
///
/// # Safety
/// The LP must be in VMX root operation; `region` must be a frame made for a VMCS.
pub unsafe fn vmclear(region: Spa) -> Result<(), VmxFailed> {
    let operand = region.get();
    // SAFETY: passed on to the caller.
    unsafe {
        asm!("vmclear [{}]", "jbe {}", in(reg) &raw const operand, label { return Err(VmxFailed) }, options(nostack))
    }
    Ok(())
}

/// VMPTRLD: makes the VMCS at `region` current on this LP.
///
/// # Safety
/// The LP must be in VMX root operation; `region` must begin with the VMCS revision and be active on no other LP.
pub unsafe fn vmptrld(region: Spa) -> Result<(), VmxFailed> {
    let operand = region.get();
    // SAFETY: passed on to the caller.
    unsafe {
        asm!("vmptrld [{}]", "jbe {}", in(reg) &raw const operand, label { return Err(VmxFailed) }, options(nostack))
    }
    Ok(())
}

/// VMPTRST: the VMCS that is current on this LP, all ones if there is none.
///
/// # Safety
/// The LP must be in VMX root operation.
pub unsafe fn vmptrst() -> Spa {
    let mut region = 0u64;
    // SAFETY: passed on to the caller; the instruction writes eight bytes.
    unsafe { asm!("vmptrst [{}]", in(reg) &raw mut region, options(nostack)) }
    Spa::new(region)
}

/// VMREAD of `field`. The result means nothing when the processor has no such field.
///
/// # Safety
/// The LP must be in VMX root operation with a current VMCS.
#[inline(always)]
pub unsafe fn vmread(field: Field) -> u64 {
    let value;
    // SAFETY: passed on to the caller. A failed VMREAD leaves the output as it was, which is still a number. The VMCS
    // counts as memory here: what writes it says so, and between two writes a field stays as it is.
    unsafe {
        asm!("vmread {}, {}", out(reg) value, in(reg) u64::from(field.0), options(pure, readonly, nostack));
    }
    value
}

/// VMWRITE of `field`.
///
/// # Safety
/// The LP must be in VMX root operation with a current VMCS; a host-state field must get what the hypervisor can
/// go on with after an exit.
#[inline(always)]
pub unsafe fn vmwrite(field: Field, value: u64) -> Result<(), VmxFailed> {
    // SAFETY: passed on to the caller.
    unsafe {
        asm!(
            "vmwrite {}, {}",
            "jbe {}",
            in(reg) u64::from(field.0),
            in(reg) value,
            label { return Err(VmxFailed) },
            options(nostack),
        );
    }
    Ok(())
}

/// VMWRITE of `field`, which this processor has, so that it cannot fail: for paths where each instruction counts.
///
/// # Safety
/// As for [`vmwrite`].
#[inline(always)]
pub unsafe fn vmwrite_known(field: Field, value: u64) {
    // SAFETY: passed on to the caller.
    unsafe {
        asm!("vmwrite {}, {}", in(reg) u64::from(field.0), in(reg) value, options(nostack));
    }
}

/// What INVEPT and INVVPID invalidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Scope {
    /// The mappings of one EPT pointer or one VPID.
    Single = 1,
    /// Those of all.
    All = 2,
}

/// INVEPT: drops translations made through second-level tables. `eptp` is ignored for [`Scope::All`].
///
/// # Safety
/// The LP must be in VMX root operation and have INVEPT.
pub unsafe fn invept(scope: Scope, eptp: u64) -> Result<(), VmxFailed> {
    let operand = InvalidateOperand([eptp, 0]);
    // SAFETY: passed on to the caller; the operand is 16 bytes.
    unsafe {
        asm!(
            "invept {}, [{}]",
            "jbe {}",
            in(reg) scope as u64,
            in(reg) &raw const operand,
            label { return Err(VmxFailed) },
            options(nostack),
        );
    }
    Ok(())
}

/// INVVPID: drops translations tagged with `vpid`, which is ignored for [`Scope::All`].
///
/// # Safety
/// The LP must be in VMX root operation and have INVVPID.
pub unsafe fn invvpid(scope: Scope, vpid: u16) -> Result<(), VmxFailed> {
    let operand = InvalidateOperand([u64::from(vpid), 0]);
    // SAFETY: passed on to the caller; the operand is 16 bytes.
    unsafe {
        asm!(
            "invvpid {}, [{}]",
            "jbe {}",
            in(reg) scope as u64,
            in(reg) &raw const operand,
            label { return Err(VmxFailed) },
            options(nostack),
        );
    }
    Ok(())
}

/// Ends the blocking of NMIs that an exit for an NMI leaves behind, as IRET does.
pub fn unblock_nmis() {
    // SAFETY: IRETQ returns to the next line with the stack, flags and segments that it found.
    unsafe {
        asm!(
            "mov {scratch:e}, ss",
            "push {scratch}",
            "lea {stack}, [rsp + 8]",
            "push {stack}",
            "pushfq",
            "mov {scratch:e}, cs",
            "push {scratch}",
            "lea {scratch}, [rip + 2f]",
            "push {scratch}",
            "iretq",
            "2:",
            scratch = out(reg) _,
            stack = out(reg) _,
        );
    }
}

/// Loads DR6, which holds the guest's value: the hypervisor sets no breakpoints. Bits 63:32 are dropped, since the
/// instruction faults on them.
pub fn write_dr6(value: u64) {
    // SAFETY: DR6 is a record of causes; it arms nothing.
    unsafe {
        asm!("mov dr6, {}", in(reg) value & 0xFFFF_FFFF, options(nomem, nostack, preserves_flags))
    }
}
