//! Pages and areas with the state of a VP (`HV_VP_REGISTER_PAGE`, `HV_X64_INTERRUPT_CONTROLLER_STATE`,
//! `HV_SYNTHETIC_TIMERS_STATE`, the event ring).

use crate::msr::STIMER_COUNT;
use crate::wire::{Zero, blocks};

/// The register page: filled at every intercept, and what is marked dirty is taken over when the VP goes on.
pub mod register_page {
    /// [`VERSION_1`], u16.
    pub const VERSION: usize = 0;
    /// The one version.
    pub const VERSION_1: u16 = 1;
    /// 1 while the page describes the VP, u8.
    pub const IS_VALID: usize = 2;
    /// Classes that the parent changed, u32.
    pub const DIRTY: usize = 4;
    /// General registers.
    pub const DIRTY_GENERAL: u32 = 1 << 0;
    /// RIP.
    pub const DIRTY_RIP: u32 = 1 << 1;
    /// XMM0 to XMM5.
    pub const DIRTY_XMM: u32 = 1 << 2;
    /// Segment registers.
    pub const DIRTY_SEGMENTS: u32 = 1 << 3;
    /// RFLAGS.
    pub const DIRTY_FLAGS: u32 = 1 << 4;
    /// Sixteen u64 in the order in which instructions encode the registers.
    pub const GENERAL: usize = 0x08;
    /// u64.
    pub const RIP: usize = 0x88;
    /// u64.
    pub const RFLAGS: usize = 0x90;
    /// XMM0 to XMM5, u128 each.
    pub const XMM: usize = 0xA0;
    /// ES, CS, SS, DS, FS, GS, 16 bytes each.
    pub const SEGMENTS: usize = 0x100;
    /// CR0, CR3, CR4, CR8, EFER, DR7, u64 each. The parent cannot change them here, nor what follows.
    pub const CONTROL: usize = 0x160;
    /// [`PENDING_INTERRUPTION`](crate::register::RegisterName::PENDING_INTERRUPTION), u64.
    pub const PENDING_INTERRUPTION: usize = 0x190;
    /// [`INTERRUPT_STATE`](crate::register::RegisterName::INTERRUPT_STATE), u64.
    pub const INTERRUPT_STATE: usize = 0x198;
    /// [`INSTRUCTION_EMULATION_HINTS`](crate::register::RegisterName::INSTRUCTION_EMULATION_HINTS), u64.
    pub const HINTS: usize = 0x1A0;
    /// XCR0, u64.
    pub const XFEM: usize = 0x1A8;
    /// Vectors for HvCallDispatchVp: count, u8, then 7 vectors.
    pub const VECTORS: usize = 0x2B0;
    /// Bytes in use.
    pub const BYTES: usize = 0x2B8;
}

/// Offsets in the state of a local APIC, u32 each.
pub mod lapic {
    /// APIC id: with xAPIC in bits 31:24.
    pub const ID: usize = 0x00;
    /// Version.
    pub const VERSION: usize = 0x04;
    /// Logical destination.
    pub const LDR: usize = 0x08;
    /// Destination format.
    pub const DFR: usize = 0x0C;
    /// Spurious vector.
    pub const SPURIOUS: usize = 0x10;
    /// In service, eight.
    pub const ISR: usize = 0x14;
    /// Trigger mode, eight.
    pub const TMR: usize = 0x34;
    /// Requested, eight.
    pub const IRR: usize = 0x54;
    /// Error status.
    pub const ESR: usize = 0x74;
    /// Interrupt command, bits 63:32.
    pub const ICR_HIGH: usize = 0x78;
    /// Interrupt command, bits 31:0.
    pub const ICR_LOW: usize = 0x7C;
    /// LVT timer.
    pub const LVT_TIMER: usize = 0x80;
    /// LVT thermal sensor.
    pub const LVT_THERMAL: usize = 0x84;
    /// LVT performance counters.
    pub const LVT_PERF: usize = 0x88;
    /// LVT LINT0.
    pub const LVT_LINT0: usize = 0x8C;
    /// LVT LINT1.
    pub const LVT_LINT1: usize = 0x90;
    /// LVT error.
    pub const LVT_ERROR: usize = 0x94;
    /// LVT corrected machine checks.
    pub const LVT_CMCI: usize = 0x98;
    /// Errors not shown in [`ESR`] yet.
    pub const ERROR_STATUS: usize = 0x9C;
    /// Timer: initial count.
    pub const INITIAL_COUNT: usize = 0xA0;
    /// Timer: counter value.
    pub const CURRENT_COUNT: usize = 0xA4;
    /// Timer: divide configuration.
    pub const DIVIDE: usize = 0xA8;
    /// Remote read.
    pub const REMOTE_READ: usize = 0xAC;
    /// Bytes in use.
    pub const BYTES: usize = 0xB0;
}

/// The event ring of one source: [`event_ring::BYTES`] in the page that SIRBP names.
pub mod event_ring {
    /// Bytes of one ring, so 16 fill the page.
    pub const BYTES: usize = 256;
    /// The consumer does not want to be told, u8.
    pub const SIGNAL_MASKED: usize = 0;
    /// The producer found no room, u8.
    pub const RING_FULL: usize = 1;
    /// Port ids, u32 each; 0 is an empty entry.
    pub const ENTRIES: usize = 4;
    /// How many.
    pub const ENTRY_COUNT: usize = 63;
}

blocks! {
    /// One timer.
    TimerState[40] {
        /// Its message was not delivered yet, in bit 0.
        undelivered: u64,
        config: u64, count: u64,
        /// Added to the next expiry.
        adjustment: u64,
        /// Of the message not delivered.
        undelivered_expiry: u64,
    }

    /// All timers of a VP, inline in a call.
    TimersState[200] {
        timers: [TimerState; STIMER_COUNT], reserved: Zero<40>,
    }
}

const _: () = assert!(register_page::SEGMENTS + 6 * 16 == register_page::CONTROL);
const _: () = assert!(register_page::XMM + 6 * 16 == register_page::SEGMENTS);
const _: () = assert!(register_page::CONTROL + 6 * 8 == register_page::PENDING_INTERRUPTION);
const _: () = assert!(lapic::IRR + 32 == lapic::ESR && lapic::REMOTE_READ + 4 == lapic::BYTES);
const _: () = assert!(event_ring::ENTRIES + 4 * event_ring::ENTRY_COUNT == event_ring::BYTES);
