//! Where things lie: guest physical addresses, ports, interrupt pins.
//!
//! | address | content |
//! |---|---|
//! | 0x0500 | descriptor table for the entry |
//! | 0x7000 | zero page |
//! | 0x8000 | seed of the kernel's random numbers |
//! | 0x9000 - 0xEFFF | page tables for the entry |
//! | 0x2_0000 - 0x2_FFFF | command line |
//! | 0xA_0000 - 0xF_FFFF | reserved in the memory map; tables from 0xE_0000 on |
//! | 0x10_0000 | kernel (where its header wants it), initrd at the top of the RAM it can reach |
//! | 0xC000_0000 - 0xFDFF_FFFF | window for devices on VMBus, decoded by nobody |
//! | 0xFEC0_0000 | IO-APIC |
//! | 0xFEE0_0000 | local APICs, which the hypervisor answers |
//!
//! What lies below 0xA_0000 is RAM in the memory map: the kernel has copied it when it takes that memory.

use std::ops::Range;

/// Descriptor table that the entry state's selectors refer to.
pub(crate) const GDT: u64 = 0x500;
/// `struct boot_params`, one page.
pub(crate) const ZERO_PAGE: u64 = 0x7000;
/// `struct setup_data` with the random seed.
pub(crate) const SEED: u64 = 0x8000;
/// Root of the page tables: one page, then one of the third level, then four of the second.
pub(crate) const PAGE_TABLES: u64 = 0x9000;
/// The command line with its final zero.
pub(crate) const COMMAND_LINE: Range<u64> = 0x2_0000..0x3_0000;
/// Stack pointer at the entry. No kernel uses it before it has its own.
pub(crate) const STACK: u64 = 0x1_F000;
/// End of the RAM below the legacy hole.
pub(crate) const LOW_RAM_END: u64 = 0xA_0000;
/// ACPI tables.
pub(crate) const TABLES: Range<u64> = 0xE_0000..0xF_0000;
/// Start of RAM again.
pub(crate) const HIGH_RAM: u64 = 0x10_0000;

/// Addresses for devices on VMBus that want memory of their own. Whoever offers such a device decodes a part of it.
pub const VMBUS_WINDOW: Range<u64> = 0xC000_0000..0xFE00_0000;
/// Registers of the IO-APIC, one page.
pub const IO_APIC: u64 = 0xFEC0_0000;
/// Registers of the local APICs.
pub const LOCAL_APIC: u32 = 0xFEE0_0000;

/// COM1: eight ports.
pub const COM1: u16 = 0x3F8;
/// Index and data port of the clock.
pub const RTC: u16 = 0x70;
/// PM1 event block: status, then enable, two bytes each.
pub const PM1_EVENT: u16 = 0x400;
/// PM1 control register, two bytes.
pub const PM1_CONTROL: u16 = 0x404;
/// Reset register.
pub const RESET: u16 = 0x433;
/// What resets the machine when it is written there.
pub const RESET_VALUE: u8 = 1;

/// Pin of COM1 at the IO-APIC.
pub const COM1_PIN: u8 = 4;
/// Pin of the system control interrupt at the IO-APIC.
pub const SCI_PIN: u8 = 9;

/// The most VPs: the ids of their APICs and the IO-APIC's fit 8 bits, without that of a broadcast.
pub const MAX_VPS: u32 = 254;

/// Id of the IO-APIC of a child with `vps` VPs: the first that no local APIC has.
pub(crate) fn io_apic_id(vps: u32) -> u8 {
    vps.min(MAX_VPS) as u8
}
