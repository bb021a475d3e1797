//! Ports, connections, and what the parent sends to a child directly (TLFS, "Inter-Partition Communication").

use addr::{Gpa, PartitionId, VpIndex};

use super::ConnectionId;
use crate::message::{EVENT_FLAGS, Message, MessageType, PAYLOAD_BYTES};
use crate::wire::{Field, Pad, SintIndex, Vtl, Writer, Zero, blocks, open_fields};
use crate::{HvError, Reader};

/// Number of a port, the receiver's name for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct PortId(pub u32);

open_fields! { PortId: u32; ConnectionId: u32; }

/// What a port takes (`HV_PORT_INFO`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortKind {
    /// Messages.
    Message,
    /// Event flags `base` to `base + count - 1`, all below 2048.
    Event {
        /// First flag.
        base: u16,
        /// Flags, at least one.
        count: u16,
    },
    /// Writes to a guest physical address, told in the event ring.
    Doorbell,
}

/// Where a port leads to and what it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortInfo {
    /// What it takes.
    pub kind: PortKind,
    /// The receiver's source.
    pub sint: SintIndex<4>,
    /// The receiver's VP, or any.
    pub vp: VpIndex,
}

impl Default for PortInfo {
    fn default() -> Self {
        Self {
            kind: PortKind::Message,
            sint: SintIndex::default(),
            vp: VpIndex::default(),
        }
    }
}

const MESSAGE: u64 = 1;
const EVENT: u64 = 2;
const DOORBELL: u64 = 4;

impl Field for PortInfo {
    const BYTES: usize = 24;

    fn read(r: &mut Reader<'_>) -> Result<Self, HvError> {
        let (kind, sint, vp) = (r.u64()?, SintIndex::read(r)?, VpIndex::read(r)?);
        let (base, count) = (r.u16()?, r.u16()?);
        Zero::<4>::read(r)?;
        let kind = match (kind, base, count) {
            (MESSAGE, 0, 0) => PortKind::Message,
            (EVENT, _, 1..) if u32::from(base) + u32::from(count) <= EVENT_FLAGS.into() => {
                PortKind::Event { base, count }
            }
            (DOORBELL, 0, 0) => PortKind::Doorbell,
            _ => return Err(HvError::INVALID_PARAMETER),
        };
        Ok(Self { kind, sint, vp })
    }

    fn write(self, w: &mut Writer<'_>) {
        let (kind, flags) = match self.kind {
            PortKind::Message => (MESSAGE, 0),
            PortKind::Event { base, count } => (EVENT, u64::from(base) | u64::from(count) << 16),
            PortKind::Doorbell => (DOORBELL, 0),
        };
        kind.write(w);
        self.sint.write(w);
        self.vp.write(w);
        flags.write(w);
    }
}

/// What a connection carries (`HV_CONNECTION_INFO`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConnectionKind {
    /// Messages.
    #[default]
    Message,
    /// Event flags.
    Event,
    /// Writes that match.
    Doorbell(Doorbell),
}

/// Which writes ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Doorbell {
    /// Address.
    pub gpa: Gpa,
    /// Value, `None` for any.
    pub value: Option<u64>,
    /// Width in bytes: 1, 2, 4 or 8, `None` for any.
    pub bytes: Option<u8>,
}

impl Doorbell {
    const ANY_VALUE: u64 = 1 << 31;

    /// Whether a write of `bytes` bytes of `value` at `gpa` rings.
    pub fn matches(&self, gpa: Gpa, bytes: u8, value: u64) -> bool {
        self.gpa == gpa
            && self.bytes.is_none_or(|wanted| wanted == bytes)
            && self.value.is_none_or(|wanted| wanted == value)
    }
}

impl Field for ConnectionKind {
    const BYTES: usize = 32;

    fn read(r: &mut Reader<'_>) -> Result<Self, HvError> {
        match r.u64()? {
            MESSAGE => Zero::<24>::read(r).map(|_| Self::Message),
            EVENT => Zero::<24>::read(r).map(|_| Self::Event),
            DOORBELL => {
                let (gpa, value, flags) = (Gpa::read(r)?, r.u64()?, r.u64()?);
                let bytes = match flags & !Doorbell::ANY_VALUE {
                    0 => None,
                    width @ 1..=4 => Some(1 << (width - 1)),
                    _ => return Err(HvError::INVALID_PARAMETER),
                };
                let value = (flags & Doorbell::ANY_VALUE == 0).then_some(value);
                Ok(Self::Doorbell(Doorbell { gpa, value, bytes }))
            }
            _ => Err(HvError::INVALID_PARAMETER),
        }
    }

