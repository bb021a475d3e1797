//! Accesses to the register page in the forms that an instruction set of this age has: each is an exit that the
//! hypervisor must decode.

use core::sync::atomic::{AtomicU32, Ordering};

use x86::msr::GS_BASE;
use x86::{Gp, rflags};

use machine::apic::{PAGE, reg};
use machine::insn;
use machine::snippet;
use machine::trap::{self, Regs, Snippet};
use machine::verdict::{check, note};

const VERSION: u64 = PAGE + 0x30;
const TPR: u64 = PAGE + 0x80;

// Reads of the version register. RBX, R12 and R13 hold the page's address, RCX the register's offset over 8.
snippet!(read_eax: "mov eax, [rbx + 0x30]");
snippet!(read_ebp: "mov ebp, [rbx + 0x30]");
snippet!(read_esi: "mov esi, [rbx + 0x30]");
snippet!(read_edi: "mov edi, [rbx + 0x30]");
snippet!(read_r8: "mov r8d, [rbx + 0x30]");
snippet!(read_r15: "mov r15d, [rbx + 0x30]");
snippet!(read_wide_displacement: "mov r10d, dword ptr [rbx + 0x01234530 - 0x01234500]", ".byte 0x90");
snippet!(read_displacement32: ".byte 0x44, 0x8B, 0x93, 0x30, 0x00, 0x00, 0x00");
snippet!(read_base_r12: "mov r9d, [r12 + 0x30]");
snippet!(read_base_r13: "mov r9d, [r13 + 0x30]");
snippet!(read_indexed: "mov eax, [rbx + rcx*8]");
snippet!(read_index_r14: "mov r11d, [r13 + r14*4 + 0x10]");
snippet!(read_address32: "mov eax, [ebx + 0x30]");
snippet!(read_moffs64: ".byte 0xA1", ".quad 0xFEE00030");
snippet!(read_moffs32: ".byte 0x67, 0xA1", ".long 0xFEE00030");
snippet!(read_segment: "mov eax, gs:[rdx]");
snippet!(read_same_register: "mov ebx, [rbx + 0x30]");
snippet!(read_add: "xor eax, eax", "add eax, [rbx + 0x30]");
snippet!(read_or: "xor eax, eax", "or eax, [rbx + 0x30]");
snippet!(read_and: "mov eax, -1", "and eax, [rbx + 0x30]");
snippet!(read_xor: "xor eax, eax", "xor eax, [rbx + 0x30]");
snippet!(read_movsxd: "movsxd rax, dword ptr [rbx + 0x30]");
snippet!(read_lods: "lea rsi, [rbx + 0x30]", "cld", "lodsd");
snippet!(compare: "cmp [rbx + 0x30], eax", "setz al", "movzx eax, al");
snippet!(compare_reversed: "cmp eax, [rbx + 0x30]", "setz al", "movzx eax, al");
snippet!(compare_immediate: "cmp dword ptr [rbx + 0x30], 0x7FFFFFFF", "setnz al", "movzx eax, al");
snippet!(test_register: "test [rbx + 0x30], eax", "setnz al", "movzx eax, al");
snippet!(test_immediate: "test dword ptr [rbx + 0x30], 0x10", "setnz al", "movzx eax, al");
snippet!(bit_test: "bt dword ptr [rbx + 0x30], 4", "setc al", "movzx eax, al");

