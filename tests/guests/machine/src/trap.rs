//! Exceptions and interrupts: 256 gates, one handler, and a way back for code that is meant to fault.
#![expect(
    unsafe_code,
    reason = "entry code in assembly, and the stack frames it builds"
)]

use core::arch::{global_asm, naked_asm};
use core::sync::atomic::Ordering;

use x86::{GpRegs, rflags};

use super::{apic, cpu, insn};

/// First vector that is an interrupt and not an exception.
const FIRST_INTERRUPT: u64 = 32;

/// A vector below 32 that no exception has: what QEMU's APIC delivers for an illegal one.
const NO_EXCEPTION: u64 = 15;

/// Bytes of code per gate.
pub const STUB_SIZE: u64 = 16;

/// What the entry code leaves on the stack: registers in the order in which instructions encode them, then what
/// the stub and the processor pushed.
#[repr(C)]
pub struct Frame {
    /// RAX to R15; the slot of RSP is not filled.
    pub gp: GpRegs,
    /// The gate.
    pub vector: u64,
    /// The error code, or 0.
    pub error: u64,
    /// RIP to return to.
    pub rip: u64,
    /// CS to return to.
    pub cs: u64,
    /// RFLAGS to return with.
    pub rflags: u64,
    /// RSP to return to.
    pub rsp: u64,
    /// SS to return to.
    pub ss: u64,
}

const _: () = assert!(core::mem::size_of::<Frame>() == 23 * 8);

// A stub is 16 bytes: a zero where the processor pushes no error code, the vector, and a jump. The error code
// vectors are those of Intel SDM vol. 3A, "Exception and Interrupt Reference", table of that chapter.
global_asm!(
    ".p2align 4",
    ".global verdigris_trap_stubs",
    "verdigris_trap_stubs:",
    ".set vector, 0",
    ".rept 256",
    ".p2align 4",
    ".if vector != 8 && vector != 10 && vector != 11 && vector != 12 && vector != 13 && vector != 14 && vector != 17 && vector != 21 && vector != 29 && vector != 30",
    "push 0",
    ".endif",
    "push vector",
    "jmp verdigris_trap_entry",
    ".set vector, vector + 1",
    ".endr",
    "verdigris_trap_entry:",
    "push r15",
    "push r14",
    "push r13",
    "push r12",
    "push r11",
    "push r10",
    "push r9",
    "push r8",
    "push rdi",
    "push rsi",
    "push rbp",
    "push 0",
    "push rbx",
    "push rdx",
    "push rcx",
    "push rax",
    "cld",
    "mov rdi, rsp",
    "mov rbp, rsp",
    "and rsp, -16",
    "call qword ptr gs:[32]",
    "mov rsp, rbp",
    "pop rax",
    "pop rcx",
    "pop rdx",
    "pop rbx",
    "add rsp, 8",
    "pop rbp",
    "pop rsi",
    "pop rdi",
    "pop r8",
    "pop r9",
    "pop r10",
    "pop r11",
    "pop r12",
    "pop r13",
    "pop r14",
    "pop r15",
    "add rsp, 16",
    "iretq",
);

unsafe extern "sysv64" {
    fn verdigris_trap_stubs();
}

/// Address of the code behind the gate of vector 0; the others follow every [`STUB_SIZE`] bytes.
pub fn stubs() -> u64 {
    verdigris_trap_stubs as *const () as u64
}

/// Code for [`call`]: takes and changes any register but RSP, and ends with a near return.
pub type Snippet = unsafe extern "sysv64" fn();

/// Registers for a [`Snippet`], before and after.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Regs {
    /// The general registers; RSP is not loaded.
    pub gp: GpRegs,
    /// RFLAGS.
    pub rflags: u64,
}

const _: () = assert!(core::mem::offset_of!(Regs, rflags) == 128);

/// Calls the code at RDI with the registers at RSI and stores what it leaves there. Returns 0, or 1 when it
/// faulted: `handle` then made the fault return to `recover`.
#[unsafe(naked)]
unsafe extern "sysv64" fn enter(code: u64, regs: *mut Regs) -> u64 {
    naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "push rsi",
        "mov gs:[0], rsp",
        "mov gs:[8], rdi",
        "push qword ptr [rsi + 128]",
        "mov rax, [rsi]",
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
        "popfq",
        "call qword ptr gs:[8]",
        "mov gs:[16], rsi",
        "pushfq",
        "mov rsi, [rsp + 8]",
        "mov [rsi], rax",
        "mov [rsi + 8], rcx",
        "mov [rsi + 16], rdx",
        "mov [rsi + 24], rbx",
        "mov [rsi + 40], rbp",
        "mov [rsi + 56], rdi",
        "mov [rsi + 64], r8",
        "mov [rsi + 72], r9",
        "mov [rsi + 80], r10",
        "mov [rsi + 88], r11",
        "mov [rsi + 96], r12",
        "mov [rsi + 104], r13",
        "mov [rsi + 112], r14",
        "mov [rsi + 120], r15",
        "pop qword ptr [rsi + 128]",
        "mov rax, gs:[16]",
        "mov [rsi + 48], rax",
        "xor eax, eax",
        "jmp {finish}",
        finish = sym finish,
    )
}

