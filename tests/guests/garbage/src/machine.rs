//! The child's machine: its VP, its ports, and memory at fixed places.
#![expect(
    unsafe_code,
    reason = "privileged instructions, and memory that belongs to nobody else"
)]

use core::alloc::{GlobalAlloc, Layout};
use core::arch::asm;
use core::fmt::{self, Write};
use core::ptr;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tlfs::msr;

/// The hypercall page.
const CALL_PAGE: u64 = 0x80_0000;
/// Input of calls, one page.
pub const INPUT: u64 = 0x80_1000;
/// Message page of the VP.
pub const MESSAGES: u64 = 0x80_2000;
/// Event flags page of the VP.
pub const EVENTS: u64 = 0x80_3000;
/// Data of the disk, two pages.
pub const DATA: u64 = 0x80_4000;
/// Both rings of a channel.
pub const RINGS: u64 = 0x81_0000;
/// What is allocated lies here and is never given back: the program ends before it is full.
const HEAP: usize = 0x100_0000;
const HEAP_BYTES: usize = 0x200_0000;
/// RAM of the child ends here.
pub const RAM_END: u64 = 0x400_0000;

const COM1: u16 = 0x3F8;
const PM1_CONTROL: u16 = 0x404;
const SLEEP_ENABLE: u16 = 1 << 13;
const RESET: u16 = 0x433;

struct Bump(AtomicUsize);

#[global_allocator]
static BUMP: Bump = Bump(AtomicUsize::new(0));

// SAFETY: each byte of the heap is handed out once; the heap is RAM that nobody else uses.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let bytes = layout.size().next_multiple_of(16);
        let at = self.0.fetch_add(bytes, Ordering::Relaxed);
        if at + bytes > HEAP_BYTES {
            return ptr::null_mut();
        }
        ptr::with_exposed_provenance_mut(HEAP + at)
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

/// A word of memory that others write, too.
pub fn word(at: u64) -> &'static AtomicU64 {
    let at: *const AtomicU64 = ptr::with_exposed_provenance(at as usize & !7);
    // SAFETY: all of the first 4 GiB is mapped, and the callers name RAM that is no Rust object.
    unsafe { &*at }
}

/// WRMSR.
pub fn wrmsr(register: u32, value: u64) {
    let (low, high) = (value as u32, (value >> 32) as u32);
    // SAFETY: the machine is this program's own.
    unsafe { asm!("wrmsr", in("ecx") register, in("eax") low, in("edx") high, options(nostack)) };
}

/// Time of the partition in units of 100 ns.
pub fn now_100ns() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the register exists for every partition.
    unsafe {
        asm!("rdmsr", in("ecx") msr::TIME_REF_COUNT, out("eax") low, out("edx") high, options(nostack))
    };
    u64::from(high) << 32 | u64::from(low)
}

fn out8(port: u16, value: u8) {
    // SAFETY: as above.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nostack, preserves_flags)) };
}

fn out16(port: u16, value: u16) {
    // SAFETY: as above.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nostack, preserves_flags)) };
}

/// A hypercall through the hypercall page.
pub fn call(control: u64, input: u64) -> u64 {
    let result: u64;
    // SAFETY: the page holds the vendor's call and a return, which change RAX alone.
    unsafe {
        asm!(
            "call {page}",
            page = in(reg) CALL_PAGE,
            in("rcx") control,
            in("rdx") input,
            in("r8") 0_u64,
            out("rax") result,
        );
    }
    result
}

/// Identity, hypercall page and SynIC. Interrupts stay off: messages are looked for.
pub fn set_up(sint: u8, vector: u8) {
    wrmsr(msr::GUEST_OS_ID, 0x8100_0007_0304_0000);
    wrmsr(msr::HYPERCALL, CALL_PAGE | 1);
    wrmsr(msr::SIMP, MESSAGES | 1);
    wrmsr(msr::SIEFP, EVENTS | 1);
    wrmsr(msr::SINT0 + u32::from(sint), vector.into());
    wrmsr(msr::SCONTROL, msr::SCONTROL_ENABLE);
    // The local APIC is on.
    // SAFETY: the register page is where every PC has it; a 32-bit store is what it takes.
    unsafe { ptr::with_exposed_provenance_mut::<u32>(0xFEE0_00F0).write_volatile(0x1FF) };
}

/// Switches the child off.
pub fn power_off() -> ! {
    loop {
        out16(PM1_CONTROL, SLEEP_ENABLE);
    }
}

/// Resets the child.
pub fn reset() -> ! {
    loop {
        out8(RESET, 1);
    }
}

/// COM1, whose transmitter is always empty.
pub struct Com1;

impl Write for Com1 {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                out8(COM1, b'\r');
            }
            out8(COM1, byte);
        }
        Ok(())
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let _ = writeln!(Com1, "\nBail out! {info}");
    power_off()
}
