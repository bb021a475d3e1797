//! Reads and writes of a child on several channels at once, down to the files and back.
#![allow(missing_docs, reason = "a test has no users")]

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use disk::{Format, Options, Pool, create, open};
use scsi::{Disk, DiskOptions, Identity, Target};
use storvsp::{Channel, Config, GpaRange, Incoming, Link, Provider};
use storvsp_proto::{
    Address, DataDirection, Operation, PACKET_LEN, Packet, ScsiRequest, ScsiResponse, SrbStatus,
    Version,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const PAGE: u64 = 4096;
const DISK: u64 = 16 << 20;
/// Requests on their way at once.
const DEPTH: u64 = 16;
/// Pages of the child's memory that each of them has: 64 for a buffer that starts anywhere, backwards in memory.
const PAGES: u64 = 65;

struct Wire(Mutex<Sender<(Channel, u64, Packet)>>);

impl Link for Wire {
    fn complete(&self, channel: Channel, transaction_id: u64, payload: &[u8; PACKET_LEN]) {
        let packet = Packet::decode(payload).unwrap();
        // The test may be over.
        let _ = self
            .0
            .lock()
            .unwrap()
            .send((channel, transaction_id, packet));
    }

    fn notify(&self, _: &[u8; PACKET_LEN]) {}

    fn offer_sub_channels(&self, _: u16) {}
}

struct Child {
    provider: Provider,
    memory: Arc<GuestMemoryMmap>,
    ends: Receiver<(Channel, u64, Packet)>,
    seed: u64,
}

impl Child {
    fn random(&mut self) -> u64 {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.seed >> 33
    }

    fn ask(&self, operation: Operation, word: u16) {
        let mut packet = Packet::notice(operation);
        packet.body[..2].copy_from_slice(&word.to_le_bytes());
        self.send(0, 1 << 40, &packet, &[]);
        self.ends.recv_timeout(Duration::from_secs(20)).unwrap();
    }

    fn send(&self, channel: u16, transaction_id: u64, packet: &Packet, ranges: &[GpaRange<'_>]) {
        let incoming = Incoming {
            channel: Channel(channel),
            transaction_id,
            wants_completion: true,
            payload: &packet.encode(),
            ranges,
        };
        self.provider.receive(&incoming).unwrap();
    }

    /// The pages of a slot, the last one first: no two are neighbours in the right order.
    fn pages(slot: u64) -> Vec<u64> {
        (0..PAGES)
            .map(|page| slot * PAGES + PAGES - 1 - page)
            .collect()
    }

    fn copy(&self, slot: u64, offset: u64, bytes: &mut [u8], is_write: bool) {
        let mut done = 0;
        for page in Self::pages(slot) {
            let skip = if done == 0 { offset } else { 0 };
            let len = (bytes.len() - done).min((PAGE - skip) as usize);
            let part = &mut bytes[done..done + len];
            let at = GuestAddress(page * PAGE + skip);
            if is_write {
                self.memory.write_slice(part, at).unwrap();
            } else {
                self.memory.read_slice(part, at).unwrap();
            }
            done += len;
        }
        assert_eq!(done, bytes.len());
    }
}

fn child(format: Format, folder: &tempfile::TempDir) -> Child {
    let path = folder.path().join("disk");
    create(&path, format, DISK).unwrap();
    let image = open(&path, &Options::new(format)).unwrap();
    let options = DiskOptions {
        identity: Identity::new([1; 16]),
        has_write_cache: true,
    };
    let target = Target::new();
    target
        .insert(0, Arc::new(Disk::new(image, options)))
        .unwrap();
    let len = (DEPTH * PAGES * PAGE) as usize;
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), len)]).unwrap();
    let memory = Arc::new(memory);
    let (sender, ends) = mpsc::channel();
    let provider = Provider::new(
        Arc::new(target),
        memory.clone(),
        Arc::new(Wire(Mutex::new(sender))),
        Arc::new(Pool::new("verify", 4).unwrap()),
        Config {
            max_sub_channels: 3,
            ..Config::default()
        },
    );
    assert!(provider.open(Channel::PRIMARY));
    let child = Child {
        provider,
        memory,
        ends,
        seed: 5,
    };
    child.ask(Operation::BEGIN_INITIALIZATION, 0);
    child.ask(Operation::QUERY_PROTOCOL_VERSION, Version::V6_2.0);
    child.ask(Operation::QUERY_PROPERTIES, 0);
    child.ask(Operation::END_INITIALIZATION, 0);
    child.ask(Operation::CREATE_SUB_CHANNELS, 3);
    for channel in 1..=3 {
        assert!(child.provider.open(Channel(channel)));
    }
    child
}

