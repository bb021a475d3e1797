//! Reference time: the counter, its page, and the frequencies.

use machine::insn;
use tlfs::Control;

use super::REFERENCE;
use crate::child::layout;
use crate::child::runtime::{self, Shared};

/// The time that the reference TSC page tells (TLFS, "Partition Reference Time Enlightenment").
fn page_time() -> u64 {
    let scale = runtime::read(layout::TSC_PAGE + 8);
    let offset = runtime::read(layout::TSC_PAGE + 16);
    let product = u128::from(insn::rdtsc()) * u128::from(scale);
    ((product >> 64) as u64).wrapping_add(offset)
}

/// Reads each clock, and compares them.
pub extern "sysv64" fn clocks(shared: &'static Shared) -> ! {
    runtime::enable_calls();
    let code = runtime::read(layout::CALL_PAGE) & 0xFFFF_FFFF;
    shared.set(0, u64::from(matches!(code, 0xC3D9_010F | 0xC3C1_010F)));
    let first = runtime::rdmsr(REFERENCE);
    let moved = runtime::spin_until(u64::MAX / 4, || runtime::rdmsr(REFERENCE) > first);
    shared.set(1, moved.into());
    runtime::wrmsr(0x4000_0021, layout::TSC_PAGE | 1);
    let sequence = runtime::read(layout::TSC_PAGE) & 0xFFFF_FFFF;
    let scale = runtime::read(layout::TSC_PAGE + 8);
    shared.set(2, u64::from(sequence != 0 && scale != 0));
    let mut good = 0;
    for _ in 0..1000 {
        let before = runtime::rdmsr(REFERENCE);
        let page = page_time();
        let after = runtime::rdmsr(REFERENCE);
        // One unit for rounding in each.
        if page + 1 >= before && page <= after + 1 {
            good += 1;
        } else {
            shared.set(127, page.wrapping_sub(before));
        }
    }
    shared.set(3, good);
    shared.set(4, runtime::rdmsr(0x4000_0002));
    shared.set(5, u64::from(runtime::rdmsr(0x4000_0022) > 1_000_000));
    shared.set(6, u64::from(runtime::rdmsr(0x4000_0023) > 1_000));
    let code = runtime::read(layout::CALL_PAGE) & 0xFFFF_FFFF;
    shared.set(7, u64::from(matches!(code, 0xC3D9_010F | 0xC3C1_010F)));
    shared.set(8, runtime::call_page(0x8 | Control::FAST, 0, 0));
    // Offered only where the machine's own TSC is invariant.
    let privileges = insn::cpuid(0x4000_0003, 0).eax;
    let offered = privileges >> 15 & 1 != 0;
    shared.set(9, u64::from(runtime::try_wrmsr(0x4000_0118, 1) == offered));
    runtime::stop(0)
}
