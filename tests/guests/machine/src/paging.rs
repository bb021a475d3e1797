//! An identity map of its own: writable and executable everywhere, so that no property of the firmware's tables
//! can be taken for one of the hypervisor.

use core::sync::atomic::{AtomicU64, Ordering};

use x86::cr4;

const ENTRIES: usize = 512;
const PRESENT_WRITABLE: u64 = 0b11;
const USER: u64 = 1 << 2;
const LARGE: u64 = 1 << 7;
const GIB: u64 = 1 << 30;

/// GiB of physical addresses that can be mapped.
const MAX_GIB: usize = 64;

#[repr(C, align(4096))]
struct Table([AtomicU64; ENTRIES]);

impl Table {
    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; ENTRIES])
    }

    fn address(&self) -> u64 {
        core::ptr::from_ref(self) as u64
    }

    fn set(&self, index: usize, entry: u64) {
        self.0[index].store(entry, Ordering::SeqCst);
    }
}

static LEVEL_5: Table = Table::new();
static LEVEL_4: Table = Table::new();
static LEVEL_3: Table = Table::new();
static LEVEL_2: [Table; MAX_GIB] = [const { Table::new() }; MAX_GIB];
static END: AtomicU64 = AtomicU64::new(0);

/// Builds the map from 0 to `top`, at least 4 GiB and at most 64 GiB.
pub fn build(top: u64) {
    let gib = top.div_ceil(GIB).clamp(4, MAX_GIB as u64) as usize;
    let link = PRESENT_WRITABLE | USER;
    LEVEL_5.set(0, LEVEL_4.address() | link);
    LEVEL_4.set(0, LEVEL_3.address() | link);
    for (number, table) in LEVEL_2.iter().enumerate().take(gib) {
        LEVEL_3.set(number, table.address() | link);
        for entry in 0..ENTRIES {
            let start = number as u64 * GIB + entry as u64 * (GIB / ENTRIES as u64);
            table.set(entry, start | link | LARGE);
        }
    }
    END.store(gib as u64 * GIB, Ordering::SeqCst);
}

/// The address after the last one mapped.
pub fn end() -> u64 {
    END.load(Ordering::SeqCst)
}

/// The root for a processor whose CR4 is `cr4`.
pub fn root(cr4: u64) -> u64 {
    if cr4 & cr4::LA57 != 0 {
        LEVEL_5.address()
    } else {
        LEVEL_4.address()
    }
}
