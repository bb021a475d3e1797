//! The frame of every packet.

use crate::{bytes, put};

/// Bytes of a packet in both directions.
pub const PACKET_LEN: usize = 64;

/// Bytes of a packet after operation, flags and status.
pub const BODY_LEN: usize = 52;

const _: () = assert!(BODY_LEN + 12 == PACKET_LEN);

/// What a packet asks or tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation(pub u32);

impl Operation {
    /// Every answer of the provider.
    pub const COMPLETE_IO: Self = Self(1);
    /// Unasked from the provider: a device went away. Linux scans the bus.
    pub const REMOVE_DEVICE: Self = Self(2);
    /// One SCSI command: [`crate::ScsiRequest`].
    pub const EXECUTE_SRB: Self = Self(3);
    /// Ends the commands of one LUN.
    pub const RESET_LUN: Self = Self(4);
    /// Ends all commands.
    pub const RESET_ADAPTER: Self = Self(5);
    /// Ends all commands of the bus.
    pub const RESET_BUS: Self = Self(6);
    /// First step of the handshake.
    pub const BEGIN_INITIALIZATION: Self = Self(7);
    /// Last step of the handshake that every guest takes.
    pub const END_INITIALIZATION: Self = Self(8);
    /// Offers a [`crate::Version`].
    pub const QUERY_PROTOCOL_VERSION: Self = Self(9);
    /// Asks for [`crate::Properties`].
    pub const QUERY_PROPERTIES: Self = Self(10);
    /// Unasked from the provider: something changed. Linux scans the bus.
    pub const ENUMERATE_BUS: Self = Self(11);
    /// Names of a Fibre Channel adapter; a SCSI controller has none.
    pub const FCHBA_DATA: Self = Self(12);
    /// Asks for more channels: [`crate::sub_channel_count`].
    pub const CREATE_SUB_CHANNELS: Self = Self(13);
}

/// An NT status. The guest's driver tells only zero from the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NtStatus(pub u32);

impl NtStatus {
    /// `STATUS_SUCCESS`.
    pub const SUCCESS: Self = Self(0);
    /// `STATUS_INVALID_PARAMETER`: a field has a value that it must not have.
    pub const INVALID_PARAMETER: Self = Self(0xC000_000D);
    /// `STATUS_INVALID_DEVICE_REQUEST`: nothing that this device knows.
    pub const INVALID_DEVICE_REQUEST: Self = Self(0xC000_0010);
    /// `STATUS_REVISION_MISMATCH`: another version of the protocol, please.
    pub const REVISION_MISMATCH: Self = Self(0xC000_0059);
    /// `STATUS_INVALID_DEVICE_STATE`: not at this step of the handshake.
    pub const INVALID_DEVICE_STATE: Self = Self(0xC000_0184);
}

/// A payload with fewer than [`PACKET_LEN`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooShort;

/// One packet. [`Packet::FLAG_COMPLETION`] in `flags` means that the sender wants an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Offset 0.
    pub operation: Operation,
    /// Offset 4.
    pub flags: u32,
    /// Offset 8; meaningful in an answer.
    pub status: NtStatus,
    /// Offset 12: what the operation makes of it.
    pub body: [u8; BODY_LEN],
}

impl Packet {
    /// Flag: the sender wants an answer.
    pub const FLAG_COMPLETION: u32 = 1;

    /// Reads a packet; bytes after [`PACKET_LEN`] are ignored, as a ring pads to eight.
    pub fn decode(payload: &[u8]) -> Result<Self, TooShort> {
        let payload: &[u8; PACKET_LEN] = payload.first_chunk().ok_or(TooShort)?;
        Ok(Self {
            operation: Operation(u32::from_le_bytes(bytes(payload, 0))),
            flags: u32::from_le_bytes(bytes(payload, 4)),
            status: NtStatus(u32::from_le_bytes(bytes(payload, 8))),
            body: bytes(payload, 12),
        })
    }

    /// The bytes of this packet.
    pub fn encode(&self) -> [u8; PACKET_LEN] {
        let mut payload = [0; PACKET_LEN];
        put(&mut payload, 0, &self.operation.0.to_le_bytes());
        put(&mut payload, 4, &self.flags.to_le_bytes());
        put(&mut payload, 8, &self.status.0.to_le_bytes());
        put(&mut payload, 12, &self.body);
        payload
    }

    /// An answer with this status and an empty body.
    pub fn answer(status: NtStatus) -> Self {
        Self {
            operation: Operation::COMPLETE_IO,
            flags: 0,
            status,
            body: [0; BODY_LEN],
        }
    }

    /// What the provider says unasked: [`Operation::ENUMERATE_BUS`] or [`Operation::REMOVE_DEVICE`], with transaction
    /// id 0 and no answer.
    pub fn notice(operation: Operation) -> Self {
        Self {
            operation,
            flags: 0,
            status: NtStatus::SUCCESS,
            body: [0; BODY_LEN],
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn short_payloads_are_refused() {
        assert_eq!(Packet::decode(&[0; 63]), Err(TooShort));
        assert_eq!(Packet::decode(&[]), Err(TooShort));
        assert!(Packet::decode(&[0; 72]).is_ok());
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(payload: [[u8; 32]; 2]) {
            let payload = payload.concat();
            let packet = Packet::decode(&payload).unwrap();
            prop_assert_eq!(packet.encode().to_vec(), payload);
        }
    }
}
