//! Memory types by address, and an identity map that follows them.

mod fake;

use addr::Spa;
use fake::Fake;
use paging::mtrr::{MtrrState, VARIABLE_MAX};
use paging::{
    Attributes, Cleanup, EditError, Format, Levels, MemoryType, PageSize, Table, TableMemory,
    map_identity,
};
use proptest::prelude::*;

const UC: u64 = 0;
const WC: u64 = 1;
const WT: u64 = 4;
const WB: u64 = 6;
const M2: u64 = 2 << 20;
const G1: u64 = 1 << 30;
const BITS: u8 = 40;

fn mask(size: u64) -> u64 {
    ((1 << BITS) - size) | 1 << 11
}

/// As OVMF leaves it: RAM by default, a hole below 4 GiB, VGA and ROM in the fixed ranges.
fn machine() -> MtrrState {
    let mut state = MtrrState {
        cap: 0x508,
        def_type: 1 << 11 | 1 << 10 | WB,
        fixed: [0x0606_0606_0606_0606; 11],
        variable: [(0, 0); VARIABLE_MAX],
        phys_bits: BITS,
    };
    state.fixed[2] = 0;
    state.fixed[10] = 0x0000_0000_0404_0606;
    state.variable[0] = (0xC000_0000 | UC, mask(G1));
    state.variable[1] = (0x8_0000_0000 | UC, mask(0x8_0000_0000));
    state
}

fn runs(state: &MtrrState, end: u64) -> Vec<(u64, u64, MemoryType)> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < end {
        let (kind, run) = state.type_at(Spa::new(at));
        let next = (at + run).min(end);
        out.push((at, next, kind));
        at = next;
    }
    out
}

#[test]
fn runs_are_maximal() {
    use MemoryType::{Uncacheable as Uc, WriteBack as Wb, WriteThrough as Wt};
    let expected = vec![
        (0, 0xA_0000, Wb),
        (0xA_0000, 0xC_0000, Uc),
        (0xC_0000, 0xF_A000, Wb),
        (0xF_A000, 0xF_C000, Wt),
        (0xF_C000, 0x10_0000, Uc),
        (0x10_0000, 0xC000_0000, Wb),
        (0xC000_0000, 0x1_0000_0000, Uc),
        (0x1_0000_0000, 0x8_0000_0000, Wb),
        (0x8_0000_0000, 0x10_0000_0000, Uc),
        (0x10_0000_0000, 1 << 52, Wb),
    ];
    assert_eq!(runs(&machine(), 1 << 52), expected);
}

#[test]
fn switched_off_means_uncacheable() {
    let state = MtrrState {
        def_type: WB | 1 << 10,
        ..machine()
    };
    assert_eq!(
        state.type_at(Spa::new(0)),
        (MemoryType::Uncacheable, 1 << 52)
    );
    let fixed_off = MtrrState {
        def_type: WB | 1 << 11,
        ..machine()
    };
    assert_eq!(
        fixed_off.type_at(Spa::new(0xA_0000)).0,
        MemoryType::WriteBack
    );
    let no_fixed = MtrrState {
        cap: 8,
        ..machine()
    };
    assert_eq!(
        no_fixed.type_at(Spa::new(0xA_0000)).0,
        MemoryType::WriteBack
    );
}

#[test]
fn overlaps_follow_the_precedences() {
    let both = |a: u64, b: u64| {
        let mut state = MtrrState {
            cap: 2,
            def_type: 1 << 11 | WB,
            ..machine()
        };
        state.variable[0] = (a, mask(M2));
        state.variable[1] = (b, mask(2 * M2));
        state.type_at(Spa::new(0)).0
    };
    assert_eq!(both(UC, WB), MemoryType::Uncacheable);
    assert_eq!(both(WT, WB), MemoryType::WriteThrough);
    assert_eq!(both(WB, WT), MemoryType::WriteThrough);
    assert_eq!(both(WC, WC), MemoryType::WriteCombining);
    assert_eq!(both(WC, WB), MemoryType::Uncacheable);
    assert_eq!(both(3, 3), MemoryType::Uncacheable);
}

#[test]
fn ranges_past_the_count_and_disabled_ones_are_ignored() {
    let state = MtrrState {
        cap: 0x501,
        ..machine()
    };
    assert_eq!(
        state.type_at(Spa::new(0x8_0000_0000)).0,
        MemoryType::WriteBack
    );
    let mut state = machine();
    state.variable[0].1 &= !(1 << 11);
    assert_eq!(
        state.type_at(Spa::new(0xC000_0000)).0,
        MemoryType::WriteBack
    );
}

#[test]
fn base_bits_outside_the_mask_do_not_count() {
    let mut state = machine();
    state.variable[0].0 |= 0x0010_0000;
    assert_eq!(
        state.type_at(Spa::new(0xC000_0000)),
        (MemoryType::Uncacheable, G1)
    );
}

