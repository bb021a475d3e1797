//! Overlay pages on top of each other and on page tables, and SIPI without end.

use core::sync::atomic::Ordering;

use crate::child::layout;
use crate::child::runtime::{self, Random, Shared};

/// INIT and SIPI to each other and to everybody, and IPIs of all kinds.
pub extern "sysv64" fn storm(shared: &'static Shared) -> ! {
    let me = shared.index.load(Ordering::SeqCst);
    runtime::wrmsr(0x1B, runtime::rdmsr(0x1B) | 1 << 10);
    runtime::wrmsr(0x80F, 0x1FF);
    let mut random = Random(shared.arg(0) + me);
    let mut sent = 0;
    while me != 0 || sent < shared.arg(1) {
        let kind = random.below(8) << 8;
        // Not to itself, nor to VP 0 by INIT: it is to come to its end.
        let low = match kind {
            0x500 => 0xC500,
            0x600 => 0x612,
            0x400 => 0x400,
            _ => kind | 0x40 | random.below(64),
        };
        runtime::try_wrmsr(0x830, 1 << 32 | low);
        runtime::try_wrmsr(0x830, (2 + random.below(100)) << 32 | low);
        sent += 1;
        shared.set(1, sent);
    }
    shared.set(0, sent);
    runtime::stop(0)
}

/// Both VPs put overlay pages on top of each other, on memory, on nothing, and take them away.
pub extern "sysv64" fn move_overlays(shared: &'static Shared) -> ! {
    let me = shared.index.load(Ordering::SeqCst);
    runtime::wrmsr(0x4000_0000, 0x8100_0007_0304_0000);
    let mut random = Random(shared.arg(0) + me * 17);
    let mut taken = 0;
    let mut done = 0;
    while me != 0 || done < shared.arg(1) {
        done += 1;
        let msr = [
            0x4000_0001,
            0x4000_0021,
            0x4000_0073,
            0x4000_0082,
            0x4000_0083,
        ][random.below(5) as usize];
        let page = match random.below(4) {
            0 => 0x30_0000 + random.below(4) * 4096,
            1 => random.below(1 << 36) << 12,
            _ => layout::PAGES + random.below(8) * 4096,
        };
        taken += u64::from(runtime::try_wrmsr(msr, page | random.below(2)));
        if random.below(8) == 0 {
            runtime::try_wrmsr(0x4000_0000, random.below(2) * 0x8100_0007_0304_0000);
        }
        runtime::read(layout::PAGES + random.below(8) * 4096);
    }
    shared.set(0, taken);
    // Nothing may cover what the end needs.
    for msr in [
        0x4000_0001,
        0x4000_0021,
        0x4000_0073,
        0x4000_0082,
        0x4000_0083,
    ] {
        runtime::try_wrmsr(msr, 0);
    }
    runtime::stop(0)
}
