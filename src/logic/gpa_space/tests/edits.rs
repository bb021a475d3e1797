//! Random edits against a page-by-page model, with every allocation failing once, in both formats.

mod bench;
mod model;

use bench::{LARGE, RAM};
use model::{FIRST, Failures, NONSENSE, Op, PAGES};
use paging::{Attributes, Backing, Format, Levels, PageSize};
use proptest::prelude::*;

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
        1 => (prop::sample::select(&NONSENSE[..]), any::<u64>()).prop_map(|(what, number)| Op::Nonsense(what, number)),
    ]
}

fn run_all(format: Format, levels: Levels, max_leaf: PageSize, ops: &[Op]) {
    let bench = bench::Bench::new(format, levels, max_leaf, true);
    model::run(bench, ops.iter().map(|op| (*op, Failures::All)));
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
