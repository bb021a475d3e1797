//! Segments of the hypervisor: a GDT and a TSS for each LP.
//!
//! Source: SDM vol. 3A, "Task Management in 64-bit Mode", "Segment Descriptors".
#![expect(
    unsafe_code,
    reason = "the owner of GDTR, TR and the segment registers"
)]

use core::arch::asm;

use x86::TableRegister;

use super::insn;

/// Selector of the hypervisor's 64-bit code segment.
pub const CODE: u16 = 0x08;
/// Selector of the hypervisor's data segment.
pub const DATA: u16 = 0x10;
/// Selector of the task state segment.
pub const TASK: u16 = 0x18;

/// Interrupt stack table entries, as IDT gates number them.
pub mod ist {
    #![allow(missing_docs, reason = "the names say it")]
    pub const NMI: u8 = 1;
    pub const DOUBLE_FAULT: u8 = 2;
    pub const MACHINE_CHECK: u8 = 3;
    pub const COUNT: usize = 3;
}

const CODE_64: u64 = 0x00AF_9B00_0000_FFFF;
const DATA_32: u64 = 0x00CF_9300_0000_FFFF;

/// The 64-bit TSS. Only the interrupt stack table is used.
#[repr(C, packed(4))]
struct TaskState {
    reserved0: u32,
    rsp: [u64; 3],
    reserved1: u64,
    ist: [u64; 7],
    reserved2: u64,
    reserved3: u16,
    io_map_base: u16,
}

const _: () = assert!(size_of::<TaskState>() == 104);

/// Descriptor tables of one LP. Never moves once loaded.
#[repr(C, align(16))]
pub struct Descriptors {
    gdt: [u64; 5],
    task: TaskState,
}

impl Descriptors {
    /// Tables whose interrupt stacks end at `stacks`, in the order of [`ist`].
    pub fn new(stacks: [u64; ist::COUNT]) -> Self {
        let mut task = TaskState {
            reserved0: 0,
            rsp: [0; 3],
            reserved1: 0,
            ist: [0; 7],
            reserved2: 0,
            reserved3: 0,
            io_map_base: size_of::<TaskState>() as u16,
        };
        let [nmi, double_fault, machine_check] = stacks;
        task.ist = [nmi, double_fault, machine_check, 0, 0, 0, 0];
        Self {
            gdt: [0, CODE_64, DATA_32, 0, 0],
            task,
        }
    }

    /// Loads GDTR, all segment registers and TR of this LP.
    ///
    /// # Safety
    /// Runs in 64-bit mode with interrupts off; the caller reloads IDTR before anything can fault, and GS base
    /// afterwards, since loading GS clears it.
    pub unsafe fn load(&'static mut self) {
        let base = &raw const self.task as u64;
        let limit = size_of::<TaskState>() as u64 - 1;
        // Available 64-bit TSS, present; LTR marks it busy, so it is written anew at each load.
        self.gdt[3] = limit | (base & 0xFF_FFFF) << 16 | 0x89 << 40 | (base >> 24 & 0xFF) << 56;
        self.gdt[4] = base >> 32;
        let table = TableRegister {
            base: self.gdt.as_ptr() as u64,
            limit: size_of_val(&self.gdt) as u16 - 1,
        };
        // SAFETY: the table is valid and, by `&'static mut self`, stays.
        unsafe { insn::lgdt(table) };
        // SAFETY: both selectors name flat segments of the table just loaded; the far return goes to the next line.
        unsafe {
            asm!(
                "push {code}",
                "lea {scratch}, [rip + 2f]",
                "push {scratch}",
                "retfq",
                "2:",
                "mov ds, {data:x}",
                "mov es, {data:x}",
                "mov ss, {data:x}",
                "mov fs, {zero:x}",
                "mov gs, {zero:x}",
                "lldt {zero:x}",
                code = const CODE as u64,
                data = in(reg) DATA,
                zero = in(reg) 0u16,
                scratch = out(reg) _,
            )
        }
        // SAFETY: descriptor 3 is an available TSS.
        unsafe { insn::ltr(TASK) };
    }
}
