//! A peer that writes anything into a ring, at any time.

use arbitrary::Arbitrary;
use ring::{Outgoing, Reader, RingMem, WriteError, Writer};
use ring_proto::{GpaDirect, PacketFlags, PacketType, TransferPages};

use crate::{FIELDS, Ring, target};

#[derive(Arbitrary, Debug)]
enum Step {
    Field(u8, u32),
    Index(u16),
    Word(u16, u64),
    Descriptor(u16, u16, u8, u16),
    Next(u16),
    Publish,
    Arm,
    Mask,
    PutBack,
    Put(u8, u16),
    Commit,
    Wait(u16),
}

const BYTES: u32 = 4096;

target!(|steps: Vec<Step>| {
    let memory = Ring::new(BYTES as usize);
    let mem = memory.mem();
    let (mut reader, mut writer) = (Reader::new(mem).unwrap(), Writer::new(mem).unwrap());
    let (mut broken, mut full) = (None, None);
    for step in steps.iter().take(256) {
        match *step {
            Step::Field(field, value) => mem.set_control(FIELDS[usize::from(field % 5)], value),
            Step::Index(index) => mem.set_control(FIELDS[0], u32::from(index % 512) * 8),
            Step::Word(at, word) => mem.set_word(u32::from(at % 512) * 8, word),
            Step::Descriptor(at, kind, offset, len) => {
                let word = u64::from(kind) | u64::from(offset) << 16 | u64::from(len) << 32;
                mem.set_word(u32::from(at % 512) * 8, word);
            }
            Step::Next(limit) => {
                let mut buffer = vec![0; usize::from(limit % 5000)];
                match reader.next(&mut buffer) {
                    Ok(None) => assert_eq!(broken, None),
                    Ok(Some(packet)) => {
                        assert_eq!(broken, None);
                        let len = 16 + packet.header.len() + packet.payload.len();
                        assert_eq!(len, packet.descriptor.packet_bytes());
                        if let Ok(direct) = GpaDirect::decode(packet.header, 32) {
                            for range in direct.ranges() {
                                assert_eq!(range.pages.iter().count(), range.pages.count());
                            }
                        }
                        if let Ok(pages) = TransferPages::decode(packet.header) {
                            let _ = pages.ranges().count();
                        }
                    }
                    Err(corrupt) => assert_eq!(*broken.get_or_insert(corrupt), corrupt),
                }
            }
            Step::Publish => {
                let _ = reader.publish();
            }
            Step::Arm => {
                if let Err(corrupt) = reader.arm() {
                    assert_eq!(*broken.get_or_insert(corrupt), corrupt);
                }
            }
            Step::Mask => reader.mask(),
            Step::PutBack => reader.put_back(),
            Step::Put(header, payload) => {
                let outcome = writer.put(&Outgoing {
                    kind: PacketType::IN_BAND,
                    flags: PacketFlags::COMPLETION_REQUESTED,
                    transaction: 7,
                    header: &vec![1; usize::from(header) / 8 * 8],
                    payload: &[&vec![2; usize::from(payload % 5000)]],
                });
                if let Err(WriteError::Corrupt(corrupt)) = outcome {
                    assert_eq!(*full.get_or_insert(corrupt), corrupt);
                }
            }
            Step::Commit => {
                let _ = writer.commit();
            }
            Step::Wait(bytes) => {
                let _ = writer.wait_for_space(bytes.into());
            }
        }
        for index in [reader.index(), writer.index()] {
            assert!(index < BYTES && index % 8 == 0);
        }
    }
});
