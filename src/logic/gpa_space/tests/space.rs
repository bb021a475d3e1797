//! What each edit does, what it costs and what it refuses.

mod bench;

use addr::{Gpa, Gpn, Spa};
use bench::{Bench, K4, LARGE, RAM};
use gpa_space::{Fault, GpaSpace, Pending, SpaceError, State, rights};
use paging::walk::Access;
use paging::{Attributes, Backing, Format, Levels, MarkChange, Marks, MemoryType, PageSize};

const GIB: u64 = 512 * LARGE;

fn bench() -> Bench {
    Bench::new(Format::Ept, Levels::Four, PageSize::Size1G, true)
}

#[test]
fn pieces_of_509_pages_of_a_huge_declaration_cost_next_to_nothing() {
    let mut b = bench();
    let pages = 8 * GIB;
    let mut at = 0;
    while at < pages {
        b.sweep_all(at, 509.min(pages - at), true);
        b.finish();
        at += 509;
    }
    assert_eq!(b.state(0), State::NoAccess);
    assert_eq!(b.state(pages - 1), State::NoAccess);
    assert_eq!(b.state(pages), State::Unmapped);
    assert_eq!(
        b.mem.frames.len(),
        2,
        "the top table and eight leaves in the next"
    );
    assert!(b.mem.peak <= 6, "{}", b.mem.peak);
    b.check_tables();
    // A page of it is mapped, and given up again.
    b.map_4k(3 * GIB + 77, 1);
    b.finish();
    assert_eq!(b.mem.frames.len(), 4);
    b.sweep_all(3 * GIB + 77, 1, true);
    b.finish();
    assert_eq!(b.mem.frames.len(), 2);
    b.end(3);
}

#[test]
fn large_steps_merge_too() {
    let mut b = Bench::new(Format::Npt, Levels::Five, PageSize::Size1G, true);
    // 300 and 212 leaves of 2 MiB, out of order.
    b.sweep_all(300 * LARGE, 212 * LARGE, true);
    assert_eq!(b.state(0), State::Unmapped);
    b.sweep_all(0, 300 * LARGE, true);
    b.finish();
    assert_eq!(b.mem.frames.len(), 3);
    b.end(1);
}

#[test]
fn a_small_page_splits_a_large_leaf_and_ends_one_use() {
    let mut b = bench();
    b.map_2m(0, 0x1000);
    b.map_4k(5, 0x9999);
    assert!(b.pending.flush_needed());
    assert_eq!(b.uses[&0x1005], 1, "ended before the flush");
    b.finish();
    assert_eq!(b.uses.get(&0x1005), None);
    assert_eq!(b.uses.len(), 512);
    assert_eq!(b.mapped(5), Some((0x9999, PageSize::Size4K)));
    assert_eq!(b.mapped(6), Some((0x1006, PageSize::Size4K)));
    // The same frame again makes the leaf whole.
    b.map_4k(5, 0x1005);
    b.finish();
    assert_eq!(b.mapped(6), Some((0x1006, PageSize::Size2M)));
    assert_eq!((b.mem.frames.len(), b.uses.len()), (3, 512));
    b.end(100);
}

#[test]
fn a_large_leaf_over_small_ones_frees_their_table() {
    let mut b = bench();
    for page in 0..LARGE {
        b.map_4k(page, 0x5000 + 2 * page);
    }
    b.finish();
    assert_eq!((b.mem.frames.len(), b.uses.len()), (4, 512));
    b.map_2m(0, 0x8000);
    assert!(b.pending.flush_needed());
    assert_eq!(b.uses.len(), 1024);
    b.finish();
    assert_eq!((b.mem.frames.len(), b.uses.len()), (3, 512));
    assert_eq!(b.mapped(511), Some((0x81FF, PageSize::Size2M)));
    b.end(1);
}

#[test]
fn frames_that_lie_side_by_side_become_a_large_leaf_and_keep_their_uses() {
    let mut b = bench();
    for page in (0..LARGE).rev() {
        b.map_4k(page, 0x8000 + page);
    }
    b.finish();
    assert_eq!(b.mapped(0), Some((0x8000, PageSize::Size2M)));
    assert_eq!((b.mem.frames.len(), b.uses.len()), (3, 512));
    b.sweep_all(0, LARGE, false);
    b.finish();
    assert_eq!((b.mem.frames.len(), b.uses.len()), (1, 0));
    b.end(1);
}