/// A request that is on its way.
struct Sent {
    offset: u64,
    channel: u16,
    is_read: bool,
    range: std::ops::Range<usize>,
}

#[test]
fn what_was_written_is_read() {
    for format in [Format::Raw, Format::Qcow2, Format::Vhdx] {
        let folder = tempfile::tempdir().unwrap();
        let mut child = child(format, &folder);
        let mut model = vec![0u8; DISK as usize];
        let mut sent: Vec<Option<Sent>> = (0..DEPTH).map(|_| None).collect();
        for step in 0..600 + DEPTH {
            let slot = step % DEPTH;
            while sent[slot as usize].is_some() {
                let (channel, id, packet) =
                    child.ends.recv_timeout(Duration::from_secs(20)).unwrap();
                let end = sent[id as usize].take().expect("completed twice");
                assert_eq!(channel, Channel(end.channel));
                let response = ScsiResponse::decode(&packet.body);
                assert_eq!(
                    response.srb_status,
                    SrbStatus::SUCCESS,
                    "{:02x?}",
                    response.sense()
                );
                assert_eq!(response.transferred_bytes as usize, end.range.len());
                if end.is_read {
                    let mut bytes = vec![0; end.range.len()];
                    child.copy(id, end.offset, &mut bytes, false);
                    assert!(
                        bytes == model[end.range.clone()],
                        "{format}: {:x?}",
                        end.range
                    );
                }
            }
            if step >= 600 {
                continue;
            }
            let blocks = 1 + child.random() % 512;
            let lba = child.random() % (DISK / 512 - blocks);
            let range = lba as usize * 512..(lba + blocks) as usize * 512;
            let overlaps = |one: &Sent| one.range.start < range.end && range.start < one.range.end;
            if sent.iter().flatten().any(overlaps) {
                continue;
            }
            let len = range.len() as u32;
            // Any multiple of four, as Linux has it.
            let offset = child.random() % 1024 * 4;
            let is_read = child.random().is_multiple_of(2);
            let mut cdb = [0; 10];
            cdb[0] = if is_read { 0x28 } else { 0x2A };
            cdb[2..6].copy_from_slice(&(lba as u32).to_be_bytes());
            cdb[7..9].copy_from_slice(&(blocks as u16).to_be_bytes());
            let direction = if is_read {
                DataDirection::Read
            } else {
                DataDirection::Write
            };
            if !is_read {
                let byte = child.random() as u8;
                let mut bytes: Vec<u8> = (0..len)
                    .map(|at| byte.wrapping_add((at / 512) as u8))
                    .collect();
                child.copy(slot, offset, &mut bytes, true);
                model[range.clone()].copy_from_slice(&bytes);
            }
            let mut packet = Packet::notice(Operation::EXECUTE_SRB);
            packet.body = ScsiRequest::new(Address::default(), direction, len, &cdb).encode();
            let pages = Child::pages(slot);
            let count = (offset + u64::from(len)).div_ceil(PAGE) as usize;
            let channel = (child.random() % 4) as u16;
            sent[slot as usize] = Some(Sent {
                offset,
                channel,
                is_read,
                range,
            });
            let buffer = GpaRange {
                byte_offset: offset as u32,
                byte_count: len,
                pages: &pages[..count],
            };
            child.send(channel, slot, &packet, &[buffer]);
        }
    }
}
