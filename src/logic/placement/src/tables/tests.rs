extern crate std;

use std::boxed::Box;
use std::vec::Vec;

use bootinfo::{IMAGE_BASE, LP_AREA_BASE, PHYS_MAP_BASE};
use proptest::prelude::*;

use super::*;

/// Tables at addresses from 0x8000_0000 on, at most `limit` of them.
struct Fake {
    pages: Vec<Box<[u64; 512]>>,
    limit: usize,
}

const FIRST: u64 = 0x8000_0000;

impl Fake {
    fn new(limit: usize) -> Self {
        Self {
            pages: Vec::new(),
            limit,
        }
    }

    fn page(table: Spa) -> usize {
        assert!(table.is_aligned(PAGE));
        ((table.get() - FIRST) / PAGE) as usize
    }
}

impl TableMemory for Fake {
    fn allocate(&mut self) -> Option<Spa> {
        if self.pages.len() == self.limit {
            return None;
        }
        self.pages.push(Box::new([0; 512]));
        Some(Spa::new(FIRST + (self.pages.len() as u64 - 1) * PAGE))
    }

    fn read(&self, table: Spa, index: usize) -> u64 {
        self.pages[Self::page(table)][index]
    }

    fn write(&mut self, table: Spa, index: usize, entry: u64) {
        self.pages[Self::page(table)][index] = entry;
    }
}

/// Translates as the processor does: address, whether writable, whether executable, bytes of the leaf.
fn walk(tables: &Tables<Fake>, va: u64) -> Option<(u64, bool, bool, u64)> {
    let mut table = tables.root;
    let (mut writable, mut executable) = (true, true);
    for level in (1..=tables.levels).rev() {
        let entry = tables
            .memory
            .read(table, (va >> (12 + 9 * (level - 1))) as usize & 511);
        if entry & PRESENT == 0 {
            return None;
        }
        writable &= entry & WRITE != 0;
        executable &= entry & NO_EXECUTE == 0;
        if level == 1 || entry & LARGE != 0 {
            let bytes = PAGE << (9 * (level - 1));
            let base = entry & ADDRESS & !(bytes - 1);
            assert_eq!(
                entry & ADDRESS,
                base,
                "a large leaf has no low address bits"
            );
            return Some((base + va % bytes, writable, executable, bytes));
        }
        table = Spa::new(entry & ADDRESS);
    }
    unreachable!()
}

fn tables(levels: u32) -> Tables<Fake> {
    Tables::new(Fake::new(1000), levels).unwrap()
}

#[test]
fn leaves_are_as_large_as_alignment_allows() {
    let mut tables = tables(4);
    let start = (1 << 30) - (2 << 20) - PAGE;
    let len = PAGE + (2 << 20) + (1 << 30) + (2 << 20) + PAGE;
    tables
        .map(
            PHYS_MAP_BASE + start,
            Spa::new(start),
            len,
            Access::ReadWrite,
            LeafLimit::Size1G,
        )
        .unwrap();
    let leaf = |at: u64| walk(&tables, PHYS_MAP_BASE + at);
    assert_eq!(leaf(start), Some((start, true, false, PAGE)));
    assert_eq!(
        leaf(start + PAGE),
        Some((start + PAGE, true, false, 2 << 20))
    );
    assert_eq!(leaf(1 << 30), Some((1 << 30, true, false, 1 << 30)));
    assert_eq!(leaf(2 << 30), Some((2 << 30, true, false, 2 << 20)));
    assert_eq!(
        leaf((2 << 30) + (2 << 20)),
        Some(((2 << 30) + (2 << 20), true, false, PAGE))
    );
    assert_eq!(leaf(start - 1), None);
    assert_eq!(leaf(start + len), None);
}

#[test]
fn a_limit_keeps_leaves_small() {
    let mut tables = tables(4);
    tables
        .map(
            IMAGE_BASE,
            Spa::new(0x40_0000),
            4 << 20,
            Access::ReadExecute,
            LeafLimit::Size4K,
        )
        .unwrap();
    assert_eq!(
        walk(&tables, IMAGE_BASE + 0x20_0000),
        Some((0x60_0000, false, true, PAGE))
    );
}

