//! The state in which VP 0 enters a kernel.

use tlfs::RegisterName;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};
use x86::{Segment, TableRegister, cr0, cr4, efer};

use super::LoadError;
use super::image::Entry;
use crate::map;

/// Selectors that the protocol gives.
const CODE: u16 = 0x10;
const DATA: u16 = 0x18;
const TASK: u16 = 0x20;
/// Accessed, executable, readable; accessed, writable; busy 32-bit task.
const CODE_TYPE: u16 = 0x9B;
const DATA_TYPE: u16 = 0x93;
const TASK_TYPE: u16 = 0x8B;
const TASK_LIMIT: u32 = 0x67;
const LDT_TYPE: u16 = 0x82;
const GRANULARITY: u16 = 1 << 15;
/// Two empty ones, code, data, and a task of two places.
const DESCRIPTORS: usize = 6;

/// Present and writable; a large page besides.
const TABLE: u64 = 3;
const LARGE: u64 = 3 | 1 << 7;
const LARGE_BYTES: u64 = 2 << 20;
const PAGE: u64 = 4096;
/// Tables of the second level: what they map is 4 GiB.
const DIRECTORIES: u64 = 4;

const RFLAGS: u64 = 2;
/// MTRRs are on, none is set, and memory is write-back where none is. Linux asks them before it caches.
const MTRR_ON_WRITE_BACK: u64 = 1 << 11 | 6;

/// Writes descriptors and page tables for `entry` and returns the registers that go with them.
pub(super) fn enter<M: GuestMemoryBackend>(
    memory: &M,
    entry: Entry,
) -> Result<Vec<(RegisterName, u128)>, LoadError> {
    let (rip, is_64) = match entry {
        Entry::Bits64(rip) => (rip, true),
        Entry::Bits32(rip) => (rip, false),
    };
    let size = if is_64 {
        Segment::LONG
    } else {
        Segment::DEFAULT_32
    };
    let flat = |selector, attributes| Segment {
        base: 0,
        limit: u32::MAX,
        selector,
        attributes: attributes | GRANULARITY,
    };
    let code = flat(CODE, CODE_TYPE | size);
    let data = flat(DATA, DATA_TYPE | Segment::DEFAULT_32);
    let task = Segment {
        base: 0,
        limit: TASK_LIMIT,
        selector: TASK,
        attributes: TASK_TYPE,
    };
    let ldt = Segment {
        limit: 0xFFFF,
        attributes: LDT_TYPE,
        ..Segment::default()
    };
    let descriptors = [
        0,
        0,
        descriptor(&code),
        descriptor(&data),
        descriptor(&task),
        0,
    ];
    put(memory, map::GDT, &descriptors)?;

    let mut registers = control(is_64);
    if is_64 {
        put_page_tables(memory)?;
    }
    let mut set = |name, value| registers.push((name, value));
    set(RegisterName::CS, segment_value(&code));
    for name in [
        RegisterName::DS,
        RegisterName::ES,
        RegisterName::SS,
        RegisterName::FS,
        RegisterName::GS,
    ] {
        set(name, segment_value(&data));
    }
    set(RegisterName::LDTR, segment_value(&ldt));
    set(RegisterName::TR, segment_value(&task));
    let gdt = TableRegister {
        base: map::GDT,
        limit: (DESCRIPTORS * 8 - 1) as u16,
    };
    set(RegisterName::GDTR, table_value(&gdt));
    set(RegisterName::IDTR, table_value(&TableRegister::default()));
    for number in 0..16 {
        set(RegisterName::RAX.nth(number), 0);
    }
    set(RegisterName::RSI, map::ZERO_PAGE.into());
    set(RegisterName::RSP, map::STACK.into());
    set(RegisterName::RIP, rip.into());
    set(RegisterName::RFLAGS, RFLAGS.into());
    registers.extend(every_vp());
    Ok(registers)
}

/// Registers of any VP that firmware would have set.
pub(super) fn every_vp() -> Vec<(RegisterName, u128)> {
    vec![(RegisterName::MTRR_DEF_TYPE, MTRR_ON_WRITE_BACK.into())]
}

/// Control registers. Paging comes last, when what it needs is there.
fn control(is_64: bool) -> Vec<(RegisterName, u128)> {
    let flat = cr0::PE | cr0::ET | cr0::NE;
    let registers = if is_64 {
        vec![
            (RegisterName::CR0, flat),
            (RegisterName::EFER, efer::LME | efer::LMA),
            (RegisterName::CR4, cr4::PAE),
            (RegisterName::CR3, map::PAGE_TABLES),
            (RegisterName::CR0, flat | cr0::PG),
        ]
    } else {
        vec![
            (RegisterName::CR0, flat),
            (RegisterName::EFER, 0),
            (RegisterName::CR4, 0),
            (RegisterName::CR3, 0),
        ]
    };
    registers
        .into_iter()
        .map(|(name, value)| (name, value.into()))
        .collect()
}

/// An identity map of the first 4 GiB.
fn put_page_tables<M: GuestMemoryBackend>(memory: &M) -> Result<(), LoadError> {
    let pointers = map::PAGE_TABLES + PAGE;
    let first = pointers + PAGE;
    put(memory, map::PAGE_TABLES, &[pointers | TABLE])?;
    let entries: Vec<u64> = (0..DIRECTORIES)
        .map(|n| (first + n * PAGE) | TABLE)
        .collect();
    put(memory, pointers, &entries)?;
    let pages: Vec<u64> = (0..DIRECTORIES * 512)
        .map(|n| (n * LARGE_BYTES) | LARGE)
        .collect();
    put(memory, first, &pages)
}

fn put<M: GuestMemoryBackend>(memory: &M, at: u64, words: &[u64]) -> Result<(), LoadError> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    memory.write_slice(&bytes, GuestAddress(at))?;
    Ok(())
}

/// The descriptor that loads `segment`, whose base is 0.
fn descriptor(segment: &Segment) -> u64 {
    let is_granular = segment.attributes & GRANULARITY != 0;
    let limit = u64::from(if is_granular {
        segment.limit >> 12
    } else {
        segment.limit
    });
    let attributes = u64::from(segment.attributes) << 40;
    (limit & 0xFFFF) | (limit >> 16 & 0xF) << 48 | attributes & 0x00F0_FF00_0000_0000
}

/// `HV_X64_SEGMENT_REGISTER` as a register's value.
fn segment_value(segment: &Segment) -> u128 {
    u128::from(segment.base)
        | u128::from(segment.limit) << 64
        | u128::from(segment.selector) << 96
        | u128::from(segment.attributes) << 112
}

/// `HV_X64_TABLE_REGISTER` as a register's value.
fn table_value(table: &TableRegister) -> u128 {
    u128::from(table.limit) << 48 | u128::from(table.base) << 64
}
