//! The XSAVE image: single registers, both formats, hostile input.

mod common;

use common::{Vp, area, host};
use proptest::prelude::*;
use tlfs::register::RegisterName as N;
use vpstate::xsave::{self, Layout};

fn layout() -> Layout {
    Layout::of(host, 0xFFFF)
}

fn u64_at(image: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(image[at..at + 8].try_into().unwrap())
}

/// Marks each component of an image with bytes of its own, by offsets of the format.
fn paint(image: &mut [u8], offsets: &[(u64, usize, usize)]) {
    for &(component, at, size) in offsets {
        image[at..at + size].fill(0xA0 + component as u8);
    }
    let held = offsets
        .iter()
        .fold(3_u64, |held, (component, ..)| held | 1 << component);
    image[512..520].copy_from_slice(&held.to_le_bytes());
}

const STANDARD: [(u64, usize, usize); 5] = [
    (2, 576, 256),
    (5, 1088, 64),
    (6, 1152, 512),
    (7, 1664, 1024),
    (9, 2688, 8),
];
const COMPACTED: [(u64, usize, usize); 5] = [
    (2, 576, 256),
    (5, 832, 64),
    (6, 896, 512),
    (7, 1408, 1024),
    (9, 2432, 8),
];

#[test]
fn the_layout_leaves_out_what_a_child_cannot_have() {
    assert_eq!(layout().states(), 0x2E7);
    assert_eq!(layout().compacted_bytes(u64::MAX), 2440);
    assert_eq!(layout().compacted_bytes(0), 576);
    assert_eq!(layout().compacted_bytes(0b101), 832);
}

#[test]
fn both_formats_export_the_same_and_come_back() {
    let layout = layout();
    let mut exported = vec![];
    for (is_compacted, offsets) in [(false, STANDARD), (true, COMPACTED)] {
        let mut image = area(&layout, is_compacted);
        paint(&mut image, &offsets);
        let mut out = vec![0xEE; 4096];
        assert_eq!(layout.export(&image, u64::MAX, &mut out), Ok(2440));
        assert_eq!(u64_at(&out, 520), 0x2E7 | 1 << 63);
        for (component, at, size) in COMPACTED {
            assert!(
                out[at..at + size]
                    .iter()
                    .all(|&b| b == 0xA0 + component as u8),
                "{component}"
            );
        }
        for is_target_compacted in [false, true] {
            let mut target = area(&layout, is_target_compacted);
            layout.import(&out, &mut target).unwrap();
            let places = if is_target_compacted {
                COMPACTED
            } else {
                STANDARD
            };
            for (component, at, size) in places {
                assert!(
                    target[at..at + size]
                        .iter()
                        .all(|&b| b == 0xA0 + component as u8)
                );
            }
            assert_eq!(u64_at(&target, 520) >> 63 != 0, is_target_compacted);
        }
        exported.push(out[..2440].to_vec());
    }
    assert_eq!(exported[0], exported[1]);
}

#[test]
fn a_component_that_is_not_asked_for_leaves_no_gap() {
    let layout = layout();
    let mut image = area(&layout, true);
    paint(&mut image, &COMPACTED);
    let mut out = vec![0; 4096];
    assert_eq!(layout.export(&image, 1 << 9 | 3, &mut out), Ok(584));
    assert_eq!(out[576..584], [0xA9; 8]);
    assert_eq!(u64_at(&out, 512), 1 << 9 | 3);
    assert!(layout.export(&image, u64::MAX, &mut out[..2439]).is_err());
}

#[test]
fn what_would_make_xrstor_fault_is_refused_and_changes_nothing() {
    let layout = layout();
    let mut good = vec![0; 4096];
    layout
        .export(&area(&layout, true), u64::MAX, &mut good)
        .unwrap();
    let mut image = area(&layout, true);
    let before = image.clone();
    let patches: [(usize, &[u8]); 7] = [
        (512, &[0, 0, 2]), // AMX held
        (520, &[0, 0, 2]), // AMX in the layout
        (512, &[0x18]),    // MPX
        (512, &[0, 0, 0, 0, 0, 0, 0, 0x80]),
        (528, &[1]), // reserved
        (575, &[1]),
        (527, &[0x40]), // neither format
    ];
    for (at, bytes) in patches {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        assert!(layout.import(&bad, &mut image).is_err(), "{at}");
    }
    let mut bad = good.clone();
    bad[512] = 2;
    bad[26] = 1;
    assert!(layout.import(&bad, &mut image).is_err(), "MXCSR");
    assert!(layout.import(&good[..575], &mut image).is_err());
    assert!(layout.import(&good[..2439], &mut image).is_err());
    assert!(layout.import(&good, &mut image[..2439]).is_err());
    assert_eq!(image, before);
    layout.import(&good, &mut image).unwrap();
}

#[test]
fn a_standard_image_is_taken_too() {
    let layout = layout();
    let mut input = area(&layout, false);
    paint(&mut input, &STANDARD);
    let mut image = area(&layout, true);
    assert!(layout.import(&input[..2695], &mut image).is_err());
    layout.import(&input[..2696], &mut image).unwrap();
    assert_eq!(image[2432..2440], [0xA9; 8]);
}

