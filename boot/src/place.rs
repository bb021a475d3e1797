//! The hypervisor into its block: image, tables, stacks, processors, boot record.
#![expect(unsafe_code, reason = "writes the boot record")]

use addr::Spa;
use bootinfo::{
    BootInfo, Console, IMAGE_BASE, LP_AREA_BASE, LpInfo, PHYS_MAP_BASE, PanicAction, SpaRange,
};
use config::OnPanic;
use placement::{Access, Image, Layout, LayoutError, LeafLimit, MapError, PAGE, Tables};
use uefi::Status;

use crate::block::{Block, Pages};
use crate::clock::Frequencies;
use crate::failure::Failure;
use crate::processors::Lp;
use crate::{memory, trampoline, virtualization};

/// Distance between the areas of two LPs, in bytes.
const LP_AREA_STRIDE: u64 = 1 << 20;
/// Unmapped bytes below a bootstrap stack.
const STACK_GUARD: u64 = PAGE;
/// Bytes of a bootstrap stack.
const STACK_LEN: u64 = 32 << 10;

/// What the loader learnt of the machine, for the boot record.
pub struct Machine<'a> {
    /// All RAM, sorted and merged.
    pub ram: &'a [SpaRange],
    /// The LPs; the first is the boot processor.
    pub lps: &'a [Lp],
    /// Of its clocks.
    pub frequencies: Frequencies,
    /// Power management registers.
    pub power: bootinfo::AcpiPower,
    /// PCI configuration window to emulate.
    pub ecam: bootinfo::EcamShim,
}

/// A hypervisor in its place, ready to be called.
pub struct Placed {
    /// Its memory.
    pub block: Block,
    /// The part that the parent may read.
    pub diagnostics: SpaRange,
    boot_info: Spa,
    root_table: Spa,
    entry: u64,
}

impl Placed {
    /// The way into the hypervisor for `operation` on LP `lp`.
    pub const fn jump(&self, operation: bootinfo::Operation, lp: u32) -> trampoline::Jump {
        trampoline::Jump {
            operation,
            lp,
            boot_info: self.boot_info,
            root_table: self.root_table,
            stack_top: stack_bottom(lp) + STACK_LEN,
            entry: self.entry,
        }
    }
}

/// Virtual address of the lowest byte of an LP's bootstrap stack.
const fn stack_bottom(lp: u32) -> u64 {
    LP_AREA_BASE + lp as u64 * LP_AREA_STRIDE + STACK_GUARD
}

/// Puts `image` into `block`.
pub fn place(
    mut block: Block,
    image: &Image<'_>,
    machine: &Machine<'_>,
    config: &config::Hypervisor,
) -> Result<Placed, Failure> {
    let range = block.range();
    let layout = Layout::new(range, image.size()).map_err(|error| match error {
        LayoutError::Misaligned => Failure::new(
            Status::DEVICE_ERROR,
            format_args!("the firmware's memory is misaligned"),
        ),
        LayoutError::TooSmall => Failure::refused(bootinfo::Status::NO_MEMORY),
    })?;
    block.fill(layout.diagnostics, &[]);
    block.fill(layout.image, &[]);
    for segment in image.segments() {
        let part = SpaRange {
            start: offset(layout.image.start, segment.offset),
            len: segment.len,
        };
        block.fill(part, segment.bytes);
    }

    let levels = virtualization::paging_levels();
    let mut tables = Tables::new(Pages::new(&mut block, layout.rest), levels)
        .ok_or_else(|| map_failure(MapError::NoMemory))?;
    map_image(&mut tables, image, layout.image).map_err(map_failure)?;
    map_memory(&mut tables, machine.ram, layout.image).map_err(map_failure)?;
    let trampoline = trampoline::page()?;
    tables
        .map(
            trampoline,
            Spa::new(trampoline),
            PAGE,
            Access::ReadExecute,
            LeafLimit::Size4K,
        )
        .map_err(map_failure)?;
    let root_table = tables.root();

    for lp in 0..machine.lps.len() as u32 {
        let stack = tables
            .memory_mut()
            .take(STACK_LEN)
            .ok_or_else(|| map_failure(MapError::NoMemory))?;
        tables
            .map(
                stack_bottom(lp),
                stack.start,
                STACK_LEN,
                Access::ReadWrite,
                LeafLimit::Size4K,
            )
            .map_err(map_failure)?;
    }

    let mut pages = tables.into_memory();
    let lps = write_lps(&mut pages, machine.lps)?;
    let record = pages
        .take(size_of::<BootInfo>() as u64)
        .ok_or_else(|| map_failure(MapError::NoMemory))?;
    let mut memory = [SpaRange::default(); bootinfo::MEMORY_RANGES];
    let Some(known) = memory.get_mut(..machine.ram.len()) else {
        return Err(Failure::new(
            Status::UNSUPPORTED,
            format_args!(
                "the machine's memory is in {} pieces; at most {} are handled",
                machine.ram.len(),
                memory.len()
            ),
        ));
    };
    known.copy_from_slice(machine.ram);
    let info = BootInfo {
        magic: bootinfo::MAGIC,
        version: bootinfo::VERSION,
        size: size_of::<BootInfo>() as u32,
        block: range,
        image: layout.image,
        free: pages.free(),
        root_table,
        levels,
        lp_count: machine.lps.len() as u32,
        lps,
        trampoline,
        phys_map_end: memory::end(machine.ram),
        tsc_hz: machine.frequencies.tsc,
        apic_hz: machine.frequencies.apic,
        console: console(config),
        panic_action: match config.on_panic {
            OnPanic::Halt => PanicAction::HALT,
            OnPanic::Reset => PanicAction::RESET,
        },
        memory_count: machine.ram.len() as u32,
        power: machine.power,
        ecam: machine.ecam,
        diagnostics: layout.diagnostics,
        memory,
    };
    // SAFETY: `record` is a page of the block, large enough (asserted in `bootinfo`), aligned and ours alone.
    unsafe { (record.start.get() as *mut BootInfo).write(info) };
    Ok(Placed {
        diagnostics: layout.diagnostics,
        block,
        boot_info: record.start,
        root_table,
        entry: image.entry(),
    })
}

