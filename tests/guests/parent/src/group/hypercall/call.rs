//! How a call is made, and what it leaves alone.

use core::sync::atomic::{AtomicU64, Ordering};

use x86::{Gp, cr0, cr4};

use super::page;
use machine::insn;
use machine::probe::is_ud;
use machine::snippet;
use machine::tables;
use machine::trap::{self, Fault, Regs, Snippet};
use machine::verdict::{check, equal, note};

/// HvCallNotifyLongSpinWait, fast: does nothing whether it is known or not.
const SPIN_WAIT: u64 = 0x8 | FAST;
/// The fast bit of the control word.
pub const FAST: u64 = 1 << 16;

/// What [`make`] returns when the call faulted, with the vector in the low byte.
pub const FAULTED: u64 = 0xFA17_0000_0000_0000;

snippet!(code_vmcall: "vmcall");
snippet!(code_vmmcall: "vmmcall");
snippet!(code_vector_registers:
    "movups xmm0, [rsi]",
    "movups xmm5, [rsi + 16]",
    "movups xmm15, [rsi + 32]",
    "call rdi",
    "movups [rsi], xmm0",
    "movups [rsi + 16], xmm5",
    "movups [rsi + 32], xmm15",
);

// To CPL 3 on the same stack, and there the call. Without a fault, HLT gives #GP.
snippet!(code_vmcall_user:
    "mov rdx, rsp",
    "push 0x23",
    "push rdx",
    "push 2",
    "push 0x2B",
    "lea rax, [rip + 2f]",
    "push rax",
    "iretq",
    "2:",
    "vmcall",
    "hlt",
);
snippet!(code_vmmcall_user:
    "mov rdx, rsp",
    "push 0x23",
    "push rdx",
    "push 2",
    "push 0x2B",
    "lea rax, [rip + 2f]",
    "push rax",
    "iretq",
    "2:",
    "vmmcall",
    "hlt",
);

/// Makes the call at `address` and returns RAX.
pub fn make(address: u64, control: u64, input: u64, output: u64) -> u64 {
    let mut regs = Regs::default();
    regs.gp.set(Gp::Rax, u64::MAX);
    regs.gp.set(Gp::Rcx, control);
    regs.gp.set(Gp::Rdx, input);
    regs.gp.set(Gp::R8, output);
    match trap::call_at(address, &mut regs) {
        Ok(()) => regs.gp.get(Gp::Rax),
        Err(Fault { vector, .. }) => FAULTED | u64::from(vector),
    }
}

/// Which registers survive.
pub fn registers(address: u64) {
    let mut regs = Regs::default();
    for register in 0..16 {
        regs.gp.0[register] = 0x0101_0101_0000_5A5A * (register as u64 + 1);
    }
    regs.gp.set(Gp::Rcx, SPIN_WAIT);
    let before = regs;
    let result = trap::call_at(address, &mut regs);
    check("hypercall: a call through the page returns", result.is_ok());
    for (name, register) in [
        ("RBX", Gp::Rbx),
        ("RBP", Gp::Rbp),
        ("RSI", Gp::Rsi),
        ("RDI", Gp::Rdi),
        ("R12", Gp::R12),
        ("R13", Gp::R13),
        ("R14", Gp::R14),
        ("R15", Gp::R15),
    ] {
        equal(
            format_args!("hypercall: {name} kept"),
            regs.gp.get(register),
            before.gp.get(register),
        );
    }
    equal(
        "hypercall: the result's reserved bits are zero",
        regs.gp.get(Gp::Rax) >> 16,
        0,
    );

    let (old_cr0, old_cr4) = (insn::read_cr0(), insn::read_cr4());
    insn::write_cr0(old_cr0 & !(cr0::EM | cr0::TS));
    insn::write_cr4(old_cr4 | cr4::OSFXSR);
    static VECTORS: [AtomicU64; 6] = [const { AtomicU64::new(0) }; 6];
    for (number, half) in VECTORS.iter().enumerate() {
        half.store(0x0123_4567_89AB_CDEF ^ number as u64, Ordering::SeqCst);
    }
    let mut regs = Regs::default();
    regs.gp.set(Gp::Rsi, VECTORS.as_ptr() as u64);
    regs.gp.set(Gp::Rdi, address);
    regs.gp.set(Gp::Rcx, SPIN_WAIT);
    let result = trap::call(code_vector_registers, &mut regs);
    let kept = VECTORS
        .iter()
        .enumerate()
        .all(|(number, half)| half.load(Ordering::SeqCst) == 0x0123_4567_89AB_CDEF ^ number as u64);
    check("hypercall: XMM registers kept", result.is_ok() && kept);
    insn::write_cr4(old_cr4);
    insn::write_cr0(old_cr0);
}

const _: () = assert!(tables::USER_DATA == 0x23 && tables::USER_CODE == 0x2B);

/// Calls from outside the page, and with the other vendor's instruction.
pub fn placement() {
    let mut regs = Regs::default();
    regs.gp.set(Gp::Rcx, SPIN_WAIT);
    let (own, other) = if page::is_amd() {
        (
            trap::call(code_vmmcall, &mut regs),
            trap::call(code_vmcall, &mut Regs::default()),
        )
    } else {
        (
            trap::call(code_vmcall, &mut regs),
            trap::call(code_vmmcall, &mut Regs::default()),
        )
    };
    check(
        "hypercall: the instruction works outside the page",
        own.is_ok(),
    );
    check(
        "hypercall: the other vendor's instruction gives #UD",
        is_ud(&other),
    );
    let code: Snippet = if page::is_amd() {
        code_vmmcall_user
    } else {
        code_vmcall_user
    };
    let mut regs = Regs::default();
    regs.gp.set(Gp::Rcx, SPIN_WAIT);
    let result = trap::call(code, &mut regs);
    if !check("hypercall: a call from CPL 3 gives #UD", is_ud(&result)) {
        note(format_args!("{result:x?}"));
    }
}