// Writes of the task priority, 0x20 before. What it must be afterwards stands in the table.
snippet!(write_eax: "mov eax, 0x50", "mov [rbx + 0x80], eax");
snippet!(write_r12: "mov r12d, 0x50", "mov [rbx + 0x80], r12d");
snippet!(write_r15: "mov r15d, 0x50", "mov [rbx + 0x80], r15d");
snippet!(write_ebp: "mov ebp, 0x50", "mov [rbx + 0x80], ebp");
snippet!(write_base_r13: "mov edi, 0x50", "mov [r13 + 0x80], edi");
snippet!(write_immediate: "mov dword ptr [rbx + 0x80], 0x50");
snippet!(write_moffs64: "mov eax, 0x50", ".byte 0xA3", ".quad 0xFEE00080");
snippet!(write_address32: "mov eax, 0x50", "mov [ebx + 0x80], eax");
snippet!(write_xchg: "mov eax, 0x50", "xchg [rbx + 0x80], eax");
snippet!(write_lock_or: "mov eax, 0x50", "lock or [rbx + 0x80], eax");
snippet!(write_or: "mov eax, 0x50", "or [rbx + 0x80], eax");
snippet!(write_or_immediate8: "or dword ptr [rbx + 0x80], 0x50");
snippet!(write_and_immediate8: "and dword ptr [rbx + 0x80], 0x60");
snippet!(write_and_immediate32: "and dword ptr [rbx + 0x80], 0xFFF0F0");
snippet!(write_and_r9: "mov r9d, 0x30", "and [rbx + 0x80], r9d");
snippet!(write_xor: "xor dword ptr [rbx + 0x80], 0x70");
snippet!(write_add: "add dword ptr [rbx + 0x80], 0x30");
snippet!(write_sub: "sub dword ptr [rbx + 0x80], 0x10");
snippet!(write_inc: "inc dword ptr [rbx + 0x80]");
snippet!(write_dec: "dec dword ptr [rbx + 0x80]");
snippet!(write_bts: "bts dword ptr [rbx + 0x80], 6");
snippet!(write_btr: "btr dword ptr [rbx + 0x80], 5");
snippet!(write_stos: "lea rdi, [rbx + 0x80]", "mov eax, 0x50", "cld", "stosd");
snippet!(write_movnti: "mov eax, 0x50", "movnti [rbx + 0x80], eax");
snippet!(write_cmpxchg: "mov eax, 0x20", "mov ecx, 0x50", "cmpxchg [rbx + 0x80], ecx");

static CELL: AtomicU32 = AtomicU32::new(0);

/// Runs these tests. The APIC is in xAPIC mode.
pub fn run() {
    reads();
    conditions();
    writes();
    insn::write_mmio32(TPR, 0);
}

fn base() -> Regs {
    let mut regs = Regs {
        rflags: rflags::FIXED_1 | rflags::ZF,
        ..Regs::default()
    };
    for register in [Gp::Rbx, Gp::R12, Gp::R13] {
        regs.gp.set(register, PAGE);
    }
    regs.gp.set(Gp::Rcx, 6);
    regs.gp.set(Gp::R14, 8);
    regs.gp.set(Gp::Rdi, CELL.as_ptr() as u64);
    regs.gp
        .set(Gp::Rdx, VERSION.wrapping_sub(insn::rdmsr(GS_BASE)));
    regs
}

fn reads() {
    let wanted = u64::from(insn::read_mmio32(VERSION));
    check(
        "apic: the version register is plausible",
        wanted & 0xFF >= 0x10 && wanted & 0xFF <= 0x1F,
    );
    let all: [(&str, Snippet, Gp); 23] = [
        ("mov eax, [rbx+disp8]", read_eax, Gp::Rax),
        ("mov ebp", read_ebp, Gp::Rbp),
        ("mov esi", read_esi, Gp::Rsi),
        ("mov edi", read_edi, Gp::Rdi),
        ("mov r8d", read_r8, Gp::R8),
        ("mov r15d", read_r15, Gp::R15),
        ("mov r10d", read_wide_displacement, Gp::R10),
        ("mov r10d, [rbx+disp32]", read_displacement32, Gp::R10),
        ("mov r9d, [r12+disp8]", read_base_r12, Gp::R9),
        ("mov r9d, [r13+disp8]", read_base_r13, Gp::R9),
        ("mov eax, [rbx+rcx*8]", read_indexed, Gp::Rax),
        ("mov r11d, [r13+r14*4+disp8]", read_index_r14, Gp::R11),
        ("mov eax, [ebx+disp8]", read_address32, Gp::Rax),
        ("mov eax, moffs64", read_moffs64, Gp::Rax),
        ("mov eax, moffs32", read_moffs32, Gp::Rax),
        ("mov eax, gs:[rdx]", read_segment, Gp::Rax),
        ("mov ebx, [rbx+disp8]", read_same_register, Gp::Rbx),
        ("add eax, m32", read_add, Gp::Rax),
        ("or eax, m32", read_or, Gp::Rax),
        ("and eax, m32", read_and, Gp::Rax),
        ("xor eax, m32", read_xor, Gp::Rax),
        ("movsxd rax, m32", read_movsxd, Gp::Rax),
        ("lodsd", read_lods, Gp::Rax),
    ];
    for (name, code, register) in all {
        let mut regs = base();
        let before = regs.gp;
        let result = trap::call(code, &mut regs);
        let changed =
            |number: usize| regs.gp.0[number] != before.0[number] && number != register as usize;
        // The string form moves its pointer by design.
        let others = code as usize != read_lods as *const () as usize && (0..16).any(changed);
        if !check(
            format_args!("apic read: {name}"),
            result.is_ok() && regs.gp.get(register) == wanted && !others,
        ) {
            note(format_args!(
                "{result:x?} got {:#x}, wanted {wanted:#x}",
                regs.gp.get(register)
            ));
        }
    }
}

