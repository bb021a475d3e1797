//! Exceptions and interrupts that reach the hypervisor itself.
//!
//! Interrupts are let in at two places only ([`insn::interrupt_window`], [`insn::halt_with_interrupts`]); their stub
//! records the vector in the LP's area and clears IF in the frame it returns to, so that each window takes one.
//! NMIs are recorded. An exception goes to a fix-up address where the code that raised it has one, else it is a
//! bug of the hypervisor.
#![expect(unsafe_code, reason = "the owner of the interrupt descriptor table")]

use core::arch::global_asm;
use core::mem::offset_of;
use core::sync::atomic::Ordering;

use spin::Once;
use x86::{TableRegister, rflags, vector};

use super::descriptors::{self, ist};
use super::insn;
use super::lp::{self, LpArea};

/// Registers as the common stub leaves them on the stack.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Frame {
    /// R15, R14 … RAX without RSP, in push order from the last.
    pub gp: [u64; 15],
    /// Vector.
    pub vector: u64,
    /// Error code, 0 for vectors without one.
    pub error_code: u64,
    /// What the processor pushed.
    pub rip: u64,
    /// Code segment.
    pub cs: u64,
    /// Flags.
    pub rflags: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// Stack segment.
    pub ss: u64,
}

/// Names of [`Frame::gp`], in its order.
pub const GP_NAMES: [&str; 15] = [
    "r15", "r14", "r13", "r12", "r11", "r10", "r9", "r8", "rbp", "rdi", "rsi", "rdx", "rcx", "rbx",
    "rax",
];

// 256 stubs of at most 16 bytes. An interrupt of the parent's can carry the vector of an exception and pushes no error
// code; the processor aligns RSP before it pushes, so bit 3 of RSP tells whether there is one. Vectors 8, 10 to 14, 17, 21, 29 and 30 have an error code. External vectors take the
// short way: they only store their number. RFLAGS lies 16 bytes above RIP in the processor's frame.
global_asm!(
    ".pushsection .text.idt, \"ax\"",
    ".balign 16",
    "exception_stubs:",
    ".set i, 0",
    ".rept 32",
    ".balign 16",
    ".if (i == 8) || ((i >= 10) && (i <= 14)) || (i == 17) || (i == 21) || (i == 29) || (i == 30)",
    "  test spl, 8",
    "  jz 9f",
    "  push 0",
    "9:",
    ".else",
    "  push 0",
    ".endif",
    "push i",
    "jmp exception_common",
    ".set i, i + 1",
    ".endr",
    ".balign 16",
    "interrupt_stubs:",
    ".set i, 32",
    ".rept 224",
    ".balign 16",
    "push i",
    "jmp interrupt_common",
    ".set i, i + 1",
    ".endr",
    "interrupt_common:",
    "push rax",
    "mov eax, [rsp + 8]",
    "mov gs:[{taken}], eax",
    "and qword ptr [rsp + 32], ~0x200",
    "pop rax",
    "add rsp, 8",
    "iretq",
    "exception_common:",
    "push rax",
    "push rbx",
    "push rcx",
    "push rdx",
    "push rsi",
    "push rdi",
    "push rbp",
    "push r8",
    "push r9",
    "push r10",
    "push r11",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "cld",
    "mov rdi, rsp",
    "mov rbp, rsp",
    "and rsp, -16",
    "call {handler}",
    "mov rsp, rbp",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop r11",
    "pop r10",
    "pop r9",
    "pop r8",
    "pop rbp",
    "pop rdi",
    "pop rsi",
    "pop rdx",
    "pop rcx",
    "pop rbx",
    "pop rax",
    "add rsp, 16",
    "iretq",
    ".popsection",
    taken = const offset_of!(LpArea, taken_vector),
    handler = sym exception,
);

unsafe extern "C" {
    static exception_stubs: [u8; 32 * 16];
    static interrupt_stubs: [u8; 224 * 16];
    static fixup_start: [Fixup; 0];
    static fixup_end: [Fixup; 0];
}

/// One entry of the linker's `.fixup` section: a faulting address and where to go on.
#[repr(C)]
struct Fixup {
    from: u64,
    to: u64,
}

static IDT: Once<[[u64; 2]; 256]> = Once::new();

fn gate(address: u64, stack: u8) -> [u64; 2] {
    // Present 64-bit interrupt gate, DPL 0.
    let low = (address & 0xFFFF)
        | u64::from(descriptors::CODE) << 16
        | u64::from(stack) << 32
        | 0x8E << 40
        | (address >> 16 & 0xFFFF) << 48;
    [low, address >> 32]
}

fn build() -> [[u64; 2]; 256] {
    let exceptions = &raw const exception_stubs as u64;
    let interrupts = &raw const interrupt_stubs as u64;
    core::array::from_fn(|index| {
        let stack = match index as u8 {
            vector::NMI => ist::NMI,
            vector::DF => ist::DOUBLE_FAULT,
            vector::MC => ist::MACHINE_CHECK,
            _ => 0,
        };
        let address = if index < 32 {
            exceptions + index as u64 * 16
        } else {
            interrupts + (index as u64 - 32) * 16
        };
        gate(address, stack)
    })
}

/// Loads IDTR of this LP.
pub fn load() {
    let table = IDT.call_once(build);
    let register = TableRegister {
        base: table.as_ptr() as u64,
        limit: size_of_val(table) as u16 - 1,
    };
    // SAFETY: the table lives in a static and its stubs in the image.
    unsafe { insn::lidt(register) };
}

/// The place to go on after an exception at `rip`, if its code foresaw one.
fn fixup(rip: u64) -> Option<u64> {
    let start = &raw const fixup_start as *const Fixup;
    let end = &raw const fixup_end as *const Fixup;
    // SAFETY: the linker script places both symbols around an array of whole entries.
    let count = unsafe { end.offset_from(start) } as usize;
    // SAFETY: as above; the section is read-only.
    let table = unsafe { core::slice::from_raw_parts(start, count) };
    table
        .iter()
        .find(|entry| entry.from == rip)
        .map(|entry| entry.to)
}

/// Every exception and NMI comes here, on the stack its gate names.
extern "C" fn exception(frame: &mut Frame) {
    match frame.vector as u8 {
        vector::NMI => {
            lp::current().nmi_taken.store(true, Ordering::Relaxed);
            lp::current().look_again();
        }
        vector::MC => {
            lp::current()
                .machine_check_taken
                .store(true, Ordering::Relaxed);
            lp::current().look_again();
        }
        // The hypervisor debugs nothing, so a #DB is left over from the guest: Bochs raises one behind VMRUN when the
        // guest single-steps over an instruction that exits. The guest's own is raised when the instruction completes.
        vector::DB if frame.rflags & rflags::TF == 0 => {}
        number => match fixup(frame.rip) {
            Some(to) => {
                // Of the instructions with a fix-up, those that can fault raise #GP. Anything else at one of them is
                // an interrupt of the parent's with that vector; #GP there without an error code is one too.
                if number != vector::GP {
                    lp::current()
                        .taken_vector
                        .store(u32::from(number), Ordering::Relaxed);
                    // As the stubs do: the next one would take this one's place in the record.
                    frame.rflags &= !rflags::IF;
                }
                frame.rip = to;
            }
            None => crate::panic::exception(frame),
        },
    }
    // A stop request of a panicking LP comes as an NMI.
    crate::panic::stop_if_asked();
}