#[test]
fn the_same_mapping_again_ends_the_second_use() {
    let mut b = bench();
    b.map_2m(0, 0x1000);
    b.map_2m(0, 0x1000);
    b.map_4k(9, 0x1009);
    assert!(!b.pending.flush_needed() && !b.pending.is_empty());
    assert_eq!(b.uses[&0x1009], 3);
    b.finish();
    assert!(b.uses.values().all(|uses| *uses == 1));
    // Other rights: another leaf, one use.
    let read_only = Attributes::RO.with_backing(Backing::Counted);
    b.map(9, 0x1009, PageSize::Size4K, read_only).unwrap();
    b.finish();
    assert!(b.uses.values().all(|uses| *uses == 1));
    b.end(1);
}

#[test]
fn devices_hold_no_uses() {
    let mut b = bench();
    let device = Attributes::RW.with_type(MemoryType::Uncacheable);
    b.map(LARGE, 0xF_0000, PageSize::Size2M, device).unwrap();
    b.map(LARGE, 0x1234, PageSize::Size4K, RAM).unwrap();
    b.sweep_all(LARGE, 2, false);
    b.finish();
    assert!(b.uses.is_empty());
    b.end(1);
}

#[test]
fn one_flush_serves_a_burst_and_runs_are_told_once() {
    let mut b = bench();
    for page in 0..64 {
        b.map_4k(page, 0x7000 + page);
    }
    assert!(b.pending.is_empty(), "new mappings need no flush");
    b.sweep_all(0, 64, true);
    let mut runs = Vec::new();
    b.space
        .finish(&mut b.mem, &mut b.pending, &mut |spa, count| {
            runs.push((spa, count))
        });
    assert_eq!(runs, [(Spa::new(0x7000 * K4), 64)]);
    b.space
        .finish(&mut b.mem, &mut b.pending, &mut |_, _| panic!("told twice"));
}

#[test]
fn a_full_record_stops_an_edit_before_it_begins() {
    let mut b = bench();
    for page in 0..2 * LARGE {
        b.map_4k(page, 0x5000 + 2 * page);
    }
    b.finish();
    // Not whole 2 MiB, so page by page: 512 runs fit.
    assert_eq!(b.sweep(1, 1022, false), Ok(512));
    assert!(b.pending.is_full());
    assert_eq!(b.sweep(513, 510, false), Err(SpaceError::Full));
    assert_eq!(b.mapped(513), Some((0x5000 + 2 * 513, PageSize::Size4K)));
    b.finish();
    assert_eq!(b.sweep(513, 510, false), Ok(510));
    b.finish();
    assert_eq!(b.uses.len(), 2);
    // Tables that wait are bounded too.
    for area in 2..20 {
        for page in 0..3 {
            b.map_4k(area * LARGE + page, 0x2_0000 + 2 * page);
        }
    }
    b.finish();
    assert_eq!(b.sweep(2 * LARGE, 18 * LARGE, false), Ok(8 * LARGE));
    assert!(b.pending.is_full());
    b.sweep_all(10 * LARGE, 10 * LARGE, false);
    b.finish();
    assert_eq!(b.uses.len(), 2);
    b.end(1);
}

/// A table with an overlay in it stays, so a large leaf over it ends the uses of up to 511 pages one by one.
#[test]
fn a_table_with_an_overlay_takes_a_whole_record() {
    let mut b = bench();
    for page in 0..2 * LARGE {
        b.map_4k(page, 0x5000 + 2 * page);
    }
    b.place(LARGE + 1, 0xABCD).unwrap();
    b.finish();
    b.sweep_all(0, 300, false);
    assert!(!b.pending.is_full());
    b.map_2m(LARGE, 0x8000);
    assert_eq!(b.sweep(0, LARGE, false), Err(SpaceError::Full));
    b.finish();
    assert_eq!(b.uses.len(), 212 + 512);
    b.end(1);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let mut b = bench();
    let invalid = Err(SpaceError::Invalid);
    let large = PageSize::Size2M;
    assert_eq!(b.map(1, 0, large, RAM), invalid);
    assert_eq!(b.map(0, 1, large, RAM), invalid);
    assert_eq!(b.map(0, 0, PageSize::Size1G, RAM), invalid);
    assert_eq!(b.map(0, 0, large, Attributes::NONE), invalid);
    assert_eq!(
        b.map(0, 0, large, RAM.with_backing(Backing::Overlay)),
        invalid
    );
    assert_eq!(b.map(1 << 36, 0, large, RAM), invalid);
    assert_eq!(b.map(u64::MAX, 0, PageSize::Size4K, RAM), invalid);
    assert_eq!(b.map(0, (1 << 40) - 1, PageSize::Size4K, RAM), Ok(()));
    for declare in [false, true] {
        assert_eq!(b.sweep(u64::MAX, 2, declare), Err(SpaceError::Invalid));
        assert_eq!(b.sweep(1 << 36, 1, declare), Err(SpaceError::Invalid));
        // What is inside is done.
        assert_eq!(b.sweep((1 << 36) - 1, 2, declare), Ok(1));
        assert_eq!(b.sweep(0, 0, declare), Ok(0));
    }
    b.finish();
    b.end(1);
}

