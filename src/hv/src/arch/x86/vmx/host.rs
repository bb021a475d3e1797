//! The host state of a VMCS: the registers of the LP that loads it, as they are then. None of them may change while
//! VPs run on the LP.
//!
//! Source: SDM vol. 3C, "Host-State Area", "Loading Host State".
#![expect(unsafe_code, reason = "reads the descriptor of the TSS")]

use x86::msr::{EFER, FS_BASE, GS_BASE, IA32_PAT};

use super::entry;
use super::fields::Field;
use super::vmcs::Vmcs;
use crate::arch::x86::{insn, msr};

/// Writes every host-state field but RSP, which the world switch keeps.
///
/// An exit loads limits of 0xFFFF into GDTR and IDTR, and RFLAGS = 2, whatever they were.
pub(super) fn write(vmcs: &mut Vmcs) {
    let gdtr = insn::sgdt();
    let tr = insn::str();
    let fields = [
        (Field::HOST_CR0, insn::read_cr0()),
        (Field::HOST_CR3, insn::read_cr3()),
        (Field::HOST_CR4, insn::read_cr4()),
        (Field::HOST_ES_SELECTOR, selector(insn::read_es())),
        (Field::HOST_CS_SELECTOR, selector(insn::read_cs())),
        (Field::HOST_SS_SELECTOR, selector(insn::read_ss())),
        (Field::HOST_DS_SELECTOR, selector(insn::read_ds())),
        (Field::HOST_FS_SELECTOR, selector(insn::read_fs())),
        (Field::HOST_GS_SELECTOR, selector(insn::read_gs())),
        (Field::HOST_TR_SELECTOR, selector(tr)),
        (Field::HOST_FS_BASE, msr::read(FS_BASE)),
        (Field::HOST_GS_BASE, msr::read(GS_BASE)),
        (Field::HOST_TR_BASE, task_state_base(gdtr.base, tr)),
        (Field::HOST_GDTR_BASE, gdtr.base),
        (Field::HOST_IDTR_BASE, insn::sidt().base),
        (Field::HOST_EFER, msr::read(EFER)),
        (Field::HOST_PAT, msr::read(IA32_PAT)),
        // The hypervisor has no SYSENTER entry.
        (Field::HOST_SYSENTER_CS, 0),
        (Field::HOST_SYSENTER_ESP, 0),
        (Field::HOST_SYSENTER_EIP, 0),
        (Field::HOST_RIP, entry::exit_address()),
    ];
    for (field, value) in fields {
        vmcs.write(field, value);
    }
}

/// `selector` as a host-state field must have it: table and privilege bits clear.
fn selector(selector: u16) -> u64 {
    u64::from(selector & !7)
}

/// Base of the TSS that `selector` names in the GDT at `gdt`.
fn task_state_base(gdt: u64, selector: u16) -> u64 {
    let descriptor = (gdt as *const u64).wrapping_byte_add(usize::from(selector & !7));
    // SAFETY: TR was loaded from this descriptor of the hypervisor's own GDT, so it lies in the table, which stays
    // while it is loaded.
    let low = unsafe { descriptor.read_unaligned() };
    // SAFETY: a 64-bit TSS descriptor is 16 bytes long.
    let high = unsafe { descriptor.wrapping_add(1).read_unaligned() };
    (low >> 16 & 0xFF_FFFF) | (low >> 56 & 0xFF) << 24 | high << 32
}
