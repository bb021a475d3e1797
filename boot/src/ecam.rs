//! A window for PCI configuration where the firmware describes none: addresses that nothing answers, in which the
//! hypervisor emulates the mechanism (PCI Express Base Specification, "Enhanced Configuration Access Mechanism").

use alloc::vec::Vec;

use addr::Spa;
use bootinfo::{EcamShim, SpaRange};
use uefi::boot::{self, MemoryType};
use uefi::mem::memory_map::MemoryMap;

use crate::address_space;
use crate::say::say;

/// Where windows may lie: below the IO-APICs, and Linux wants them below 4 GiB.
const WITHIN: SpaRange = SpaRange {
    start: Spa::new(0x8000_0000),
    len: 0xFE00_0000 - 0x8000_0000,
};

/// Bytes for one bus.
const BUS: u64 = 1 << 20;

/// The largest window that fits, for 256 buses or fewer; an empty one when none does.
pub fn choose() -> EcamShim {
    let occupied = occupied();
    for buses in [256u64, 64, 16, 4] {
        if let Some(window) = acpi_patch::vacant_window(&occupied, WITHIN, buses * BUS) {
            say!(
                "no MCFG; PCI configuration is emulated at {:#x} for {buses} buses",
                window.start
            );
            return EcamShim {
                base: window.start,
                last_bus: buses as u32 - 1,
                reserved: 0,
            };
        }
    }
    say!("warning: no MCFG and no free addresses for one; the parent will see no PCI devices");
    EcamShim::default()
}

/// What the firmware knows to be in use: its own map of the address space, and the memory map.
fn occupied() -> Vec<SpaRange> {
    let mut occupied: Vec<SpaRange> = address_space::spaces()
        .iter()
        .filter(|space| !space.is_vacant())
        .map(|space| space.range)
        .collect();
    if let Ok(map) = boot::memory_map(MemoryType::LOADER_DATA) {
        let ranges = map.entries().map(|entry| SpaRange {
            start: Spa::new(entry.phys_start),
            len: entry.page_count.saturating_mul(placement::PAGE),
        });
        occupied.extend(ranges);
    }
    occupied
}

/// Has the window listed as reserved in the memory map that the parent gets, so that it puts no device there.
pub fn reserve(shim: EcamShim) {
    let range = SpaRange {
        start: shim.base,
        len: (u64::from(shim.last_bus) + 1) * BUS,
    };
    if !address_space::reserve(range) {
        say!("warning: the firmware does not list the PCI configuration window as reserved");
    }
}
