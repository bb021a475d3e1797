//! Packets of a child to its storage provider: each that is taken and wants a completion gets one.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use disk::Pool;
use arbitrary::Arbitrary;
use scsi::{Disk, DiskOptions, Identity, Target};
use storvsp::{Channel, Config, GpaRange, Incoming, Link, Provider};
use storvsp_proto::{Address, DataDirection, PACKET_LEN, Packet, ScsiRequest};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use crate::{Memory, target};

#[derive(Arbitrary, Debug)]
enum Step {
    Bytes(u8, Vec<u8>),
    /// A packet of this operation with this body.
    Operation(u8, u8, Vec<u8>),
    Command {
        channel: u8,
        lun: u8,
        cdb: [u8; 16],
        direction: u8,
        bytes: u16,
        offset: u16,
        pages: Vec<u8>,
        claimed: Option<u32>,
    },
    Handshake,
    Open(u8),
    Close(u8),
    Settle,
}

#[derive(Default)]
struct Wire(AtomicUsize);

impl Link for Wire {
    fn complete(&self, _: Channel, _: u64, payload: &[u8; PACKET_LEN]) {
        assert!(Packet::decode(payload).is_ok());
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn notify(&self, payload: &[u8; PACKET_LEN]) {
        assert!(Packet::decode(payload).is_ok());
    }

    fn offer_sub_channels(&self, count: u16) {
        assert!(count <= 3);
    }
}

fn pool() -> Arc<Pool> {
    static POOL: OnceLock<Arc<Pool>> = OnceLock::new();
    POOL.get_or_init(|| Arc::new(Pool::new("fuzz", 2).unwrap()))
        .clone()
}

target!(|steps: Vec<Step>| {
    let target = Target::new();
    let options = DiskOptions {
        identity: Identity::new([7; 16]),
        has_write_cache: true,
    };
    let disk = Disk::new(Arc::new(Memory::new(64 * 512)), options);
    target.insert(0, Arc::new(disk)).unwrap();
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x4_0000)]).unwrap();
    let wire = Arc::new(Wire::default());
    let config = Config {
        max_sub_channels: 3,
        ..Config::default()
    };
    let provider = Provider::new(
        Arc::new(target),
        Arc::new(memory),
        wire.clone(),
        pool(),
        config,
    );
    let mut taken = 0;
    let mut id = 0;
    for step in steps.iter().take(128) {
        let mut send = |channel: u8, payload: &[u8], ranges: &[GpaRange<'_>]| {
            id += 1;
            let incoming = Incoming {
                channel: Channel((channel % 5).into()),
                transaction_id: id,
                wants_completion: true,
                payload,
                ranges,
            };
            taken += usize::from(provider.receive(&incoming).is_ok());
        };
        match step {
            Step::Bytes(channel, bytes) => send(*channel, bytes, &[]),
            Step::Operation(channel, operation, body) => {
                send(*channel, &packet((operation % 16).into(), body), &[]);
            }
            Step::Command {
                channel,
                lun,
                cdb,
                direction,
                bytes,
                offset,
                pages,
                claimed,
            } => {
                let address = Address {
                    lun: lun % 3,
                    ..Address::default()
                };
                let direction = [
                    DataDirection::Read,
                    DataDirection::Write,
                    DataDirection::None,
                ][usize::from(direction % 3)];
                let bytes = u32::from(*bytes);
                let claimed = claimed.unwrap_or(bytes);
                let body = ScsiRequest::new(address, direction, claimed, cdb).encode();
                let pages: Vec<u64> = pages.iter().map(|page| (page % 80).into()).collect();
                let range = GpaRange {
                    byte_offset: u32::from(offset % 5000),
                    byte_count: bytes,
                    pages: &pages,
                };
                send(*channel, &packet(3, &body), &[range]);
            }
            Step::Handshake => {
                provider.open(Channel::PRIMARY);
                send(0, &packet(7, &[]), &[]);
                send(0, &packet(9, &0x602_u16.to_le_bytes()), &[]);
                send(0, &packet(10, &[]), &[]);
                send(0, &packet(8, &[]), &[]);
            }
            Step::Open(channel) => {
                provider.open(Channel((channel % 5).into()));
            }
            Step::Close(channel) => provider.close(Channel((channel % 5).into()), || ()),
            Step::Settle => {
                let (done, wait) = std::sync::mpsc::channel();
                provider.settle(move || {
                    let _ = done.send(());
                });
                wait.recv().unwrap();
            }
        }
    }
    let (done, wait) = std::sync::mpsc::channel();
    provider.stop(move || {
        let _ = done.send(());
    });
    wait.recv().unwrap();
    assert_eq!(provider.in_flight(), 0);
    let completed = wire.0.load(Ordering::SeqCst);
    assert!(completed <= taken, "{completed} completions for {taken}");
});

/// A packet of `operation` that wants a completion.
fn packet(operation: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = [operation, 1, 0].map(u32::to_le_bytes).concat();
    bytes.extend(body.iter().take(52));
    bytes.resize(PACKET_LEN, 0);
    bytes
}
