//! One wrapper per privileged instruction.
//!
//! A wrapper is safe where no value of its arguments can break the memory safety of the hypervisor; the others say
//! what their caller owes.
#![expect(unsafe_code, reason = "the owner of the privileged instructions")]

use core::arch::asm;

use x86::TableRegister;
use x86::cpuid::CpuidResult;

/// RDTSC. Not serializing.
#[inline]
pub fn rdtsc() -> u64 {
    // SAFETY: reads a counter, touches no memory.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// CPUID of `leaf` and `subleaf`, as this LP answers with its present CR4 and XCR0.
#[inline]
pub fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    let r = core::arch::x86_64::__cpuid_count(leaf, subleaf);
    CpuidResult {
        eax: r.eax,
        ebx: r.ebx,
        ecx: r.ecx,
        edx: r.edx,
    }
}

// In both windows an interrupt may be announced and then withdrawn: the parent masks LINT0 while the 8259 has its
// line up. QEMU then delivers vector -1, which raises #GP; the fix-ups make that an interrupt that never was.

/// Lets interrupts in for one instruction's time. The stubs of [`super::idt`] record the vector of the first
/// one and return with interrupts off.
#[inline(never)]
pub fn interrupt_window() {
    // SAFETY: the handlers of the hypervisor's IDT preserve all registers; IF is clear again afterwards.
    unsafe {
        asm!(
            "sti",
            "2: nop",
            "3: cli",
            ".pushsection .fixup, \"a\"",
            ".quad 2b, 3b",
            ".quad 3b, 3b",
            ".popsection",
        )
    }
}

/// Halts until an interrupt or NMI and takes it. IF is clear again afterwards.
#[inline(never)]
pub fn halt_with_interrupts() {
    // SAFETY: as for `interrupt_window`; STI's shadow makes the pair free of a lost wake-up.
    unsafe {
        asm!(
            "sti",
            "2: hlt",
            "3: cli",
            ".pushsection .fixup, \"a\"",
            ".quad 2b, 3b",
            ".quad 3b, 3b",
            ".popsection",
        )
    }
}

/// Stops this LP. Only an NMI, INIT or SMI ends a HLT with interrupts off, so it loops.
pub fn stop() -> ! {
    loop {
        // SAFETY: halting touches no memory.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) }
    }
}

/// Reads port `port`, one byte.
#[inline]
pub fn inb(port: u16) -> u8 {
    let value;
    // SAFETY: port input cannot write the hypervisor's memory; which ports are read is the parent's policy.
    unsafe {
        asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags))
    }
    value
}

/// Reads port `port`, two bytes.
#[inline]
pub fn inw(port: u16) -> u16 {
    let value;
    // SAFETY: as for `inb`.
    unsafe {
        asm!("in ax, dx", in("dx") port, out("ax") value, options(nomem, nostack, preserves_flags))
    }
    value
}

/// Reads port `port`, four bytes.
#[inline]
pub fn inl(port: u16) -> u32 {
    let value;
    // SAFETY: as for `inb`.
    unsafe {
        asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack, preserves_flags))
    }
    value
}

/// Writes port `port`, one byte.
#[inline]
pub fn outb(port: u16, value: u8) {
    // SAFETY: a device may start DMA of it, which the parent that owns all devices can ask for anyway.
    unsafe {
        asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags))
    }
}

/// Writes port `port`, two bytes.
#[inline]
pub fn outw(port: u16, value: u16) {
    // SAFETY: as for `outb`.
    unsafe {
        asm!("out dx, ax", in("dx") port, in("ax") value, options(nomem, nostack, preserves_flags))
    }
}

/// Writes port `port`, four bytes.
#[inline]
pub fn outl(port: u16, value: u32) {
    // SAFETY: as for `outb`.
    unsafe {
        asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack, preserves_flags))
    }
}

