//! The memory type range registers of this LP.

use paging::mtrr::{MtrrState, VARIABLE_MAX};
use x86::msr as n;

use super::{insn, msr};

/// Reads all of them. A processor without MTRRs is described as one whose default type is write-back.
pub fn read(physical_bits: u8) -> MtrrState {
    const WRITE_BACK_ENABLED: u64 = 1 << 11 | 6;
    let mut state = MtrrState {
        cap: 0,
        def_type: WRITE_BACK_ENABLED,
        fixed: [0; 11],
        variable: [(0, 0); VARIABLE_MAX],
        phys_bits: physical_bits,
    };
    if insn::cpuid(1, 0).edx & ::x86::cpuid::leaf1_edx::MTRR == 0 {
        return state;
    }
    state.cap = msr::read(n::IA32_MTRRCAP);
    state.def_type = msr::read(n::IA32_MTRR_DEF_TYPE);
    let fixed = [n::IA32_MTRR_FIX64K_00000, n::IA32_MTRR_FIX16K_80000, n::IA32_MTRR_FIX16K_A0000];
    let fixed = fixed.into_iter().chain(n::IA32_MTRR_FIX4K_C0000..=n::IA32_MTRR_FIX4K_C0000 + 7);
    for (value, number) in state.fixed.iter_mut().zip(fixed) {
        *value = msr::try_read(number).unwrap_or(0);
    }
    let count = (state.cap & 0xFF) as usize;
    for (index, pair) in state.variable.iter_mut().enumerate().take(count) {
        let base = n::IA32_MTRR_PHYSBASE0 + index as u32 * 2;
        *pair = (msr::try_read(base).unwrap_or(0), msr::try_read(base + 1).unwrap_or(0));
    }
    state
}
