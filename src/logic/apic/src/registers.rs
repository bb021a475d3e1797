//! The registers of a local APIC: numbers and bits.
//!
//! A register's number is its offset in the xAPIC page divided by 16, and its x2APIC MSR minus 0x800
//! (SDM vol. 3A, "x2APIC Register Address Space").

pub(crate) const ID: u16 = 0x02;
pub(crate) const VERSION: u16 = 0x03;
pub(crate) const TPR: u16 = 0x08;
pub(crate) const APR: u16 = 0x09;
pub(crate) const PPR: u16 = 0x0A;
pub(crate) const EOI: u16 = 0x0B;
pub(crate) const REMOTE_READ: u16 = 0x0C;
pub(crate) const LDR: u16 = 0x0D;
pub(crate) const DFR: u16 = 0x0E;
pub(crate) const SVR: u16 = 0x0F;
pub(crate) const ISR_FIRST: u16 = 0x10;
pub(crate) const ISR_LAST: u16 = 0x17;
pub(crate) const TMR_FIRST: u16 = 0x18;
pub(crate) const TMR_LAST: u16 = 0x1F;
pub(crate) const IRR_FIRST: u16 = 0x20;
pub(crate) const IRR_LAST: u16 = 0x27;
pub(crate) const ESR: u16 = 0x28;
pub(crate) const LVT_CMCI: u16 = 0x2F;
pub(crate) const ICR: u16 = 0x30;
pub(crate) const ICR_HIGH: u16 = 0x31;
pub(crate) const LVT_TIMER: u16 = 0x32;
pub(crate) const LVT_THERMAL: u16 = 0x33;
pub(crate) const LVT_PERF: u16 = 0x34;
pub(crate) const LVT_LINT0: u16 = 0x35;
pub(crate) const LVT_LINT1: u16 = 0x36;
pub(crate) const LVT_ERROR: u16 = 0x37;
pub(crate) const INITIAL_COUNT: u16 = 0x38;
pub(crate) const CURRENT_COUNT: u16 = 0x39;
pub(crate) const DIVIDE: u16 = 0x3E;
pub(crate) const SELF_IPI: u16 = 0x3F;

/// Version of an integrated APIC; bits 23:16 hold the number of LVT entries less one.
pub(crate) const VERSION_INTEGRATED: u32 = 0x14;

/// SVR: the APIC is enabled by software.
pub(crate) const SVR_ENABLE: u32 = 1 << 8;
/// SVR bits that can be written: vector, enable, focus checking.
pub(crate) const SVR_WRITABLE: u32 = 0x3FF;
/// SVR after reset.
pub(crate) const SVR_RESET: u32 = 0xFF;

/// DFR bits that read as one.
pub(crate) const DFR_ONES: u32 = 0x0FFF_FFFF;

/// DIVIDE bits that can be written.
pub(crate) const DIVIDE_WRITABLE: u32 = 0b1011;

/// ESR bits (SDM vol. 3A, "Error Handling").
pub(crate) mod esr {
    pub(crate) const SEND_ILLEGAL_VECTOR: u32 = 1 << 5;
    pub(crate) const RECEIVE_ILLEGAL_VECTOR: u32 = 1 << 6;
    pub(crate) const ILLEGAL_REGISTER: u32 = 1 << 7;
    /// The bits that exist.
    pub(crate) const DEFINED: u32 = 0xF0;
}

/// ICR bits (SDM vol. 3A, "Interrupt Command Register (ICR)").
pub(crate) mod icr {
    pub(crate) const LOGICAL: u64 = 1 << 11;
    /// Delivery status: read-only, always idle here.
    pub(crate) const BUSY: u64 = 1 << 12;
    pub(crate) const ASSERT: u64 = 1 << 14;
    pub(crate) const LEVEL: u64 = 1 << 15;
    /// Bits of the low half that can be written.
    pub(crate) const WRITABLE_LOW: u64 = 0xC_CFFF & !BUSY;
    /// Bits of the low half whose setting is no error in x2APIC mode.
    pub(crate) const ALLOWED_LOW: u64 = WRITABLE_LOW | BUSY;
    /// Destination field in xAPIC mode, in the 64-bit register.
    pub(crate) const XAPIC_DESTINATION: u64 = 0xFF << 56;
}
