//! What chunks hold.

use addr::PartitionId;
use tlfs::call::{ConnectionId, ConnectionKind, Doorbell, PortId, PortInfo, PortKind};
use tlfs::message::SINT_COUNT;

use crate::PortRef;
use crate::chunk::{Chunk, ChunkId, Slab};

/// Where a record lies: chunk << 32 | place in the slab + 1. 0 for nowhere.
pub(crate) type At = u64;

/// Messages that can wait at a port.
pub const QUEUE_MESSAGES: u16 = 256;
/// Chunks of a message queue.
pub(crate) const QUEUE_CHUNKS: usize = QUEUE_MESSAGES as usize / 16;

/// A record of a map.
pub(crate) trait Record: Copy + Default + 'static {
    type Slab: Chunk;
    /// Chains that it is in: by its number, and by another key. The first also chains free records.
    fn links(&mut self) -> &mut [At; 2];
    fn parts(slab: &mut Self::Slab) -> (&mut u64, &mut [Self]);
}

macro_rules! records {
    ($($type:ident $in_slab:literal)*) => {$(
        impl $type {
            pub(crate) const IN_SLAB: usize = $in_slab;
        }
        impl Record for $type {
            type Slab = Slab<Self, $in_slab>;
            fn links(&mut self) -> &mut [At; 2] {
                &mut self.links
            }
            fn parts(slab: &mut Self::Slab) -> (&mut u64, &mut [Self]) {
                (&mut slab.next, &mut slab.records)
            }
        }
        const _: () = assert!(size_of::<$type>() * ($in_slab + 1) + 8 > 4096, "a record more would fit");
    )*};
}
records! { Port 31 Connection 73 Vp 13 }

pub(crate) const KIND_MESSAGE: u8 = 1;
pub(crate) const KIND_EVENT: u8 = 2;
pub(crate) const KIND_DOORBELL: u8 = 4;

/// A port. A free record has kind 0.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Port {
    links: [At; 2],
    pub(crate) id: u32,
    /// Tells ports with the same number apart, of which one was made after the other was deleted.
    pub(crate) generation: u32,
    pub(crate) sender: u64,
    pub(crate) vp: u32,
    pub(crate) base: u16,
    pub(crate) count: u16,
    pub(crate) kind: u8,
    pub(crate) sint: u8,
    /// Whether it is in a line of its VP.
    pub(crate) is_lined: u8,
    _padding: u8,
    /// The first message in the queue, and how many there are.
    pub(crate) head: u16,
    pub(crate) waiting: u16,
    /// Neighbours in the line.
    pub(crate) before: At,
    pub(crate) behind: At,
    pub(crate) queue: [u32; QUEUE_CHUNKS],
}

impl Port {
    pub(crate) fn new(id: PortId, generation: u32, sender: PartitionId, info: &PortInfo) -> Self {
        let (kind, base, count) = match info.kind {
            PortKind::Message => (KIND_MESSAGE, 0, 0),
            PortKind::Event { base, count } => (KIND_EVENT, base, count),
            PortKind::Doorbell => (KIND_DOORBELL, 0, 0),
        };
        Self {
            id: id.0,
            generation,
            sender: sender.get(),
            vp: info.vp.get(),
            base,
            count,
            kind,
            sint: info.sint.get(),
            ..Self::default()
        }
    }

    /// The chunk and the place in it for the message `offset` places behind the first.
    pub(crate) fn place(&self, offset: u16) -> Option<(ChunkId, usize)> {
        let at = usize::from(self.head.wrapping_add(offset) % QUEUE_MESSAGES);
        self.queue
            .get(at / 16)
            .map(|chunk| (ChunkId(*chunk), at % 16))
    }
}

/// A connection, and which writes ring if it is a doorbell.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Connection {
    links: [At; 2],
    pub(crate) id: u32,
    pub(crate) port: u32,
    pub(crate) owner: u64,
    pub(crate) generation: u32,
    pub(crate) kind: u8,
    /// Bytes of the write; 0 for any.
    pub(crate) bytes: u8,
    pub(crate) is_any_value: u8,
    _padding: u8,
    pub(crate) gpa: u64,
    pub(crate) value: u64,
}

impl Connection {
    pub(crate) fn new(id: ConnectionId, to: PortRef, kind: ConnectionKind) -> Self {
        let (kind, doorbell) = match kind {
            ConnectionKind::Message => (KIND_MESSAGE, Doorbell::default()),
            ConnectionKind::Event => (KIND_EVENT, Doorbell::default()),
            ConnectionKind::Doorbell(doorbell) => (KIND_DOORBELL, doorbell),
        };
        Self {
            id: id.0,
            port: to.port.0,
            owner: to.owner.get(),
            generation: to.generation,
            kind,
            bytes: doorbell.bytes.unwrap_or(0),
            is_any_value: doorbell.value.is_none().into(),
            gpa: doorbell.gpa.get(),
            value: doorbell.value.unwrap_or(0),
            ..Self::default()
        }
    }

    pub(crate) fn port_ref(&self) -> PortRef {
        PortRef {
            owner: PartitionId::new(self.owner),
            port: PortId(self.port),
            generation: self.generation,
        }
    }
}

/// Lines of ports that have something for one VP, first and last of each: messages by source, then doorbells.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Vp {
    links: [At; 2],
    pub(crate) vp: u32,
    /// Ports that lead to it.
    pub(crate) ports: u32,
    pub(crate) lines: [[At; 2]; SINT_COUNT + 1],
}

impl Vp {
    pub(crate) const DOORBELLS: usize = SINT_COUNT;

    pub(crate) fn new(vp: u32) -> Self {
        Self {
            vp,
            ..Self::default()
        }
    }
}
