//! Edits against a page-by-page model.

use std::collections::{BTreeMap, BTreeSet};

use addr::{Gpa, Gpn, Spa};
use gpa_space::{Fault, SpaceError, State};
use paging::walk::Access;
use paging::{Attributes, Backing, MarkChange, Marks, PageSize};

use super::bench::{Bench, K4, LARGE, RAM};

/// The pages looked at: two pieces of 2 MiB on each side of a boundary of 1 GiB.
pub const FIRST: u64 = 510 * LARGE;
pub const PAGES: u64 = 4 * LARGE;

/// What is done. Pages lie in the range looked at.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// A run of single pages: page, number, frame, distance of the frames, rights.
    Map(u64, u64, u64, u64, Attributes),
    /// 2 MiB: piece, frame, rights.
    MapLarge(u64, u64, Attributes),
    /// Page, number, declare or unmap.
    Sweep(u64, u64, bool),
    Place(u64, u64),
    Remove(u64),
    Write(u64),
    /// Page, number.
    Clear(u64, u64),
    Flush,
    /// A call that makes no sense, and a number to make it from.
    Nonsense(Nonsense, u64),
}

/// What is wrong with a call.
#[derive(Clone, Copy, Debug)]
pub enum Nonsense {
    PageMisaligned,
    FrameMisaligned,
    PageBeyondTheEnd,
    FrameBeyondTheEnd,
    TooLarge,
    NoRead,
    OverlayByMap,
    SweepBeyondTheEnd,
    OverlayBeyondTheEnd,
}

/// All of it.
pub const NONSENSE: [Nonsense; 9] = [
    Nonsense::PageMisaligned,
    Nonsense::FrameMisaligned,
    Nonsense::PageBeyondTheEnd,
    Nonsense::FrameBeyondTheEnd,
    Nonsense::TooLarge,
    Nonsense::NoRead,
    Nonsense::OverlayByMap,
    Nonsense::SweepBeyondTheEnd,
    Nonsense::OverlayBeyondTheEnd,
];