#[test]
fn no_access_is_writable_and_executable() {
    for (access, writable, executable) in [
        (Access::Read, false, false),
        (Access::ReadWrite, true, false),
        (Access::ReadExecute, false, true),
    ] {
        let mut tables = tables(5);
        tables
            .map(
                LP_AREA_BASE,
                Spa::new(0x1000),
                PAGE,
                access,
                LeafLimit::Size1G,
            )
            .unwrap();
        assert_eq!(
            walk(&tables, LP_AREA_BASE),
            Some((0x1000, writable, executable, PAGE))
        );
    }
}

#[test]
fn a_second_mapping_of_a_page_is_refused() {
    let mut tables = tables(4);
    tables
        .map(
            0x20_0000,
            Spa::new(0x20_0000),
            2 << 20,
            Access::Read,
            LeafLimit::Size2M,
        )
        .unwrap();
    let again = |t: &mut Tables<Fake>, va| {
        t.map(
            va,
            Spa::new(va),
            PAGE,
            Access::ReadExecute,
            LeafLimit::Size4K,
        )
    };
    assert_eq!(again(&mut tables, 0x30_0000), Err(MapError::Overlap));
    assert_eq!(again(&mut tables, 0x40_0000), Ok(()));
    assert_eq!(again(&mut tables, 0x40_0000), Err(MapError::Overlap));
    // A table with one page in it is in the way of a 2 MiB leaf.
    let large = tables.map(
        0x40_0000,
        Spa::new(0),
        2 << 20,
        Access::Read,
        LeafLimit::Size2M,
    );
    assert_eq!(large, Err(MapError::Overlap));
}

#[test]
fn impossible_mappings_are_refused() {
    let mut tables = tables(4);
    let mut map =
        |va, spa, len| tables.map(va, Spa::new(spa), len, Access::Read, LeafLimit::Size1G);
    assert_eq!(map(1, 0, PAGE), Err(MapError::Misaligned));
    assert_eq!(map(0, 1, PAGE), Err(MapError::Misaligned));
    assert_eq!(map(0, 0, 1), Err(MapError::Misaligned));
    assert_eq!(map(1 << 47, 0, PAGE), Err(MapError::OutOfRange));
    assert_eq!(
        map((1 << 47) - PAGE, 0, 2 * PAGE),
        Err(MapError::OutOfRange)
    );
    assert_eq!(
        map(0u64.wrapping_sub(PAGE), 0, 2 * PAGE),
        Err(MapError::OutOfRange)
    );
    assert_eq!(map(0, 1 << 52, PAGE), Err(MapError::OutOfRange));
    assert_eq!(map(0, 0, 0), Ok(()));
    assert!(Tables::new(Fake::new(10), 3).is_none());
}

#[test]
fn want_of_memory_is_reported_wherever_it_happens() {
    assert!(Tables::new(Fake::new(0), 4).is_none());
    for limit in 1..4 {
        let mut tables = Tables::new(Fake::new(limit), 4).unwrap();
        let result = tables.map(
            0x1000,
            Spa::new(0x1000),
            PAGE,
            Access::Read,
            LeafLimit::Size1G,
        );
        assert_eq!(result, Err(MapError::NoMemory));
    }
    let mut enough = Tables::new(Fake::new(4), 4).unwrap();
    assert_eq!(
        enough.map(
            0x1000,
            Spa::new(0x1000),
            PAGE,
            Access::Read,
            LeafLimit::Size1G
        ),
        Ok(())
    );
}

proptest! {
    /// Every page of a mapping translates to its frame, and the pages around it to nothing.
    #[test]
    fn a_mapping_covers_its_pages_and_no_other(
        levels in 4u32..=5, page in 0u64..2000, count in 1u64..1500, shift in prop::sample::select(std::vec![0u64, 3, 512, 512 * 7])
    ) {
        let mut tables = tables(levels);
        let (start, len) = (page * PAGE, count * PAGE);
        tables.map(PHYS_MAP_BASE + start, Spa::new(start + shift * PAGE), len, Access::ReadWrite, LeafLimit::Size1G).unwrap();
        for at in (page.saturating_sub(2)..page + count + 2).map(|p| p * PAGE) {
            let inside = at >= start && at < start + len;
            let found = walk(&tables, PHYS_MAP_BASE + at + 0x123).map(|leaf| leaf.0);
            prop_assert_eq!(found, inside.then_some(at + shift * PAGE + 0x123));
        }
    }
}
