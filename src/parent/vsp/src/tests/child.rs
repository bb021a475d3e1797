//! A child, by hand: its rings in its memory, a server that remembers, and a disk behind the controller.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use ::disk::Pool;
use ::disk::testing::Gated;
use ::scsi::{Disk, DiskOptions, Identity, Target};
use ring::{Outgoing, Reader, Writer};
use ring_proto::{Control, Features, PacketFlags, PacketType};
use slot_proto::{Notice, Opening};
use storvsp::Config;
use storvsp_proto::{
    Address, DataDirection, NtStatus, Operation, Packet, ScsiRequest, ScsiResponse, SrbStatus,
    Version,
};
use tlfs::HvError;
use tlfs::wire::Zero;
use vm_memory::{GuestAddress, GuestMemoryMmap};
use vmbus_proto::{GpadlHandle, Guid, Offer, Relid, UserData, class};

use crate::*;

pub const PAGE: u64 = 4096;
/// Where the data of requests lies.
pub const DATA: u64 = 0x80;

/// What the server in the hypervisor was asked, and what it would have answered.
#[derive(Default)]
pub struct FakeServer {
    pub offers: Vec<Offer>,
    /// Pages by channel and handle.
    pub gpadls: BTreeMap<(u32, u32), Vec<u64>>,
    pub said: Vec<String>,
    /// Sub-channels that the child has not released.
    pub is_unreleased: bool,
}

impl Server for FakeServer {
    fn offer(&mut self, offer: &Offer) -> Result<Relid, ServerError> {
        if self.is_unreleased && offer.sub_channel != 0 {
            return Err(ServerError::Refused(HvError::INVALID_PARTITION_STATE));
        }
        self.offers.push(*offer);
        Ok(Relid(self.offers.len() as u32))
    }
    fn rescind(&mut self, relid: Relid) -> Result<(), ServerError> {
        self.said.push(format!("rescind {}", relid.0));
        Ok(())
    }
    fn open_result(&mut self, relid: Relid, status: u32) -> Result<(), ServerError> {
        self.said.push(format!("open {} {status:#x}", relid.0));
        Ok(())
    }
    fn close_done(&mut self, relid: Relid) -> Result<(), ServerError> {
        self.said.push(format!("close {}", relid.0));
        Ok(())
    }
    fn gpadl_pages(
        &mut self,
        relid: Relid,
        handle: GpadlHandle,
        first: u32,
    ) -> Result<GpadlPages, ServerError> {
        let pages = self
            .gpadls
            .get(&(relid.0, handle.0))
            .ok_or(ServerError::Refused(HvError::INVALID_PARAMETER))?;
        Ok(GpadlPages {
            total: pages.len() as u32,
            byte_offset: 0,
            // Few at a time, as an answer has an end.
            pages: pages.iter().skip(first as usize).take(3).copied().collect(),
        })
    }
    fn gpadl_done(&mut self, relid: Relid, handle: GpadlHandle) -> Result<(), ServerError> {
        self.said.push(format!("gpadl {} {}", relid.0, handle.0));
        Ok(())
    }
    fn reset_done(&mut self) -> Result<(), ServerError> {
        self.said.push("reset".into());
        Ok(())
    }
}

/// Wakes, and signals to the child.
#[derive(Default)]
pub struct Bells {
    pub rung: Mutex<bool>,
    pub changed: Condvar,
    pub signals: Mutex<Vec<Relid>>,
}

impl Wake for Bells {
    fn wake(&self) {
        *self.rung.lock().unwrap() = true;
        self.changed.notify_all();
    }
}

impl SignalChild for Bells {
    fn signal(&self, relid: Relid) {
        self.signals.lock().unwrap().push(relid);
    }
}

/// The child's end of one channel.
pub struct Open {
    pub writer: Writer<GuestRing>,
    pub reader: Reader<GuestRing>,
}

pub struct Child {
    pub bus: Bus,
    pub server: FakeServer,
    pub bells: Arc<Bells>,
    pub gate: Arc<Gated>,
    pub memory: Arc<GuestMemoryMmap>,
    pub channels: BTreeMap<u32, Open>,
}

