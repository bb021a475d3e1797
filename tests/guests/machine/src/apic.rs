//! The local APIC of the calling processor, in whichever mode it is
//! (Intel SDM vol. 3A, "Advanced Programmable Interrupt Controller (APIC)").

use core::sync::atomic::Ordering;

use x86::msr::{IA32_APIC_BASE, X2APIC_FIRST, apic_base};

use super::{cpu, insn};

/// Where the register page of xAPIC mode lies.
pub const PAGE: u64 = apic_base::DEFAULT_ADDRESS;

/// A register: its offset in the page divided by 16, which is its MSR's distance from 0x800.
pub mod reg {
    #![allow(missing_docs)]
    pub const ID: u32 = 0x02;
    pub const VERSION: u32 = 0x03;
    pub const TPR: u32 = 0x08;
    pub const PPR: u32 = 0x0A;
    pub const EOI: u32 = 0x0B;
    pub const LDR: u32 = 0x0D;
    pub const DFR: u32 = 0x0E;
    pub const SVR: u32 = 0x0F;
    pub const ISR: u32 = 0x10;
    pub const TMR: u32 = 0x18;
    pub const IRR: u32 = 0x20;
    pub const ESR: u32 = 0x28;
    pub const ICR_LOW: u32 = 0x30;
    pub const ICR_HIGH: u32 = 0x31;
    pub const LVT_TIMER: u32 = 0x32;
    pub const LVT_LINT0: u32 = 0x35;
    pub const LVT_LINT1: u32 = 0x36;
    pub const LVT_ERROR: u32 = 0x37;
    pub const INITIAL_COUNT: u32 = 0x38;
    pub const CURRENT_COUNT: u32 = 0x39;
    pub const DIVIDE: u32 = 0x3E;
    pub const SELF_IPI: u32 = 0x3F;
}

/// Mask bit of an LVT entry.
pub const LVT_MASKED: u32 = 1 << 16;
/// Periodic mode of the timer's LVT entry.
pub const TIMER_PERIODIC: u32 = 1 << 17;
/// TSC-deadline mode of the timer's LVT entry.
pub const TIMER_DEADLINE: u32 = 2 << 17;
/// Software enable bit of the spurious vector register.
pub const SVR_ENABLE: u32 = 1 << 8;
/// The spurious vector the tests use.
pub const SPURIOUS: u8 = 0xEF;

/// Fields of the interrupt command register's low half.
pub mod icr {
    #![allow(missing_docs)]
    pub const FIXED: u32 = 0;
    pub const LOWEST: u32 = 1 << 8;
    pub const NMI: u32 = 4 << 8;
    pub const INIT: u32 = 5 << 8;
    pub const STARTUP: u32 = 6 << 8;
    pub const LOGICAL: u32 = 1 << 11;
    pub const PENDING: u32 = 1 << 12;
    pub const ASSERT: u32 = 1 << 14;
    pub const LEVEL: u32 = 1 << 15;
    pub const SELF: u32 = 1 << 18;
    pub const ALL: u32 = 2 << 18;
    pub const OTHERS: u32 = 3 << 18;
}

/// Reads a register.
pub fn read(register: u32) -> u32 {
    if cpu::this().x2apic.load(Ordering::Relaxed) {
        insn::rdmsr(X2APIC_FIRST + register) as u32
    } else {
        insn::read_mmio32(PAGE + u64::from(register) * 16)
    }
}

/// Writes a register.
pub fn write(register: u32, value: u32) {
    if cpu::this().x2apic.load(Ordering::Relaxed) {
        insn::wrmsr(X2APIC_FIRST + register, u64::from(value));
    } else {
        insn::write_mmio32(PAGE + u64::from(register) * 16, value);
    }
}

/// Ends the interrupt of highest priority in service.
pub fn end_of_interrupt() {
    write(reg::EOI, 0);
}

/// Sends an interrupt command, and in xAPIC mode waits until it has left.
pub fn command(destination: u32, low: u32) {
    if cpu::this().x2apic.load(Ordering::Relaxed) {
        insn::wrmsr(
            X2APIC_FIRST + reg::ICR_LOW,
            (u64::from(destination) << 32) | u64::from(low),
        );
        return;
    }
    write(reg::ICR_HIGH, destination << 24);
    write(reg::ICR_LOW, low);
    for _ in 0..10_000 {
        if read(reg::ICR_LOW) & icr::PENDING == 0 {
            break;
        }
        insn::pause();
    }
}

/// The identifier: 8 bits in xAPIC mode, 32 in x2APIC mode.
pub fn id() -> u32 {
    let value = read(reg::ID);
    if cpu::this().x2apic.load(Ordering::Relaxed) {
        value
    } else {
        value >> 24
    }
}

/// Whether the bit of `vector` is set in the 256-bit register that starts at `first`.
pub fn bit(first: u32, vector: u8) -> bool {
    read(first + u32::from(vector / 32)) & (1 << (vector % 32)) != 0
}

/// Learns the mode from IA32_APIC_BASE.
pub fn notice_mode() {
    let base = insn::rdmsr(IA32_APIC_BASE);
    cpu::this()
        .x2apic
        .store(base & apic_base::EXTD != 0, Ordering::SeqCst);
}

/// Software-enables the APIC with all local interrupts masked, priority 0 and nothing in service.
pub fn quiet() {
    write(reg::SVR, SVR_ENABLE | u32::from(SPURIOUS));
    for lvt in [
        reg::LVT_TIMER,
        reg::LVT_LINT0,
        reg::LVT_LINT1,
        reg::LVT_ERROR,
    ] {
        write(lvt, LVT_MASKED | 0xFE);
    }
    write(reg::INITIAL_COUNT, 0);
    write(reg::TPR, 0);
    // At most eight interrupt classes can nest twice over in any state the firmware leaves behind.
    for _ in 0..16 {
        if (0..8).all(|word| read(reg::ISR + word) == 0) {
            break;
        }
        end_of_interrupt();
    }
}
