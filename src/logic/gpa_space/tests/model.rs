//! Random edits against a page-by-page model, with every allocation failing once, in both formats.

mod bench;

use std::collections::{BTreeMap, BTreeSet};

use addr::Gpn;
use bench::{Bench, LARGE, RAM};
use gpa_space::{SpaceError, State};
use paging::{Attributes, Backing, Format, Levels, MarkChange, Marks, PageSize};
use proptest::prelude::*;

/// The pages looked at: two pieces of 2 MiB on each side of a boundary of 1 GiB.
const FIRST: u64 = 510 * LARGE;
const PAGES: u64 = 4 * LARGE;

#[derive(Clone, Copy, Debug)]
enum Op {
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

/// Tries with no frame, then one, and so on; each failure must leave no trace.
fn with_failures<R>(
    bench: &mut Bench,
    mut step: impl FnMut(&mut Bench) -> Result<R, SpaceError>,
) -> R {
    for budget in 0.. {
        let (frames, overlays) = (bench.mem.frames.clone(), bench.overlays.0.clone());
        let (uses, empty) = (bench.uses.clone(), bench.pending.is_empty());
        bench.mem.budget = Some(budget);
        match step(bench) {
            Ok(done) => {
                bench.mem.budget = None;
                return done;
            }
            Err(SpaceError::OutOfFrames) => {
                // A flush on the way may have freed tables and ended uses.
                if !empty && bench.pending.is_empty() {
                    continue;
                }
                assert!(bench.mem.frames == frames, "a failed edit left a trace");
                assert_eq!(bench.overlays.0, overlays);
                assert_eq!(bench.uses, uses);
                assert_eq!(bench.pending.is_empty(), empty);
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    unreachable!()
}

fn run(bench: &mut Bench, model: &mut Model, op: Op) {
    match op {
        Op::Map(page, count, frame, distance, attributes) => {
            for index in 0..count {
                let (page, frame) = (page + index, frame + index * distance);
                with_failures(bench, |b| b.map(page, frame, PageSize::Size4K, attributes));
                model.set(page, Page::Mapped(frame, attributes));
            }
        }
        Op::MapLarge(piece, frame, attributes) => {
            let first = FIRST + piece * LARGE;
            with_failures(bench, |b| b.map(first, frame, PageSize::Size2M, attributes));
            for index in 0..LARGE {
                model.set(first + index, Page::Mapped(frame + index, attributes));
            }
        }
        Op::Sweep(page, count, declare) => {
            let mut done = 0;
            while done < count {
                done += with_failures(bench, |b| {
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
            with_failures(bench, |b| b.place(page, frame));
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
    }
    assert_eq!(bench.state(FIRST - 1), State::Unmapped);
    assert_eq!(bench.state(FIRST + PAGES), State::Unmapped);
}

fn op() -> impl Strategy<Value = Op> {
    const READ_ONLY: Attributes = Attributes::RO.with_backing(Backing::Counted);
    let attributes =
        || prop_oneof![6 => Just(RAM), 1 => Just(READ_ONLY), 1 => Just(Attributes::RW)];
    // Near the ends of the pieces more often than not.
    let page = || {
        (0..4u64, prop_oneof![0..16u64, 496..512u64, 0..512u64])
            .prop_map(|(piece, page)| FIRST + piece * LARGE + page)
    };
    let frame = || prop_oneof![Just(0x8000u64), Just(0x8200), 0x1000..0x1010u64];
    let range = move || {
        (
            page(),
            prop_oneof![1..20u64, 500..524u64, Just(LARGE), Just(2 * LARGE)],
        )
            .prop_map(|(page, count)| (page, count.min(FIRST + PAGES - page)))
    };
    let whole = || {
        (0..4u64, 1..3u64)
            .prop_map(|(piece, count)| (FIRST + piece * LARGE, count.min(4 - piece) * LARGE))
    };
    // Few pages with overlays, so that edits meet them.
    let covered = || {
        (0..4u64, prop_oneof![Just(3u64), Just(511)])
            .prop_map(|(piece, page)| FIRST + piece * LARGE + page)
    };
    prop_oneof![
        6 => (range(), frame(), 1..3u64, attributes())
            .prop_map(|((page, count), frame, distance, rights)| Op::Map(page, count.min(40), frame, distance, rights)),
        // A whole piece in order: its frames can merge.
        1 => (0..4u64, attributes()).prop_map(|(piece, rights)| Op::Map(FIRST + piece * LARGE, LARGE, 0x8000, 1, rights)),
        4 => (0..4u64, prop::sample::select(&[0x8000, 0x8200, 0xA000][..]), attributes())
            .prop_map(|(piece, frame, rights)| Op::MapLarge(piece, frame, rights)),
        4 => (prop_oneof![range(), whole()], any::<bool>()).prop_map(|((page, count), declare)| Op::Sweep(page, count, declare)),
        3 => (covered(), 0xF000..0xF004u64).prop_map(|(page, frame)| Op::Place(page, frame)),
        2 => covered().prop_map(Op::Remove),
        3 => page().prop_map(Op::Write),
        2 => range().prop_map(|(page, count)| Op::Clear(page, count)),
        3 => Just(Op::Flush),
    ]
}

fn run_all(format: Format, levels: Levels, max_leaf: PageSize, ops: &[Op]) {
    let mut bench = Bench::new(format, levels, max_leaf, true);
    let mut model = Model {
        pages: vec![Page::Unmapped; PAGES as usize],
        overlays: BTreeMap::new(),
        dirty: BTreeSet::new(),
    };
    for op in ops {
        run(&mut bench, &mut model, *op);
        check(&bench, &model, 61);
    }
    bench.finish();
    assert_eq!(bench.uses, model.uses());
    bench.check_tables();
    check(&bench, &model, 1);
    bench.end(5);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn ept_follows_the_model(ops in prop::collection::vec(op(), 1..40)) {
        run_all(Format::Ept, Levels::Four, PageSize::Size1G, &ops);
    }

    #[test]
    fn npt_follows_the_model(ops in prop::collection::vec(op(), 1..40)) {
        run_all(Format::Npt, Levels::Five, PageSize::Size2M, &ops);
    }
}
