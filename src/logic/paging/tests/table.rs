//! The table core against a model, with concurrent walkers and with failing allocations.

mod fake;

use addr::Spa;
use fake::{Fake, walk};
use paging::{
    Attributes, Backing, Cleanup, EditError, Format, Levels, MemoryType, PageSize, Table,
    TableMemory,
};
use proptest::prelude::*;

const K4: u64 = 4096;
const M2: u64 = 2 << 20;
const G1: u64 = 1 << 30;

/// Ranges begin and end here; between two neighbours everything is alike.
#[rustfmt::skip]
const POINTS: &[u64] = &[
    0, K4, 2 * K4, M2 - K4, M2, M2 + K4, 2 * M2, 3 * M2,
    G1 - M2, G1 - K4, G1, G1 + K4, G1 + M2, 2 * G1 - K4, 2 * G1, 3 * G1,
    511 * G1, 512 * G1 - M2, 512 * G1 - K4, 512 * G1, 512 * G1 + K4, 513 * G1, 514 * G1,
];

#[derive(Clone, Copy, Debug)]
enum Op {
    /// From, to, distance of the target from identity.
    Map(usize, usize, u64, Attributes),
    Unmap {
        from: usize,
        to: usize,
    },
    Overlay {
        at: usize,
        attributes: Attributes,
    },
    Restore,
    Coalesce {
        at: usize,
    },
}

type Cell = Option<(u64, Attributes)>;

/// One mapping per cell between two points.
struct Model(Vec<Cell>);

struct Bench {
    mem: Fake,
    table: Table,
    format: Format,
    levels: u32,
    max_leaf: PageSize,
    base: u64,
    model: Model,
    overlay: Option<(usize, Option<paging::Mapping>, Cell)>,
}

/// One page at the start, in the middle and at the end of each cell.
fn probes() -> impl Iterator<Item = (usize, u64)> {
    POINTS.windows(2).enumerate().flat_map(|(cell, ends)| {
        let middle = ((ends[0] + ends[1]) / 2) & !(K4 - 1);
        [ends[0], middle, ends[1] - K4]
            .into_iter()
            .map(move |at| (cell, at))
    })
}

impl Bench {
    fn new(format: Format, levels: Levels, max_leaf: PageSize, base: u64) -> Self {
        let mut mem = Fake::default();
        let root = mem.alloc().unwrap();
        let table = Table::new(format, root, levels, max_leaf);
        Self {
            mem,
            table,
            format,
            levels: levels.count(),
            max_leaf,
            base,
            model: Model(vec![None; POINTS.len() - 1]),
            overlay: None,
        }
    }

    fn expected(&self, cell: usize, at: u64) -> Cell {
        self.model.0[cell].map(|(spa, attributes)| (spa + (at - POINTS[cell]), attributes))
    }

    fn call(
        table: &mut Table,
        mem: &mut Fake,
        base: u64,
        op: Op,
        overlay: &Option<(usize, Option<paging::Mapping>, Cell)>,
    ) -> Result<(Cleanup, Option<paging::Mapping>), EditError> {
        let range = |from: usize, to: usize| (base + POINTS[from], POINTS[to] - POINTS[from]);
        Ok(match op {
            Op::Map(from, to, shift, attributes) => {
                let (start, len) = range(from, to);
                (
                    table.map(mem, start, len, Spa::new(POINTS[from] + shift), attributes)?,
                    None,
                )
            }
            Op::Unmap { from, to } => {
                let (start, len) = range(from, to);
                (table.unmap(mem, start, len)?, None)
            }
            Op::Overlay { at, attributes } => {
                let page = base + POINTS[at];
                let below = table.lookup(mem, page);
                let frame = Spa::new(0x7_0000_0000);
                (table.map(mem, page, K4, frame, attributes)?, below)
            }
            Op::Restore => match overlay {
                Some((at, below, _)) => {
                    let page = base + POINTS[*at];
                    let mut cleanup = match below {
                        Some(below) => table.map(mem, page, K4, below.spa, below.attributes)?,
                        None => table.unmap(mem, page, K4)?,
                    };
                    let merged = table.coalesce(mem, page);
                    cleanup.absorb(merged, mem);
                    (cleanup, None)
                }
                None => (Cleanup::default(), None),
            },
            Op::Coalesce { at } => (table.coalesce(mem, base + POINTS[at]), None),
        })
    }

