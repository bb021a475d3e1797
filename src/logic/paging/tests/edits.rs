//! Single edits of a tree: what they build, free and refuse.

mod fake;

use addr::Spa;
use fake::Fake;
use paging::{Attributes, EditError, Format, Levels, PageSize, Table, TableMemory};

const K4: u64 = 4096;
const M2: u64 = 2 << 20;
const G1: u64 = 1 << 30;

struct Bench {
    mem: Fake,
    table: Table,
}

fn bench(format: Format) -> Bench {
    let mut mem = Fake::default();
    let root = mem.alloc().unwrap();
    Bench {
        mem,
        table: Table::new(format, root, Levels::Four, PageSize::Size1G),
    }
}

fn simple() -> Bench {
    bench(Format::Ept)
}

#[test]
fn the_largest_leaf_is_taken() {
    let mut b = simple();
    let cleanup = b
        .table
        .map(&mut b.mem, 0, 3 * G1, Spa::new(0), Attributes::RWX)
        .unwrap();
    assert!(!cleanup.flush_needed() && !cleanup.holds_tables());
    assert_eq!(b.mem.frames.len(), 2);
    assert_eq!(
        b.table.lookup(&b.mem, 2 * G1 + 5).unwrap().size,
        PageSize::Size1G
    );
    assert_eq!(
        b.table.lookup(&b.mem, 2 * G1 + 5).unwrap().spa,
        Spa::new(2 * G1 + 5)
    );
    assert_eq!(b.table.lookup(&b.mem, 3 * G1), None);
}

#[test]
fn an_overlay_splits_and_its_end_merges() {
    let mut b = simple();
    drop(
        b.table
            .map(&mut b.mem, 0, G1, Spa::new(0), Attributes::RWX)
            .unwrap(),
    );
    let cleanup = b
        .table
        .map(&mut b.mem, 5 * K4, K4, Spa::new(9 * G1), Attributes::RX)
        .unwrap();
    assert!(cleanup.flush_needed() && !cleanup.holds_tables());
    assert_eq!(b.table.finish(&mut b.mem, cleanup), 0);
    assert_eq!(b.mem.frames.len(), 4);
    assert_eq!(
        b.table.lookup(&b.mem, 5 * K4).unwrap().spa,
        Spa::new(9 * G1)
    );
    assert_eq!(
        b.table.lookup(&b.mem, 6 * K4).unwrap().spa,
        Spa::new(6 * K4)
    );
    assert_eq!(b.table.lookup(&b.mem, M2).unwrap().size, PageSize::Size2M);
    b.mem.budget = Some(0);
    let mut cleanup = b
        .table
        .map(&mut b.mem, 5 * K4, K4, Spa::new(5 * K4), Attributes::RWX)
        .unwrap();
    let merged = b.table.coalesce(&mut b.mem, 5 * K4);
    cleanup.absorb(merged, &mut b.mem);
    assert_eq!(b.table.finish(&mut b.mem, cleanup), 2);
    assert_eq!(
        b.table.lookup(&b.mem, 5 * K4).unwrap().size,
        PageSize::Size1G
    );
}

#[test]
fn the_same_mapping_again_stores_nothing() {
    let mut b = simple();
    drop(
        b.table
            .map(&mut b.mem, 0, 2 * G1, Spa::new(G1), Attributes::RWX)
            .unwrap(),
    );
    b.mem.history.clear();
    let cleanup = b
        .table
        .map(
            &mut b.mem,
            G1 + K4,
            3 * M2,
            Spa::new(2 * G1 + K4),
            Attributes::RWX,
        )
        .unwrap();
    assert!(!cleanup.flush_needed());
    assert!(b.mem.history.is_empty());
}

#[test]
fn many_detached_tables_come_back() {
    let mut b = simple();
    // 600 tables of small leaves, then one gigabyte leaf over 512 of them and a gap over the rest.
    drop(
        b.table
            .map(&mut b.mem, 0, 600 * M2, Spa::new(K4), Attributes::RWX)
            .unwrap(),
    );
    assert_eq!(b.mem.frames.len(), 1 + 1 + 2 + 600);
    let mut cleanup = b
        .table
        .map(&mut b.mem, 0, 512 * M2, Spa::new(0), Attributes::RWX)
        .unwrap();
    let second = b.table.unmap(&mut b.mem, 512 * M2, 88 * M2).unwrap();
    cleanup.absorb(second, &mut b.mem);
    assert!(cleanup.holds_tables());
    assert_eq!(b.table.finish(&mut b.mem, cleanup), 513 + 88);
    let empty = b.table.coalesce(&mut b.mem, 512 * M2);
    assert_eq!(b.table.finish(&mut b.mem, empty), 1);
    assert_eq!(b.mem.frames.len(), 2);
}

