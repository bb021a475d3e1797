//! What the firmware knows and the tests need, gathered while boot services still answer.

use uefi::boot::{self, AllocateType, MemoryType};
use uefi::mem::memory_map::MemoryMap;
use uefi::proto::loaded_image::LoadedImage;
use uefi::system::with_config_table;
use uefi::table::cfg::ConfigTableEntry;

use crate::acpi;
use crate::cpu::MAX_CPUS;
use crate::verdict;

/// Reserved ranges of the firmware's memory map that are kept.
const MAX_RESERVED: usize = 32;

/// Pages below 1 MiB for the start of other processors.
const TRAMPOLINE_PAGES: usize = 1;

/// A range of physical memory in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Range {
    /// First byte.
    pub start: u64,
    /// Length.
    pub len: u64,
}

impl Range {
    /// Whether `other` lies inside.
    pub fn holds(&self, other: &Self) -> bool {
        other.start >= self.start && other.start + other.len <= self.start + self.len
    }
}

/// The machine as the firmware describes it.
pub struct Platform {
    /// Where this program was loaded.
    pub image_base: u64,
    /// End of the highest range of memory.
    pub top_of_memory: u64,
    /// Port of the PM timer, 0 for none.
    pub pm_timer_port: u16,
    /// Whether it has 32 bits.
    pub pm_timer_wide: bool,
    /// PM1a control port, which no test may write.
    pub pm1_control_port: u16,
    /// The hypervisor's diagnostics area, by its ACPI table `VDGS`.
    pub diagnostics: Option<Range>,
    /// A page below 1 MiB, identity mapped, 0 when there was none left.
    pub trampoline: u64,
    reserved: [Range; MAX_RESERVED],
    reserved_len: usize,
    apic_ids: [u32; MAX_CPUS],
    apic_id_len: usize,
}

impl Platform {
    /// Asks the firmware. Everything that is missing becomes a note, and the tests that need it are skipped.
    pub fn discover() -> Self {
        let mut platform = Self {
            image_base: 0,
            top_of_memory: 0,
            pm_timer_port: 0,
            pm_timer_wide: false,
            pm1_control_port: 0,
            diagnostics: None,
            trampoline: 0,
            reserved: [Range::default(); MAX_RESERVED],
            reserved_len: 0,
            apic_ids: [0; MAX_CPUS],
            apic_id_len: 0,
        };
        if let Ok(image) = boot::open_protocol_exclusive::<LoadedImage>(boot::image_handle()) {
            platform.image_base = image.info().0 as u64;
        }
        let below = AllocateType::MaxAddress(0x9_0000);
        if let Ok(page) = boot::allocate_pages(below, MemoryType::LOADER_CODE, TRAMPOLINE_PAGES) {
            platform.trampoline = page.as_ptr() as u64;
        }
        platform.read_acpi();
        platform.read_memory_map();
        platform
    }

    fn read_acpi(&mut self) {
        let rsdp = with_config_table(|table| {
            table
                .iter()
                .find(|entry| entry.guid == ConfigTableEntry::ACPI2_GUID)
                .map_or(0, |entry| entry.address as u64)
        });
        if rsdp == 0 {
            verdict::note(format_args!("no ACPI tables"));
            return;
        }
        if let Some(fadt) = acpi::find(rsdp, b"FACP") {
            // ACPI Specification, "Fixed ACPI Description Table (FADT)": PM1a_CNT_BLK 64, PM_TMR_BLK 76, Flags 112.
            self.pm1_control_port = fadt.u32(64) as u16;
            self.pm_timer_port = fadt.u32(76) as u16;
            self.pm_timer_wide = fadt.u32(112) & (1 << 8) != 0;
        }
        if let Some(madt) = acpi::find(rsdp, b"APIC") {
            let found = acpi::enabled_processors(&madt, &mut self.apic_ids);
            self.apic_id_len = found.min(MAX_CPUS);
        }
        if let Some(table) = acpi::find(rsdp, b"VDGS") {
            verdict::check("VDGS: checksum", table.checksum_holds());
            self.diagnostics = Some(Range {
                start: table.u64(36),
                len: table.u64(44),
            });
        }
    }

    fn read_memory_map(&mut self) {
        let Ok(map) = boot::memory_map(MemoryType::LOADER_DATA) else {
            verdict::note(format_args!("no memory map"));
            return;
        };
        for entry in map.entries() {
            let range = Range {
                start: entry.phys_start,
                len: entry.page_count * 4096,
            };
            match entry.ty {
                MemoryType::RESERVED => {
                    if let Some(slot) = self.reserved.get_mut(self.reserved_len) {
                        *slot = range;
                        self.reserved_len += 1;
                    }
                }
                MemoryType::MMIO | MemoryType::MMIO_PORT_SPACE | MemoryType::UNACCEPTED => continue,
                _ => {}
            }
            // Firmware reports windows of devices as reserved too; memory of 64 GiB is more than any test has.
            if range.start < 64 << 30 {
                self.top_of_memory = self.top_of_memory.max(range.start + range.len);
            }
        }
    }

    /// Reserved ranges of the memory map.
    pub fn reserved(&self) -> &[Range] {
        &self.reserved[..self.reserved_len]
    }

    /// APIC ids of the processors that firmware enabled.
    pub fn processors(&self) -> &[u32] {
        &self.apic_ids[..self.apic_id_len]
    }
}
