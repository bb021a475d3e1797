//! The ends of a ring against a queue, and against a peer that writes anything anywhere.

use std::array;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use proptest::collection::vec;
use proptest::prelude::*;
use ring::{
    Contiguous, ControlPage, Corrupt, DataPage, Outgoing, Paged, Reader, RingMem, WriteError,
    Writer, ring_bytes,
};
use ring_proto::{Control, PacketFlags, PacketType};

struct Memory {
    control: ControlPage,
    pages: Vec<DataPage>,
}

impl Memory {
    fn new(pages: usize) -> Self {
        let memory = Self {
            control: array::from_fn(|_| AtomicU32::new(0)),
            pages: (0..pages)
                .map(|_| array::from_fn(|_| AtomicU64::new(0)))
                .collect(),
        };
        memory.control[Control::Features.word()].store(1, Ordering::Relaxed);
        memory
    }

    fn contiguous(&self) -> Contiguous<'_> {
        Contiguous::new(&self.control, self.pages.as_flattened())
    }

    /// The last page first: nothing may rely on neighbours.
    fn paged(&self) -> Paged<'_, Vec<&DataPage>> {
        Paged::new(&self.control, self.pages.iter().rev().collect())
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put { header: usize, payload: usize },
    Commit,
    Wait { payload: usize },
    Next,
    Publish,
    Mask,
    Arm,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0usize..4, 0usize..300).prop_map(|(header, payload)| Step::Put { header: header * 8, payload }),
        1 => (0usize..3, 2000usize..4200).prop_map(|(header, payload)| Step::Put { header: header * 8, payload }),
        3 => Just(Step::Commit),
        1 => (0usize..4000).prop_map(|payload| Step::Wait { payload }),
        4 => Just(Step::Next),
        2 => Just(Step::Publish),
        1 => Just(Step::Mask),
        1 => Just(Step::Arm),
    ];
    vec(step, 1..200)
}

fn bytes(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|i| (seed.wrapping_mul(31).wrapping_add(i) % 251) as u8)
        .collect()
}

type Sent = (u64, Vec<u8>, Vec<u8>);