macro_rules! read_register {
    ($(#[$doc:meta])* $name:ident, $register:literal) => {
        $(#[$doc])*
        #[inline]
        pub fn $name() -> u64 {
            let value;
            // SAFETY: reading a control or debug register has no side effect.
            unsafe { asm!(concat!("mov {}, ", $register), out(reg) value, options(nomem, nostack, preserves_flags)) }
            value
        }
    };
}

read_register!(
    /// CR0.
    read_cr0, "cr0");
read_register!(
    /// CR2.
    read_cr2, "cr2");
read_register!(
    /// CR3.
    read_cr3, "cr3");
read_register!(
    /// CR4.
    read_cr4, "cr4");
read_register!(
    /// DR6.
    read_dr6, "dr6");
read_register!(
    /// DR7.
    read_dr7, "dr7");

/// Loads CR0.
///
/// # Safety
/// The value must keep protection, paging and write protection on.
#[inline]
pub unsafe fn write_cr0(value: u64) {
    // SAFETY: passed on to the caller.
    unsafe { asm!("mov cr0, {}", in(reg) value, options(nostack, preserves_flags)) }
}

/// Loads CR4.
///
/// # Safety
/// The value must keep the paging mode, and features that other code of this LP relies on.
#[inline]
pub unsafe fn write_cr4(value: u64) {
    // SAFETY: passed on to the caller.
    unsafe { asm!("mov cr4, {}", in(reg) value, options(nostack, preserves_flags)) }
}

/// Loads CR2, which the hypervisor itself uses in its fault handler only.
#[inline]
pub fn write_cr2(value: u64) {
    // SAFETY: CR2 is data.
    unsafe { asm!("mov cr2, {}", in(reg) value, options(nomem, nostack, preserves_flags)) }
}

/// DR0 to DR3, which hold a guest's values.
pub fn read_breakpoints() -> [u64; 4] {
    let (a, b, c, d);
    // SAFETY: reading debug registers has no side effect.
    unsafe {
        asm!(
            "mov {}, dr0", "mov {}, dr1", "mov {}, dr2", "mov {}, dr3",
            out(reg) a, out(reg) b, out(reg) c, out(reg) d,
            options(nomem, nostack, preserves_flags),
        )
    }
    [a, b, c, d]
}

/// Loads DR0 to DR3.
pub fn write_breakpoints([a, b, c, d]: [u64; 4]) {
    // SAFETY: DR7 of the hypervisor enables none of them.
    unsafe {
        asm!(
            "mov dr0, {}", "mov dr1, {}", "mov dr2, {}", "mov dr3, {}",
            in(reg) a, in(reg) b, in(reg) c, in(reg) d,
            options(nomem, nostack, preserves_flags),
        )
    }
}

/// Drops every translation of this LP, global ones included.
pub fn flush_own_tlb() {
    let cr4 = read_cr4();
    // SAFETY: toggling PGE keeps the paging mode.
    unsafe { write_cr4(cr4 ^ x86::cr4::PGE) };
    // SAFETY: restores the value just read.
    unsafe { write_cr4(cr4) };
}

/// GDTR.
pub fn sgdt() -> TableRegister {
    let mut raw = [0u16; 5];
    // SAFETY: SGDT writes ten bytes to the array.
    unsafe { asm!("sgdt [{}]", in(reg) raw.as_mut_ptr(), options(nostack, preserves_flags)) }
    table_register(raw)
}

/// IDTR.
pub fn sidt() -> TableRegister {
    let mut raw = [0u16; 5];
    // SAFETY: SIDT writes ten bytes to the array.
    unsafe { asm!("sidt [{}]", in(reg) raw.as_mut_ptr(), options(nostack, preserves_flags)) }
    table_register(raw)
}

fn table_register(raw: [u16; 5]) -> TableRegister {
    let word = |i: usize| u64::from(raw[i]) << (16 * (i - 1));
    TableRegister {
        limit: raw[0],
        base: word(1) | word(2) | word(3) | word(4),
    }
}

fn table_operand(table: TableRegister) -> [u16; 5] {
    let b = table.base;
    [
        table.limit,
        b as u16,
        (b >> 16) as u16,
        (b >> 32) as u16,
        (b >> 48) as u16,
    ]
}

/// Loads GDTR.
///
/// # Safety
/// `table` must describe a valid GDT that stays where it is.
pub unsafe fn lgdt(table: TableRegister) {
    let raw = table_operand(table);
    // SAFETY: passed on to the caller.
    unsafe { asm!("lgdt [{}]", in(reg) raw.as_ptr(), options(nostack, preserves_flags)) }
}

/// Loads IDTR.
///
/// # Safety
/// `table` must describe a valid IDT that stays where it is.
pub unsafe fn lidt(table: TableRegister) {
    let raw = table_operand(table);
    // SAFETY: passed on to the caller.
    unsafe { asm!("lidt [{}]", in(reg) raw.as_ptr(), options(nostack, preserves_flags)) }
}

/// Loads the task register.
///
/// # Safety
/// `selector` must name an available 64-bit TSS of the present GDT.
pub unsafe fn ltr(selector: u16) {
    // SAFETY: passed on to the caller.
    unsafe { asm!("ltr {:x}", in(reg) selector, options(nostack, preserves_flags)) }
}

macro_rules! read_selector {
    ($($name:ident $instruction:literal)*) => { $(
        /// The selector that the name says.
        #[inline]
        pub fn $name() -> u16 {
            let value: u16;
            // SAFETY: reads a selector.
            unsafe { asm!($instruction, out(reg) value, options(nomem, nostack, preserves_flags)) }
            value
        }
    )* };
}

read_selector! {
    read_es "mov {:x}, es"
    read_cs "mov {:x}, cs"
    read_ss "mov {:x}, ss"
    read_ds "mov {:x}, ds"
    read_fs "mov {:x}, fs"
    read_gs "mov {:x}, gs"
    sldt "sldt {:x}"
    str "str {:x}"
}

/// MFENCE.
#[inline]
pub fn mfence() {
    // SAFETY: orders memory accesses.
    unsafe { asm!("mfence", options(nostack, preserves_flags)) }
}

/// WBINVD.
pub fn wbinvd() {
    // SAFETY: writes caches back; contents of memory do not change.
    unsafe { asm!("wbinvd", options(nostack, preserves_flags)) }
}
