//! The synthetic controller, used as a driver uses it.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use ring::{Outgoing, Reader, RingMem, Writer};
use ring_proto::{Control, Features, GpaDirect, GpaRange, PacketFlags, PacketType};
use storvsp_proto::{
    Address, DataDirection, NtStatus, Operation, Packet, ScsiRequest, ScsiResponse, SrbStatus,
    Version,
};
use vmbus_client::{Client, Wire};
use vmbus_proto::{GpadlHandle, Relid, class};

use crate::machine::{DATA, RINGS, now_100ns, word};
use crate::wire::{Calls, PATIENCE_100NS};

/// Pages of each ring, the control page among them.
pub const RING_PAGES: u64 = 5;
/// What the rings' GPADL is called.
pub const HANDLE: GpadlHandle = GpadlHandle(0x21);
/// Bytes of a sector.
pub const SECTOR: u32 = 512;

/// One of the two rings.
#[derive(Clone, Copy)]
pub struct Half(pub u64);

impl RingMem for Half {
    fn data_bytes(&self) -> u32 {
        (RING_PAGES as u32 - 1) * 4096
    }
    fn control(&self, field: Control) -> u32 {
        let pair = word(self.0 + field.offset() as u64).load(Ordering::Acquire);
        (pair >> (field.offset() % 8 * 8)) as u32
    }
    fn set_control(&self, field: Control, value: u32) {
        let shift = field.offset() % 8 * 8;
        let change = |pair| Some(pair & !(0xFFFF_FFFF << shift) | u64::from(value) << shift);
        let at = word(self.0 + field.offset() as u64);
        // The other field of the pair may be the other end's.
        let _ = at.fetch_update(Ordering::SeqCst, Ordering::SeqCst, change);
    }
    fn word(&self, at: u32) -> u64 {
        word(self.0 + 4096 + u64::from(at)).load(Ordering::Relaxed)
    }
    fn set_word(&self, at: u32, value: u64) {
        word(self.0 + 4096 + u64::from(at)).store(value, Ordering::Relaxed);
    }
}

/// The ring to the provider.
pub const UP: Half = Half(RINGS);
/// The ring from it.
pub const DOWN: Half = Half(RINGS + RING_PAGES * 4096);

/// The controller with its channel open.
pub struct Controller<'a> {
    /// The child's VMBus.
    pub client: &'a mut Client<Calls>,
    /// Number of its channel.
    pub relid: Relid,
    connection: u32,
    writer: Writer<Half>,
    reader: Reader<Half>,
    next: u64,
}

/// Finds the controller among what is offered: its channel and how to signal it.
pub fn find(client: &mut Client<Calls>) -> Option<(Relid, u32)> {
    let offers = client.offers()?;
    let offer = offers.iter().find(|offer| offer.class == class::SCSI)?;
    Some((offer.relid, offer.connection))
}

/// Numbers of the pages of both rings.
pub fn ring_pages() -> Vec<u64> {
    (0..2 * RING_PAGES)
        .map(|page| RINGS / 4096 + page)
        .collect()
}

impl<'a> Controller<'a> {
    /// Opens the channel and agrees on the protocol.
    pub fn open(client: &'a mut Client<Calls>, (relid, connection): (Relid, u32)) -> Option<Self> {
        for half in [UP, DOWN] {
            ring::reset(&half);
            half.set_control(Control::Features, Features::PENDING_SEND_SIZE.bits());
        }
        client.wire.patience_100ns = PATIENCE_100NS;
        let created = client.gpadl(relid, HANDLE, &ring_pages())?;
        let opened = client.open(relid, HANDLE, RING_PAGES as u32, 0)?;
        if created != 0 || opened != 0 {
            return None;
        }
        let mut this = Self {
            client,
            relid,
            connection,
            writer: Writer::new(UP).ok()?,
            reader: Reader::new(DOWN).ok()?,
            next: 1,
        };
        this.reader.mask();
        for (operation, value) in [
            (Operation::BEGIN_INITIALIZATION, 0),
            (Operation::QUERY_PROTOCOL_VERSION, Version::V6_2.0),
            (Operation::QUERY_PROPERTIES, 0),
            (Operation::END_INITIALIZATION, 0),
        ] {
            let mut packet = Packet::notice(operation);
            packet.body[..2].copy_from_slice(&value.to_le_bytes());
            let answer = this.ask(&[], &packet.encode())?;
            if answer.status != NtStatus::SUCCESS {
                return None;
            }
        }
        Some(this)
    }