    fn run(&mut self, op: Op) {
        // Only one overlay at a time, and nothing else moves under it.
        match op {
            Op::Overlay { at, .. }
                if self.overlay.is_some() || POINTS[at + 1] - POINTS[at] != K4 =>
            {
                return;
            }
            Op::Map(..) | Op::Unmap { .. } if self.overlay.is_some() => return,
            _ => {}
        }
        let before = self.mem.clone();

        // Every number of frames that is too small leaves everything as it was.
        self.mem.history.clear();
        let mut budget = 0;
        let (cleanup, below) = loop {
            self.mem.budget = Some(budget);
            match Self::call(&mut self.table, &mut self.mem, self.base, op, &self.overlay) {
                Ok(done) => break done,
                Err(EditError::OutOfFrames) => {
                    assert!(
                        self.mem.frames == before.frames,
                        "a failed edit left a trace"
                    );
                    self.mem.history.clear();
                    // Large edits need hundreds of tables; beyond the first few, try a sample.
                    budget += if budget < 8 { 1 } else { 61 };
                }
                Err(other) => panic!("{other:?}"),
            }
        };
        self.update(op, below);
        self.check_history(&before, &cleanup);

        let live = self.mem.frames.len() as u64;
        let freed = self.table.finish(&mut self.mem, cleanup);
        assert_eq!(self.mem.frames.len() as u64, live - freed);
        for (cell, at) in probes() {
            let mapping = self.table.lookup(&self.mem, self.base + at);
            assert!(
                mapping.is_none_or(|mapping| mapping.size <= self.max_leaf),
                "a leaf too large at {at:#x}"
            );
            let found = mapping.map(|m| (m.spa.get(), m.attributes));
            assert_eq!(found, self.expected(cell, at), "at {at:#x} after {op:?}");
        }
        let mut leaves = [0; 3];
        assert_eq!(
            self.reachable(&mut leaves),
            self.mem.frames.len(),
            "a table was leaked or freed too early"
        );
        let counted = fake::SIZES.map(|size| self.table.leaves(size));
        assert_eq!(counted, leaves, "leaves were lost or counted twice");
    }

    fn update(&mut self, op: Op, below: Option<paging::Mapping>) {
        let Model(cells) = &mut self.model;
        match op {
            Op::Map(from, to, shift, attributes) => {
                for cell in from..to {
                    cells[cell] = Some((POINTS[cell] + shift, self.format.keep(attributes)));
                }
            }
            Op::Unmap { from, to } => cells[from..to].fill(None),
            Op::Overlay { at, attributes } => {
                self.overlay = Some((at, below, cells[at]));
                cells[at] = Some((0x7_0000_0000, self.format.keep(attributes)));
            }
            Op::Restore => {
                if let Some((at, _, old)) = self.overlay.take() {
                    cells[at] = old;
                }
            }
            Op::Coalesce { .. } => {}
        }
    }

    /// A walker from the root sees the old mapping, then the new one; so does a walker that cached the way to
    /// any table of the old tree, which may see the old one until the flush.
    fn check_history(&self, before: &Fake, cleanup: &Cleanup) {
        let root = self.table.root().get();
        let mut replayed = before.clone();
        let mut watch = Vec::new();
        for (cell, at) in probes() {
            let mut path = Vec::new();
            let old = walk(
                self.format,
                &replayed,
                root,
                self.levels,
                self.base + at,
                Some(&mut path),
            );
            let new = self.expected(cell, at);
            watch.push((self.base + at, path, old, new, false));
        }
        // Wide edits make thousands of stores; look after the first ones, the last ones and a sample between.
        let total = self.mem.history.len();
        let stride = (total / 400).max(1);
        for (number, event) in self.mem.history.iter().enumerate() {
            replayed.replay(*event);
            if number % stride != 0 && number > 50 && number + 50 < total {
                continue;
            }
            for (at, path, old, new, switched) in &mut watch {
                let now = walk(self.format, &replayed, root, self.levels, *at, None);
                *switched |= now != *old;
                assert_eq!(
                    now,
                    if *switched { *new } else { *old },
                    "a third mapping at {at:#x}"
                );
                for (table, level) in path {
                    let stale = walk(self.format, &replayed, *table, *level, *at, None);
                    assert!(
                        stale == *old || stale == *new,
                        "a third mapping for a cached table at {at:#x}"
                    );
                }
            }
        }
        for (at, _, old, new, _) in watch {
            assert_eq!(
                walk(self.format, &self.mem, root, self.levels, at, None),
                new
            );
            let was_usable = old.is_some_and(|(_, attributes)| attributes.read);
            assert!(
                old == new || !was_usable || cleanup.flush_needed(),
                "no flush for a changed mapping at {at:#x}"
            );
        }
        assert!(!cleanup.holds_tables() || cleanup.flush_needed());
    }