impl Child {
    pub fn new(limits: Config) -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let memory = Arc::new(memory);
        let (bells, gate) = (Arc::new(Bells::default()), Arc::new(Gated::default()));
        let target = Target::new();
        let options = DiskOptions {
            identity: Identity::new([7; 16]),
            has_write_cache: true,
        };
        let disk = Disk::new(gate.clone(), options);
        target.insert(0, Arc::new(disk)).unwrap();
        let mut bus = Bus::new(Arc::clone(&memory), bells.clone(), bells.clone());
        let mut server = FakeServer::default();
        let config = ScsiConfig {
            instance: Guid([3; 16]),
            limits,
        };
        let pool = Arc::new(Pool::new("test", 2).unwrap());
        let ram = Arc::clone(&memory);
        let scsi = move |events| -> Box<dyn Device> {
            Box::new(Scsi::new(config, Arc::new(target), ram, pool, events))
        };
        bus.add(&mut server, scsi).unwrap();
        assert_eq!(server.offers[0].class, class::SCSI);
        Self {
            bus,
            server,
            bells,
            gate,
            memory,
            channels: BTreeMap::new(),
        }
    }

    /// Opens channel `relid` with rings of `pages` pages each, scattered from page 8 * `relid` on.
    pub fn open(&mut self, relid: u32, pages: usize) {
        let first = u64::from(relid) * 16;
        // Not in the order of addresses.
        let list: Vec<u64> = (0..2 * pages as u64)
            .rev()
            .map(|page| first + page)
            .collect();
        let (up, down) = list.split_at(pages);
        let [up, down] = [up, down].map(|list| GuestRing::new(&self.memory, list).unwrap());
        for ring in [&up, &down] {
            ring::reset(ring);
            ring.set_features();
        }
        let open = Open {
            writer: Writer::new(up).unwrap(),
            reader: Reader::new(down).unwrap(),
        };
        self.channels.insert(relid, open);
        self.server.gpadls.insert((relid, 100 + relid), list);
        let opening = Opening {
            ring: GpadlHandle(100 + relid),
            downstream_page: pages as u32,
            vp: 0,
            version: vmbus_proto::Version::V5_3,
            user: UserData::default(),
            is_open_already: false,
            reserved: Zero,
        };
        self.notice(&Notice::Open(Relid(relid), opening));
        assert_eq!(self.said(), [format!("open {relid} 0x0")]);
    }

    pub fn notice(&mut self, notice: &Notice) {
        self.bus.notice(notice, &mut self.server).unwrap();
    }

    /// What the server was told since the last look.
    pub fn said(&mut self) -> Vec<String> {
        std::mem::take(&mut self.server.said)
    }

    /// Runs the bus until `is_there` finds what it waits for.
    pub fn until<T>(&mut self, mut is_there: impl FnMut(&mut Self) -> Option<T>) -> T {
        for _ in 0..1000 {
            while self.bus.run(&mut self.server).unwrap() {}
            if let Some(found) = is_there(self) {
                return found;
            }
            let rung = self.bells.rung.lock().unwrap();
            let wait = Duration::from_millis(20);
            let (mut rung, _) = self.bells.changed.wait_timeout(rung, wait).unwrap();
            *rung = false;
        }
        panic!("it does not come");
    }

    pub fn send(&mut self, relid: u32, transaction: u64, header: &[u8], packet: &Packet) {
        let kind = match header {
            [] => PacketType::IN_BAND,
            _ => PacketType::GPA_DIRECT,
        };
        let outgoing = Outgoing {
            kind,
            flags: PacketFlags::COMPLETION_REQUESTED,
            transaction,
            header,
            payload: &[&packet.encode()],
        };
        let writer = &mut self.channels.get_mut(&relid).unwrap().writer;
        writer.put(&outgoing).unwrap();
        if writer.commit().is_needed() {
            self.bus.signalled(Relid(relid));
        }
    }

    pub fn receive(&mut self, relid: u32) -> Option<(u64, Packet)> {
        let mut buffer = [0; 256];
        let reader = &mut self.channels.get_mut(&relid).unwrap().reader;
        let packet = reader.next(&mut buffer).unwrap()?;
        assert_eq!(packet.descriptor.kind, PacketType::COMPLETION);
        let answer = (
            packet.descriptor.transaction,
            Packet::decode(packet.payload).unwrap(),
        );
        if reader.publish().is_needed() {
            self.bus.signalled(Relid(relid));
        }
        Some(answer)
    }

    pub fn ask(&mut self, operation: Operation, word: u16) -> Packet {
        let mut packet = Packet::notice(operation);
        packet.body[..2].copy_from_slice(&word.to_le_bytes());
        self.send(1, 77, &[], &packet);
        let (transaction, answer) = self.until(|child| child.receive(1));
        assert_eq!(transaction, 77);
        assert_eq!(answer.status, NtStatus::SUCCESS, "{operation:?}");
        answer
    }

    pub fn shake_hands(&mut self) {
        self.ask(Operation::BEGIN_INITIALIZATION, 0);
        self.ask(Operation::QUERY_PROTOCOL_VERSION, Version::V6_2.0);
        self.ask(Operation::QUERY_PROPERTIES, 0);
        self.ask(Operation::END_INITIALIZATION, 0);
    }

    /// Asks for one block.
    pub fn read(&mut self, relid: u32, transaction: u64, lba: u8) {
        let cdb = [0x28, 0, 0, 0, 0, lba, 0, 0, 1, 0];
        let mut packet = Packet::notice(Operation::EXECUTE_SRB);
        packet.body = ScsiRequest::new(Address::default(), DataDirection::Read, 512, &cdb).encode();
        let mut header = ring_proto::GpaDirect::encode(1).to_vec();
        header.extend(ring_proto::GpaRange::encode(512, 1024));
        header.extend((DATA + transaction % 64).to_le_bytes());
        self.send(relid, transaction, &header, &packet);
    }

    pub fn completed(&mut self, relid: u32) -> u64 {
        let (transaction, packet) = self.until(|child| child.receive(relid));
        let response = ScsiResponse::decode(&packet.body);
        assert_eq!(response.srb_status, SrbStatus::SUCCESS);
        transaction
    }
}

impl GuestRing {
    fn set_features(&self) {
        use ring::RingMem;
        self.set_control(Control::Features, Features::PENDING_SEND_SIZE.bits());
    }
}
