//! Which system physical memory is RAM, and which of it is the hypervisor's.
//!
//! Written once from the loader's record before any LP is launched.

use addr::Spa;
use bootinfo::{BootInfo, SpaRange};
use spin::Once;

struct Map {
    ranges: &'static [SpaRange],
    block: SpaRange,
}

static MAP: Once<Map> = Once::new();

/// Keeps what the record says.
pub fn init(info: &'static BootInfo) {
    let count = (info.memory_count as usize).min(info.memory.len());
    MAP.call_once(|| Map {
        ranges: info.memory.get(..count).unwrap_or(&[]),
        block: info.block,
    });
}

/// Whether `spa` lies in RAM outside the hypervisor's block. A page is RAM wholly or not at all.
pub fn is_guest_ram(spa: Spa) -> bool {
    let Some(map) = MAP.get() else { return false };
    if map.block.contains(spa) {
        return false;
    }
    let after = map.ranges.partition_point(|range| range.start <= spa);
    after
        .checked_sub(1)
        .and_then(|index| map.ranges.get(index))
        .is_some_and(|range| range.contains(spa))
}