/// Where a fault under [`enter`] continues, RSP as `enter` noted it.
#[unsafe(naked)]
unsafe extern "sysv64" fn recover() {
    naked_asm!("mov eax, 1", "jmp {finish}", finish = sym finish)
}

/// The end of [`enter`].
#[unsafe(naked)]
unsafe extern "sysv64" fn finish() {
    naked_asm!(
        "mov qword ptr gs:[0], 0",
        "cld",
        "pop rsi",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",
    )
}

/// An exception that a snippet raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The exception's vector.
    pub vector: u8,
    /// Its error code, or 0.
    pub error: u64,
    /// RIP as pushed.
    pub rip: u64,
}

/// [`call_at`] for whoever has a handler of its own behind GS: whether the code faulted.
///
/// GS must point at four words as [`cpu::Cpu`] begins with, and the handler in the fifth must do on a fault what
/// [`recover_from`] does.
pub fn try_at(address: u64, regs: &mut Regs) -> bool {
    // SAFETY: as in `call_at`.
    unsafe { enter(address, regs) != 0 }
}

/// Makes `frame`, of a fault under [`call_at`] or [`try_at`] that noted `recover_rsp`, return there.
pub fn recover_from(frame: &mut Frame, recover_rsp: u64) {
    // SAFETY: `enter` pushed the address of its caller's `Regs` last.
    let pointer = unsafe { *(recover_rsp as *const *mut Regs) };
    // SAFETY: that caller waits for `enter`, so nothing else uses them.
    let regs = unsafe { &mut *pointer };
    regs.gp = frame.gp;
    regs.rflags = frame.rflags;
    frame.rip = recover as *const () as u64;
    frame.rsp = recover_rsp;
    frame.cs = u64::from(super::tables::CODE);
    frame.ss = u64::from(super::tables::DATA);
    frame.rflags = (frame.rflags & rflags::IF) | rflags::FIXED_1;
}

/// Runs the code at `address`, which ends with a near return, with `regs` loaded. On a fault `regs` holds the
/// registers at that moment.
pub fn call_at(address: u64, regs: &mut Regs) -> Result<(), Fault> {
    // SAFETY: `enter` keeps the callee-saved registers and the stack whatever the snippet does, as long as that
    // keeps RSP; all snippets here do, and a fault comes back through `recover`.
    let faulted = unsafe { enter(address, regs) };
    if faulted == 0 {
        return Ok(());
    }
    let cpu = cpu::this();
    Err(Fault {
        vector: cpu.fault_vector.load(Ordering::SeqCst) as u8,
        error: cpu.fault_error.load(Ordering::SeqCst),
        rip: cpu.fault_rip.load(Ordering::SeqCst),
    })
}

/// [`call_at`] for a function of this program.
pub fn call(snippet: Snippet, regs: &mut Regs) -> Result<(), Fault> {
    call_at(snippet as *const () as u64, regs)
}

/// What every gate of a processor of this program leads to.
pub extern "sysv64" fn handle(frame: &mut Frame) {
    let cpu = cpu::this();
    let vector = frame.vector as u8;
    if frame.vector >= FIRST_INTERRUPT || frame.vector == NO_EXCEPTION {
        cpu.record(vector);
        if let Some(hook) = cpu.hook() {
            hook(cpu, vector);
        } else if cpu.auto_eoi.load(Ordering::SeqCst) {
            apic::end_of_interrupt();
        }
        return;
    }
    if vector == x86::vector::NMI {
        cpu.record(vector);
        return;
    }
    let recover_rsp = cpu.recover_rsp.load(Ordering::SeqCst);
    if recover_rsp == 0 {
        crate::verdict::bail_out(format_args!(
            "unexpected exception {} error {:#x} at {:#x} (image at {:#x}) on cpu {} cr2 {:#x} rsp {:#x}",
            frame.vector,
            frame.error,
            frame.rip,
            super::tables::image_base(),
            cpu.index.load(Ordering::SeqCst),
            read_cr2(),
            frame.rsp,
        ));
    }
    cpu.fault_vector.store(frame.vector, Ordering::SeqCst);
    cpu.fault_error.store(frame.error, Ordering::SeqCst);
    cpu.fault_rip.store(frame.rip, Ordering::SeqCst);
    cpu.fault_cr2.store(read_cr2(), Ordering::SeqCst);
    recover_from(frame, recover_rsp);
}

/// CR2.
pub fn read_cr2() -> u64 {
    let value: u64;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mov {}, cr2", out(reg) value, options(nostack, preserves_flags)) };
    value
}

/// Loads an interrupt table, for `tables`.
pub(super) fn load_idt(pointer: &super::tables::TablePointer) {
    // SAFETY: the caller's table is static and complete.
    unsafe {
        core::arch::asm!("lidt [{}]", in(reg) pointer, options(nostack, readonly, preserves_flags))
    };
    debug_assert!(insn::read_rflags() & rflags::IF == 0);
}