proptest! {
    /// Against the definition, byte range by byte range; whatever the registers hold, runs make progress.
    #[test]
    fn any_registers_give_runs(
        cap in any::<u64>(),
        def_type in any::<u64>(),
        fixed in any::<[u64; 11]>(),
        variable in prop::collection::vec((any::<u64>(), any::<u64>()), VARIABLE_MAX),
        phys_bits in any::<u8>(),
        at in any::<u64>(),
    ) {
        let mut state = MtrrState { cap, def_type, fixed, variable: [(0, 0); VARIABLE_MAX], phys_bits };
        state.variable.copy_from_slice(&variable);
        let (kind, run) = state.type_at(Spa::new(at));
        prop_assert!(run >= 1);
        if at < 1 << 52 {
            prop_assert!(at + run <= 1 << 52);
            let inside = at + run / 2;
            prop_assert_eq!(state.type_at(Spa::new(inside)).0, kind);
        }
    }

    /// Power-of-two ranges as firmware sets them: neighbours of different type, and each page of a run alike.
    #[test]
    fn aligned_ranges_give_maximal_runs(
        ranges in prop::collection::vec((0u64..64, 0u32..6, prop::sample::select(&[UC, WT, WB, WC][..])), 0..6),
    ) {
        let mut state = MtrrState { cap: 32, def_type: 1 << 11 | WB, ..machine() };
        state.variable = [(0, 0); VARIABLE_MAX];
        for (slot, (base, order, kind)) in state.variable.iter_mut().zip(&ranges) {
            let size = 4096u64 << order;
            *slot = ((base * 4096) & !(size - 1) | kind, mask(size));
        }
        let found = runs(&state, 1 << 30);
        for pair in found.windows(2) {
            prop_assert_ne!(pair[0].2, pair[1].2);
        }
        for (start, end, kind) in found {
            for page in (start..end).step_by(4096).take(200) {
                let covering: Vec<u64> = ranges
                    .iter()
                    .filter(|(base, order, _)| (base * 4096) >> (12 + order) == page >> (12 + order))
                    .map(|(_, _, kind)| *kind)
                    .collect();
                let expected = match covering.as_slice() {
                    [] => WB,
                    all if all.contains(&UC) => UC,
                    [first, rest @ ..] if rest.iter().all(|kind| kind == first) => *first,
                    all if all.iter().all(|kind| [WT, WB].contains(kind)) => WT,
                    _ => UC,
                };
                prop_assert_eq!(kind as u64, expected, "at {:#x}", page);
            }
        }
    }
}

#[test]
fn the_identity_map_takes_the_types() {
    let mut mem = Fake::default();
    let root = mem.alloc().unwrap();
    let mut table = Table::new(Format::Ept, root, Levels::Four, PageSize::Size1G);
    let mut cleanup = Cleanup::default();
    let state = machine();
    map_identity(
        &mut table,
        &mut mem,
        Spa::new(0),
        512 * G1,
        Attributes::RWX,
        &state,
        &mut cleanup,
    )
    .unwrap();
    assert!(!cleanup.flush_needed());
    for at in [
        0,
        0x9_F000,
        0xA_0000,
        0xB_8000,
        0xF_B000,
        0x10_0000,
        M2,
        G1,
        0xBFFF_F000,
        0xFEE0_0000,
        4 * G1,
        40 * G1,
    ] {
        let mapping = table.lookup(&mem, at).unwrap();
        assert_eq!(mapping.spa, Spa::new(at));
        assert_eq!(
            mapping.attributes.memory_type,
            state.type_at(Spa::new(at)).0,
            "at {at:#x}"
        );
    }
    assert_eq!(table.lookup(&mem, 0).unwrap().size, PageSize::Size4K);
    assert_eq!(table.lookup(&mem, M2).unwrap().size, PageSize::Size2M);
    assert_eq!(table.lookup(&mem, 2 * G1).unwrap().size, PageSize::Size1G);
    // Root, one table of gigabytes, one of 2 MiB pages for the first, one of pages below 2 MiB.
    assert_eq!(mem.frames.len(), 4);
}

#[test]
fn an_identity_map_that_runs_out_can_go_on() {
    let mut mem = Fake::default();
    let root = mem.alloc().unwrap();
    let mut table = Table::new(Format::Ept, root, Levels::Four, PageSize::Size2M);
    let mut cleanup = Cleanup::default();
    mem.budget = Some(4);
    let mut map = |table: &mut _, mem: &mut Fake| {
        map_identity(
            table,
            mem,
            Spa::new(0),
            8 * G1,
            Attributes::RWX,
            &machine(),
            &mut cleanup,
        )
    };
    assert_eq!(map(&mut table, &mut mem), Err(EditError::OutOfFrames));
    assert!(table.lookup(&mem, 0xB_8000).is_some());
    assert_eq!(table.lookup(&mem, M2), None);
    mem.budget = None;
    assert_eq!(map(&mut table, &mut mem), Ok(()));
    assert_eq!(
        table.lookup(&mem, 8 * G1 - 1).unwrap().spa,
        Spa::new(8 * G1 - 1)
    );
}
