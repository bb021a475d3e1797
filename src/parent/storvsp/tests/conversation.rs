//! Conversations with a provider, as a child has them.
#![allow(missing_docs, reason = "a test has no users")]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use disk::Pool;
use disk::testing::Gated;
use proptest::prelude::*;
use scsi::{Disk, DiskOptions, Identity, Target};
use storvsp::{Channel, Config, GpaRange, Incoming, Link, NotTaken, Provider};
use storvsp_proto::{
    Address, DataDirection, NtStatus, Operation, PACKET_LEN, Packet, Properties, ScsiRequest,
    ScsiResponse, ScsiStatus, SrbStatus, Version,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const LONG: Duration = Duration::from_secs(20);

#[derive(Debug, PartialEq, Eq)]
enum Said {
    Completed(Channel, u64, Packet),
    Noticed(Operation),
    Offered(u16),
}

struct Wire(Mutex<Sender<Said>>, Arc<AtomicUsize>);

impl Wire {
    fn say(&self, said: Said) {
        // The test may be over.
        let _ = self.0.lock().unwrap().send(said);
    }
}

impl Link for Wire {
    fn complete(&self, channel: Channel, transaction_id: u64, payload: &[u8; PACKET_LEN]) {
        let packet = Packet::decode(payload).unwrap();
        self.say(Said::Completed(channel, transaction_id, packet));
    }

    fn has_room(&self) {
        self.1.fetch_add(1, Ordering::SeqCst);
    }

    fn notify(&self, payload: &[u8; PACKET_LEN]) {
        self.say(Said::Noticed(Packet::decode(payload).unwrap().operation));
    }

    fn offer_sub_channels(&self, count: u16) {
        self.say(Said::Offered(count));
    }
}

struct Child {
    provider: Provider,
    said: Receiver<Said>,
    /// How often there was room again.
    rooms: Arc<AtomicUsize>,
    image: Arc<Gated>,
    memory: Arc<GuestMemoryMmap>,
}

fn child(config: Config, threads: usize) -> Child {
    let image = Arc::new(Gated::that_panics_at_flush());
    let target = Target::new();
    let options = DiskOptions {
        identity: Identity::new([7; 16]),
        has_write_cache: true,
    };
    let disk = Disk::new(image.clone(), options);
    target.insert(0, Arc::new(disk)).unwrap();
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10_0000)]).unwrap();
    let memory = Arc::new(memory);
    let (sender, said) = mpsc::channel();
    let rooms = Arc::new(AtomicUsize::new(0));
    let provider = Provider::new(
        Arc::new(target),
        memory.clone(),
        Arc::new(Wire(Mutex::new(sender), rooms.clone())),
        Arc::new(Pool::new("test", threads).unwrap()),
        config,
    );
    Child {
        provider,
        said,
        rooms,
        image,
        memory,
    }
}