#[test]
fn ranges_that_make_no_sense_are_refused() {
    let mut b = simple();
    let rw = Attributes::RW;
    let mut map = |start, len, spa| {
        b.table
            .map(&mut b.mem, start, len, Spa::new(spa), rw)
            .map(drop)
            .unwrap_err()
    };
    assert_eq!(map(0, 0, 0), EditError::OutOfRange);
    assert_eq!(map(1, K4, 0), EditError::Misaligned);
    assert_eq!(map(0, K4 + 1, 0), EditError::Misaligned);
    assert_eq!(map(0, K4, 1), EditError::Misaligned);
    assert_eq!(map(1 << 48, K4, 0), EditError::OutOfRange);
    assert_eq!(map((1 << 48) - K4, 2 * K4, 0), EditError::OutOfRange);
    assert_eq!(map(u64::MAX - K4 + 1, K4, 0), EditError::OutOfRange);
    assert_eq!(map(u64::MAX - K4 + 1, 2 * K4, 0), EditError::OutOfRange);
    assert_eq!(map(0, 2 * K4, (1 << 52) - K4), EditError::OutOfRange);
    assert_eq!(map(0, K4, !0xFFF), EditError::OutOfRange);
    let write_only = Attributes {
        read: false,
        ..Attributes::RW
    };
    assert_eq!(
        b.table
            .map(&mut b.mem, 0, K4, Spa::new(0), write_only)
            .map(drop),
        Err(EditError::BadAttributes)
    );
    assert_eq!(b.table.lookup(&b.mem, u64::MAX), None);
    assert!(!b.table.coalesce(&mut b.mem, u64::MAX).flush_needed());
    assert_eq!(b.mem.frames.len(), 1);
}

#[test]
fn host_ranges_stay_in_one_half_and_reach_the_last_page() {
    let mut b = bench(Format::Host);
    let rw = Attributes::RW;
    let across = b
        .table
        .map(&mut b.mem, (1 << 47) - K4, 2 * K4, Spa::new(0), rw);
    assert_eq!(across.map(drop), Err(EditError::OutOfRange));
    assert_eq!(
        b.table
            .map(&mut b.mem, 1 << 47, K4, Spa::new(0), rw)
            .map(drop),
        Err(EditError::OutOfRange)
    );
    drop(
        b.table
            .map(&mut b.mem, u64::MAX - 2 * G1 + 1, 2 * G1, Spa::new(0), rw)
            .unwrap(),
    );
    assert_eq!(
        b.table.lookup(&b.mem, u64::MAX).unwrap().spa,
        Spa::new(2 * G1 - 1)
    );
    drop(
        b.table
            .unmap(&mut b.mem, 0xFFFF_8000_0000_0000, 1 << 47)
            .unwrap(),
    );
    assert_eq!(b.table.lookup(&b.mem, u64::MAX), None);
}

#[test]
fn merging_stops_at_the_largest_leaf_and_at_misalignment() {
    let mut b = simple();
    b.table = Table::new(Format::Ept, b.table.root(), Levels::Four, PageSize::Size2M);
    for page in 0..G1 / M2 {
        drop(
            b.table
                .map(
                    &mut b.mem,
                    page * M2,
                    M2,
                    Spa::new(page * M2),
                    Attributes::RWX,
                )
                .unwrap(),
        );
    }
    assert!(!b.table.coalesce(&mut b.mem, 0).flush_needed());
    assert_eq!(b.table.lookup(&b.mem, 0).unwrap().size, PageSize::Size2M);
    drop(
        b.table
            .map(&mut b.mem, G1, M2, Spa::new(K4), Attributes::RWX)
            .unwrap(),
    );
    assert!(!b.table.coalesce(&mut b.mem, G1).flush_needed());
    assert_eq!(b.table.lookup(&b.mem, G1).unwrap().size, PageSize::Size4K);
}
