//! The hypervisor's memory: the parent reads constant data from it, and changes nothing.
//!
//! The block is found as the loader describes it: the reserved range of the firmware's memory map that is aligned
//! to 2 MiB and holds the diagnostics area, which the ACPI table `VDGS` names.

use crate::options::Options;
use machine::platform::{Platform, Range};
use machine::verdict::{check, equal, note};
use machine::{clock, insn, paging, probe};

const TWO_MIB: u64 = 2 << 20;
const PAGE: u64 = 4096;

/// "VERDIGRI", the first bytes of the boot record, which lies page-aligned in the block.
const BOOT_INFO_MAGIC: u64 = u64::from_le_bytes(*b"VERDIGRI");
/// First bytes of an ELF file.
const ELF_MAGIC: u32 = u32::from_le_bytes([0x7F, b'E', b'L', b'F']);

/// Runs the group.
pub fn run(_: &Options, platform: &Platform) {
    let Some(diagnostics) = platform.diagnostics else {
        check("memory: the table VDGS names the diagnostics area", false);
        return;
    };
    note(format_args!(
        "diagnostics at {:#x}, {:#x} bytes",
        diagnostics.start, diagnostics.len
    ));
    let block = platform.reserved().iter().find(|range| {
        range.start % TWO_MIB == 0 && range.holds(&diagnostics) && range.len >= TWO_MIB
    });
    let Some(block) = block else {
        check(
            "memory: a reserved block of 2 MiB alignment holds the diagnostics area",
            false,
        );
        return;
    };
    note(format_args!(
        "block at {:#x}, {:#x} bytes",
        block.start, block.len
    ));
    check(
        "memory: the block can be looked at",
        block.start + block.len <= paging::end(),
    );
    reads(*block, diagnostics);
    writes(*block, diagnostics);
    the_area(diagnostics);
    check(
        "memory: the hypervisor still answers",
        !clock::has_reference() || clock::reference() != 0,
    );
    equal(
        "memory: CPUID still answers",
        insn::cpuid(0x4000_0001, 0).eax.into(),
        0x3123_7648,
    );
}

fn outside(area: Range, address: u64) -> bool {
    address < area.start || address >= area.start + area.len
}

fn reads(block: Range, area: Range) {
    let (mut faults, mut other, mut secrets, mut first) = (0, 0, 0, 0);
    let mut constant = None;
    // Four places per page: a page is either hidden or not.
    for address in (block.start..block.start + block.len)
        .step_by(PAGE as usize)
        .filter(|page| outside(area, *page))
    {
        for offset in [0, 8, 2048, 4088] {
            let Ok(value) = probe::read32(address + offset) else {
                faults += 1;
                continue;
            };
            if value != 0 && value != u32::MAX {
                if other == 0 {
                    first = address + offset;
                }
                other += 1;
            }
            if *constant.get_or_insert(value) != value {
                other += 1;
            }
            secrets += u64::from(value == ELF_MAGIC || value == BOOT_INFO_MAGIC as u32);
        }
    }
    if other != 0 {
        note(format_args!("first at {first:#x}"));
    }
    equal("memory: reads of the block fault", faults, 0);
    equal(
        "memory: reads of the block show anything but one constant",
        other,
        0,
    );
    equal(
        "memory: reads of the block show an ELF header or the boot record",
        secrets,
        0,
    );
    note(format_args!(
        "the block reads as {:#x}",
        constant.unwrap_or(0)
    ));
}

/// A write is lost, or ends in one page that stands for all of the block: then every page shows what was written
/// last. That a page keeps what was written to it alone would mean that it is real.
fn writes(block: Range, area: Range) {
    let pages = || {
        let all = (block.start..block.start + block.len).step_by(16 * PAGE as usize);
        all.filter(|page| outside(area, *page))
    };
    let before = probe::read32(block.start + block.len - PAGE);
    let (mut faults, mut count) = (0, 0);
    for address in pages() {
        faults += u64::from(probe::write32(address, address as u32 | 1).is_err());
        count += 1;
    }
    note(format_args!(
        "{count} pages written to, {faults} writes faulted"
    ));
    let own = pages()
        .filter(|page| probe::read32(*page) == Ok(*page as u32 | 1))
        .count() as u64;
    check("memory: no page keeps what was written to it", own <= 1);
    let shown = probe::read32(block.start + block.len - PAGE);
    let scratch = pages().all(|page| probe::read32(page) == shown);
    check(
        "memory: all pages show the same after the writes",
        scratch || shown == before,
    );
    wide_writes(block, area);
}

/// Writes that are wide, that cross a page, and that cross into the block.
fn wide_writes(block: Range, area: Range) {
    let last = block.start + block.len - PAGE;
    let middle = (block.start + block.len / 2) & !(PAGE - 1);
    for (name, address) in [
        ("wide", middle),
        ("over a page end", middle + PAGE - 4),
        ("at the block's end", last + PAGE - 8),
    ] {
        if !outside(area, address) || !outside(area, last - 8 * PAGE) {
            continue;
        }
        // Another page that was written to before tells whether this one alone took it.
        let offset = (address % PAGE) & !3;
        let witness = last - 8 * PAGE + offset;
        let _ = probe::write32(witness, 1);
        let result = probe::write64(address, u64::MAX / 3);
        let own = probe::read32((address & !(PAGE - 1)) + offset) == Ok(0x5555_5555)
            && probe::read32(witness) != Ok(0x5555_5555);
        check(format_args!("memory: a write {name} does not stick"), !own);
        note(format_args!("it gives {result:x?}"));
    }
}

fn the_area(area: Range) {
    check(
        "memory: the diagnostics area has a size",
        area.len >= PAGE && area.start.is_multiple_of(PAGE),
    );
    let readable = (area.start..area.start + area.len)
        .step_by(PAGE as usize)
        .all(|page| probe::read32(page).is_ok());
    check("memory: the diagnostics area can be read", readable);
    let head = [0, 4, 8, 12].map(|offset| probe::read32(area.start + offset).unwrap_or(0));
    check(
        "memory: and holds something",
        head.iter().any(|word| *word != 0 && *word != u32::MAX),
    );
    note(format_args!("it begins with {head:x?}"));
    let before = probe::read32(area.start);
    let write = probe::write32(area.start, 0x5A5A_A5A5);
    check(
        "memory: the diagnostics area cannot be written",
        probe::read32(area.start) == before,
    );
    note(format_args!("a write to it gives {write:x?}"));
}