impl Child {
    fn send(
        &self,
        channel: u16,
        id: u64,
        packet: &Packet,
        ranges: &[GpaRange<'_>],
    ) -> Result<(), NotTaken> {
        self.provider.receive(&Incoming {
            channel: Channel(channel),
            transaction_id: id,
            wants_completion: true,
            payload: &packet.encode(),
            ranges,
        })
    }

    fn next(&self) -> Said {
        self.said.recv_timeout(LONG).expect("no answer")
    }

    #[track_caller]
    fn completed(&self, channel: u16, id: u64) -> Packet {
        match self.next() {
            Said::Completed(from, with, packet) if (from, with) == (Channel(channel), id) => {
                assert_eq!(packet.operation, Operation::COMPLETE_IO);
                packet
            }
            other => panic!("{other:?} in place of {id}"),
        }
    }

    fn ask(&self, operation: Operation, body: &[u8]) -> Packet {
        let mut packet = Packet::notice(operation);
        packet.body[..body.len()].copy_from_slice(body);
        self.send(0, u64::MAX - 2, &packet, &[]).unwrap();
        self.completed(0, u64::MAX - 2)
    }

    fn shake_hands(&self) -> Properties {
        assert!(self.provider.open(Channel::PRIMARY));
        let begun = self.ask(Operation::BEGIN_INITIALIZATION, &[]);
        assert_eq!(begun.status, NtStatus::SUCCESS);
        let agreed = self.ask(
            Operation::QUERY_PROTOCOL_VERSION,
            &Version::V6_2.0.to_le_bytes(),
        );
        assert_eq!(agreed.status, NtStatus::SUCCESS);
        let properties = self.ask(Operation::QUERY_PROPERTIES, &[]);
        assert_eq!(
            self.ask(Operation::END_INITIALIZATION, &[]).status,
            NtStatus::SUCCESS
        );
        Properties::decode(&properties.body)
    }

    /// READ(10) of `bytes` into pages from number `page`.
    fn read(
        &self,
        channel: u16,
        id: u64,
        page: u64,
        offset: u32,
        bytes: u32,
    ) -> Result<(), NotTaken> {
        let cdb = [
            0x28,
            0,
            0,
            0,
            0,
            9,
            0,
            ((bytes / 512) >> 8) as u8,
            (bytes / 512) as u8,
            0,
        ];
        let pages: Vec<u64> = (page..page + u64::from(offset + bytes).div_ceil(4096)).collect();
        let range = GpaRange {
            byte_offset: offset,
            byte_count: bytes,
            pages: &pages,
        };
        self.send(
            channel,
            id,
            &srb(DataDirection::Read, bytes, &cdb),
            &[range],
        )
    }
}

fn srb(direction: DataDirection, bytes: u32, cdb: &[u8]) -> Packet {
    let mut packet = Packet::notice(Operation::EXECUTE_SRB);
    packet.body = ScsiRequest::new(Address::default(), direction, bytes, cdb).encode();
    packet
}

#[test]
fn a_child_shakes_hands_and_reads() {
    let child = child(Config::default(), 2);
    let properties = child.shake_hands();
    assert_eq!(properties.max_transfer_bytes, 256 * 1024);
    assert_eq!(properties.flags.0, 0);
    child.read(0, 5, 3, 0x204, 8192).unwrap();
    let response = ScsiResponse::decode(&child.completed(0, 5).body);
    assert_eq!(response.srb_status, SrbStatus::SUCCESS);
    assert_eq!(response.scsi_status, ScsiStatus::GOOD);
    assert_eq!(response.transferred_bytes, 8192);
    let mut bytes = vec![0; 8196];
    child
        .memory
        .read_slice(&mut bytes, GuestAddress(0x3202))
        .unwrap();
    assert_eq!((bytes[1], bytes[2], bytes[8193], bytes[8194]), (0, 9, 9, 0));
}

#[test]
fn commands_before_the_handshake_and_on_closed_channels_are_refused() {
    let child = child(Config::default(), 1);
    assert_eq!(child.read(0, 1, 0, 0, 512), Err(NotTaken::Closed));
    assert!(child.provider.open(Channel::PRIMARY));
    assert!(!child.provider.open(Channel::PRIMARY));
    child.read(0, 1, 0, 0, 512).unwrap();
    assert_eq!(child.completed(0, 1).status, NtStatus::INVALID_DEVICE_STATE);
    assert!(!child.provider.open(Channel(1)));
    assert_eq!(
        child.ask(Operation(99), &[]).status,
        NtStatus::INVALID_DEVICE_REQUEST
    );
    child
        .provider
        .receive(&Incoming {
            channel: Channel::PRIMARY,
            transaction_id: 8,
            wants_completion: true,
            payload: &[0; 56],
            ranges: &[],
        })
        .unwrap();
    assert_eq!(child.completed(0, 8).status, NtStatus::INVALID_PARAMETER);
    assert_eq!(child.provider.in_flight(), 0);
}

#[test]
fn sub_channels_are_offered_after_the_answer_and_answer_for_themselves() {
    let config = Config {
        max_sub_channels: 3,
        ..Config::default()
    };
    let child = child(config, 1);
    assert_eq!(child.shake_hands().max_sub_channels, 3);
    assert_eq!(
        child.ask(Operation::CREATE_SUB_CHANNELS, &[2, 0]).status,
        NtStatus::SUCCESS
    );
    assert_eq!(child.next(), Said::Offered(2));
    assert!(child.provider.open(Channel(2)) && !child.provider.open(Channel(3)));
    child.read(2, 77, 0, 0, 512).unwrap();
    child.completed(2, 77);
    let begin = Packet::notice(Operation::BEGIN_INITIALIZATION);
    child.send(2, 78, &begin, &[]).unwrap();
    assert_eq!(
        child.completed(2, 78).status,
        NtStatus::INVALID_DEVICE_STATE
    );
    child.provider.announce_change();
    assert_eq!(child.next(), Said::Noticed(Operation::ENUMERATE_BUS));
}

#[test]
fn buffers_that_are_not_what_they_say_are_refused() {
    let child = child(Config::default(), 1);
    child.shake_hands();
    let read = [0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0];
    let packet = srb(DataDirection::Read, 4096, &read);
    let range = |byte_offset, byte_count, pages| GpaRange {
        byte_offset,
        byte_count,
        pages,
    };
    let many = [0; 66];
    let cases: &[&[GpaRange<'_>]] = &[
        &[],
        &[range(0, 4096, &[])],
        &[range(0, 4096, &[1, 2])],
        &[range(1, 4096, &[1])],
        &[range(4096, 4096, &[1, 2])],
        &[range(u32::MAX, 4096, &[1, 2])],
        &[range(0, 2048, &[1])],
        &[range(0, 4096, &[0x100])],
        &[range(0, 4096, &[u64::MAX])],
        &[range(0, 4096, &[u64::MAX / 4096])],
        &[range(0, 4096, &[1]), range(0, 4096, &[2])],
    ];
    for (id, ranges) in cases.iter().enumerate() {
        child.send(0, id as u64, &packet, ranges).unwrap();
        let response = ScsiResponse::decode(&child.completed(0, id as u64).body);
        assert_eq!(
            response.srb_status,
            SrbStatus::INVALID_REQUEST,
            "{ranges:?}"
        );
        assert_eq!(response.transferred_bytes, 0);
    }
    let too_long = srb(DataDirection::Read, 66 * 4096, &read);
    child
        .send(0, 99, &too_long, &[range(0, 66 * 4096, &many)])
        .unwrap();
    let response = ScsiResponse::decode(&child.completed(0, 99).body);
    assert_eq!(response.srb_status, SrbStatus::INVALID_REQUEST);
    assert_eq!(child.image.begun(), 0);
}

#[test]
fn only_so_many_commands_are_taken() {
    let config = Config {
        max_in_flight: 3,
        ..Config::default()
    };
    let child = child(config, 1);
    child.shake_hands();
    child.image.shut(true);
    for id in 0..3 {
        child.read(0, id, 0, 0, 512).unwrap();
    }
    assert_eq!(child.read(0, 3, 0, 0, 512), Err(NotTaken::Full));
    child.image.shut(false);
    for id in 0..3 {
        child.completed(0, id);
    }
    child.provider.settle(|| ());
    while child.provider.in_flight() > 0 {
        std::thread::yield_now();
    }
    child.read(0, 3, 0, 0, 512).unwrap();
    child.completed(0, 3);
}

#[test]
fn room_is_told_of_where_no_completion_is_wanted() {
    let config = Config {
        max_in_flight: 2,
        ..Config::default()
    };
    let child = child(config, 1);
    child.shake_hands();
    while child.rooms.load(Ordering::SeqCst) < 4 {
        std::thread::yield_now();
    }
    child.image.shut(true);
    let packet = srb(DataDirection::None, 0, &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let silent = Incoming {
        channel: Channel::PRIMARY,
        transaction_id: 1,
        wants_completion: false,
        payload: &packet.encode(),
        ranges: &[],
    };
    child.provider.receive(&silent).unwrap();
    child.read(0, 2, 0, 0, 512).unwrap();
    assert_eq!(child.provider.receive(&silent), Err(NotTaken::Full));
    // Nobody hears of the ends of these.
    child.provider.close(Channel::PRIMARY, || ());
    child.image.shut(false);
    while child.rooms.load(Ordering::SeqCst) < 6 {
        std::thread::yield_now();
    }
    // It is told when there is some, not before.
    assert_eq!(child.provider.in_flight(), 0);
    assert!(child.said.try_recv().is_err());
}

#[test]
fn a_reset_is_answered_after_everything_that_was_on_its_way() {
    let child = child(Config::default(), 1);
    child.shake_hands();
    child.image.shut(true);
    for id in 10..14 {
        child.read(0, id, 0, 0, 512).unwrap();
    }
    child.image.wait_for_begun(1);
    child
        .send(0, 99, &Packet::notice(Operation::RESET_BUS), &[])
        .unwrap();
    assert!(child.said.recv_timeout(Duration::from_millis(100)).is_err());
    child.image.shut(false);
    let begun = ScsiResponse::decode(&child.completed(0, 10).body);
    assert_eq!(begun.srb_status, SrbStatus::SUCCESS);
    for id in 11..14 {
        let dropped = ScsiResponse::decode(&child.completed(0, id).body);
        assert_eq!(dropped.srb_status, SrbStatus::BUS_RESET);
    }
    assert_eq!(child.completed(0, 99).status, NtStatus::SUCCESS);
    assert_eq!(child.image.begun(), 1);
    child.read(0, 15, 0, 0, 512).unwrap();
    child.completed(0, 15);
}

#[test]
fn a_close_waits_for_what_has_begun_and_nothing_is_said_after_it() {
    let child = child(Config::default(), 1);
    child.shake_hands();
    child.image.shut(true);
    for id in 0..3 {
        child.read(0, id, 0, 0, 512).unwrap();
    }
    child.image.wait_for_begun(1);
    let (closed, wait) = mpsc::channel();
    child
        .provider
        .close(Channel::PRIMARY, move || closed.send(()).unwrap());
    assert!(wait.recv_timeout(Duration::from_millis(100)).is_err());
    assert!(
        !child.provider.open(Channel::PRIMARY),
        "opened while closing"
    );
    assert_eq!(child.read(0, 9, 0, 0, 512), Err(NotTaken::Closed));
    child.image.shut(false);
    wait.recv_timeout(LONG).unwrap();
    assert_eq!(child.provider.in_flight(), 0);
    assert_eq!(child.image.begun(), 1);
    assert!(child.said.try_recv().is_err());
    // The next driver finds a controller that knows nothing of the last one.
    child.shake_hands();
    child.read(0, 1, 0, 0, 512).unwrap();
    child.completed(0, 1);
}

#[test]
fn a_stop_closes_every_channel() {
    let config = Config {
        max_sub_channels: 1,
        ..Config::default()
    };
    let child = child(config, 2);
    child.shake_hands();
    child.ask(Operation::CREATE_SUB_CHANNELS, &[1, 0]);
    assert_eq!(child.next(), Said::Offered(1));
    assert!(child.provider.open(Channel(1)));
    child.image.shut(true);
    child.read(0, 1, 0, 0, 512).unwrap();
    child.read(1, 2, 0, 0, 512).unwrap();
    child.image.wait_for_begun(2);
    let is_done = Arc::new(AtomicBool::new(false));
    let (closed, wait) = mpsc::channel();
    let set = is_done.clone();
    child.provider.stop(move || {
        set.store(true, Ordering::SeqCst);
        closed.send(()).unwrap();
    });
    assert!(!is_done.load(Ordering::SeqCst));
    child.image.shut(false);
    wait.recv_timeout(LONG).unwrap();
    assert!(child.said.try_recv().is_err());
    assert!(!child.provider.open(Channel(1)));
    child.shake_hands();
}

#[test]
fn a_command_whose_thread_panics_ends_all_the_same() {
    let child = child(Config::default(), 1);
    child.shake_hands();
    let flush = [0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    child
        .send(0, 4, &srb(DataDirection::None, 0, &flush), &[])
        .unwrap();
    let response = ScsiResponse::decode(&child.completed(0, 4).body);
    assert_eq!(response.srb_status, SrbStatus::INTERNAL_ERROR);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// Whatever arrives, each packet that was taken is completed once.
    #[test]
    fn one_completion_for_each_packet(
        packets in prop::collection::vec(
            (0u32..15, prop::collection::vec(any::<u8>(), 0..53), 0usize..70, any::<u16>(), any::<u32>()),
            1..40,
        ),
        opens: bool,
    ) {
        let config = Config { max_sub_channels: 2, ..Config::default() };
        let child = child(config, 2);
        if opens {
            child.shake_hands();
        } else {
            child.provider.open(Channel::PRIMARY);
        }
        let mut expected = Vec::new();
        for (id, (operation, body, pages, offset, count)) in packets.into_iter().enumerate() {
            let mut packet = Packet::notice(Operation(operation));
            packet.body[..body.len()].copy_from_slice(&body);
            // No flush: the image panics.
            packet.body[16] &= 0x2F;
            if packet.body[16] & 0x1F > 0x12 { packet.body[16] = 0x28; }
            let pages = vec![u64::from(offset) % 300; pages];
            let count = if count & 1 == 0 { count % 0x1_0000 } else { count };
            packet.body[12..16].copy_from_slice(&count.to_le_bytes());
            let range = GpaRange { byte_offset: u32::from(offset) % 5000, byte_count: count, pages: &pages };
            let ranges = if pages.is_empty() { &[][..] } else { &[range][..] };
            let id = id as u64;
            child.send(0, id, &packet, ranges).unwrap();
            expected.push(id);
        }
        let (settled, wait) = mpsc::channel();
        child.provider.settle(move || settled.send(()).unwrap());
        wait.recv_timeout(LONG).unwrap();
        let mut found: Vec<u64> = child.said.try_iter().filter_map(|said| match said {
            Said::Completed(Channel(0), id, _) => Some(id),
            _ => None,
        }).collect();
        found.sort_unstable();
        prop_assert_eq!(found, expected);
    }
}