    /// Closes the channel and takes the rings back.
    pub fn close(self) -> bool {
        let client = self.client;
        client.wire.patience_100ns = PATIENCE_100NS;
        client.close(self.relid) == 0
            && client.tear_down(self.relid, HANDLE) == 0
            && client.is_torn_down(HANDLE)
    }

    /// Tells the provider that there is something.
    pub fn signal(&mut self) {
        self.client.wire.signal(self.connection, 0);
    }

    /// Sends a packet and signals, whether that is needed or not. Its transaction, if it fits.
    pub fn send(&mut self, header: &[u8], payload: &[u8]) -> Option<u64> {
        let transaction = self.next;
        self.next += 1;
        let outgoing = Outgoing {
            kind: match header {
                [] => PacketType::IN_BAND,
                _ => PacketType::GPA_DIRECT,
            },
            flags: PacketFlags::COMPLETION_REQUESTED,
            transaction,
            header,
            payload: &[payload],
        };
        let is_sent = self.writer.put(&outgoing).is_ok();
        let _ = self.writer.commit();
        self.signal();
        is_sent.then_some(transaction)
    }

    /// The next completion: its transaction and what it says.
    pub fn receive(&mut self, patience_100ns: u64) -> Option<(u64, Packet)> {
        let deadline = now_100ns() + patience_100ns;
        let mut buffer = [0; 512];
        loop {
            match self.reader.next(&mut buffer) {
                Ok(None) if now_100ns() < deadline => core::hint::spin_loop(),
                Ok(Some(packet)) => {
                    let transaction = packet.descriptor.transaction;
                    let answer = Packet::decode(packet.payload).ok();
                    if self.reader.publish().is_needed() {
                        self.signal();
                    }
                    return Some((transaction, answer?));
                }
                _ => return None,
            }
        }
    }

    /// Sends a packet and waits for its completion.
    pub fn ask(&mut self, header: &[u8], payload: &[u8]) -> Option<Packet> {
        let transaction = self.send(header, payload)?;
        let (of, answer) = self.receive(PATIENCE_100NS)?;
        (of == transaction).then_some(answer)
    }

    /// Reads or writes the disk's first sector, with [`DATA`] as its buffer.
    pub fn first_sector(&mut self, direction: DataDirection) -> bool {
        let code = match direction {
            DataDirection::Write => 0x2A,
            _ => 0x28,
        };
        let request = srb(direction, &[code, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
        let answer = self.ask(&range(SECTOR, 0, &[DATA / 4096]), &request);
        answer.is_some_and(|answer| {
            let response = ScsiResponse::decode(&answer.body);
            response.srb_status == SrbStatus::SUCCESS && response.transferred_bytes == SECTOR
        })
    }
}

/// A request for one sector.
pub fn srb(direction: DataDirection, cdb: &[u8]) -> [u8; 64] {
    let mut packet = Packet::notice(Operation::EXECUTE_SRB);
    packet.body = ScsiRequest::new(Address::default(), direction, SECTOR, cdb).encode();
    packet.encode()
}

/// What a packet says of its data.
pub fn range(bytes: u32, offset: u32, pages: &[u64]) -> Vec<u8> {
    let mut header = GpaDirect::encode(1).to_vec();
    header.extend(GpaRange::encode(bytes, offset));
    for page in pages {
        header.extend(page.to_le_bytes());
    }
    header
}
