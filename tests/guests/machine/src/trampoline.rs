//! The way of another processor from its first instruction in real mode to 64-bit code.
//!
//! The code is copied to a page below 1 MiB. It notes the registers as INIT and SIPI left them, before it changes
//! any, then switches to long mode at once and calls [`super::smp::enter`].
#![expect(
    unsafe_code,
    reason = "the code is assembly that is copied and patched"
)]

use core::arch::global_asm;

use super::insn::{read_phys64, write_phys64};
use super::{insn, paging, smp, tables};

/// Offset in the page at which the first registers are saved; see [`Saved`].
const SAVED: u64 = 0x800;
/// Offset of what the code needs to know.
const PARAMETERS: u64 = 0xC00;

/// Processors that may use one page at a time get their number here: offset of a counter.
const COUNTER: u64 = PARAMETERS + 0x38;

/// Bytes of stack per processor.
pub const STACK_SIZE: u64 = 16 * 1024;

// Parameters, from 0xC00: 0 GDT pointer (10 bytes), 0x10 CR3, 0x14 CR4, 0x18 CR0, 0x1C EFER, 0x20 far pointer,
// 0x28 stacks, 0x30 entry, 0x38 counter.
global_asm!(
    ".global verdigris_trampoline",
    ".global verdigris_trampoline_long",
    ".global verdigris_trampoline_end",
    ".p2align 4",
    "verdigris_trampoline:",
    ".code16",
    "cli",
    "mov cs:[0x800], eax",
    "mov cs:[0x804], ebx",
    "mov cs:[0x808], ecx",
    "mov cs:[0x80C], edx",
    "mov cs:[0x810], esi",
    "mov cs:[0x814], edi",
    "mov cs:[0x818], ebp",
    "mov cs:[0x81C], esp",
    "mov ax, cs",
    "mov cs:[0x820], ax",
    "mov ax, ds",
    "mov cs:[0x822], ax",
    "mov ax, es",
    "mov cs:[0x824], ax",
    "mov ax, ss",
    "mov cs:[0x826], ax",
    "mov ax, cs",
    "mov ss, ax",
    "mov sp, 0x7F0",
    "pushfd",
    "pop eax",
    "mov cs:[0x828], eax",
    "mov eax, cr0",
    "mov cs:[0x82C], eax",
    "mov eax, cr3",
    "mov cs:[0x830], eax",
    "mov eax, cr4",
    "mov cs:[0x834], eax",
    "mov ecx, 0xC0000080",
    "rdmsr",
    "mov cs:[0x838], eax",
    "sgdt cs:[0x840]",
    "sidt cs:[0x848]",
    "mov ax, cs",
    "mov ds, ax",
    "xor ebx, ebx",
    "mov bx, cs",
    "shl ebx, 4",
    ".byte 0x66, 0x0F, 0x01, 0x16, 0x00, 0x0C", // lgdt with a 32-bit base, [0xC00]
    "mov eax, ds:[0xC14]",
    "mov cr4, eax",
    "mov eax, ds:[0xC10]",
    "mov cr3, eax",
    "mov ecx, 0xC0000080",
    "mov eax, ds:[0xC1C]",
    "xor edx, edx",
    "wrmsr",
    "mov eax, ds:[0xC18]",
    "mov cr0, eax",
    ".byte 0x66, 0xFF, 0x2E, 0x20, 0x0C", // jmp far dword [0xC20]
    ".code64",
    "verdigris_trampoline_long:",
    "mov eax, 0x10",
    "mov ds, eax",
    "mov es, eax",
    "mov ss, eax",
    "mov eax, 1",
    "lock xadd [rbx + 0xC38], rax",
    "mov rdi, rax",
    "inc rax",
    "shl rax, 14",
    "add rax, [rbx + 0xC28]",
    "mov rsp, rax",
    "xor ebp, ebp",
    "call qword ptr [rbx + 0xC30]",
    "ud2",
    "verdigris_trampoline_end:",
);

const _: () = assert!(STACK_SIZE == 1 << 14);

unsafe extern "C" {
    fn verdigris_trampoline();
    fn verdigris_trampoline_long();
    fn verdigris_trampoline_end();
}

/// Registers at the first instruction.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Saved {
    /// EAX, EBX, ECX, EDX, ESI, EDI, EBP, ESP.
    pub general: [u32; 8],
    pub cs: u16,
    pub ds: u16,
    pub es: u16,
    pub ss: u16,
    pub eflags: u32,
    pub cr0: u32,
    pub cr3: u32,
    pub cr4: u32,
    pub efer: u32,
    /// Limit and base.
    pub gdtr: (u16, u32),
    /// Limit and base.
    pub idtr: (u16, u32),
}

/// Writes the code and its parameters into `page`, which lies below 1 MiB.
pub fn install(page: u64) {
    let start = verdigris_trampoline as *const () as u64;
    let len = verdigris_trampoline_end as *const () as u64 - start;
    for offset in (0..len).step_by(8) {
        write_phys64(page + offset, read_phys64(start + offset));
    }
    let long = verdigris_trampoline_long as *const () as u64 - start;
    let (gdt_limit, gdt_base) = tables::gdt();
    let (cr0, cr4) = (insn::read_cr0(), insn::read_cr4());
    let parameters = page + PARAMETERS;
    write_phys64(parameters, u64::from(gdt_limit) | (gdt_base << 16));
    write_phys64(parameters + 8, gdt_base >> 48);
    write_phys64(parameters + 0x10, paging::root(cr4) | (cr4 << 32));
    // EFER of the boot processor without LMA, which hardware sets.
    let efer = insn::rdmsr(x86::msr::EFER) & !x86::efer::LMA;
    write_phys64(parameters + 0x18, (cr0 & 0xFFFF_FFFF) | (efer << 32));
    write_phys64(
        parameters + 0x20,
        (page + long) | (u64::from(tables::CODE) << 32),
    );
    write_phys64(parameters + 0x28, smp::stacks());
    write_phys64(parameters + 0x30, smp::enter as *const () as u64);
    write_phys64(page + COUNTER, 0);
}

/// The next processor that comes through `page` gets `number`, the ones after it the following numbers.
pub fn number_from(page: u64, number: u64) {
    write_phys64(page + COUNTER, number);
}

/// The number that the next processor would get.
pub fn next_number(page: u64) -> u64 {
    read_phys64(page + COUNTER)
}

/// What the processor that came through `page` last had in its registers.
pub fn saved(page: u64) -> Saved {
    let word = |offset: u64| insn::read_mmio32(page + SAVED + offset);
    let half = |offset: u64| (word(offset & !3) >> ((offset & 2) * 8)) as u16;
    let table = |offset: u64| {
        (
            half(offset),
            u32::from(half(offset + 2)) | (u32::from(half(offset + 4)) << 16),
        )
    };
    Saved {
        general: [0, 4, 8, 12, 16, 20, 24, 28].map(word),
        cs: half(0x20),
        ds: half(0x22),
        es: half(0x24),
        ss: half(0x26),
        eflags: word(0x28),
        cr0: word(0x2C),
        cr3: word(0x30),
        cr4: word(0x34),
        efer: word(0x38),
        gdtr: table(0x40),
        idtr: table(0x48),
    }
}