#[test]
fn registers_in_their_initial_state_read_as_such() {
    let mut vp = Vp::new();
    // Left over from somebody else, and not valid by the header.
    vp.memory.area[160..416].fill(0x55);
    vp.memory.area[32..160].fill(0x55);
    vp.memory.area[24..28].fill(0x55);
    assert_eq!(vp.registers().get(N::XMM0), Ok(0));
    assert_eq!(vp.registers().get(N::FP_MMX0), Ok(0));
    assert_eq!(vp.registers().get(N::FP_CONTROL_STATUS), Ok(0x37F));
    assert_eq!(
        vp.registers().get(N::XMM_CONTROL_STATUS),
        Ok(0xFFFF << 96 | 0x1F80 << 64)
    );
    let _ = vp.registers().set(N::XMM0.nth(3), 7).unwrap();
    assert_eq!(vp.registers().get(N::XMM0), Ok(0));
    assert_eq!(vp.registers().get(N::XMM0.nth(3)), Ok(7));
    assert_eq!(u64_at(&vp.memory.area, 512), 2);
    assert_eq!(vp.memory.area[24..28], 0x1F80_u32.to_le_bytes());
    let _ = vp.registers().set(N::FP_CONTROL_STATUS, 0x27F).unwrap();
    assert_eq!(vp.registers().get(N::FP_MMX0), Ok(0));
    assert_eq!(u64_at(&vp.memory.area, 512), 3);
}

#[test]
fn registers_survive_export_and_import() {
    let layout = layout();
    for is_compacted in [false, true] {
        let mut image = area(&layout, is_compacted);
        xsave::set(&mut image, &layout, 15, 1 << 127 | 5).unwrap();
        xsave::set(&mut image, &layout, 23, 1 << 79 | 3).unwrap();
        xsave::set(&mut image, &layout, 25, 0x1FA0 << 64 | 0x1234).unwrap();
        let mut out = vec![0; 4096];
        layout.export(&image, u64::MAX, &mut out).unwrap();
        let mut back = area(&layout, !is_compacted);
        layout.import(&out, &mut back).unwrap();
        assert_eq!(xsave::get(&back, &layout, 15), 1 << 127 | 5);
        assert_eq!(xsave::get(&back, &layout, 23), 1 << 79 | 3);
        assert_eq!(
            xsave::get(&back, &layout, 25),
            0xFFFF << 96 | 0x1FA0 << 64 | 0x1234
        );
    }
}

#[test]
fn a_control_word_of_sse_alone_is_not_lost() {
    let layout = layout();
    let mut image = area(&layout, false);
    // XSAVE of the standard format writes MXCSR even while no XMM register is in use.
    image[24..28].copy_from_slice(&0x9F80_u32.to_le_bytes());
    let mut out = vec![0; 4096];
    layout.export(&image, u64::MAX, &mut out).unwrap();
    assert_eq!(u64_at(&out, 512), 2);
    for is_compacted in [false, true] {
        let mut back = area(&layout, is_compacted);
        layout.import(&out, &mut back).unwrap();
        assert_eq!(xsave::get(&back, &layout, 25) >> 64 & 0xFFFF_FFFF, 0x9F80);
    }
}

/// What XRSTOR demands of an image.
fn is_restorable(image: &[u8]) -> bool {
    let (held, xcomp) = (u64_at(image, 512), u64_at(image, 520));
    let mxcsr = u32::from_le_bytes(image[24..28].try_into().unwrap());
    let is_header_good = if xcomp >> 63 != 0 {
        xcomp & !(1 << 63 | 0x2E7) == 0 && held & !xcomp == 0
    } else {
        xcomp == 0 && held & !0x2E7 == 0
    };
    is_header_good && mxcsr >> 16 == 0 && image[528..576].iter().all(|&b| b == 0)
}

proptest! {
    #[test]
    fn no_input_makes_an_image_that_cannot_be_restored(
        mut input in proptest::collection::vec(any::<u8>(), 0..4097),
        held in prop_oneof![any::<u64>(), any::<u64>().prop_map(|v| v & 0x2E7)],
        xcomp in prop_oneof![Just(0), Just(0x2E7 | 1 << 63), any::<u64>(), any::<u64>().prop_map(|v| v & 0x2E7 | 1 << 63)],
        clean: bool,
        is_compacted: bool,
    ) {
        let layout = layout();
        if clean && input.len() >= 576 {
            input[512..520].copy_from_slice(&held.to_le_bytes());
            input[520..528].copy_from_slice(&xcomp.to_le_bytes());
            input[528..576].fill(0);
            input[26..28].fill(0);
        }
        let mut image = area(&layout, is_compacted);
        let before = image.clone();
        if layout.import(&input, &mut image).is_err() {
            prop_assert_eq!(&image, &before);
        }
        prop_assert!(is_restorable(&image));
        let mut out = vec![0; 4096];
        layout.export(&image, u64::MAX, &mut out).unwrap();
        let mut again = area(&layout, is_compacted);
        layout.import(&out, &mut again).unwrap();
        let mut out_again = vec![0; 4096];
        layout.export(&again, u64::MAX, &mut out_again).unwrap();
        prop_assert_eq!(out, out_again);
    }

    #[test]
    fn registers_leave_the_image_restorable(steps in proptest::collection::vec((0_u32..0x1A, any::<u128>()), 0..12), is_compacted: bool) {
        let mut vp = Vp::new();
        vp.memory.area = area(&vp.layout, is_compacted);
        for (index, value) in steps {
            let _ = vp.registers().set(N::XMM0.nth(index), value);
            prop_assert!(is_restorable(&vp.memory.area));
        }
    }

    #[test]
    fn short_images_never_panic(length in 0_usize..600, bytes: u8, value: u128) {
        let mut image = vec![bytes; length];
        for index in 0..30 {
            let _ = xsave::set(&mut image, &layout(), index, value);
            let _ = xsave::get(&image, &layout(), index);
        }
        let _ = layout().export(&image, value as u64, &mut [0; 64]);
    }
}
