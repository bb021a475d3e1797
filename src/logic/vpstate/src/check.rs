//! Which values a register may have: what the hardware would refuse at the instruction that sets it, or at VM entry
//! whatever the other registers hold.
//!
//! What only registers together get wrong (CR0.PG with EFER.LME and without CR4.PAE; RIP, RFLAGS and SS against CS)
//! cannot be known while a VMM sets one after the other: both vendors' entries refuse it, the back end answers
//! `Exit::InvalidState`, and the parent gets [`crate::intercept::invalid_state`].
//!
//! Sources: SDM vol. 3A, "Control Registers"; vol. 3C, "Checks on the Guest State Area"; AMD APM vol. 2,
//! "Canonicalization and Consistency Checks".

use vpcore::seam::{Register, SegmentName};
use x86::cpuid::CpuidResult;
use x86::{Segment, TableRegister, cr0, cr4, efer, rflags};

/// What the registers of a partition's VPs may hold. Follows from CPUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Width of a guest physical address, at most 52.
    pub physical_bits: u8,
    /// Width of a linear address: 48 or 57.
    pub linear_bits: u8,
    /// Bits of CR4 that may be set.
    pub cr4: u64,
    /// Bits of EFER that may be set.
    pub efer: u64,
    /// Bits of XCR0 that may be set; bit 0 at least.
    pub xcr0: u64,
    /// Bits of IA32_SPEC_CTRL that may be set.
    pub spec_ctrl: u64,
    /// XSAVES and IA32_XSS, which can hold nothing but 0.
    pub has_xsaves: bool,
}

/// Bits of RFLAGS that exist.
const RFLAGS: u64 = 0x3F_7FD7;
const CR0: u64 = cr0::PE
    | cr0::MP
    | cr0::EM
    | cr0::TS
    | cr0::ET
    | cr0::NE
    | cr0::WP
    | cr0::AM
    | cr0::NW
    | cr0::CD
    | cr0::PG;

/// `bits[n]` of the result is set where `from` has bit `n` of the pairs.
fn collect(from: u32, pairs: &[(u8, u8)]) -> u64 {
    pairs.iter().fold(0, |set, &(bit, to)| {
        set | u64::from(from >> (bit & 31) & 1) << (to & 63)
    })
}

impl Limits {
    /// The limits that go with what `cpuid` (leaf, subleaf) tells the partition before the overrides of
    /// HvCallRegisterInterceptResult: those can only pretend.
    pub fn of(cpuid: impl Fn(u32, u32) -> CpuidResult) -> Self {
        let (one, seven) = (cpuid(1, 0), cpuid(7, 0));
        let (extended, sizes) = (cpuid(0x8000_0001, 0), cpuid(0x8000_0008, 0));
        let state = cpuid(0xD, 0);
        // Bit of the leaf, bit of the register.
        let cr4 = collect(
            one.edx,
            &[(1, 0), (1, 1), (4, 2), (2, 3), (3, 4), (6, 5), (7, 6), (13, 7), (24, 9), (25, 10)],
        ) | collect(one.ecx, &[(17, 17), (26, 18)])
            | collect(seven.ebx, &[(0, 16), (7, 20), (20, 21)])
            | collect(seven.ecx, &[(2, 11), (16, 12), (3, 22)])
            // PCE; there are no counters that it would open.
            | 1 << 8;
        let efer = collect(
            extended.edx,
            &[(11, 0), (29, 8), (29, 10), (20, 11), (25, 14)],
        ) | collect(cpuid(0x8000_0021, 0).eax, &[(8, 21)]);
        Self {
            physical_bits: (sizes.eax as u8).clamp(32, 52),
            linear_bits: if cr4 & cr4::LA57 != 0 { 57 } else { 48 },
            cr4,
            efer,
            xcr0: 1 | u64::from(state.eax) | u64::from(state.edx) << 32,
            spec_ctrl: collect(seven.edx, &[(26, 0), (27, 1), (31, 2)])
                | collect(sizes.ebx, &[(14, 0), (15, 1), (24, 2), (28, 7)])
                | collect(
                    cpuid(7, 2).edx,
                    &[(0, 7), (1, 3), (1, 4), (2, 5), (2, 6), (4, 10)],
                ),
            has_xsaves: cpuid(0xD, 1).eax & 1 << 3 != 0,
        }
    }

    /// Whether `address` is canonical at the width of the processor.
    pub const fn is_canonical(&self, address: u64) -> bool {
        let unused = 64_u32.saturating_sub(self.linear_bits as u32) & 63;
        ((address << unused) as i64 >> unused) as u64 == address
    }