#[test]
fn rights_of_the_call() {
    assert_eq!(rights(true, true, true, true), Some(Attributes::RWX));
    assert_eq!(rights(true, false, false, false), Some(Attributes::RO));
    assert_eq!(rights(false, false, false, false), Some(Attributes::NONE));
    for (kernel, user) in [(true, false), (false, true)] {
        assert_eq!(rights(true, true, kernel, user), None);
    }
    assert_eq!(rights(false, true, false, false), None);
    assert_eq!(rights(false, false, true, true), None);
}

#[test]
fn an_access_of_the_hypervisor_tells_which_intercept_to_raise() {
    let mut b = bench();
    b.map(0, 7, PageSize::Size4K, Attributes::RO).unwrap();
    b.map(1, 8, PageSize::Size4K, Attributes::RX).unwrap();
    b.map(2, 9, PageSize::Size4K, RAM).unwrap();
    b.sweep_all(3, 1, true);
    let ask = |page: u64, access| b.space.translate(&b.mem, Gpa::new(page * K4 + 5), access);
    let found = |frame: u64| Ok(Spa::new(frame * K4 + 5));
    assert_eq!(ask(0, Access::Read), found(7));
    assert_eq!(ask(0, Access::Write), Err(Fault::Denied));
    assert_eq!(ask(0, Access::Execute), Err(Fault::Denied));
    assert_eq!(ask(1, Access::Execute), found(8));
    assert_eq!(ask(2, Access::ImplicitWrite), found(9));
    assert_eq!(ask(3, Access::Read), Err(Fault::Denied));
    assert_eq!(ask(4, Access::Read), Err(Fault::Unmapped));
    assert_eq!(ask(1 << 50, Access::Read), Err(Fault::Unmapped));
}

#[test]
fn an_overlay_stays_on_top_whatever_happens_below() {
    let mut b = bench();
    let on_top = Some((0xABCD, PageSize::Size4K));
    b.map_2m(0, 0x1000);
    b.place(5, 0xABCD).unwrap();
    b.finish();
    assert_eq!((b.mapped(5), b.uses.len()), (on_top, 512));
    // Small, large, no access, nothing: the overlay shows, and no frame is lost or given back too early.
    b.map_4k(5, 0x2222);
    b.finish();
    assert_eq!((b.mapped(5), b.uses.contains_key(&0x1005)), (on_top, false));
    b.map_2m(0, 0x4000);
    b.finish();
    assert_eq!(
        (b.mapped(5), b.mapped(4)),
        (on_top, Some((0x4004, PageSize::Size4K)))
    );
    assert_eq!(
        b.uses.keys().copied().collect::<Vec<_>>(),
        (0x4000..0x4200).collect::<Vec<_>>()
    );
    b.place(5, 0xABCE).unwrap();
    b.finish();
    assert_eq!(b.mapped(5), Some((0xABCE, PageSize::Size4K)));
    b.remove(5);
    b.finish();
    assert_eq!(b.mapped(5), Some((0x4005, PageSize::Size2M)), "whole again");
    b.place(5, 0xABCD).unwrap();
    b.sweep_all(0, LARGE, true);
    b.finish();
    assert_eq!(
        (b.mapped(5), b.state(4), b.uses.len()),
        (on_top, State::NoAccess, 0)
    );
    b.sweep_all(0, LARGE, false);
    b.finish();
    assert_eq!((b.mapped(5), b.state(4)), (on_top, State::Unmapped));
    b.remove(5);
    b.finish();
    assert_eq!((b.state(5), b.mem.frames.len()), (State::Unmapped, 1));
    // Over nothing, then the end of the partition with a use below.
    b.place(5, 0xABCD).unwrap();
    b.map_4k(5, 0x3333);
    b.end(1);
}

