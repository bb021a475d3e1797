//! Reset of the machine, and the power management ports that the hypervisor watches.
#![expect(unsafe_code, reason = "loads an empty IDT to reset by triple fault")]

use bootinfo::{AcpiPower, AcpiRegister};
use spin::Once;
use x86::TableRegister;

use crate::arch::x86::insn;

static POWER: Once<AcpiPower> = Once::new();

/// Keeps what the record says.
pub fn init(power: &AcpiPower) {
    POWER.call_once(|| *power);
}

/// The registers, all zero before [`init`].
pub fn registers() -> AcpiPower {
    POWER.get().copied().unwrap_or_default()
}

/// Resets the machine: the FADT's register, then the chipset's, then a triple fault.
pub fn reset() -> ! {
    let power = registers();
    if power.reset.space == AcpiRegister::IO {
        insn::outb(power.reset.address as u16, power.reset_value as u8);
        settle();
    }
    insn::outb(0xCF9, 0x02);
    settle();
    insn::outb(0xCF9, 0x06);
    settle();
    // SAFETY: with no IDT the next exception shuts the processor down, which is what is wanted.
    unsafe { insn::lidt(TableRegister::default()) };
    // SAFETY: as above.
    unsafe { core::arch::asm!("int3") };
    insn::stop()
}

/// Some milliseconds for a chipset to act.
fn settle() {
    for _ in 0..1000 {
        insn::outb(0x80, 0);
    }
}

/// What a write to a PM1 control register asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sleep {
    /// No sleep: SLP_EN is clear.
    None,
    /// Power off.
    SoftOff,
    /// Any other sleep state; it would take virtualization away from under us.
    Refused,
}

/// Judges `value`, written to PM1 control block a or b (ACPI 6.5, "PM1 Control Registers").
pub fn judge(value: u16, is_b: bool) -> Sleep {
    const SLP_EN: u16 = 1 << 13;
    if value & SLP_EN == 0 {
        return Sleep::None;
    }
    let wanted = u32::from(value >> 10 & 7);
    let types = registers().s5_types;
    let soft_off = if is_b {
        types >> 8 & 0xFF
    } else {
        types & 0xFF
    };
    // Without `\_S5_` nothing is known of the types; a machine that is told to sleep then most likely goes off.
    if types == 0xFFFF || wanted == soft_off {
        Sleep::SoftOff
    } else {
        Sleep::Refused
    }
}