    /// Tables that can be reached; adds up the leaves by size.
    fn reachable(&self, leaves: &mut [u64; 3]) -> usize {
        fn count(
            format: Format,
            mem: &Fake,
            table: u64,
            level: u32,
            leaves: &mut [u64; 3],
        ) -> usize {
            let mut sum = 1;
            for index in 0..512 {
                let raw = mem.slot(table + index * 8);
                let entry = format.decode(raw, fake::leaf_size(level));
                assert!(
                    entry != paging::Entry::Empty || raw == 0,
                    "an empty entry that is not 0"
                );
                match entry {
                    paging::Entry::Empty => {}
                    paging::Entry::Table(below) => {
                        assert!(level > 1);
                        sum += count(format, mem, below.get(), level - 1, leaves);
                    }
                    paging::Entry::Leaf(..) => leaves[level as usize - 1] += 1,
                }
            }
            sum
        }
        let root = self.table.root().get();
        count(self.format, &self.mem, root, self.levels, leaves)
    }
}

fn attributes() -> impl Strategy<Value = Attributes> {
    const TYPES: [MemoryType; 5] = [
        MemoryType::Uncacheable,
        MemoryType::WriteCombining,
        MemoryType::WriteThrough,
        MemoryType::WriteProtected,
        MemoryType::WriteBack,
    ];
    const RIGHTS: [(bool, bool, bool); 5] = [
        (false, false, false),
        (true, false, false),
        (true, true, false),
        (true, false, true),
        (true, true, true),
    ];
    (
        prop::sample::select(&RIGHTS[..]),
        any::<(bool, bool)>(),
        prop::sample::select(&TYPES[..]),
    )
        .prop_map(
            |((read, write, execute), (user, global), memory_type)| Attributes {
                read,
                write,
                execute,
                user,
                global,
                memory_type,
                backing: Backing::Plain,
            },
        )
}

fn op() -> impl Strategy<Value = Op> {
    let last = POINTS.len() - 1;
    let range = (0..last, 1..=last).prop_map(|(a, b)| if a < b { (a, b) } else { (b - 1, a + 1) });
    let fixed = Attributes::RWX;
    prop_oneof![
        4 => (range.clone(), prop::sample::select(&[0, 0, G1, M2, K4][..]), prop_oneof![Just(fixed), attributes()])
            .prop_map(|((from, to), shift, attributes)| {
                // Bound the number of small leaves.
                let len = POINTS[to] - POINTS[from];
                let shift = match shift {
                    K4 if len > 8 * M2 => M2,
                    other => other,
                };
                let shift = if shift == M2 && len > 4 * G1 { 0 } else { shift };
                Op::Map(from, to, shift, attributes)
            }),
        2 => range.prop_map(|(from, to)| Op::Unmap { from, to }),
        2 => (0..last, attributes()).prop_map(|(at, attributes)| Op::Overlay { at, attributes }),
        2 => Just(Op::Restore),
        2 => (0..last).prop_map(|at| Op::Coalesce { at }),
    ]
}

fn run_all(format: Format, levels: Levels, max_leaf: PageSize, base: u64, ops: &[Op]) {
    let mut bench = Bench::new(format, levels, max_leaf, base);
    for op in ops {
        let wide = match *op {
            Op::Map(from, to, ..) => POINTS[to] - POINTS[from] > 4 * G1,
            _ => false,
        };
        if wide && max_leaf != PageSize::Size1G
            || (max_leaf == PageSize::Size4K
                && matches!(*op, Op::Map(from, to, ..) if POINTS[to] - POINTS[from] > 8 * M2))
        {
            continue;
        }
        bench.run(*op);
    }
    let live = bench.mem.frames.len() as u64;
    assert_eq!(bench.table.destroy(&mut bench.mem), live);
    assert!(bench.mem.frames.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn ept_follows_the_model(ops in prop::collection::vec(op(), 1..14)) {
        run_all(Format::Ept, Levels::Four, PageSize::Size1G, 0, &ops);
    }

    #[test]
    fn npt_follows_the_model(ops in prop::collection::vec(op(), 1..14)) {
        run_all(Format::Npt, Levels::Five, PageSize::Size2M, 3 << 48, &ops);
    }

    #[test]
    fn the_upper_half_of_host_tables_follows_the_model(ops in prop::collection::vec(op(), 1..14)) {
        run_all(Format::Host, Levels::Four, PageSize::Size1G, 0xFFFF_8000_0000_0000, &ops);
    }

    #[test]
    fn small_leaves_follow_the_model(ops in prop::collection::vec(op(), 1..14)) {
        run_all(Format::Ept, Levels::Five, PageSize::Size4K, 0, &ops);
    }
}
