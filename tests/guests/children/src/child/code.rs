//! Programs in assembly, copied into a child. Each tells that it is through by an OUT to [`STOP`].
#![expect(unsafe_code, reason = "programs of other modes are assembly")]

/// Port of the end of a program.
pub const STOP: u16 = 0xF0;
/// Port of an exception that nobody expected.
pub const FAULT: u16 = 0xF1;
/// Port that only causes an intercept.
pub const PORT: u16 = 0xF2;

/// A program: its length, then its bytes.
pub type Program = unsafe extern "sysv64" fn();

/// Defines a [`Program`] for a mode (`.code16`, `.code32` or `.code64`).
#[macro_export]
macro_rules! program {
    ($name:ident, $mode:literal: $($line:expr),+ $(,)?) => {
        #[doc = concat!("Program `", stringify!($name), "`.")]
        #[unsafe(naked)]
        pub unsafe extern "sysv64" fn $name() {
            core::arch::naked_asm!(
                ".long 78f - 77f", "77:", $mode, $($line),+, "78:", ".code64"
            )
        }
    };
}

/// The bytes of `program`.
pub fn bytes(program: Program) -> &'static [u8] {
    let at = program as *const () as *const u32;
    // SAFETY: `program!` puts the length before the code.
    let len = unsafe { at.read_unaligned() };
    let code = at.wrapping_add(1).cast();
    // SAFETY: and the code, which is constant, right behind it.
    unsafe { core::slice::from_raw_parts(code, len as usize) }
}

program!(out_16, ".code16": "mov al, 0x16", "out 0xF0, al", "2:", "hlt", "jmp 2b");
program!(out_32, ".code32": "mov eax, 0x320032", "out 0xF0, eax", "2:", "hlt", "jmp 2b");
program!(out_64, ".code64": "mov eax, 0x64", "out 0xF0, al", "2:", "hlt", "jmp 2b");
// The address size of real mode, a segment with a base, and a far jump to protected mode.
program!(real_to_protected, ".code16":
    "cli",
    "lgdt [0x0FF0]",
    "mov eax, cr0",
    "or al, 1",
    "mov cr0, eax",
    ".byte 0x66, 0xEA", ".long 0x10040", ".word 0x18", // jmp far 0x18:0x10040
    ".org 77b + 0x40",
    ".code32",
    "mov ax, 0x10",
    "mov ds, ax",
    "mov es, ax",
    "mov ss, ax",
    "mov eax, 0x1632",
    "out 0xF0, eax",
    "2:", "hlt", "jmp 2b",
);
// The handler of #GP tells how much was pushed: flags, CS and IP are six bytes.
program!(real_gp, ".code16":
    "mov word ptr [13 * 4], 0x40",
    "mov word ptr [13 * 4 + 2], cs",
    "mov bx, sp",
    "mov ecx, 0x4000FFFF",
    "rdmsr",
    "mov al, 0",
    "out 0xF1, al",
    ".org 77b + 0x40",
    "sub bx, sp",
    "mov ax, bx",
    "out 0xF0, ax",
    "2:", "hlt", "jmp 2b",
);
program!(spin, ".code64": "2:", "inc qword ptr [rdi]", "pause", "jmp 2b");
program!(in_then_out, ".code64":
    "in al, 0xF2", "mov rbx, rax", "in ax, 0xF2", "mov rcx, rax", "in eax, 0xF2", "mov rdx, rax", "out 0xF0, al",
    "2:", "hlt", "jmp 2b");
program!(out_widths, ".code64":
    "out 0xF2, al", "out 0xF2, ax", "out 0xF2, eax", "mov dx, 0xCFC", "out dx, eax", "out 0xF0, al",
    "2:", "hlt", "jmp 2b");
program!(read_rsi, ".code64": "mov rax, [rsi]", "out 0xF0, al", "2:", "hlt", "jmp 2b");
program!(write_rsi, ".code64": "mov [rsi], rax", "out 0xF0, al", "2:", "hlt", "jmp 2b");
program!(jump_rsi, ".code64": "jmp rsi");
program!(rep_outsb, ".code64": "rep outsb", "out 0xF0, al", "2:", "hlt", "jmp 2b");
program!(outsd, ".code64": "outsd", "insb", "out 0xF0, al", "2:", "hlt", "jmp 2b");
program!(cpuid, ".code64": "cpuid", "out 0xF0, al", "2:", "hlt", "jmp 2b");
program!(rdmsr, ".code64": "rdmsr", "out 0xF0, al", "2:", "hlt", "jmp 2b");
program!(wrmsr, ".code64": "wrmsr", "out 0xF0, al", "2:", "hlt", "jmp 2b");
program!(halt_without_interrupts, ".code64": "cli", "2:", "hlt", "jmp 2b");
program!(triple_fault, ".code64": "ud2");
program!(undefined, ".code64": "ud2", "out 0xF0, al", "2:", "hlt", "jmp 2b");
program!(divide, ".code64": "xor edx, edx", "xor ecx, ecx", "div ecx", "out 0xF0, al", "2:", "hlt", "jmp 2b");
program!(undefined_later, ".code64":
    "2:", "pause", "cmp qword ptr [rsi], 0", "je 2b", "ud2", "out 0xF0, al", "3:", "hlt", "jmp 3b");
program!(fpu, ".code64":
    "movq xmm0, rax", "movq xmm5, rbx", "fldpi", "out 0xF2, al", "movq rcx, xmm0", "movq rdx, xmm5", "fldpi",
    "fcomip st(0), st(1)", "sete al", "out 0xF0, al", "2:", "hlt", "jmp 2b");
program!(debug_registers, ".code64":
    "mov dr0, rax", "mov dr3, rbx", "out 0xF2, al", "mov rcx, dr0", "mov rdx, dr3", "out 0xF0, al", "2:", "hlt", "jmp 2b");
program!(store_next, ".code64":
    "2:", "mov [rsi], rax", "add rsi, 4096", "dec rcx", "jnz 2b", "out 0xF0, al", "3:", "hlt", "jmp 3b");
program!(store_next_large, ".code64":
    "2:", "mov [rsi], rax", "add rsi, 0x200000", "dec rcx", "jnz 2b", "out 0xF0, al", "3:", "hlt", "jmp 3b");
program!(endless_rep, ".code64": "2:", "mov rcx, rsi", "mov rdi, 0x100000", "rep stosb", "jmp 2b");
program!(cpuid_loop, ".code64":
    "rdtsc", "mov r8, rax", "mov r9d, 1000", "2:", "xor eax, eax", "cpuid", "dec r9d", "jnz 2b", "rdtsc",
    "sub rax, r8", "out 0xF0, al", "3:", "hlt", "jmp 3b");
program!(out_loop, ".code64": "2:", "out 0xF2, al", "jmp 2b");
program!(time_loop, ".code64":
    "rdtsc", "mov r15, rax", "mov r14d, 1000", "mov ecx, 0x40000020", "2:", "rdmsr", "dec r14d", "jnz 2b", "rdtsc",
    "sub rax, r15", "out 0xF0, al", "3:", "hlt", "jmp 3b");
