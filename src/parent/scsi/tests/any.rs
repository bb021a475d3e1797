//! Any command with any buffer: no panic, and no byte outside of the buffer changes.
#![allow(missing_docs, reason = "a test has no users")]

mod rig;

use proptest::prelude::*;
use rig::{Memory, rig_of};
use scsi::{Completion, Data, ScatterList};
use vm_memory::GuestAddress;

const OPCODES: [u8; 44] = [
    0x00, 0x03, 0x08, 0x0A, 0x12, 0x15, 0x1A, 0x1B, 0x1E, 0x25, 0x28, 0x2A, 0x2B, 0x2E, 0x2F, 0x35,
    0x41, 0x42, 0x42, 0x43, 0x46, 0x4A, 0x51, 0x5A, 0x5E, 0x5F, 0x88, 0x88, 0x8A, 0x8A, 0x8E, 0x8F,
    0x91, 0x93, 0x93, 0x9E, 0xA0, 0xA3, 0xA8, 0xAA, 0xAD, 0xBD, 0xBE, 0x42,
];

fn cdb() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![3 => Just(0u8), 1 => 0u8..16, 1 => any::<u8>()];
    let known = (
        prop::sample::select(OPCODES.to_vec()),
        prop::collection::vec(byte, 5..19),
    );
    prop_oneof![
        4 => known.prop_map(|(opcode, rest)| [vec![opcode], rest].concat()),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ]
}

/// No buffer reaches beyond.
const END: usize = 0x2_3000;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn nothing_outside_of_the_buffer_changes(
        cdb in cdb(),
        lun in 0u8..4,
        way in 0u8..3,
        pieces in prop::collection::vec((0u64..0x2_0000, 0usize..0x1400), 0..5),
        content in prop::collection::vec(prop_oneof![2 => Just(0u8), 1 => any::<u8>()], 0..64),
        is_read_only: bool,
    ) {
        let mut image = Memory::new(64 * 512);
        image.traits.is_read_only = is_read_only;
        if is_read_only {
            image.traits.discard = None;
        }
        let rig = rig_of(image, true);
        let ranges: Vec<_> = pieces.iter().map(|(at, len)| (GuestAddress(*at), *len)).collect();
        let list = ScatterList::new(&rig.memory, ranges).unwrap();
        list.copy_in(&content);
        let before = rig.memory_below(END);
        let data = match way {
            0 => Data::None,
            1 => Data::In(list.clone()),
            _ => Data::Out(list.clone()),
        };
        let end = rig.target.execute(lun, &cdb, &data);
        let after = rig.memory_below(END);
        let is_inside = |at: usize| pieces.iter().any(|(start, len)| {
            (*start as usize..*start as usize + len).contains(&at)
        });
        for (page, (old, new)) in before.chunks(4096).zip(after.chunks(4096)).enumerate() {
            if old == new {
                continue;
            }
            for (offset, (old, new)) in old.iter().zip(new).enumerate() {
                let at = page * 4096 + offset;
                prop_assert!(old == new || way == 1 && is_inside(at), "{at:#x} changed");
            }
        }
        match end {
            Completion::Good(moved) => prop_assert!(moved as usize <= list.len() || way == 0 && moved == 0),
            _ => prop_assert!(before == after, "a command that was refused moved data"),
        }
    }
}