/// Runs `steps` on the ring and on a queue; the ends agree with it, and the signals follow the rules.
fn run<M: RingMem + Copy>(mem: M, steps: &[Step]) -> Result<(), TestCaseError> {
    let size = mem.data_bytes();
    let (mut writer, mut reader) = (Writer::new(mem).unwrap(), Reader::new(mem).unwrap());
    let mut staged: Vec<Sent> = Vec::new();
    let mut queue: VecDeque<Sent> = VecDeque::new();
    // What the ring holds: unpublished by the writer, readable, read but not yet published.
    let (mut put, mut shown, mut held) = (0u32, 0u32, 0u32);
    let (mut is_masked, mut pending, mut id) = (false, 0u32, 0u64);
    let mut buffer = [0; 8192];

    for step in steps {
        let commits = matches!(step, Step::Commit | Step::Wait { .. });
        let signal = match *step {
            Step::Put { header, payload } => {
                id += 1;
                let (head, body) = (bytes(id, header), bytes(!id, payload));
                let (left, right) = body.split_at(payload / 3);
                let outcome = writer.put(&Outgoing {
                    kind: PacketType::IN_BAND,
                    flags: PacketFlags::COMPLETION_REQUESTED,
                    transaction: id,
                    header: &head,
                    payload: &[left, &[], right],
                });
                let need = ring_bytes(header, payload).unwrap();
                let expected = if need >= size {
                    Err(WriteError::TooLong)
                } else if size - put - shown - held > need {
                    Ok(())
                } else {
                    Err(WriteError::Full)
                };
                prop_assert_eq!(outcome, expected);
                if outcome.is_ok() {
                    put += need;
                    staged.push((id, head, body));
                }
                continue;
            }
            Step::Commit => writer.commit(),
            Step::Wait { payload } => {
                let need = ring_bytes(0, payload).unwrap();
                let space = writer.wait_for_space(need).unwrap();
                prop_assert_eq!(space.is_there, size - put - shown - held > need);
                if put != 0 || space.is_there {
                    pending = 0;
                }
                if !space.is_there {
                    pending = need;
                }
                space.signal
            }
            Step::Next => {
                let packet = reader.next(&mut buffer).unwrap();
                match (packet, queue.pop_front()) {
                    (None, None) => {}
                    (Some(packet), Some((id, head, body))) => {
                        prop_assert_eq!(packet.descriptor.transaction, id);
                        prop_assert_eq!(packet.header, &head[..]);
                        prop_assert_eq!(&packet.payload[..body.len()], &body[..]);
                        prop_assert!(packet.payload[body.len()..].iter().all(|byte| *byte == 0));
                        prop_assert!(packet.payload.len() < body.len() + 8);
                        let bytes = packet.descriptor.ring_bytes() as u32;
                        shown -= bytes;
                        held += bytes;
                    }
                    (packet, expected) => prop_assert!(false, "{packet:?} for {expected:?}"),
                }
                continue;
            }
            Step::Publish | Step::Arm => {
                let before = size - shown - held;
                let after = before + held;
                let crossed = held != 0 && pending != 0 && before <= pending && after >= pending;
                held = 0;
                let signal = if let Step::Arm = step {
                    let armed = reader.arm().unwrap();
                    is_masked = false;
                    prop_assert_eq!(armed.has_more, shown != 0);
                    armed.signal
                } else {
                    reader.publish()
                };
                prop_assert_eq!(signal.is_needed(), crossed);
                continue;
            }
            Step::Mask => {
                reader.mask();
                is_masked = true;
                continue;
            }
        };
        if commits {
            let is_first = shown == 0 && held == 0;
            prop_assert_eq!(signal.is_needed(), put != 0 && is_first && !is_masked);
            if put != 0 && matches!(step, Step::Commit) {
                pending = 0;
            }
            shown += put;
            put = 0;
            queue.extend(staged.drain(..));
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_ring_in_one_piece_is_a_queue(pages in 1usize..3, steps in steps()) {
        let memory = Memory::new(pages);
        run(memory.contiguous(), &steps)?;
    }

    #[test]
    fn a_ring_in_scattered_pages_is_a_queue(pages in 1usize..3, steps in steps()) {
        run(&Memory::new(pages).paged(), &steps)?;
    }

    #[test]
    fn a_hostile_writer_gets_no_further_than_corrupt(
        indices in vec(prop_oneof![any::<u32>(), (0u32..1100).prop_map(|i| i * 8)], 1..20),
        words in vec((0u32..512, prop_oneof![any::<u64>(), (0u64..600).prop_map(|l| 6 | 2 << 16 | l << 32)]), 0..300),
        limit in 0usize..5000,
    ) {
        let memory = Memory::new(1);
        let mem = memory.contiguous();
        words.iter().for_each(|(at, word)| mem.set_word(at * 8, *word));
        let mut reader = Reader::new(mem).unwrap();
        let mut buffer = vec![0; limit];
        let mut broken = None;
        for index in indices {
            mem.set_control(Control::WriteIndex, index);
            mem.set_control(Control::PendingSendSize, index.rotate_left(7));
            mem.set_control(Control::ReadIndex, !index);
            for _ in 0..300 {
                match reader.next(&mut buffer) {
                    Ok(None) => break,
                    Ok(Some(packet)) => {
                        prop_assert_eq!(broken, None);
                        let len = 16 + packet.header.len() + packet.payload.len();
                        prop_assert_eq!(len, packet.descriptor.packet_bytes());
                        prop_assert!(len <= limit);
                    }
                    Err(corrupt) => {
                        prop_assert_eq!(*broken.get_or_insert(corrupt), corrupt);
                        break;
                    }
                }
                let _ = reader.publish();
            }
            prop_assert!(reader.index() < 4096 && reader.index().is_multiple_of(8));
            prop_assert_eq!(reader.arm().err(), reader.next(&mut buffer).err());
        }
    }

    #[test]
    fn a_hostile_reader_gets_no_further_than_corrupt(
        indices in vec(prop_oneof![any::<u32>(), (0u32..520).prop_map(|i| i * 8)], 1..40),
        payload in 0usize..4200,
    ) {
        let memory = Memory::new(1);
        let mem = memory.paged();
        let mut writer = Writer::new(&mem).unwrap();
        let body = vec![7; payload];
        let mut broken = None;
        for index in indices {
            mem.set_control(Control::ReadIndex, index);
            mem.set_control(Control::WriteIndex, index ^ 8);
            let outcome = writer.put(&Outgoing { payload: &[&body], ..Outgoing::default() });
            match outcome {
                Err(WriteError::Corrupt(corrupt)) => {
                    prop_assert_eq!(*broken.get_or_insert(corrupt), corrupt);
                }
                Err(WriteError::TooLong) => prop_assert!(payload > 4096 - 32),
                Err(WriteError::Full) => prop_assert_eq!(broken, None),
                // The writer may still know of free space that was there before.
                Ok(()) => {}
            }
            let _ = writer.commit();
            prop_assert!(writer.index() < 4096 && writer.index().is_multiple_of(8));
            let _ = writer.wait_for_space(2048);
        }
    }
}

fn put(writer: &mut Writer<Contiguous<'_>>, payload: &[u8]) -> Result<(), WriteError> {
    writer.put(&Outgoing {
        kind: PacketType::IN_BAND,
        payload: &[payload],
        ..Outgoing::default()
    })
}

/// Memory whose words change after the first look at them.
struct Changing<'a>(Contiguous<'a>);

impl RingMem for Changing<'_> {
    fn data_bytes(&self) -> u32 {
        self.0.data_bytes()
    }
    fn control(&self, field: Control) -> u32 {
        self.0.control(field)
    }
    fn set_control(&self, field: Control, value: u32) {
        self.0.set_control(field, value);
    }
    fn word(&self, at: u32) -> u64 {
        let word = self.0.word(at);
        self.0.set_word(at, !0);
        word
    }
    fn set_word(&self, at: u32, value: u64) {
        self.0.set_word(at, value);
    }
}

