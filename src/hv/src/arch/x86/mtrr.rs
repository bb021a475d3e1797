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
    for (value, number) in state.fixed.iter_mut().zip(fixed_numbers()) {
        *value = msr::try_read(number).unwrap_or(0);
    }
    let count = (state.cap & 0xFF) as usize;
    for (index, pair) in state.variable.iter_mut().enumerate().take(count) {
        let base = n::IA32_MTRR_PHYSBASE0 + index as u32 * 2;
        *pair = (
            msr::try_read(base).unwrap_or(0),
            msr::try_read(base + 1).unwrap_or(0),
        );
    }
    state
}

/// Makes this LP's MTRRs those of `state`, the boot processor's, where they differ. Firmware normally has done so;
/// where it has not, one physical address would have two memory types.
///
/// Called during this LP's launch, before its guest runs. The steps are those of SDM vol. 3A, "MTRR Considerations in
/// MP Systems", without the rendezvous: the LP shares no work with others yet.
#[expect(unsafe_code, reason = "writes the registers that decide memory types")]
pub fn adopt(state: &MtrrState) {
    if state.cap == 0 || read(state.phys_bits) == *state {
        return;
    }
    const ENABLE: u64 = 1 << 11;
    let cr0 = insn::read_cr0();
    // SAFETY: switches the caches off; paging and protection stay.
    unsafe { insn::write_cr0((cr0 | ::x86::cr0::CD) & !::x86::cr0::NW) };
    insn::wbinvd();
    insn::flush_own_tlb();
    let write = |number, value| {
        // A register that this LP lacks is left out; the boot processor then had zero for it.
        // SAFETY: gives this LP the memory types that the boot processor works with.
        let _ = unsafe { msr::try_write(number, value) };
    };
    write(n::IA32_MTRR_DEF_TYPE, state.def_type & !ENABLE);
    for (index, (base, mask)) in state
        .variable
        .iter()
        .enumerate()
        .take((state.cap & 0xFF) as usize)
    {
        let number = n::IA32_MTRR_PHYSBASE0 + index as u32 * 2;
        write(number, *base);
        write(number + 1, *mask);
    }
    if state.cap & 1 << 8 != 0 {
        for (value, number) in state.fixed.iter().zip(fixed_numbers()) {
            write(number, *value);
        }
    }
    write(n::IA32_MTRR_DEF_TYPE, state.def_type);
    insn::wbinvd();
    insn::flush_own_tlb();
    // SAFETY: the value from before, caches on.
    unsafe { insn::write_cr0(cr0) };
    log::info!("memory type ranges set as on the boot processor");
}

/// Numbers of the fixed ranges, in the order of their addresses.
fn fixed_numbers() -> impl Iterator<Item = u32> {
    [
        n::IA32_MTRR_FIX64K_00000,
        n::IA32_MTRR_FIX16K_80000,
        n::IA32_MTRR_FIX16K_A0000,
    ]
    .into_iter()
    .chain(n::IA32_MTRR_FIX4K_C0000..=n::IA32_MTRR_FIX4K_C0000 + 7)
}