fn conditions() {
    let version = u64::from(insn::read_mmio32(VERSION));
    let all: [(&str, Snippet); 6] = [
        ("cmp m32, eax", compare),
        ("cmp eax, m32", compare_reversed),
        ("cmp m32, imm32", compare_immediate),
        ("test m32, eax", test_register),
        ("test m32, imm32", test_immediate),
        ("bt m32, imm8", bit_test),
    ];
    for (name, code) in all {
        let mut regs = base();
        regs.gp.set(Gp::Rax, version);
        let result = trap::call(code, &mut regs);
        check(
            format_args!("apic flags: {name}"),
            result.is_ok() && regs.gp.get(Gp::Rax) == 1,
        );
    }
}

fn writes() {
    let all: [(&str, Snippet, u32); 25] = [
        ("mov m32, eax", write_eax, 0x50),
        ("mov m32, r12d", write_r12, 0x50),
        ("mov m32, r15d", write_r15, 0x50),
        ("mov m32, ebp", write_ebp, 0x50),
        ("mov [r13+disp32], edi", write_base_r13, 0x50),
        ("mov m32, imm32", write_immediate, 0x50),
        ("mov moffs64, eax", write_moffs64, 0x50),
        ("mov [ebx+disp32], eax", write_address32, 0x50),
        ("xchg m32, eax", write_xchg, 0x50),
        ("lock or m32, eax", write_lock_or, 0x70),
        ("or m32, eax", write_or, 0x70),
        ("or m32, imm8", write_or_immediate8, 0x70),
        ("and m32, imm8", write_and_immediate8, 0x20),
        ("and m32, imm32", write_and_immediate32, 0x20),
        ("and m32, r9d", write_and_r9, 0x20),
        ("xor m32, imm8", write_xor, 0x50),
        ("add m32, imm8", write_add, 0x50),
        ("sub m32, imm8", write_sub, 0x10),
        ("inc m32", write_inc, 0x21),
        ("dec m32", write_dec, 0x1F),
        ("bts m32, imm8", write_bts, 0x60),
        ("btr m32, imm8", write_btr, 0x00),
        ("stosd", write_stos, 0x50),
        ("movnti m32, eax", write_movnti, 0x50),
        ("cmpxchg m32, ecx", write_cmpxchg, 0x50),
    ];
    CELL.store(0x50, Ordering::SeqCst);
    for (name, code, wanted) in all {
        insn::write_mmio32(TPR, 0x20);
        let mut regs = base();
        regs.gp.set(Gp::Rdx, CELL.as_ptr() as u64);
        let result = trap::call(code, &mut regs);
        let got = insn::read_mmio32(PAGE + u64::from(reg::TPR) * 16);
        if !check(
            format_args!("apic write: {name}"),
            result.is_ok() && got == wanted,
        ) {
            note(format_args!("{result:x?} got {got:#x}, wanted {wanted:#x}"));
        }
        if code as usize == write_xchg as *const () as usize {
            check(
                "apic write: xchg returns the old value",
                regs.gp.get(Gp::Rax) == 0x20,
            );
        }
    }
}
