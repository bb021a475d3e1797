//! What a child's program in Rust stands on: a shared page per VP behind GS, exceptions as values, hypercalls.
//!
//! It runs in the child, where nothing of this program's writable data is mapped: no statics, no heap.
#![expect(
    unsafe_code,
    reason = "privileged instructions, and a page that is found through GS"
)]

use core::arch::asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use machine::snippet;
use machine::trap::{self, Frame, Regs, Snippet};
use x86::Gp;

use super::code::{FAULT, STOP};
use super::layout;

/// How a handler ends an interrupt; 0: not at all.
pub mod eoi {
    /// By the register page.
    pub const XAPIC: u64 = 1;
    /// By the MSR of x2APIC mode.
    pub const X2APIC: u64 = 2;
    /// By the hypervisor's MSR.
    pub const SYNTHETIC: u64 = 3;
    /// By the hypervisor's MSR, unless the VP assist page says that there is no need.
    pub const LAZY: u64 = 4;
}

/// What a VP and the parent share. The first five fields are those of [`machine::cpu::Cpu`].
#[repr(C)]
pub struct Shared {
    recover_rsp: AtomicU64,
    target: AtomicU64,
    scratch: AtomicU64,
    /// Index of the VP.
    pub index: AtomicU64,
    handler: AtomicU64,
    /// Address of this in the child.
    me: AtomicU64,
    /// The last exception: vector, error code, RIP, CR2.
    pub fault: [AtomicU64; 4],
    /// One of [`eoi`].
    pub eoi: AtomicU64,
    /// A port for the handler to write the vector to, or 0.
    pub report: AtomicU64,
    /// Arguments, set by the parent.
    pub args: [AtomicU64; 32],
    /// Results.
    pub out: [AtomicU64; 128],
    /// Interrupts taken, by vector.
    pub counts: [AtomicU32; 256],
}

const _: () = assert!(core::mem::size_of::<Shared>() <= 4096);

impl Shared {
    /// Prepares the page for VP `index` of a child.
    pub fn prepare(&self, index: u32) {
        self.index.store(index.into(), Ordering::SeqCst);
        self.handler
            .store(handle as *const () as u64, Ordering::SeqCst);
        let me = layout::SHARED + u64::from(index) * 0x1000;
        self.me.store(me, Ordering::SeqCst);
        self.recover_rsp.store(0, Ordering::SeqCst);
    }

    /// Argument `n`.
    pub fn arg(&self, n: usize) -> u64 {
        self.args[n].load(Ordering::SeqCst)
    }

    /// Sets argument `n`.
    pub fn set_arg(&self, n: usize, value: u64) {
        self.args[n].store(value, Ordering::SeqCst);
    }

    /// Result `n`.
    pub fn result(&self, n: usize) -> u64 {
        self.out[n].load(Ordering::SeqCst)
    }

    /// Sets result `n`.
    pub fn set(&self, n: usize, value: u64) {
        self.out[n].store(value, Ordering::SeqCst);
    }

    /// Interrupts of `vector`.
    pub fn count(&self, vector: u8) -> u32 {
        self.counts[usize::from(vector)].load(Ordering::SeqCst)
    }
}

