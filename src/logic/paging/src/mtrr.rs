//! Memory types by address as the MTRRs give them (Intel SDM vol. 3A, "Memory Type Range Registers (MTRRs)").

use addr::Spa;

use crate::attributes::MemoryType;

/// Most variable ranges that are looked at.
pub const VARIABLE_MAX: usize = 32;

/// The MTRRs of a processor, as read from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MtrrState {
    /// IA32_MTRRCAP.
    pub cap: u64,
    /// IA32_MTRR_DEF_TYPE.
    pub def_type: u64,
    /// The fixed ranges in the order of their addresses: FIX64K_00000, FIX16K_80000, FIX16K_A0000,
    /// FIX4K_C0000 to FIX4K_F8000.
    pub fixed: [u64; 11],
    /// IA32_MTRR_PHYSBASEn and IA32_MTRR_PHYSMASKn. Entries past the number in `cap` are ignored.
    pub variable: [(u64, u64); VARIABLE_MAX],
    /// Width of a physical address in bits (CPUID leaf 0x80000008).
    pub phys_bits: u8,
}

const CAP_COUNT: u64 = 0xFF;
const CAP_FIXED: u64 = 1 << 8;
const DEF_FIXED_ENABLE: u64 = 1 << 10;
const DEF_ENABLE: u64 = 1 << 11;
const MASK_VALID: u64 = 1 << 11;
const FIXED_END: u64 = 1 << 20;

/// Boundaries looked at for one run. Contiguous masks have at most two per range, and there are 88 fixed
/// ranges: more only occur with masks that have gaps.
const STEPS_MAX: usize = 2 * VARIABLE_MAX + 88 + 1;

impl MtrrState {
    /// The memory type at `spa`, and for how many bytes from there it holds, which is at least 1 and ends
    /// with the 52-bit address space at the latest. With masks that have gaps (allowed, not seen in practice)
    /// a run may be told in several pieces.
    pub fn type_at(&self, spa: Spa) -> (MemoryType, u64) {
        let start = spa.get();
        let kind = self.kind(start);
        let mut end = start;
        for _ in 0..STEPS_MAX {
            match self.next_boundary(end) {
                Some(next) => end = next,
                None => return (kind, SPACE_END.saturating_sub(start).max(1)),
            }
            if self.kind(end) != kind {
                break;
            }
        }
        (kind, end - start)
    }

    /// Whether the fixed ranges decide the first MiB.
    fn fixed_enabled(&self) -> bool {
        self.enabled() && self.cap & CAP_FIXED != 0 && self.def_type & DEF_FIXED_ENABLE != 0
    }

    fn enabled(&self) -> bool {
        self.def_type & DEF_ENABLE != 0
    }

    /// Enabled variable ranges as (base, mask, type), reserved bits dropped.
    fn ranges(&self) -> impl Iterator<Item = (u64, u64, u8)> + '_ {
        let count = if self.enabled() {
            (self.cap & CAP_COUNT) as usize
        } else {
            0
        };
        let bits = u32::from(self.phys_bits.clamp(32, 52));
        let address = ((1u64 << bits) - 1) & !0xFFF;
        self.variable
            .iter()
            .take(count)
            .filter(|(_, mask)| mask & MASK_VALID != 0)
            .map(move |(base, mask)| (base & mask & address, mask & address, *base as u8))
    }

    /// SDM, "MTRR Precedences". Overlaps that it leaves undefined, and reserved types, count as uncacheable.
    fn kind(&self, at: u64) -> MemoryType {
        if !self.enabled() {
            return MemoryType::Uncacheable;
        }
        if at < FIXED_END && self.fixed_enabled() {
            let (register, field, _) = fixed_range(at);
            let fields = self.fixed.get(register).copied().unwrap_or(0).to_le_bytes();
            return known(fields.get(field).copied().unwrap_or(0));
        }
        self.ranges()
            .filter(|(base, mask, _)| at & mask == *base)
            .map(|(_, _, kind)| known(kind))
            .reduce(|a, b| match (a, b) {
                _ if a == b => a,
                (MemoryType::WriteThrough, MemoryType::WriteBack)
                | (MemoryType::WriteBack, MemoryType::WriteThrough) => MemoryType::WriteThrough,
                _ => MemoryType::Uncacheable,
            })
            .unwrap_or(known(self.def_type as u8))
    }

    /// The first address after `at` where the type may change.
    fn next_boundary(&self, at: u64) -> Option<u64> {
        let fixed = (at < FIXED_END && self.fixed_enabled()).then(|| fixed_range(at).2);
        if fixed.is_some() {
            return fixed;
        }
        // A valid mask of zero covers everything: no boundary.
        let variable =
            self.ranges()
                .filter(|(_, mask, _)| *mask != 0)
                .filter_map(|(base, mask, _)| {
                    let size = mask & mask.wrapping_neg();
                    let bits = u32::from(self.phys_bits.clamp(32, 52));
                    let contiguous = mask + size == 1 << bits;
                    if contiguous {
                        [base, base + size]
                            .into_iter()
                            .find(|boundary| *boundary > at)
                    } else {
                        (at | (size - 1)).checked_add(1)
                    }
                });
        variable.min().filter(|next| *next < SPACE_END)
    }
}

/// Physical addresses have at most 52 bits.
const SPACE_END: u64 = 1 << 52;

fn known(kind: u8) -> MemoryType {
    MemoryType::from_number(kind).unwrap_or(MemoryType::Uncacheable)
}

/// The fixed range that holds `at` below 1 MiB: register, field in it, and the address after the range.
fn fixed_range(at: u64) -> (usize, usize, u64) {
    let (first_register, base, size) = match at {
        0..0x8_0000 => (0, 0, 0x1_0000),
        0x8_0000..0xC_0000 => (1, 0x8_0000, 0x4000),
        _ => (3, 0xC_0000, 0x1000),
    };
    let number = (at - base) / size;
    (
        first_register + (number / 8) as usize,
        (number % 8) as usize,
        (at | (size - 1)).saturating_add(1),
    )
}