#[test]
fn a_descriptor_that_changes_after_the_copy_changes_nothing() {
    let memory = Memory::new(1);
    let mem = memory.contiguous();
    let mut writer = Writer::new(mem).unwrap();
    put(&mut writer, b"as it was when it was read").unwrap();
    let _ = writer.commit();
    let mut reader = Reader::new(Changing(mem)).unwrap();
    let mut buffer = [0; 64];
    let packet = reader.next(&mut buffer).unwrap().unwrap();
    assert_eq!(packet.descriptor.packet_bytes(), 48);
    assert_eq!(&packet.payload[..26], b"as it was when it was read");
    assert_eq!(reader.next(&mut [0; 64]), Ok(None));
}

#[test]
fn each_broken_thing_is_named() {
    let memory = Memory::new(1);
    let mem = memory.contiguous();
    let found = |write, word| {
        mem.set_word(0, word);
        mem.set_control(Control::WriteIndex, write);
        Reader::new(mem).unwrap().next(&mut [0; 64]).unwrap_err()
    };
    assert_eq!(found(4096, 0), Corrupt::Index(4096));
    assert_eq!(found(12, 0), Corrupt::Index(12));
    assert_eq!(found(16, 0), Corrupt::Fragment(16));
    assert!(matches!(
        found(24, 6 | 2 << 16 | 3 << 32),
        Corrupt::Packet(_)
    ));
    assert!(matches!(
        found(32, 6 | 1 << 16 | 3 << 32),
        Corrupt::Packet(_)
    ));
    assert!(matches!(
        found(32, 6 | 4 << 16 | 3 << 32),
        Corrupt::Packet(_)
    ));
    assert!(matches!(
        found(80, 6 | 2 << 16 | 9 << 32),
        Corrupt::TooLong(_)
    ));
}

