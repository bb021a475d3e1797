//! The way from the firmware's page tables to the hypervisor's and back: one page of code, mapped at the same
//! address in both.
//!
//! The code is position-independent and lies in a section of its own, so that the firmware maps it executable
//! (reserved memory may be no-execute) and the page holds nothing else.
#![expect(unsafe_code, reason = "switches page tables")]

use core::arch::global_asm;
use core::mem::offset_of;

use addr::Spa;
use bootinfo::Operation;
use placement::PAGE;
use uefi::Status;
use x86::cr4;

use crate::failure::Failure;

/// What [`enter`] needs to know.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Jump {
    /// What the hypervisor shall do.
    pub operation: Operation,
    /// Index of the LP that calls.
    pub lp: u32,
    /// The boot record.
    pub boot_info: Spa,
    /// The hypervisor's page tables.
    pub root_table: Spa,
    /// Virtual address, in the hypervisor's tables, of the byte after this LP's bootstrap stack.
    pub stack_top: u64,
    /// Virtual address of the hypervisor's entry point.
    pub entry: u64,
}

const _: () = assert!(offset_of!(Jump, operation) == 0 && offset_of!(Jump, lp) == 4);
const _: () = assert!(offset_of!(Jump, boot_info) == 8);
const _: () = assert!(offset_of!(Jump, root_table) == 16);
const _: () = assert!(offset_of!(Jump, stack_top) == 24);
const _: () = assert!(offset_of!(Jump, entry) == 32);

// The pushes below build a `LaunchCall`, last field first.
const _: () = assert!(
    offset_of!(bootinfo::LaunchCall, operation) == 0 && offset_of!(bootinfo::LaunchCall, lp) == 4
);
const _: () = assert!(offset_of!(bootinfo::LaunchCall, boot_info) == 8);
const _: () = assert!(offset_of!(bootinfo::LaunchCall, guest_rsp) == 16);
const _: () = assert!(offset_of!(bootinfo::LaunchCall, guest_rip) == 24);
const _: () = assert!(offset_of!(bootinfo::LaunchCall, guest_rflags) == 32);
const _: () = assert!(offset_of!(bootinfo::LaunchCall, guest_cr3) == 40);

// Global translations survive a write to CR3, and both table trees may have some: PGE is off around the switch.
//
//   rbx firmware CR3    rbp firmware RSP    r12 CR4    r13 CR4 without PGE    r15 hypervisor stack, then call
//
// The firmware's stack is not mapped in the hypervisor's tables, so everything crosses in registers.
global_asm!(
    ".section .tramp, \"xr\"",
    ".balign 4096",
    ".global verdigris_trampoline",
    ".global verdigris_trampoline_end",
    "verdigris_trampoline:",
    "    push rbx",
    "    push rbp",
    "    push r12",
    "    push r13",
    "    push r14",
    "    push r15",
    "    pushfq",
    "    cli",
    "    pushfq",
    "    pop r10",
    "    mov ecx, cs",
    "    push rcx",
    "    mov ecx, ds",
    "    push rcx",
    "    mov ecx, es",
    "    push rcx",
    "    mov ecx, ss",
    "    push rcx",
    "    mov rbx, cr3",
    "    mov rbp, rsp",
    "    mov r12, cr4",
    "    mov r13, r12",
    "    and r13, {without_pge}",
    "    mov r8, [rdi + 8]",
    "    mov r11, [rdi + 16]",
    "    mov r15, [rdi + 24]",
    "    mov r14, [rdi + 32]",
    "    mov rdi, [rdi]",
    "    lea r9, [rip + 2f]",
    "    mov cr4, r13",
    "    mov cr3, r11",
    "    mov cr4, r12",
    "    mov rsp, r15",
    "    push rbx",
    "    push r10",
    "    push r9",
    "    push rbp",
    "    push r8",
    "    push rdi",
    "    mov rdi, rsp",
    "    call r14",
    // Back without a launch: done with preparing, or refused. Status in RAX.
    "    mov cr4, r13",
    "    mov cr3, rbx",
    "    mov cr4, r12",
    "    mov rsp, rbp",
    // A launch that failed late has left the hypervisor's selectors; the firmware's GDT is in force again.
    "    pop rcx",
    "    mov ss, ecx",
    "    pop rcx",
    "    mov es, ecx",
    "    pop rcx",
    "    mov ds, ecx",
    "    lea rcx, [rip + 3f]",
    "    push rcx",
    "    retfq",
    // Launched: this LP is a guest now, with RSP as it was saved above.
    "2:",
    "    xor eax, eax",
    "    add rsp, 32",
    "3:",
    "    popfq",
    "    pop r15",
    "    pop r14",
    "    pop r13",
    "    pop r12",
    "    pop rbp",
    "    pop rbx",
    "    ret",
    "verdigris_trampoline_end:",
    ".balign 4096",
    ".text",
    without_pge = const !(cr4::PGE as i32),
);

unsafe extern "sysv64" {
    fn verdigris_trampoline(jump: *const Jump) -> u64;
    static verdigris_trampoline_end: u8;
}

/// Address of the page that holds the trampoline, the same in both table trees.
pub fn page() -> Result<u64, Failure> {
    let start = verdigris_trampoline as *const () as u64;
    let end = &raw const verdigris_trampoline_end as u64;
    if !start.is_multiple_of(PAGE) || end - start > PAGE {
        return Err(Failure::new(
            Status::LOAD_ERROR,
            format_args!("the loader's image is damaged: its trampoline is not one page"),
        ));
    }
    Ok(start)
}

/// Calls the hypervisor on this LP. Returns its status; after a successful launch, as a guest, success.
///
/// # Safety
/// `jump` must describe a placed hypervisor whose tables map [`page`], and no other LP may be on the same stack.
/// For a launch, every check must have passed.
pub unsafe fn enter(jump: &Jump) -> bootinfo::Status {
    // SAFETY: the caller vouches for `jump`. The trampoline keeps the callee-saved registers and the flags; it is
    // executable in the firmware's tables, being code of this image, and in the hypervisor's by `place`.
    bootinfo::Status(unsafe { verdigris_trampoline(jump) })
}
