//! The parent's identity map while frames of it are deposited and come back.

mod fake;

use addr::Spa;
use fake::Fake;
use paging::mtrr::{MtrrState, VARIABLE_MAX};
use paging::{
    Attributes, Cleanup, EditError, Format, Levels, Mapping, PageSize, Table, TableMemory,
    map_identity,
};
use proptest::prelude::*;

const K4: u64 = 4096;
const M2: u64 = 2 << 20;
const G1: u64 = 1 << 30;
const END: u64 = 6 * G1;
const ZERO_PAGE: u64 = 0x7_7777_7000;

/// Write-back, with an uncacheable hole at 3 GiB, one of 64 KiB at 2 GiB + 1 MiB, and VGA.
fn machine() -> MtrrState {
    let mut state = MtrrState {
        cap: 0x508,
        def_type: 1 << 11 | 1 << 10 | 6,
        fixed: [0x0606_0606_0606_0606; 11],
        variable: [(0, 0); VARIABLE_MAX],
        phys_bits: 40,
    };
    state.fixed[2] = 0;
    let mask = |size: u64| ((1 << 40) - size) | 1 << 11;
    state.variable[0] = (3 * G1, mask(G1));
    state.variable[1] = (2 * G1 + (1 << 20), mask(0x1_0000));
    state
}

struct Parent {
    mem: Fake,
    table: Table,
    mtrr: Option<MtrrState>,
}

impl Parent {
    fn new(format: Format, max_leaf: PageSize, mtrr: Option<MtrrState>) -> Self {
        let mut mem = Fake::default();
        let root = mem.alloc().unwrap();
        let mut parent = Self {
            mem,
            table: Table::new(format, root, Levels::Four, max_leaf),
            mtrr,
        };
        parent.restore(0, END).unwrap();
        parent
    }

    fn finish(&mut self, cleanup: Cleanup) {
        self.table.finish(&mut self.mem, cleanup);
    }

    fn deposit(&mut self, page: u64) -> Result<(), EditError> {
        let frame = Spa::new(ZERO_PAGE);
        let cleanup = self
            .table
            .map(&mut self.mem, page, K4, frame, Attributes::RO)?;
        assert!(cleanup.flush_needed());
        self.finish(cleanup);
        Ok(())
    }

    /// The identity again, as on withdrawal.
    fn restore(&mut self, start: u64, len: u64) -> Result<(), EditError> {
        let mut cleanup = Cleanup::default();
        let Self { mem, table, mtrr } = self;
        match mtrr {
            Some(mtrr) => map_identity(
                table,
                mem,
                Spa::new(start),
                len,
                Attributes::RWX,
                mtrr,
                &mut cleanup,
            )?,
            None => cleanup.absorb(
                table.map(mem, start, len, Spa::new(start), Attributes::RWX)?,
                mem,
            ),
        }
        let merged = table.coalesce(mem, start);
        cleanup.absorb(merged, mem);
        self.finish(cleanup);
        Ok(())
    }

    fn leaves(&self) -> Vec<Mapping> {
        let mut at = 0;
        core::iter::from_fn(|| {
            let leaf = (at < END).then(|| self.table.lookup(&self.mem, at).unwrap())?;
            at += leaf.size.bytes();
            Some(leaf)
        })
        .collect()
    }
}

fn check(format: Format, max_leaf: PageSize, mtrr: Option<MtrrState>, pages: &[u64]) {
    let mut parent = Parent::new(format, max_leaf, mtrr);
    let (leaves, frames) = (parent.leaves(), parent.mem.frames.clone());
    for page in pages {
        // Every number of frames that is too small changes nothing.
        let before = parent.mem.frames.clone();
        let needed = (0..)
            .find(|budget| {
                parent.mem.budget = Some(*budget);
                match parent.deposit(*page) {
                    Ok(()) => true,
                    Err(error) => {
                        assert_eq!(error, EditError::OutOfFrames);
                        assert!(parent.mem.frames == before, "a failed deposit left a trace");
                        false
                    }
                }
            })
            .unwrap();
        assert!(needed <= 2);
        let found = parent.table.lookup(&parent.mem, *page).unwrap();
        assert_eq!(
            (found.spa.get(), found.attributes),
            (ZERO_PAGE, Attributes::RO)
        );
    }
    // All other pages are as they were.
    for leaf in &leaves {
        let around = pages
            .iter()
            .flat_map(|page| [page.wrapping_sub(K4), page + K4]);
        let ends = [leaf.spa.get(), leaf.spa.get() + leaf.size.bytes() - K4];
        for page in around.chain(ends) {
            let inside = page.wrapping_sub(leaf.spa.get()) < leaf.size.bytes();
            if inside && !pages.contains(&page) {
                let found = parent.table.lookup(&parent.mem, page).unwrap();
                assert_eq!((found.spa.get(), found.attributes), (page, leaf.attributes));
            }
        }
    }
    // They come back in another order, and need nothing for that.
    parent.mem.budget = Some(0);
    for page in pages.iter().rev() {
        parent.restore(*page, K4).unwrap();
    }
    assert_eq!(parent.leaves(), leaves);
    assert_eq!(parent.mem.frames.len(), frames.len());
}

#[test]
fn a_piece_deposited_whole_comes_back_whole() {
    let pages: Vec<u64> = (0..512).map(|page| 5 * G1 + 7 * M2 + page * K4).collect();
    check(Format::Ept, PageSize::Size1G, Some(machine()), &pages);
    check(Format::Npt, PageSize::Size1G, None, &pages);
}

#[test]
fn pages_beside_another_memory_type_come_back_with_their_own() {
    let hole = 2 * G1 + (1 << 20);
    let pages = [
        0x9_F000,
        0xC_0000,
        0x1F_F000,
        hole - K4,
        hole,
        hole + 0x1_0000,
        3 * G1 - K4,
        4 * G1,
    ];
    check(Format::Ept, PageSize::Size1G, Some(machine()), &pages);
    check(Format::Ept, PageSize::Size2M, Some(machine()), &pages);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn deposits_leave_no_trace(
        pages in prop::collection::btree_set((0..6u64, prop_oneof![Just(0u64), Just(1), 0..512u64], 0..512u64), 1..30),
        one_gib: bool,
    ) {
        let pages: Vec<u64> = pages.into_iter().map(|(g, m, k)| g * G1 + m * M2 + k * K4).collect();
        let max_leaf = if one_gib { PageSize::Size1G } else { PageSize::Size2M };
        check(Format::Ept, max_leaf, Some(machine()), &pages);
        check(Format::Npt, max_leaf, None, &pages);
    }
}