    fn write(self, w: &mut Writer<'_>) {
        let (kind, words) = match self {
            Self::Message => (MESSAGE, [0; 3]),
            Self::Event => (EVENT, [0; 3]),
            Self::Doorbell(Doorbell { gpa, value, bytes }) => {
                let width = bytes.map_or(0, |bytes| u64::from(bytes.trailing_zeros()) + 1);
                let any = if value.is_none() {
                    Doorbell::ANY_VALUE
                } else {
                    0
                };
                (DOORBELL, [gpa.get(), value.unwrap_or(0), width | any])
            }
        };
        kind.write(w);
        words.write(w);
    }
}

blocks! {
    /// `HvCallCreatePort`.
    CreatePort[56] {
        /// Receiver, whose port it is.
        owner: PartitionId,
        port: PortId, vtls: [Vtl; 2], padding: Zero<2>,
        /// Who may connect.
        sender: PartitionId,
        info: PortInfo,
        /// Domain and flags: hints without use here.
        proximity: Pad<8>,
    }

    /// `HvCallConnectPort`.
    ConnectPort[72] {
        /// Sender, whose connection it is.
        sender: PartitionId,
        connection: ConnectionId, vtl: Vtl, reserved: Zero<3>,
        /// Receiver, whose port it is.
        owner: PartitionId,
        port: PortId, reserved2: Zero<4>, kind: ConnectionKind,
        /// Domain and flags: hints without use here.
        proximity: Pad<8>,
    }

    /// `HvCallDeletePort`.
    DeletePort[16] {
        owner: PartitionId, port: PortId, reserved: Zero<4>,
    }

    /// `HvCallDisconnectPort`.
    DisconnectPort[16] {
        sender: PartitionId, connection: ConnectionId, is_doorbell: bool, reserved: Zero<3>,
    }

    /// `HvCallNotifyPortRingEmpty`: the caller emptied its event ring of this source.
    RingEmpty[8] {
        sint: SintIndex<4>, reserved: Zero<4>,
    }

    /// `HvCallSignalEventDirect`; output: 1 when the flag was not set before (u8, padded to 8 bytes).
    SignalEventDirect[16] {
        partition: PartitionId, vp: VpIndex, vtl: Vtl, sint: SintIndex<1>,
        /// Below 2048.
        flag: FlagNumber,
    }

    /// `HvCallPostMessageDirect`.
    PostMessageDirect[276] {
        partition: PartitionId, vp: VpIndex, vtl: Vtl, padding: Zero<3>, sint: SintIndex<1>, padding2: Zero<3>,
        /// Its flags do not count.
        message: Message,
    }
}

/// Number of an event flag, 0 to 2047.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlagNumber(u16);

impl FlagNumber {
    /// Flag `number`, of which the low 11 bits count.
    pub const fn new(number: u16) -> Self {
        Self(number % EVENT_FLAGS)
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl Field for FlagNumber {
    const BYTES: usize = 2;
    fn read(r: &mut Reader<'_>) -> Result<Self, HvError> {
        match r.u16()? {
            number if number < EVENT_FLAGS => Ok(Self(number)),
            _ => Err(HvError::INVALID_PARAMETER),
        }
    }
    fn write(self, w: &mut Writer<'_>) {
        self.0.write(w);
    }
}

/// A message as it lies in a slot.
impl Field for Message {
    const BYTES: usize = 256;

    fn read(r: &mut Reader<'_>) -> Result<Self, HvError> {
        let (kind, size) = (MessageType(r.u32()?), usize::from(r.u8()?));
        r.skip(3)?; // flags and reserved
        let origin = r.u64()?;
        let payload = r
            .take(PAYLOAD_BYTES)?
            .get(..size)
            .ok_or(HvError::INVALID_PARAMETER)?;
        Self::new(kind, origin, payload).ok_or(HvError::INVALID_PARAMETER)
    }

    fn write(self, w: &mut Writer<'_>) {
        self.kind().0.write(w);
        w.put(&self.header_tail(0));
        w.put(self.payload());
        w.put(
            [0; PAYLOAD_BYTES]
                .get(self.payload().len()..)
                .unwrap_or_default(),
        );
    }
}
