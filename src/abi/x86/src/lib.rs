//! The architecture's own numbers: registers, their bits, exceptions and MSRs, as the manuals give them.
//!
//! Sources: Intel SDM vol. 3A, "System Architecture Overview", vol. 4, "Model-Specific Registers";
//! AMD APM vol. 2, "System Resources".
#![no_std]
#![forbid(unsafe_code)]

pub mod cpuid;
pub mod msr;

/// The sixteen general registers, in the order in which instructions encode them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct GpRegs(pub [u64; 16]);

/// Number of a general register as instructions encode it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "named as in the manuals")]
pub enum Gp {
    Rax = 0,
    Rcx = 1,
    Rdx = 2,
    Rbx = 3,
    Rsp = 4,
    Rbp = 5,
    Rsi = 6,
    Rdi = 7,
    R8 = 8,
    R9 = 9,
    R10 = 10,
    R11 = 11,
    R12 = 12,
    R13 = 13,
    R14 = 14,
    R15 = 15,
}

impl GpRegs {
    /// The value of `register`.
    pub const fn get(&self, register: Gp) -> u64 {
        self.0[register as usize]
    }

    /// Sets all 64 bits of `register`.
    pub const fn set(&mut self, register: Gp, value: u64) {
        self.0[register as usize] = value;
    }

    /// EDX:EAX, the pair that RDMSR, WRMSR and XSETBV use.
    pub const fn edx_eax(&self) -> u64 {
        (self.get(Gp::Rdx) << 32) | (self.get(Gp::Rax) & 0xFFFF_FFFF)
    }

    /// Sets EDX:EAX to `value`; the upper halves of both registers become zero.
    pub const fn set_edx_eax(&mut self, value: u64) {
        self.set(Gp::Rax, value & 0xFFFF_FFFF);
        self.set(Gp::Rdx, value >> 32);
    }
}

/// A segment register with its hidden part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Segment {
    /// Linear base address.
    pub base: u64,
    /// Limit in bytes, granularity already applied.
    pub limit: u32,
    /// Selector.
    pub selector: u16,
    /// Attributes in the layout of the TLFS `HV_X64_SEGMENT_REGISTER`: type 3:0, S 4, DPL 6:5, P 7,
    /// AVL 12, L 13, D/B 14, G 15.
    pub attributes: u16,
}

impl Segment {
    /// P of [`Segment::attributes`].
    pub const PRESENT: u16 = 1 << 7;
    /// L of [`Segment::attributes`]: 64-bit code.
    pub const LONG: u16 = 1 << 13;
    /// D/B of [`Segment::attributes`]: 32-bit default.
    pub const DEFAULT_32: u16 = 1 << 14;
}

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TableRegister {
    /// Linear base address.
    pub base: u64,
    /// Limit in bytes.
    pub limit: u16,
}

/// Bits of CR0.
pub mod cr0 {
    #![allow(missing_docs, reason = "named as in the manuals")]
    pub const PE: u64 = 1 << 0;
    pub const MP: u64 = 1 << 1;
    pub const EM: u64 = 1 << 2;
    pub const TS: u64 = 1 << 3;
    pub const ET: u64 = 1 << 4;
    pub const NE: u64 = 1 << 5;
    pub const WP: u64 = 1 << 16;
    pub const AM: u64 = 1 << 18;
    pub const NW: u64 = 1 << 29;
    pub const CD: u64 = 1 << 30;
    pub const PG: u64 = 1 << 31;
    /// The value after INIT.
    pub const AT_INIT: u64 = CD | NW | ET;
}

/// Bits of CR4.
pub mod cr4 {
    #![allow(missing_docs, reason = "named as in the manuals")]
    pub const PSE: u64 = 1 << 4;
    pub const PAE: u64 = 1 << 5;
    pub const MCE: u64 = 1 << 6;
    pub const PGE: u64 = 1 << 7;
    pub const OSFXSR: u64 = 1 << 9;
    pub const LA57: u64 = 1 << 12;
    pub const VMXE: u64 = 1 << 13;
    pub const FSGSBASE: u64 = 1 << 16;
    pub const PCIDE: u64 = 1 << 17;
    pub const OSXSAVE: u64 = 1 << 18;
    pub const SMEP: u64 = 1 << 20;
    pub const SMAP: u64 = 1 << 21;
    pub const PKE: u64 = 1 << 22;
    pub const CET: u64 = 1 << 23;
    pub const PKS: u64 = 1 << 24;
}

/// Bits of EFER.
pub mod efer {
    #![allow(missing_docs, reason = "named as in the manuals")]
    pub const SCE: u64 = 1 << 0;
    pub const LME: u64 = 1 << 8;
    pub const LMA: u64 = 1 << 10;
    pub const NXE: u64 = 1 << 11;
    pub const SVME: u64 = 1 << 12;
}

/// Bits of RFLAGS.
pub mod rflags {
    #![allow(missing_docs, reason = "named as in the manuals")]
    pub const FIXED_1: u64 = 1 << 1;
    pub const CF: u64 = 1 << 0;
    pub const PF: u64 = 1 << 2;
    pub const AF: u64 = 1 << 4;
    pub const ZF: u64 = 1 << 6;
    pub const SF: u64 = 1 << 7;
    pub const TF: u64 = 1 << 8;
    pub const IF: u64 = 1 << 9;
    pub const DF: u64 = 1 << 10;
    pub const OF: u64 = 1 << 11;
    pub const RF: u64 = 1 << 16;
    pub const VM: u64 = 1 << 17;
    pub const AC: u64 = 1 << 18;
}

/// Exception vectors.
pub mod vector {
    #![allow(missing_docs, reason = "named as in the manuals")]
    pub const DE: u8 = 0;
    pub const DB: u8 = 1;
    pub const NMI: u8 = 2;
    pub const UD: u8 = 6;
    pub const NM: u8 = 7;
    pub const DF: u8 = 8;
    pub const TS: u8 = 10;
    pub const NP: u8 = 11;
    pub const SS: u8 = 12;
    pub const GP: u8 = 13;
    pub const PF: u8 = 14;
    pub const AC: u8 = 17;
    pub const MC: u8 = 18;
    /// Vectors with an error code, as bits: double fault, invalid TSS to page fault, alignment check, control protection, VMM
    /// communication, security.
    pub const WITH_ERROR_CODE: u32 =
        1 << 8 | 0b1_1111 << 10 | 1 << 17 | 1 << 21 | 1 << 29 | 1 << 30;
}