#[test]
fn an_overlay_without_a_place_for_what_lies_below_is_refused() {
    let mut b = bench();
    let mut pending = Pending::new();
    let page = Gpn::new(3);
    let refused = b.space.place(
        &mut b.mem,
        &mut b.overlays,
        page,
        Spa::new(K4),
        Attributes::RW,
        &mut pending,
    );
    assert_eq!(refused, Err(SpaceError::NoOverlay));
    assert_eq!(b.mem.frames.len(), 1);
    b.space
        .remove(&mut b.mem, &mut b.overlays, page, &mut pending)
        .unwrap();
    // A place that goes too early costs the state, not the use.
    b.place(3, 0xABCD).unwrap();
    b.overlays.0.clear();
    b.map_4k(3, 0x77);
    b.finish();
    assert!(b.uses.is_empty());
}

fn told(b: &mut Bench, page: u64, pages: u64, clear: Marks) -> Vec<(bool, bool, u64)> {
    let mut told = Vec::new();
    let change = MarkChange {
        clear,
        ..MarkChange::default()
    };
    let page = Gpn::new(page);
    let space: &mut GpaSpace = &mut b.space;
    space
        .marks(
            &mut b.mem,
            page,
            pages,
            change,
            &mut b.pending,
            &mut |marks, pages| {
                told.push((marks.accessed, marks.dirty, pages));
            },
        )
        .unwrap();
    told
}

const NONE: Marks = Marks {
    accessed: false,
    dirty: false,
};
const BOTH: Marks = Marks {
    accessed: true,
    dirty: true,
};
const DIRTY: Marks = Marks {
    accessed: false,
    dirty: true,
};

#[test]
fn marks_belong_to_leaves_and_a_part_that_becomes_clean_is_split_off() {
    let mut b = bench();
    b.sweep_all(0, 2 * LARGE, true);
    b.map_2m(0, 0x1000);
    assert_eq!(
        told(&mut b, 0, 3 * LARGE, NONE),
        [
            (true, true, LARGE),
            (false, false, LARGE),
            (false, false, LARGE)
        ]
    );
    assert!(!b.pending.flush_needed());
    assert_eq!(told(&mut b, 0, LARGE, BOTH), [(true, true, LARGE)]);
    assert!(
        b.pending.flush_needed(),
        "a processor may hold the page dirty"
    );
    b.finish();
    assert_eq!(told(&mut b, 0, LARGE, BOTH), [(false, false, LARGE)]);
    assert!(!b.pending.flush_needed());
    assert!(b.write(17));
    assert_eq!(told(&mut b, 0, 3, NONE), [(true, true, 3)]);
    // Clearing a part must not make the rest clean.
    let split = told(&mut b, 0, 100, DIRTY);
    assert_eq!(split, vec![(true, true, 1); 100]);
    b.finish();
    assert_eq!(
        told(&mut b, 99, 2, NONE),
        [(true, false, 1), (true, true, 1)]
    );
    assert_eq!(b.mem.frames.len(), 4);
    // A clean part is not split.
    let mut c = bench();
    c.map_2m(0, 0x1000);
    told(&mut c, 0, LARGE, BOTH);
    assert_eq!(told(&mut c, 3, 4, BOTH), [(false, false, 4)]);
    assert_eq!(c.mem.frames.len(), 3);
}

/// A leaf that is used but not written has nothing to lose: it is not split, and stays used.
#[test]
fn a_part_does_not_clear_the_accessed_mark_of_the_whole() {
    let mut b = bench();
    b.map_2m(0, 0x1000);
    told(&mut b, 0, LARGE, DIRTY);
    assert_eq!(told(&mut b, 0, 7, BOTH), [(true, false, 7)]);
    assert_eq!(told(&mut b, 7, 3, BOTH), [(true, false, 3)]);
    assert_eq!(told(&mut b, 0, LARGE, BOTH), [(true, false, LARGE)]);
    assert_eq!(b.mem.frames.len(), 3);
}

