//! A parent's edits of a child's address space, with frames for tables that run out, against the model of the crate's own tests.

use arbitrary::Arbitrary;
use paging::{Attributes, Backing, Format, Levels, PageSize};

use crate::{Steps, target};

#[path = "../../../../src/logic/gpa_space/tests/bench/mod.rs"]
mod bench;
#[path = "../../../../src/logic/gpa_space/tests/model/mod.rs"]
mod model;

use bench::{Bench, LARGE, RAM};
use model::{FIRST, Failures, NONSENSE, Op, PAGES};

#[derive(Arbitrary, Debug)]
enum Step {
    /// Single pages.
    Map {
        page: u16,
        count: u8,
        frame: u16,
        distance: u8,
        rights: u8,
    },
    /// All pages of a piece, in order or not.
    MapPiece(u8, u16, u8, u8),
    /// A leaf of 2 MiB.
    MapLarge(u8, u8, u8),
    Sweep(u16, u16, bool),
    SweepPieces(u8, u8, bool),
    Place(u8, u8),
    Remove(u8),
    Write(u16),
    Clear(u16, u16),
    Flush,
    Nonsense(u8, u64),
}

#[derive(Arbitrary, Debug)]
struct Input {
    is_ept: bool,
    has_five_levels: bool,
    max_leaf: u8,
    has_marks: bool,
    /// Each with the number of frames for tables at its first attempt.
    steps: Steps<(Step, u8)>,
}

target!(|input: Input| {
    let (format, has_marks) = if input.is_ept {
        (Format::Ept, input.has_marks)
    } else {
        (Format::Npt, true)
    };
    let levels = if input.has_five_levels {
        Levels::Five
    } else {
        Levels::Four
    };
    let sizes = [PageSize::Size4K, PageSize::Size2M, PageSize::Size1G];
    let max_leaf = sizes[usize::from(input.max_leaf) % sizes.len()];
    let bench = Bench::new(format, levels, max_leaf, has_marks);
    let steps = input.steps.0.iter().take(48);
    model::run(
        bench,
        steps.map(|(step, frames)| (op(step), Failures::After((*frames % 8).into()))),
    );
});

fn op(step: &Step) -> Op {
    let page = |number: u16| FIRST + u64::from(number) % PAGES;
    let fits = |page: u64, count: u16| u64::from(count).clamp(1, FIRST + PAGES - page);
    let piece = |number: u8| u64::from(number % 4);
    // Few pages, so that edits meet the overlays over them.
    let covered = |number: u8| FIRST + piece(number) * LARGE + [3, 511][usize::from(number / 4 % 2)];
    match *step {
        Step::Map {
            page: number,
            count,
            frame,
            distance,
            rights: number_of_rights,
        } => Op::Map(
            page(number),
            fits(page(number), (count % 16).into()),
            frame.into(),
            (distance % 3).into(),
            rights(number_of_rights),
        ),
        Step::MapPiece(number, frame, distance, number_of_rights) => Op::Map(
            FIRST + piece(number) * LARGE,
            LARGE,
            (frame & 0xFE00).into(),
            (distance % 3).into(),
            rights(number_of_rights),
        ),
        Step::MapLarge(number, frame, number_of_rights) => Op::MapLarge(
            piece(number),
            u64::from(frame) * LARGE,
            rights(number_of_rights),
        ),
        Step::Sweep(number, count, is_declared) => {
            Op::Sweep(page(number), fits(page(number), count), is_declared)
        }
        Step::SweepPieces(number, count, is_declared) => {
            let count = u64::from(count).clamp(1, 4 - piece(number));
            Op::Sweep(FIRST + piece(number) * LARGE, count * LARGE, is_declared)
        }
        Step::Place(number, frame) => Op::Place(covered(number), 0x10_0000 + u64::from(frame)),
        Step::Remove(number) => Op::Remove(covered(number)),
        Step::Write(number) => Op::Write(page(number)),
        Step::Clear(number, count) => Op::Clear(page(number), fits(page(number), count)),
        Step::Flush => Op::Flush,
        Step::Nonsense(what, number) => {
            Op::Nonsense(NONSENSE[usize::from(what) % NONSENSE.len()], number)
        }
    }
}

fn rights(number: u8) -> Attributes {
    let rights = [
        RAM,
        Attributes::RO.with_backing(Backing::Counted),
        Attributes::RW,
        Attributes::RX.with_backing(Backing::Counted),
    ];
    rights[usize::from(number) % rights.len()]
}