fn map_image(
    tables: &mut Tables<Pages<'_>>,
    image: &Image<'_>,
    place: SpaRange,
) -> Result<(), MapError> {
    for segment in image.segments() {
        let spa = offset(place.start, segment.offset);
        tables.map(
            IMAGE_BASE + segment.offset,
            spa,
            segment.len,
            segment.access,
            LeafLimit::Size4K,
        )?;
    }
    Ok(())
}

/// The physical map: all memory but the image.
fn map_memory(
    tables: &mut Tables<Pages<'_>>,
    ram: &[SpaRange],
    image: SpaRange,
) -> Result<(), MapError> {
    let limit = if virtualization::has_giant_pages() {
        LeafLimit::Size1G
    } else {
        LeafLimit::Size2M
    };
    for part in ram
        .iter()
        .flat_map(|&range| placement::subtract(range, image))
    {
        let va = PHYS_MAP_BASE
            .checked_add(part.start.get())
            .filter(|va| {
                va.checked_add(part.len)
                    .is_some_and(|end| end <= LP_AREA_BASE)
            })
            .ok_or(MapError::OutOfRange)?;
        tables.map(va, part.start, part.len, Access::ReadWrite, limit)?;
    }
    Ok(())
}

fn write_lps(pages: &mut Pages<'_>, lps: &[Lp]) -> Result<Spa, Failure> {
    let len = (lps.len() * size_of::<LpInfo>()) as u64;
    let array = pages
        .take(len)
        .ok_or_else(|| map_failure(MapError::NoMemory))?;
    for (index, lp) in lps.iter().enumerate() {
        let info = LpInfo {
            apic_id: lp.apic_id,
            is_bsp: u32::from(index == 0),
        };
        let place = (array.start.get() as *mut LpInfo).wrapping_add(index);
        // SAFETY: the array lies in the block, is aligned to a page and has room for `lps.len()` entries.
        unsafe { place.write(info) };
    }
    Ok(array.start)
}

fn console(config: &config::Hypervisor) -> Console {
    let level = config.log_level as u32;
    match config.console {
        Some(console) => Console {
            port: console.port,
            divisor: console.divisor,
            level,
        },
        None => Console {
            port: 0,
            divisor: 1,
            level,
        },
    }
}

/// `base + by`, both inside the block, which the firmware gave as existing memory.
const fn offset(base: Spa, by: u64) -> Spa {
    Spa::new(base.get() + by)
}

fn map_failure(error: MapError) -> Failure {
    match error {
        MapError::NoMemory => Failure::refused(bootinfo::Status::NO_MEMORY),
        error => Failure::new(
            Status::UNSUPPORTED,
            format_args!("the memory map cannot be mapped ({error:?})"),
        ),
    }
}
