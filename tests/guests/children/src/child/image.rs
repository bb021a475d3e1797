//! The pages of this program that its functions need to run elsewhere: code and constants. Children map them at the
//! same address, read-only, so that a child's program can be a function of this one.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use machine::insn::{read_mmio32, read_phys64};

use crate::arena::FRAME;

static BASE: AtomicU64 = AtomicU64::new(0);

/// Notes where this program was loaded.
pub fn set_base(base: u64) {
    BASE.store(base, Ordering::SeqCst);
}

/// Address and pages of each section that is not written to (PE Format, "COFF File Header", "Section Table").
pub fn sections() -> Vec<(u64, u64)> {
    const WRITABLE: u32 = 1 << 31;
    let base = BASE.load(Ordering::SeqCst);
    let header = base + u64::from(read_mmio32(base + 0x3C));
    let count = read_mmio32(header + 4) >> 16;
    let optional = read_mmio32(header + 20) & 0xFFFF;
    let table = header + 24 + u64::from(optional);
    (0..u64::from(count))
        .map(|n| table + n * 40)
        .filter(|section| read_mmio32(section + 36) & WRITABLE == 0)
        .map(|section| {
            let sizes = read_phys64(section + 8);
            (base + (sizes >> 32), (sizes & 0xFFFF_FFFF).div_ceil(FRAME))
        })
        .filter(|(_, pages)| *pages != 0)
        .collect()
}