/// A child's program.
pub type Entry = extern "sysv64" fn(&'static Shared) -> !;

extern "sysv64" fn handle(frame: &mut Frame) {
    let me: u64;
    // SAFETY: every VP that uses these gates has GS at its `Shared`.
    unsafe { asm!("mov {}, gs:[40]", out(reg) me, options(nostack, preserves_flags, readonly)) };
    // SAFETY: the parent put the page there, and nobody takes it away.
    let shared = unsafe { &*(me as *const Shared) };
    if frame.vector >= 32 || frame.vector == 2 {
        shared.counts[frame.vector as usize & 0xFF].fetch_add(1, Ordering::SeqCst);
        let report = shared.report.load(Ordering::SeqCst);
        if report != 0 {
            out8(report as u16, frame.vector as u8);
        }
        if frame.vector != 2 {
            let how = shared.eoi.load(Ordering::SeqCst);
            if how == eoi::LAZY && needs_no_eoi() {
                // Counted in the last result but one.
                shared.set(126, shared.result(126) + 1);
            } else {
                end_of_interrupt(how);
            }
        }
        return;
    }
    for (slot, value) in
        shared
            .fault
            .iter()
            .zip([frame.vector, frame.error, frame.rip, trap::read_cr2()])
    {
        slot.store(value, Ordering::SeqCst);
    }
    let recover = shared.recover_rsp.load(Ordering::SeqCst);
    if recover == 0 {
        // SAFETY: as `out8`; the registers are for whoever reads the intercept.
        unsafe {
            asm!(
                "out dx, al",
                in("dx") FAULT,
                in("al") frame.vector as u8,
                in("rcx") frame.error,
                in("rsi") frame.rip,
                in("rdi") trap::read_cr2(),
                options(nostack, preserves_flags)
            );
        }
        stop(0xFF);
    }
    trap::recover_from(frame, recover);
}

/// Tests and clears bit 0 of the VP assist page (TLFS, "EOI Assist").
fn needs_no_eoi() -> bool {
    let was_set: u8;
    // SAFETY: the page is the child's, and there while this way is used.
    unsafe {
        asm!("lock btr dword ptr [{}], 0", "setc {}", in(reg) layout::ASSIST, out(reg_byte) was_set, options(nostack))
    };
    was_set != 0
}

/// Ends an interrupt in the way `how`.
pub fn end_of_interrupt(how: u64) {
    match how {
        eoi::XAPIC => write32(0xFEE0_00B0, 0),
        eoi::X2APIC => wrmsr(0x80B, 0),
        eoi::SYNTHETIC | eoi::LAZY => wrmsr(0x4000_0070, 0),
        _ => {}
    }
}

/// Writes a byte to a port.
pub fn out8(port: u16, value: u8) {
    // SAFETY: a child's ports are its parent's business.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nostack, preserves_flags)) };
}

/// Writes four bytes of memory.
pub fn write32(at: u64, value: u32) {
    machine::insn::write_mmio32(at, value);
}

/// Tells the parent that the program is through.
pub fn stop(value: u8) -> ! {
    loop {
        out8(STOP, value);
    }
}

/// Tells the parent something and goes on when it says so.
pub fn pause(value: u8) {
    out8(super::code::PORT, value);
}

/// RDMSR that does not fault.
pub fn rdmsr(msr: u32) -> u64 {
    machine::insn::rdmsr(msr)
}

/// WRMSR that does not fault.
pub fn wrmsr(msr: u32, value: u64) {
    machine::insn::wrmsr(msr, value);
}

snippet!(code_rdmsr: "rdmsr");
snippet!(code_wrmsr: "wrmsr");
snippet!(code_read: "mov rax, [rbx]");
snippet!(code_write: "mov [rbx], rax");
snippet!(code_vmcall: "vmcall");
snippet!(code_vmmcall: "vmmcall");
snippet!(code_in: "in eax, dx");
snippet!(code_out: "out dx, eax");

/// Registers for a snippet, with the interrupt flag as it is.
fn fresh() -> Regs {
    Regs {
        rflags: machine::insn::read_rflags(),
        ..Regs::default()
    }
}

fn try_code(code: Snippet, regs: &mut Regs) -> bool {
    trap::try_at(code as *const () as u64, regs)
}

/// RDMSR, or `None` when it faults.
pub fn try_rdmsr(msr: u32) -> Option<u64> {
    let mut regs = fresh();
    regs.gp.set(Gp::Rcx, msr.into());
    (!try_code(code_rdmsr, &mut regs)).then(|| regs.gp.edx_eax())
}

/// WRMSR; whether it was taken.
pub fn try_wrmsr(msr: u32, value: u64) -> bool {
    let mut regs = fresh();
    regs.gp.set(Gp::Rcx, msr.into());
    regs.gp.set_edx_eax(value);
    !try_code(code_wrmsr, &mut regs)
}

/// Reads eight bytes, or `None` when that faults.
pub fn try_read(at: u64) -> Option<u64> {
    let mut regs = fresh();
    regs.gp.set(Gp::Rbx, at);
    (!try_code(code_read, &mut regs)).then(|| regs.gp.get(Gp::Rax))
}

/// Writes eight bytes; whether that did not fault.
pub fn try_write(at: u64, value: u64) -> bool {
    let mut regs = fresh();
    regs.gp.set(Gp::Rbx, at);
    regs.gp.set(Gp::Rax, value);
    !try_code(code_write, &mut regs)
}

/// IN and OUT of four bytes.
pub fn try_ports(port: u16) {
    let mut regs = fresh();
    regs.gp.set(Gp::Rdx, port.into());
    try_code(code_in, &mut regs);
    try_code(code_out, &mut regs);
}

/// Status of a call that raised an exception.
pub const FAULTED: u64 = 0xFA17;

/// A hypercall by its instruction alone; RAX, or [`FAULTED`].
pub fn call(control: u64, input: u64, output: u64) -> u64 {
    let amd = matches!(machine::insn::cpuid(0, 0).ebx, 0x6874_7541 | 0x6F67_7948);
    call_by(
        if amd { code_vmmcall } else { code_vmcall },
        control,
        input,
        output,
    )
}

/// A hypercall through the hypercall page.
pub fn call_page(control: u64, input: u64, output: u64) -> u64 {
    let mut regs = registers(control, input, output);
    if trap::try_at(layout::CALL_PAGE, &mut regs) {
        return FAULTED;
    }
    regs.gp.get(Gp::Rax)
}

/// A hypercall through the page as fast as a guest makes it; it must not fault.
pub fn plain_call(control: u64, input: u64) -> u64 {
    let result: u64;
    // SAFETY: the page holds the vendor's call and a return, and the call changes RAX alone.
    unsafe {
        asm!(
            "call {page}",
            page = in(reg) layout::CALL_PAGE,
            in("rcx") control,
            in("rdx") input,
            in("r8") 0_u64,
            out("rax") result,
        );
    }
    result
}

fn registers(control: u64, input: u64, output: u64) -> Regs {
    let mut regs = fresh();
    regs.gp.set(Gp::Rcx, control);
    regs.gp.set(Gp::Rdx, input);
    regs.gp.set(Gp::R8, output);
    regs
}

fn call_by(code: Snippet, control: u64, input: u64, output: u64) -> u64 {
    let mut regs = registers(control, input, output);
    if try_code(code, &mut regs) {
        return FAULTED;
    }
    regs.gp.get(Gp::Rax)
}

/// Identity and hypercall page, as guests set them.
pub fn enable_calls() {
    wrmsr(0x4000_0000, 0x8100_0007_0304_0000);
    wrmsr(0x4000_0001, layout::CALL_PAGE | 1);
}

/// Reads eight bytes of the child's memory.
pub fn read(at: u64) -> u64 {
    machine::insn::read_phys64(at)
}

/// Writes eight bytes of the child's memory.
pub fn write(at: u64, value: u64) {
    machine::insn::write_phys64(at, value);
}

/// Spins for `ticks` of the TSC, or until `done`; says whether it was `done`.
pub fn spin_until(ticks: u64, mut done: impl FnMut() -> bool) -> bool {
    let start = machine::insn::rdtsc();
    loop {
        if done() {
            return true;
        }
        if machine::insn::rdtsc().wrapping_sub(start) >= ticks {
            return false;
        }
        machine::insn::pause();
    }
}

/// A generator of numbers (xorshift64*).
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 11) % end.max(1)
    }
}