    const fn is_physical(&self, address: u64) -> bool {
        address >> (self.physical_bits & 63) == 0
    }

    /// What `register` holds after `value` is written, or `None` when the value is refused. Bits that are fixed
    /// become what they are.
    pub fn register(&self, register: Register, value: u64) -> Option<u64> {
        let (is_valid, held) = match register {
            Register::Rip
            | Register::SysenterEsp
            | Register::SysenterEip
            | Register::FsBase
            | Register::GsBase
            | Register::KernelGsBase
            | Register::Lstar
            | Register::Cstar => (self.is_canonical(value), value),
            Register::Rflags => (value & !RFLAGS == 0, value | rflags::FIXED_1),
            Register::Cr0 => {
                let has = |bit| value & bit != 0;
                let is_paired = (!has(cr0::PG) || has(cr0::PE)) && (!has(cr0::NW) || has(cr0::CD));
                (value & !CR0 == 0 && is_paired, value | cr0::ET)
            }
            // Bit 63 only asks to keep translations.
            Register::Cr3 => (self.is_physical(value & !(1 << 63)), value & !(1 << 63)),
            Register::Cr4 => (value & !self.cr4 == 0, value),
            Register::Efer => {
                let is_paired = value & efer::LMA == 0 || value & efer::LME != 0;
                (value & !self.efer == 0 && is_paired, value & !efer::LMA)
            }
            Register::Dr6 => (value >> 32 == 0, value & 0xE00F | 0xFFFF_0FF0),
            Register::Dr7 => (value >> 32 == 0, value & 0xFFFF_23FF | 0x400),
            Register::Pat => (is_pat(value), value),
            Register::SysenterCs | Register::Sfmask => (true, value & 0xFFFF_FFFF),
            Register::InterruptState => (value & !3 == 0, value),
            Register::DebugCtl => (value & !vpcore::msr::DEBUGCTL_WRITABLE == 0, value),
            _ => (true, value),
        };
        is_valid.then_some(held)
    }

    /// Whether XCR0 may be `value` (SDM vol. 1, "Enabling the XSAVE Feature Set and XSAVE-Enabled Features").
    pub const fn is_xcr0(&self, value: u64) -> bool {
        const AVX: u64 = 1 << 2;
        const AVX512: u64 = 7 << 5;
        let wide = value & AVX512;
        value & 1 != 0
            && value & !self.xcr0 == 0
            && (value & AVX == 0 || value & 2 != 0)
            && (wide == 0 || (wide == AVX512 && value & AVX != 0))
    }

    /// Whether IDTR or GDTR may be `value`.
    pub const fn is_table(&self, value: &TableRegister) -> bool {
        self.is_canonical(value.base)
    }

    /// Whether segment register `name` may be `value`.
    ///
    /// What only one vendor keeps (accessed, busy, the granularity of a limit that fits both) does not count: the back
    /// end brings it into the hardware's form.
    pub fn is_segment(&self, name: SegmentName, value: &Segment) -> bool {
        const UNDEFINED: u16 = 0xF00;
        const NON_SYSTEM: u16 = 1 << 4;
        const BOTH_SIZES: u16 = Segment::LONG | Segment::DEFAULT_32;
        let (kind, is_system) = (
            value.attributes & 0xF,
            matches!(name, SegmentName::Ldtr | SegmentName::Tr),
        );
        let has_long_base = is_system || matches!(name, SegmentName::Fs | SegmentName::Gs);
        if value.attributes & UNDEFINED != 0 || has_long_base && !self.is_canonical(value.base) {
            return false;
        }
        if value.attributes & Segment::PRESENT == 0 {
            return name != SegmentName::Cs;
        }
        let is_typed = match name {
            // Code, or the readable and writable data that real mode leaves.
            SegmentName::Cs => {
                (kind & 8 != 0 || kind & !1 == 2) && value.attributes & BOTH_SIZES != BOTH_SIZES
            }
            SegmentName::Ss => kind & !5 == 2,
            SegmentName::Ldtr => kind == 2,
            SegmentName::Tr => matches!(kind, 1 | 3 | 9 | 11),
            _ => kind & 8 == 0 || kind & 2 != 0,
        };
        is_typed
            && (has_long_base || value.base >> 32 == 0)
            && (value.attributes & NON_SYSTEM == 0) == is_system
            && (value.limit <= 0xF_FFFF || value.limit & 0xFFF == 0xFFF)
    }
}

/// Whether every entry of a page attribute table is a memory type.
fn is_pat(value: u64) -> bool {
    value
        .to_le_bytes()
        .into_iter()
        .all(|entry| matches!(entry, 0 | 1 | 4..=7))
}