#[test]
fn an_end_goes_on_where_its_predecessor_stopped() {
    let memory = Memory::new(1);
    let mem = memory.contiguous();
    let mut writer = Writer::new(mem).unwrap();
    put(&mut writer, b"first").unwrap();
    let _ = writer.commit();
    assert!(!writer.wait_for_space(4080).unwrap().is_there);
    put(&mut writer, b"never shown").unwrap();

    let mut writer = Writer::resume(mem).unwrap();
    put(&mut writer, b"second").unwrap();
    let _ = writer.commit();
    assert_eq!(mem.control(Control::PendingSendSize), 0);

    let mut buffer = [0; 64];
    let mut reader = Reader::new(mem).unwrap();
    assert_eq!(
        &reader.next(&mut buffer).unwrap().unwrap().payload[..5],
        b"first"
    );
    let _ = reader.publish();
    let mut reader = Reader::resume(mem).unwrap();
    assert_eq!(
        &reader.next(&mut buffer).unwrap().unwrap().payload[..6],
        b"second"
    );
    assert_eq!(reader.next(&mut buffer), Ok(None));

    mem.set_control(Control::ReadIndex, 4);
    assert!(Reader::resume(mem).is_err());
    assert!(Writer::resume(mem).is_err());
    ring::reset(&mem);
    assert_eq!(Reader::new(mem).unwrap().next(&mut buffer), Ok(None));
    assert_eq!(mem.word(0), 0);
}

#[test]
fn a_packet_can_be_put_back_until_its_space_is_given_away() {
    let memory = Memory::new(1);
    let mem = memory.contiguous();
    let (mut writer, mut reader) = (Writer::new(mem).unwrap(), Reader::new(mem).unwrap());
    put(&mut writer, b"one").unwrap();
    put(&mut writer, b"two").unwrap();
    let _ = writer.commit();
    let mut buffer = [0; 64];
    let mut next = |reader: &mut Reader<_>| {
        let packet = reader.next(&mut buffer).unwrap();
        packet.map(|packet| packet.payload[..3].to_vec())
    };
    assert_eq!(next(&mut reader).unwrap(), b"one");
    reader.put_back();
    reader.put_back();
    assert_eq!(next(&mut reader).unwrap(), b"one");
    let _ = reader.publish();
    reader.put_back();
    assert_eq!(next(&mut reader).unwrap(), b"two");
    reader.put_back();
    assert_eq!(next(&mut reader).unwrap(), b"two");
    assert_eq!(next(&mut reader), None);
}

#[test]
fn without_the_feature_bit_no_wish_for_space_counts() {
    let memory = Memory::new(1);
    let mem = memory.contiguous();
    let mut writer = Writer::new(mem).unwrap();
    put(&mut writer, &[0; 4000]).unwrap();
    let _ = writer.commit();
    let read_all = |features| {
        mem.set_control(Control::PendingSendSize, 4032);
        mem.set_control(Control::Features, features);
        let mut reader = Reader::new(mem).unwrap();
        reader.next(&mut [0; 4096]).unwrap().unwrap();
        reader.publish().is_needed()
    };
    assert!(!read_all(0));
    assert!(read_all(1));
}

#[test]
fn the_packet_lies_in_the_ring_as_linux_expects_it() {
    let memory = Memory::new(1);
    let mem = memory.contiguous();
    let mut writer = Writer::new(mem).unwrap();
    put(&mut writer, &[]).unwrap();
    writer
        .put(&Outgoing {
            kind: PacketType::COMPLETION,
            flags: PacketFlags::empty(),
            transaction: 0x1122,
            header: &[],
            payload: &[&[1, 2, 3], &[4, 5, 6, 7, 8, 9]],
        })
        .unwrap();
    assert_eq!(mem.control(Control::WriteIndex), 0);
    assert!(writer.commit().is_needed());
    assert_eq!(mem.control(Control::WriteIndex), 24 + 40);
    let words: Vec<_> = (0..8).map(|i| mem.word(i * 8)).collect();
    assert_eq!(
        words,
        [
            6 | 2 << 16 | 2 << 32,
            0,
            0,
            0xB | 2 << 16 | 4 << 32,
            0x1122,
            0x0807_0605_0403_0201,
            9,
            24 << 32
        ]
    );
}
