//! One function per instruction that compilers have no word for.
//!
//! They are safe to call here: this program owns the whole machine, runs at CPL 0, and its business is to do
//! to the processor what a careful program would not. A fault ends the run with a line that says where.
#![expect(unsafe_code, reason = "each function is one privileged instruction")]

use core::arch::asm;
use core::arch::x86_64::{__cpuid_count, _rdtsc};

pub use x86::cpuid::CpuidResult;

/// CPUID with EAX = `leaf`, ECX = `subleaf`.
pub fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    let r = __cpuid_count(leaf, subleaf);
    CpuidResult {
        eax: r.eax,
        ebx: r.ebx,
        ecx: r.ecx,
        edx: r.edx,
    }
}

/// The time-stamp counter.
pub fn rdtsc() -> u64 {
    // SAFETY: RDTSC is allowed at CPL 0.
    unsafe { _rdtsc() }
}

/// RDMSR. Faults end the run: use `probe::rdmsr` where one is possible.
pub fn rdmsr(msr: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads a register; see the head of the file for faults.
    unsafe { asm!("rdmsr", in("ecx") msr, out("eax") low, out("edx") high, options(nostack)) };
    (u64::from(high) << 32) | u64::from(low)
}

/// WRMSR. Faults end the run: use `probe::wrmsr` where one is possible.
pub fn wrmsr(msr: u32, value: u64) {
    let (low, high) = (value as u32, (value >> 32) as u32);
    // SAFETY: the callers write only what this program may change; see the head of the file for faults.
    unsafe { asm!("wrmsr", in("ecx") msr, in("eax") low, in("edx") high, options(nostack)) };
}

macro_rules! control_register {
    ($read:ident, $write:ident, $name:literal) => {
        #[doc = concat!("Reads ", $name, ".")]
        pub fn $read() -> u64 {
            let value: u64;
            // SAFETY: reads a register.
            unsafe { asm!(concat!("mov {}, ", $name), out(reg) value, options(nostack, preserves_flags)) };
            value
        }

        #[doc = concat!("Writes ", $name, ".")]
        pub fn $write(value: u64) {
            // SAFETY: callers keep long mode, paging and the identity map as they are.
            unsafe { asm!(concat!("mov ", $name, ", {}"), in(reg) value, options(nostack)) };
        }
    };
}

control_register!(read_cr0, write_cr0, "cr0");
control_register!(read_cr3, write_cr3, "cr3");
control_register!(read_cr4, write_cr4, "cr4");
control_register!(read_cr8, write_cr8, "cr8");

/// XGETBV of XCR0. CR4.OSXSAVE must be set.
pub fn read_xcr0() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller set CR4.OSXSAVE.
    unsafe { asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nostack)) };
    (u64::from(high) << 32) | u64::from(low)
}

/// XSETBV of XCR0 with a value the processor accepts.
pub fn write_xcr0(value: u64) {
    // SAFETY: this program keeps nothing in vector registers across calls.
    unsafe {
        asm!("xsetbv", in("ecx") 0, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack))
    };
}

macro_rules! port {
    ($read:ident, $write:ident, $type:ty, $in:literal, $out:literal, $register:tt) => {
        #[doc = concat!("Reads a `", stringify!($type), "` from a port.")]
        pub fn $read(port: u16) -> $type {
            let value: $type;
            // SAFETY: no port that this program reads changes memory.
            unsafe { asm!($in, in("dx") port, out($register) value, options(nostack, preserves_flags)) };
            value
        }

        #[doc = concat!("Writes a `", stringify!($type), "` to a port.")]
        pub fn $write(port: u16, value: $type) {
            // SAFETY: no port that this program writes starts DMA.
            unsafe { asm!($out, in("dx") port, in($register) value, options(nostack, preserves_flags)) };
        }
    };
}

port!(in8, out8, u8, "in al, dx", "out dx, al", "al");
port!(in16, out16, u16, "in ax, dx", "out dx, ax", "ax");
port!(in32, out32, u32, "in eax, dx", "out dx, eax", "eax");

/// Allows maskable interrupts.
pub fn sti() {
    // SAFETY: every gate of this program's IDT has a handler.
    unsafe { asm!("sti", "nop", options(nostack)) };
}

/// Holds maskable interrupts back.
pub fn cli() {
    // SAFETY: changes RFLAGS.IF only.
    unsafe { asm!("cli", options(nostack)) };
}

/// Waits for an interrupt with interrupts allowed, then holds them back again. An interrupt that was pending
/// already wakes it too: STI takes effect after HLT has begun.
pub fn halt_once() {
    // SAFETY: as `sti`.
    unsafe { asm!("sti", "hlt", "cli", options(nostack)) };
}

/// Halts with interrupts held back: only an NMI, INIT or reset goes on from here.
pub fn halt_forever() {
    // SAFETY: stops this processor, which is what the caller wants.
    unsafe { asm!("cli", "hlt", options(nostack)) };
}

/// Tells the processor, and a hypervisor, that this is a spin loop.
pub fn pause() {
    core::hint::spin_loop();
}

/// RFLAGS.
pub fn read_rflags() -> u64 {
    let value: u64;
    // SAFETY: pushes and pops eight bytes.
    unsafe { asm!("pushfq", "pop {}", out(reg) value) };
    value
}

/// Reads a register of a device through the identity map.
pub fn read_mmio32(address: u64) -> u32 {
    let value: u32;
    // SAFETY: every address below the end of the identity map is mapped; one MOV, so that the access has the
    // width asked for.
    unsafe {
        asm!("mov {:e}, [{}]", out(reg) value, in(reg) address, options(nostack, preserves_flags))
    };
    value
}

/// Writes a register of a device through the identity map.
pub fn write_mmio32(address: u64, value: u32) {
    // SAFETY: as `read_mmio32`; callers pass addresses of devices or of pages they own.
    unsafe {
        asm!("mov [{}], {:e}", in(reg) address, in(reg) value, options(nostack, preserves_flags))
    };
}

/// Reads eight bytes of physical memory.
pub fn read_phys64(address: u64) -> u64 {
    let value: u64;
    // SAFETY: as `read_mmio32`.
    unsafe {
        asm!("mov {}, [{}]", out(reg) value, in(reg) address, options(nostack, preserves_flags))
    };
    value
}

/// Writes eight bytes of physical memory.
pub fn write_phys64(address: u64, value: u64) {
    // SAFETY: as `write_mmio32`.
    unsafe {
        asm!("mov [{}], {}", in(reg) address, in(reg) value, options(nostack, preserves_flags))
    };
}

/// Reads one byte of physical memory.
pub fn read_phys8(address: u64) -> u8 {
    let value: u8;
    // SAFETY: as `read_mmio32`.
    unsafe {
        asm!("mov {}, byte ptr [{}]", out(reg_byte) value, in(reg) address, options(nostack, preserves_flags))
    };
    value
}

/// Writes `value` to each of `words` words of physical memory.
pub fn fill_phys(address: u64, words: u64, value: u64) {
    // SAFETY: as `write_mmio32`; the direction flag is clear throughout this program.
    unsafe {
        asm!("rep stosq", inout("rdi") address => _, inout("rcx") words => _, in("rax") value, options(nostack, preserves_flags))
    };
}
