//! What the kernel is told of the machine: `struct boot_params` and what it points to.

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use super::image::{Kernel, Placed};
use super::{LoadError, Ram};
use crate::map;
use child_layout::GAP;

/// Types of memory.
const RAM: u32 = 1;
const RESERVED: u32 = 2;
/// A loader without a number of its own.
const LOADER: u8 = 0xFF;
/// `LOADED_HIGH`: the protected-mode kernel is at 1 MiB or above.
const LOADED_HIGH: u8 = 1;
/// `SETUP_RNG_SEED`.
const RNG_SEED: u32 = 9;

/// Puts random bytes for the kernel into memory. Returns where.
pub(super) fn put_seed<M: GuestMemoryBackend>(
    memory: &M,
    seed: &[u8; 32],
) -> Result<u64, LoadError> {
    // Next record, type, length.
    let mut record = vec![0; 8];
    record.extend_from_slice(&RNG_SEED.to_le_bytes());
    record.extend_from_slice(&(seed.len() as u32).to_le_bytes());
    record.extend_from_slice(seed);
    memory.write_slice(&record, GuestAddress(map::SEED))?;
    Ok(map::SEED)
}

/// The zero page for `kernel`.
pub(super) fn build(
    kernel: &Kernel,
    initrd: Option<Placed>,
    seed: Option<u64>,
    ram: &Ram,
) -> boot_params {
    let mut page = boot_params {
        acpi_rsdp_addr: map::TABLES.start,
        hdr: kernel.header,
        ..boot_params::default()
    };
    page.hdr.type_of_loader = LOADER;
    page.hdr.loadflags |= LOADED_HIGH;
    page.hdr.cmd_line_ptr = map::COMMAND_LINE.start as u32;
    // Both lie below 4 GiB.
    let initrd = initrd.unwrap_or(Placed { start: 0, bytes: 0 });
    page.hdr.ramdisk_image = initrd.start as u32;
    page.hdr.ramdisk_size = initrd.bytes as u32;
    page.hdr.setup_data = seed.unwrap_or(0);
    let map = memory_map(ram);
    page.e820_entries = map.len() as u8;
    let mut table = page.e820_table;
    for (to, from) in table.iter_mut().zip(map) {
        *to = from;
    }
    page.e820_table = table;
    page
}

/// The memory map, by ascending address.
fn memory_map(ram: &Ram) -> Vec<boot_e820_entry> {
    let entry = |start: u64, end: u64, kind| boot_e820_entry {
        addr: start,
        size: end.saturating_sub(start),
        r#type: kind,
    };
    let mut map = vec![
        entry(0, map::LOW_RAM_END, RAM),
        entry(map::LOW_RAM_END, map::HIGH_RAM, RESERVED),
        entry(map::HIGH_RAM, ram.low_end, RAM),
    ];
    if ram.high_end > GAP.end {
        map.push(entry(GAP.end, ram.high_end, RAM));
    }
    map
}
