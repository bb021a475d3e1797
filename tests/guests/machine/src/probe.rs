//! Instructions that may fault, with the fault as a value.
#![expect(unsafe_code, reason = "snippets are functions in assembly")]

use x86::{Gp, vector};

use super::trap::{self, Fault, Regs, Snippet};

/// Defines code for [`trap::call`]: the lines given, and a near return.
#[macro_export]
macro_rules! snippet {
    ($name:ident: $($line:expr),+ $(,)?) => {
        #[unsafe(naked)]
        unsafe extern "sysv64" fn $name() {
            core::arch::naked_asm!($($line),+, "ret")
        }
    };
}

snippet!(code_rdmsr: "rdmsr");
snippet!(code_wrmsr: "wrmsr");
snippet!(code_write_cr0: "mov cr0, rax");
snippet!(code_write_cr3: "mov cr3, rax");
snippet!(code_write_cr4: "mov cr4, rax");
snippet!(code_xsetbv: "xsetbv");
snippet!(code_read32: "mov eax, [rbx]");
snippet!(code_write32: "mov [rbx], eax");
snippet!(code_write64: "mov [rbx], rax");

/// RDMSR.
pub fn rdmsr(msr: u32) -> Result<u64, Fault> {
    let mut regs = Regs::default();
    regs.gp.set(Gp::Rcx, u64::from(msr));
    trap::call(code_rdmsr, &mut regs)?;
    Ok(regs.gp.edx_eax())
}

/// WRMSR.
pub fn wrmsr(msr: u32, value: u64) -> Result<(), Fault> {
    with_pair(code_wrmsr, msr, value)
}

/// XSETBV of register `index`.
pub fn xsetbv(index: u32, value: u64) -> Result<(), Fault> {
    with_pair(code_xsetbv, index, value)
}

fn with_pair(code: Snippet, index: u32, value: u64) -> Result<(), Fault> {
    let mut regs = Regs::default();
    regs.gp.set(Gp::Rcx, u64::from(index));
    regs.gp.set_edx_eax(value);
    trap::call(code, &mut regs)
}

fn with_rax(code: Snippet, value: u64) -> Result<(), Fault> {
    let mut regs = Regs::default();
    regs.gp.set(Gp::Rax, value);
    trap::call(code, &mut regs)
}

/// MOV to CR0.
pub fn write_cr0(value: u64) -> Result<(), Fault> {
    with_rax(code_write_cr0, value)
}

/// MOV to CR3.
pub fn write_cr3(value: u64) -> Result<(), Fault> {
    with_rax(code_write_cr3, value)
}

/// MOV to CR4.
pub fn write_cr4(value: u64) -> Result<(), Fault> {
    with_rax(code_write_cr4, value)
}

/// A read of four bytes of memory.
pub fn read32(address: u64) -> Result<u32, Fault> {
    let mut regs = Regs::default();
    regs.gp.set(Gp::Rbx, address);
    trap::call(code_read32, &mut regs)?;
    Ok(regs.gp.get(Gp::Rax) as u32)
}

/// A write of four bytes of memory.
pub fn write32(address: u64, value: u32) -> Result<(), Fault> {
    let mut regs = Regs::default();
    regs.gp.set(Gp::Rbx, address);
    regs.gp.set(Gp::Rax, u64::from(value));
    trap::call(code_write32, &mut regs)
}

/// A write of eight bytes of memory.
pub fn write64(address: u64, value: u64) -> Result<(), Fault> {
    let mut regs = Regs::default();
    regs.gp.set(Gp::Rbx, address);
    regs.gp.set(Gp::Rax, value);
    trap::call(code_write64, &mut regs)
}

/// Whether `result` is a general protection fault with error code 0.
pub fn is_gp<T>(result: &Result<T, Fault>) -> bool {
    matches!(
        result,
        Err(Fault {
            vector: vector::GP,
            error: 0,
            ..
        })
    )
}

/// Whether `result` is an invalid opcode fault.
pub fn is_ud<T>(result: &Result<T, Fault>) -> bool {
    matches!(
        result,
        Err(Fault {
            vector: vector::UD,
            ..
        })
    )
}
