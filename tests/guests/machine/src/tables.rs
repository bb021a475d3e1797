//! This program's own descriptor tables, in place of the firmware's.
#![expect(unsafe_code, reason = "descriptor tables are loaded by their address")]

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use x86::cr4;

use super::{cpu, insn, paging, trap};

/// Selector of 64-bit code.
pub const CODE: u16 = 0x08;
/// Selector of data and stack.
pub const DATA: u16 = 0x10;
/// Selector of data at CPL 3.
pub const USER_DATA: u16 = 0x20 | 3;
/// Selector of 64-bit code at CPL 3.
pub const USER_CODE: u16 = 0x28 | 3;
const TSS: u16 = 0x30;

const GDT_ENTRIES: usize = 8;

/// Operand of LGDT and LIDT.
#[repr(C, packed)]
pub struct TablePointer {
    limit: u16,
    base: u64,
}

#[repr(C, align(16))]
struct Gdt([AtomicU64; GDT_ENTRIES]);

static GDT: Gdt = Gdt([
    AtomicU64::new(0),
    AtomicU64::new(0x00AF_9B00_0000_FFFF),
    AtomicU64::new(0x00CF_9300_0000_FFFF),
    AtomicU64::new(0x00CF_9B00_0000_FFFF),
    AtomicU64::new(0x00CF_F300_0000_FFFF),
    AtomicU64::new(0x00AF_FB00_0000_FFFF),
    AtomicU64::new(0),
    AtomicU64::new(0),
]);

#[repr(C, align(16))]
struct Idt([AtomicU64; 512]);

static IDT: Idt = Idt([const { AtomicU64::new(0) }; 512]);

/// The task state of the boot processor: only RSP0 is used, by the tests at CPL 3.
#[repr(C, align(16))]
struct Tss([AtomicU64; 14]);

static TSS_BSP: Tss = Tss([const { AtomicU64::new(0) }; 14]);
const TSS_LIMIT: u64 = 103;

#[repr(C, align(16))]
struct Stack([AtomicU64; 2048]);

static USER_EXIT_STACK: Stack = Stack([const { AtomicU64::new(0) }; 2048]);

static IMAGE_BASE: AtomicU64 = AtomicU64::new(0);

/// Where this program was loaded, for messages about faults.
pub fn image_base() -> u64 {
    IMAGE_BASE.load(Ordering::SeqCst)
}

/// Limit and base of the descriptor table, for the code that starts other processors.
pub fn gdt() -> (u16, u64) {
    let pointer = gdt_pointer();
    (pointer.limit, pointer.base)
}

fn gdt_pointer() -> TablePointer {
    TablePointer {
        limit: (GDT_ENTRIES * 8 - 1) as u16,
        base: core::ptr::from_ref(&GDT) as u64,
    }
}

fn idt_pointer() -> TablePointer {
    TablePointer {
        limit: 4095,
        base: core::ptr::from_ref(&IDT) as u64,
    }
}

/// Takes the boot processor from the firmware: interrupts off, own page tables, GDT, IDT, TSS. No boot service
/// may be called afterwards.
pub fn take_over(image: u64, top_of_memory: u64) {
    IMAGE_BASE.store(image, Ordering::SeqCst);
    insn::cli();
    // Every page is open to CPL 3, for the tests there.
    insn::write_cr4(insn::read_cr4() & !(cr4::SMEP | cr4::SMAP | cr4::CET));
    for vector in 0..256 {
        let handler = trap::stubs() + vector * trap::STUB_SIZE;
        let low = (handler & 0xFFFF)
            | (u64::from(CODE) << 16)
            | (0x8E00 << 32)
            | (((handler >> 16) & 0xFFFF) << 48);
        IDT.0[vector as usize * 2].store(low, Ordering::SeqCst);
        IDT.0[vector as usize * 2 + 1].store(handler >> 32, Ordering::SeqCst);
    }
    let stack_top = core::ptr::from_ref(&USER_EXIT_STACK) as u64 + 2048 * 8;
    // RSP0 is at byte 4, the I/O map base at byte 102 (Intel SDM vol. 3A, "TSS in 64-bit Mode").
    TSS_BSP.0[0].store(stack_top << 32, Ordering::SeqCst);
    TSS_BSP.0[1].store(stack_top >> 32, Ordering::SeqCst);
    TSS_BSP.0[12].store(104 << 48, Ordering::SeqCst);
    let base = core::ptr::from_ref(&TSS_BSP) as u64;
    let low = TSS_LIMIT | ((base & 0xFF_FFFF) << 16) | (0x89 << 40) | ((base >> 24 & 0xFF) << 56);
    GDT.0[usize::from(TSS / 8)].store(low, Ordering::SeqCst);
    GDT.0[usize::from(TSS / 8) + 1].store(base >> 32, Ordering::SeqCst);

    paging::build(top_of_memory);
    insn::write_cr3(paging::root(insn::read_cr4()));
    load(0);
    // SAFETY: the descriptor was filled above and is not busy.
    unsafe { asm!("ltr {:x}", in(reg) TSS, options(nostack, preserves_flags)) };
}

/// Loads GDT, segment registers, IDT and GS base on the calling processor, number `index`.
pub fn load(index: usize) {
    let gdt = gdt_pointer();
    // SAFETY: the table is static and its selectors are those loaded here; the code goes on at the next line.
    unsafe {
        asm!(
            "lgdt [{gdt}]",
            "push {code}",
            "lea {scratch}, [rip + 2f]",
            "push {scratch}",
            "retfq",
            "2:",
            "mov ds, {data:x}",
            "mov es, {data:x}",
            "mov ss, {data:x}",
            // Null selectors: a return to CPL 3 and back leaves them, and the base in GS, alone.
            "mov fs, {null:x}",
            "mov gs, {null:x}",
            gdt = in(reg) &gdt,
            code = const CODE,
            data = in(reg) u64::from(DATA),
            null = in(reg) 0_u64,
            scratch = out(reg) _,
        );
    }
    cpu::install(index);
    trap::load_idt(&idt_pointer());
}