/// After how many allocations there is no frame for tables.
#[allow(dead_code, reason = "each user of the model has one kind")]
#[derive(Clone, Copy, Debug)]
pub enum Failures {
    /// None, then one, and so on, until the edit is done.
    All,
    /// So many, and once more without a limit. [`Failures::NEVER`] costs no time.
    After(u64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Page {
    Unmapped,
    NoAccess,
    Mapped(u64, Attributes),
}

struct Model {
    /// From [`FIRST`] on, without overlays.
    pages: Vec<Page>,
    overlays: BTreeMap<u64, u64>,
    /// Pages written since they were last told and cleared.
    dirty: BTreeSet<u64>,
}

impl Model {
    fn shown(&self, page: u64) -> Page {
        match self.overlays.get(&page) {
            Some(frame) => Page::Mapped(*frame, Attributes::RW.with_backing(Backing::Overlay)),
            None => self.pages[(page - FIRST) as usize],
        }
    }

    fn set(&mut self, page: u64, state: Page) {
        self.pages[(page - FIRST) as usize] = state;
        if state == Page::Unmapped {
            self.dirty.remove(&page);
        }
    }

    /// Uses of each frame that pages hold.
    fn uses(&self) -> BTreeMap<u64, u32> {
        let mut uses = BTreeMap::new();
        for page in &self.pages {
            if let Page::Mapped(frame, attributes) = page
                && attributes.backing == Backing::Counted
            {
                *uses.entry(*frame).or_default() += 1;
            }
        }
        uses
    }
}

impl Failures {
    /// There are frames for all that is done.
    const NEVER: Self = Self::After(u64::MAX);
}

/// Everything that an edit could leave a trace in.
fn traces(bench: &Bench) -> impl PartialEq + use<> {
    (
        bench.mem.frames.clone(),
        bench.overlays.0.clone(),
        bench.uses.clone(),
        bench.pending.is_empty(),
        bench.pending.flush_needed(),
    )
}

/// Does a step, first with too few frames for it; each failure must leave no trace.
fn with_failures<R>(
    bench: &mut Bench,
    failures: Failures,
    mut step: impl FnMut(&mut Bench) -> Result<R, SpaceError>,
) -> R {
    if let Failures::After(u64::MAX) = failures {
        return step(bench).unwrap_or_else(|error| panic!("{error:?}"));
    }
    let mut budget = match failures {
        Failures::All => 0,
        Failures::After(allocations) => allocations,
    };
    loop {
        let (before, was_empty) = (traces(bench), bench.pending.is_empty());
        bench.mem.budget = Some(budget);
        match step(bench) {
            Ok(done) => {
                bench.mem.budget = None;
                return done;
            }
            Err(SpaceError::OutOfFrames) => {
                // A flush on the way may have freed tables and ended uses.
                let is_flushed = !was_empty && bench.pending.is_empty();
                assert!(
                    is_flushed || traces(bench) == before,
                    "a failed edit left a trace"
                );
                budget = match failures {
                    Failures::All if is_flushed => budget,
                    Failures::All => budget + 1,
                    Failures::After(_) => u64::MAX,
                };
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

/// Makes a call that must be refused, and leave no trace.
fn refused(bench: &mut Bench, nonsense: Nonsense, number: u64) {
    // What is full is said first, and flushed by who makes the calls. A whole piece wants all the room.
    if bench.pending.is_full() || matches!(nonsense, Nonsense::SweepBeyondTheEnd) {
        bench.finish();
    }
    let before = traces(bench);
    let (small, large) = (PageSize::Size4K, PageSize::Size2M);
    let end = 1u64 << (9 * bench.space.levels().count());
    let beyond = end.saturating_add(number);
    let result = match nonsense {
        Nonsense::PageMisaligned => bench.map((FIRST + number % PAGES) | 1, 0x8000, large, RAM),
        Nonsense::FrameMisaligned => bench.map(FIRST, (number >> 24) | 1, large, RAM),
        Nonsense::PageBeyondTheEnd => bench.map(beyond, 0x8000, small, RAM),
        // An address has 52 bits.
        Nonsense::FrameBeyondTheEnd => bench.map(FIRST, (1 << 40) | (number >> 24), small, RAM),
        Nonsense::TooLarge => bench.map(0, 0, PageSize::Size1G, Attributes::RW),
        Nonsense::NoRead => bench.map(FIRST + number % PAGES, 0x8000, small, Attributes::NONE),
        Nonsense::OverlayByMap => {
            let rights = RAM.with_backing(Backing::Overlay);
            bench.map(FIRST + number % PAGES, 0x8000, small, rights)
        }
        Nonsense::SweepBeyondTheEnd => bench
            .sweep(beyond, u64::MAX, number.is_multiple_of(2))
            .map(|_| ()),
        Nonsense::OverlayBeyondTheEnd => bench.place(beyond, 0xF000),
    };
    assert_eq!(result, Err(SpaceError::Invalid), "{nonsense:?} {number:#x}");
    assert!(traces(bench) == before, "a refused edit left a trace");
}

fn run_one(bench: &mut Bench, model: &mut Model, op: Op, failures: Failures) {
    match op {
        Op::Map(page, count, frame, distance, attributes) => {
            for index in 0..count {
                let (page, frame) = (page + index, frame + index * distance);
                // Only the first page of a run in a table needs a frame.
                let failures = match failures {
                    Failures::After(_) if index != 0 && page % LARGE != 0 => Failures::NEVER,
                    other => other,
                };
                with_failures(bench, failures, |b| {
                    b.map(page, frame, PageSize::Size4K, attributes)
                });
                model.set(page, Page::Mapped(frame, attributes));
            }
        }
        Op::MapLarge(piece, frame, attributes) => {
            let first = FIRST + piece * LARGE;
            with_failures(bench, failures, |b| {
                b.map(first, frame, PageSize::Size2M, attributes)
            });
            for index in 0..LARGE {
                model.set(first + index, Page::Mapped(frame + index, attributes));
            }
        }
        Op::Sweep(page, count, declare) => {
            let mut done = 0;
            while done < count {
                done += with_failures(bench, failures, |b| {
                    match b.sweep(page + done, count - done, declare) {
                        Err(SpaceError::Full) => {
                            assert!(!b.pending.is_empty());
                            b.finish();
                            Ok(0)
                        }
                        more => more,
                    }
                });
            }
            let state = if declare {
                Page::NoAccess
            } else {
                Page::Unmapped
            };
            (page..page + count).for_each(|page| model.set(page, state));
        }
        Op::Place(page, frame) => {
            with_failures(bench, failures, |b| b.place(page, frame));
            model.overlays.insert(page, frame);
        }
        Op::Remove(page) => {
            if model.overlays.remove(&page).is_some() {
                bench.remove(page);
            }
        }
        Op::Write(page) => {
            if bench.write(page) && !model.overlays.contains_key(&page) {
                model.dirty.insert(page);
            }
        }
        Op::Clear(page, count) => clear(bench, model, page, count),
        Op::Nonsense(nonsense, number) => refused(bench, nonsense, number),
        Op::Flush => {
            bench.finish();
            assert_eq!(bench.uses, model.uses());
            bench.check_tables();
        }
    }
}

/// Every page that was written is told, whether there are frames to split leaves with or not.
fn clear(bench: &mut Bench, model: &mut Model, page: u64, count: u64) {
    for budget in [0, 1, 2, 3, 64] {
        bench.mem.budget = Some(budget);
        let change = MarkChange {
            clear: Marks {
                accessed: true,
                dirty: true,
            },
            ..MarkChange::default()
        };
        let mut at = page;
        let dirty = &mut model.dirty;
        let Bench {
            mem,
            space,
            pending,
            ..
        } = bench;
        space
            .marks(
                mem,
                Gpn::new(page),
                count,
                change,
                pending,
                &mut |marks, pages| {
                    for page in at..at + pages {
                        assert!(
                            marks.dirty || !dirty.contains(&page),
                            "a write to {page:#x} is not told"
                        );
                        dirty.remove(&page);
                    }
                    at += pages;
                },
            )
            .unwrap();
        assert_eq!(at, page + count);
    }
    bench.mem.budget = None;
}

fn check(bench: &Bench, model: &Model, step: usize) {
    let ends = (FIRST..FIRST + PAGES).filter(|page| matches!(page % LARGE, 0..20 | 500..));
    for page in ends.chain((FIRST..FIRST + PAGES).step_by(step)) {
        let found = match bench.state(page) {
            State::Unmapped => Page::Unmapped,
            State::NoAccess => Page::NoAccess,
            State::Mapped(mapping) => Page::Mapped(mapping.spa.page().get(), mapping.attributes),
        };
        assert_eq!(found, model.shown(page), "page {page:#x}");
        // Each of these is another walk: at the end there is time for them.
        if step == 1 && page.is_multiple_of(5) {
            check_accesses(bench, page, found);
        }
    }
    assert_eq!(bench.state(FIRST - 1), State::Unmapped);
    assert_eq!(bench.state(FIRST + PAGES), State::Unmapped);
}

/// An access of the hypervisor finds what the state says.
fn check_accesses(bench: &Bench, page: u64, state: Page) {
    let ask = |access| {
        let at = Gpa::new(page * K4 + 5);
        bench.space.translate(&bench.mem, at, access)
    };
    let wanted = |has_right: fn(&Attributes) -> bool| match state {
        Page::Unmapped => Err(Fault::Unmapped),
        Page::Mapped(frame, rights) if has_right(&rights) => Ok(Spa::new(frame * K4 + 5)),
        Page::NoAccess | Page::Mapped(..) => Err(Fault::Denied),
    };
    assert_eq!(ask(Access::Read), wanted(|rights| rights.read));
    assert_eq!(ask(Access::Write), wanted(|rights| rights.write));
    assert_eq!(ask(Access::Execute), wanted(|rights| rights.execute));
}

/// Does `ops` in the empty space of `bench`, looks after each whether the space is as the model says, and ends it.
pub fn run(mut bench: Bench, ops: impl IntoIterator<Item = (Op, Failures)>) {
    let mut model = Model {
        pages: vec![Page::Unmapped; PAGES as usize],
        overlays: BTreeMap::new(),
        dirty: BTreeSet::new(),
    };
    for (op, failures) in ops {
        run_one(&mut bench, &mut model, op, failures);
        check(&bench, &model, 61);
    }
    bench.finish();
    assert_eq!(bench.uses, model.uses());
    bench.check_tables();
    check(&bench, &model, 1);
    bench.end(5);
}
