//! The world switch.
//!
//! | state | who keeps it |
//! | --- | --- |
//! | RAX, RSP, RIP, RFLAGS, CR0, CR2 to CR4, EFER, DR6, DR7, ES, CS, SS, DS, GDTR, IDTR, PAT | VMRUN and #VMEXIT |
//! | FS, GS, TR, LDTR, KernelGSBase, STAR, LSTAR, CSTAR, SFMASK, SYSENTER | VMLOAD and VMSAVE below |
//! | the other 14 general registers | the code below |
//! | vector state, XCR0, DR0 to DR3, TSC_AUX and others | stay in the processor; see `extended.rs` |
#![expect(unsafe_code, reason = "the world switch")]

use core::arch::naked_asm;

use addr::Spa;
use x86::GpRegs;

/// Runs the guest of the VMCB at `vmcb` until its next exit.
///
/// IF is set between CLGI and VMRUN: under V_INTR_MASKING physical interrupts are recognized by the host's IF
/// as VMRUN saw it. It is clear again before STGI, so that a pending interrupt waits for the hypervisor's window;
/// a pending NMI is taken at STGI, on the hypervisor's own IDT and GS.
///
/// # Safety
/// `vmcb` is a complete VMCB with guest RAX and RSP in it, `host` a frame filled by VMSAVE on this LP; IF is clear.
#[unsafe(naked)]
pub unsafe extern "sysv64" fn enter(vmcb: Spa, gp: *mut GpRegs, host: Spa) {
    naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "push rsi",
        "push rdx",
        "mov rax, rdi",
        "clgi",
        "sti",
        "vmload rax",
        "mov rcx, [rsi + 8]",
        "mov rdx, [rsi + 16]",
        "mov rbx, [rsi + 24]",
        "mov rbp, [rsi + 40]",
        "mov rdi, [rsi + 56]",
        "mov r8, [rsi + 64]",
        "mov r9, [rsi + 72]",
        "mov r10, [rsi + 80]",
        "mov r11, [rsi + 88]",
        "mov r12, [rsi + 96]",
        "mov r13, [rsi + 104]",
        "mov r14, [rsi + 112]",
        "mov r15, [rsi + 120]",
        "mov rsi, [rsi + 48]",
        "vmrun rax",
        "vmsave rax",
        "mov rax, [rsp]",
        "vmload rax",
        "mov rax, [rsp + 8]",
        "mov [rax + 8], rcx",
        "mov [rax + 16], rdx",
        "mov [rax + 24], rbx",
        "mov [rax + 40], rbp",
        "mov [rax + 48], rsi",
        "mov [rax + 56], rdi",
        "mov [rax + 64], r8",
        "mov [rax + 72], r9",
        "mov [rax + 80], r10",
        "mov [rax + 88], r11",
        "mov [rax + 96], r12",
        "mov [rax + 104], r13",
        "mov [rax + 112], r14",
        "mov [rax + 120], r15",
        "cli",
        "stgi",
        "cld",
        "add rsp, 16",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
    )
}

/// Fills the frame at `frame` with this LP's registers of the second row above.
///
/// # Safety
/// AMD-V is on, and the frame is the hypervisor's and used for this alone.
pub unsafe fn save_host(frame: Spa) {
    // SAFETY: passed on to the caller.
    unsafe { core::arch::asm!("vmsave rax", in("rax") frame.get(), options(nostack)) }
}
