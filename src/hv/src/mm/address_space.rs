//! The hypervisor's own address space after the loader: interrupt stacks with guard pages, the APIC's page, and
//! the end of the trampoline.

use addr::{Hva, LpIndex, PAGE_SIZE, Spa};
use bootinfo::{BootInfo, LP_AREA_BASE, Status};
use paging::{Attributes, Format, Levels, MemoryType, PageSize, Table};
use spin::{Mutex, Once};

use super::frames::{self, FrameUse};
use super::tables::Tables;
use crate::arch::x86::descriptors::ist;
use crate::arch::x86::insn;

/// Where the local APIC's page is mapped.
const APIC_PAGE: u64 = 0xFFFF_FE00_0000_0000;
/// Bytes of address space for each LP above [`LP_AREA_BASE`]. The loader's stack lies at their start.
const LP_SLOT: u64 = 1 << 20;
/// Offset of the interrupt stacks in the slot.
const INTERRUPT_STACKS: u64 = 0x2_0000;
/// Bytes of one interrupt stack; the page below each is not mapped.
const INTERRUPT_STACK: u64 = 8192;

static TABLE: Once<Mutex<Table>> = Once::new();

/// Takes over the tables that the loader built and maps the local APIC's page, uncached.
pub fn init(info: &BootInfo, apic_page: Spa) -> Result<(), Status> {
    let levels = Levels::from_count(info.levels).ok_or(Status::BAD_BOOT_INFO)?;
    let table = TABLE.call_once(|| {
        Mutex::new(Table::new(
            Format::Host,
            info.root_table,
            levels,
            PageSize::Size2M,
        ))
    });
    let device = Attributes::RW.with_type(MemoryType::Uncacheable);
    map(&mut table.lock(), APIC_PAGE, apic_page, PAGE_SIZE, device)
}

/// Where [`init`] mapped the local APIC's page.
pub fn apic_page() -> Hva {
    Hva::new(APIC_PAGE)
}

/// Allocates and maps the interrupt stacks of `lp`; gives their ends in the order of [`ist`].
pub fn map_interrupt_stacks(lp: LpIndex) -> Result<[u64; ist::COUNT], Status> {
    let table = TABLE.get().ok_or(Status::BAD_BOOT_INFO)?;
    let mut ends = [0; ist::COUNT];
    let mut at = LP_AREA_BASE + u64::from(lp.get()) * LP_SLOT + INTERRUPT_STACKS;
    for end in &mut ends {
        at += PAGE_SIZE;
        let spa = frames::alloc(FrameUse::Lp, (INTERRUPT_STACK / PAGE_SIZE) as usize)
            .ok_or(Status::NO_MEMORY)?;
        map(&mut table.lock(), at, spa, INTERRUPT_STACK, Attributes::RW)?;
        at += INTERRUPT_STACK;
        *end = at;
    }
    Ok(ends)
}

/// Takes the loader's trampoline out of the tables. Other LPs may keep the translation until they next load CR3; the
/// page is executable there, and only the hypervisor's own code could jump to it.
pub fn unmap_trampoline(page: u64) {
    let Some(table) = TABLE.get() else { return };
    let mut table = table.lock();
    let mut memory = Tables(FrameUse::HostTables);
    let start = page & !(PAGE_SIZE - 1);
    match table.unmap(&mut memory, start, PAGE_SIZE) {
        // The tables above it stay: another LP may be walking them.
        Ok(_) => {}
        Err(error) => log::warn!("the trampoline stays mapped: {error:?}"),
    }
    insn::flush_own_tlb();
}

/// Only ever adds mappings where none were, so no LP has anything to flush.
fn map(
    table: &mut Table,
    at: u64,
    spa: Spa,
    len: u64,
    attributes: Attributes,
) -> Result<(), Status> {
    let mut memory = Tables(FrameUse::HostTables);
    let done = table
        .map(&mut memory, at, len, spa, attributes)
        .map_err(|_| Status::NO_MEMORY)?;
    table.finish(&mut memory, done);
    insn::flush_own_tlb();
    Ok(())
}