/// A processor may set the mark between the look and the edit.
#[test]
fn a_page_that_could_be_written_counts_as_written_when_it_loses_its_access() {
    let mut b = bench();
    b.map_4k(0, 5);
    let read_only = Attributes::RO.with_backing(Backing::Counted);
    b.map(1, 6, PageSize::Size4K, read_only).unwrap();
    told(&mut b, 0, 2, BOTH);
    b.sweep_all(0, 2, true);
    let after = told(&mut b, 0, 2, NONE);
    assert_eq!(after, [(false, true, 1), (false, false, 1)]);
}

#[test]
fn without_a_frame_to_split_with_a_leaf_stays_dirty() {
    let mut b = bench();
    b.map_2m(0, 0x1000);
    b.mem.budget = Some(0);
    let before = b.mem.clone();
    assert_eq!(told(&mut b, 0, 100, BOTH), [(true, true, 100)]);
    assert!(b.mem == before && b.pending.is_empty());
}

#[test]
fn a_page_that_lost_its_access_stays_dirty_until_cleared() {
    for has_marks in [true, false] {
        let mut b = Bench::new(Format::Npt, Levels::Four, PageSize::Size1G, has_marks);
        b.sweep_all(0, GIB, true);
        b.finish();
        b.map_4k(7, 0x99);
        told(&mut b, 0, 16, BOTH);
        b.write(7);
        b.sweep_all(7, 1, true);
        b.finish();
        assert_eq!(b.mem.frames.len(), 2);
        let leaf = told(&mut b, 7, 1, DIRTY);
        assert_eq!(leaf, [(false, true, 1)]);
        let after = told(&mut b, 7, 1, NONE);
        assert_eq!(after, [(false, !has_marks, 1)]);
    }
}

#[test]
fn a_processor_without_marks_counts_as_having_used_every_mapped_page() {
    let mut b = Bench::new(Format::Ept, Levels::Four, PageSize::Size2M, false);
    b.map_4k(0, 5);
    b.sweep_all(1, 1, true);
    for _ in 0..2 {
        assert_eq!(
            told(&mut b, 0, 3, BOTH),
            [(true, true, 1), (false, false, 1), (false, false, 1)]
        );
        assert!(!b.pending.flush_needed());
    }
}

#[test]
fn a_write_by_the_hypervisor_is_noted() {
    for has_marks in [true, false] {
        let mut b = Bench::new(Format::Ept, Levels::Four, PageSize::Size2M, has_marks);
        b.map_4k(3, 5);
        b.map_4k(4, 9);
        told(&mut b, 3, 2, BOTH);
        b.space.note_write(&mut b.mem, Gpa::new(3 << 12 | 0x123));
        // Where nothing is mapped nothing happens.
        b.space.note_write(&mut b.mem, Gpa::new(77 << 12));
        b.space.note_write(&mut b.mem, Gpa::new(u64::MAX));
        let all: Vec<_> = told(&mut b, 3, 2, NONE);
        assert_eq!(all[0], (true, true, 1));
        assert_eq!(all[1], (!has_marks, !has_marks, 1));
    }
    let mut b = Bench::new(Format::Npt, Levels::Four, PageSize::Size2M, true);
    b.map_4k(3, 5);
    told(&mut b, 3, 1, BOTH);
    b.space.note_write(&mut b.mem, Gpa::new(3 << 12));
    assert_eq!(told(&mut b, 3, 1, NONE), [(true, true, 1)]);
}

#[test]
fn marks_can_be_set() {
    let mut b = bench();
    b.map_4k(0, 5);
    told(&mut b, 0, 1, BOTH);
    let change = MarkChange {
        clear: NONE,
        set: DIRTY,
    };
    let Bench {
        mem,
        space,
        pending,
        ..
    } = &mut b;
    space
        .marks(mem, Gpn::new(0), 1, change, pending, &mut |_, _| {})
        .unwrap();
    assert_eq!(told(&mut b, 0, 1, NONE), [(false, true, 1)]);
    let Bench {
        mem,
        space,
        pending,
        ..
    } = &mut b;
    for (page, pages) in [(0, 0), (0, u64::MAX), (1 << 36, 1), (u64::MAX, 1)] {
        let done = space.marks(mem, Gpn::new(page), pages, change, pending, &mut |_, _| {
            panic!("told")
        });
        assert_eq!(done, Err(SpaceError::Invalid));
    }
}
