//! What the parent is told of a VP: payloads of the intercept messages (TLFS, "Intercepts"; `HV_X64_*_MESSAGE`).
//!
//! A message is made with [`Message::new`](crate::Message::new) from its type, the partition and the encoded payload.

use addr::{Gpa, Gva, VpIndex};
use bitflags::bitflags;
use x86::Segment;

use crate::MessageType;
use crate::wire::{Zero, blocks, choices, flag_fields};

macro_rules! types {
    ($($name:ident = $value:literal: $doc:literal,)*) => {
        impl MessageType { $(#[doc = $doc] pub const $name: Self = Self($value);)* }
    };
}

types! {
    UNMAPPED_GPA = 0x8000_0000: "Access to an address that was never mapped: [`MemoryIntercept`].",
    GPA_INTERCEPT = 0x8000_0001: "Access that the mapping does not allow: [`MemoryIntercept`].",
    INVALID_VP_REGISTER = 0x8000_0020: "The VP cannot run with its registers: [`InvalidVpRegister`].",
    UNRECOVERABLE_EXCEPTION = 0x8000_0021: "Triple fault: [`InterceptHeader`].",
    UNSUPPORTED_FEATURE = 0x8000_0022: "The VP used what the hypervisor does not have.",
    OPAQUE_INTERCEPT = 0x8000_003F: "The message is in the VP's intercept page: [`OpaqueIntercept`].",
    SINT_INTERCEPT = 0x8000_0061: "An event ring has entries: [`SintIntercept`].",
    SINT_DELIVERABLE = 0x8000_0062: "SINTs got room: [`SintDeliverable`].",
    IO_PORT_INTERCEPT = 0x8001_0000: "[`IoPortIntercept`].",
    MSR_INTERCEPT = 0x8001_0001: "[`MsrIntercept`].",
    CPUID_INTERCEPT = 0x8001_0002: "[`CpuidIntercept`].",
    EXCEPTION_INTERCEPT = 0x8001_0003: "[`ExceptionIntercept`].",
    APIC_EOI = 0x8001_0004: "A level interrupt ended: [`ApicEoi`].",
    HALT = 0x8001_0007: "Never sent: VMMs take it for a reset.",
    INTERRUPTION_DELIVERABLE = 0x8001_0008: "An interrupt can be delivered: [`InterruptionDeliverable`].",
}

choices! {
    /// What was tried (`HV_INTERCEPT_ACCESS_TYPE`).
    AccessType: u8 {
        /// Read, or IN.
        Read = 0,
        /// Write, or OUT.
        Write = 1,
        /// Instruction fetch, or the instruction as such.
        Execute = 2,
    }
}

bitflags! {
    /// `HV_X64_VP_EXECUTION_STATE`. Bits 1:0 are the CPL.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct ExecutionState: u16 {
        /// Current privilege level.
        const CPL = 3;
        /// CR0.PE.
        const PE = 1 << 2;
        /// CR0.AM.
        const AM = 1 << 3;
        /// EFER.LMA.
        const LMA = 1 << 4;
        /// Breakpoints are enabled.
        const DEBUG_ACTIVE = 1 << 5;
        /// An event was being delivered.
        const INTERRUPTION_PENDING = 1 << 6;
        /// No interrupts for one instruction.
        const INTERRUPT_SHADOW = 1 << 12;
    }
}

bitflags! {
    /// `HV_X64_IO_PORT_ACCESS_INFO`. Bits 2:0 are the width in bytes.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct PortAccess: u8 {
        /// Width: 1, 2 or 4.
        const BYTES = 7;
        /// INS or OUTS.
        const STRING = 1 << 3;
        /// With a REP prefix.
        const REP = 1 << 4;
    }
}

bitflags! {
    /// `HV_X64_MEMORY_ACCESS_INFO`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct MemoryAccess: u8 {
        /// The GVA is known.
        const GVA_VALID = 1 << 0;
        /// The GVA leads to the GPA; otherwise the access was to a page table.
        const GVA_GPA_VALID = 1 << 1;
    }
}

bitflags! {
    /// `HV_X64_EXCEPTION_INFO`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct ExceptionInfo: u8 {
        /// It has an error code.
        const HAS_ERROR_CODE = 1 << 0;
        /// Raised by an instruction for that purpose.
        const SOFTWARE = 1 << 1;
    }
}

flag_fields! { ExecutionState: u16; PortAccess: u8; MemoryAccess: u8; ExceptionInfo: u8; }

/// `HV_CACHE_TYPE`.
pub mod cache_type {
    /// Uncached.
    pub const UNCACHED: u32 = 0;
    /// Write-back.
    pub const WRITE_BACK: u32 = 6;
}

blocks! {
    /// What most messages begin with.
    InterceptHeader[40] {
        vp: VpIndex,
        /// Length of the instruction in bits 3:0, 0 when not known; CR8 in bits 7:4.
        length_and_cr8: u8,
        access: AccessType, state: ExecutionState, cs: Segment, rip: u64, rflags: u64,
    }

    /// A port.
    IoPortIntercept[128] {
        header: InterceptHeader, port: u16, info: PortAccess, instruction_count: u8, reserved: Zero<4>, rax: u64,
        /// The first `instruction_count` of them.
        instruction: [u8; 16],
        ds: Segment, es: Segment, rcx: u64, rsi: u64, rdi: u64,
    }

    /// A guest physical address.
    MemoryIntercept[80] {
        header: InterceptHeader,
        /// See [`cache_type`].
        cache_type: u32,
        instruction_count: u8, info: MemoryAccess, tpr: u8, reserved: Zero<1>, gva: Gva, gpa: Gpa,
        /// The first `instruction_count` of them.
        instruction: [u8; 16],
    }

    /// An MSR.
    MsrIntercept[64] {
        header: InterceptHeader, msr: u32, reserved: Zero<4>, rdx: u64, rax: u64,
    }

    /// CPUID, and what it would answer.
    CpuidIntercept[104] {
        header: InterceptHeader, rax: u64, rcx: u64, rdx: u64, rbx: u64, default_rax: u64, default_rcx: u64,
        default_rdx: u64, default_rbx: u64,
    }

    /// An exception.
    ExceptionIntercept[240] {
        header: InterceptHeader, vector: u16, info: ExceptionInfo, instruction_count: u8, error_code: u32,
        /// CR2, or the bits of DR6.
        parameter: u64,
        reserved: Zero<8>, instruction: [u8; 16], ds: Segment, ss: Segment,
        /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
        gp: [u64; 16],
    }

    /// An interrupt can be delivered now.
    InterruptionDeliverable[48] {
        header: InterceptHeader,
        /// As in [`pending_interruption::KIND`](crate::register::pending_interruption::KIND).
        kind: u8,
        reserved: Zero<7>,
    }

    /// SINTs of the VP got room for a message.
    SintDeliverable[48] {
        header: InterceptHeader, sints: u16, reserved: Zero<6>,
    }

    /// Which VP's intercept page has a message. The sender is its partition.
    OpaqueIntercept[4] {
        vp: VpIndex,
    }

    /// Which source has entries in its event ring.
    SintIntercept[4] {
        sint: u32,
    }

    /// Whose registers do not go together.
    InvalidVpRegister[8] {
        vp: VpIndex, reserved: Zero<4>,
    }

    /// Which level interrupt ended where.
    ApicEoi[8] {
        vp: VpIndex, vector: u32,
    }
}
