//! What the steps of the handshake carry.

use crate::packet::BODY_LEN;
use crate::{bytes, put};

/// A version of the protocol: major number in the high byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u16);

impl Version {
    /// Windows 8.
    pub const V5_1: Self = Self(0x0501);
    /// Windows 8.1.
    pub const V6_0: Self = Self(0x0600);
    /// Windows 10.
    pub const V6_2: Self = Self(0x0602);

    /// The version that `QUERY_PROTOCOL_VERSION` offers. The revision behind it is the guest's own affair.
    pub fn decode(body: &[u8; BODY_LEN]) -> Self {
        Self(u16::from_le_bytes(bytes(body, 0)))
    }

    /// The body of `QUERY_PROTOCOL_VERSION`.
    pub fn encode(self) -> [u8; BODY_LEN] {
        let mut body = [0; BODY_LEN];
        put(&mut body, 0, &self.0.to_le_bytes());
        body
    }

    /// Whether the layouts of this crate are this version's.
    pub fn is_known(self) -> bool {
        [Self::V5_1, Self::V6_0, Self::V6_2].contains(&self)
    }
}

/// Flags of [`Properties`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PropertyFlags(pub u32);

impl PropertyFlags {
    /// Sub-channels may be asked for.
    pub const MULTI_CHANNEL: Self = Self(1);
}

/// What the provider tells about the channel, in the answer to `QUERY_PROPERTIES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Properties {
    /// Sub-channels that the guest may ask for.
    pub max_sub_channels: u16,
    /// What the channel can do.
    pub flags: PropertyFlags,
    /// Largest transfer of one request in bytes. Linux rounds down to pages and takes no less than one.
    pub max_transfer_bytes: u32,
}

impl Properties {
    /// The body of the answer.
    pub fn encode(&self) -> [u8; BODY_LEN] {
        let mut body = [0; BODY_LEN];
        put(&mut body, 4, &self.max_sub_channels.to_le_bytes());
        put(&mut body, 8, &self.flags.0.to_le_bytes());
        put(&mut body, 12, &self.max_transfer_bytes.to_le_bytes());
        body
    }

    /// Reads the body of an answer, as a guest does.
    pub fn decode(body: &[u8; BODY_LEN]) -> Self {
        Self {
            max_sub_channels: u16::from_le_bytes(bytes(body, 4)),
            flags: PropertyFlags(u32::from_le_bytes(bytes(body, 8))),
            max_transfer_bytes: u32::from_le_bytes(bytes(body, 12)),
        }
    }
}

/// How many sub-channels `CREATE_SUB_CHANNELS` asks for.
pub fn sub_channel_count(body: &[u8; BODY_LEN]) -> u16 {
    u16::from_le_bytes(bytes(body, 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{NtStatus, Packet};

    #[test]
    fn properties_lie_where_a_guest_looks() {
        let properties = Properties {
            max_sub_channels: 0x0102,
            flags: PropertyFlags::MULTI_CHANNEL,
            max_transfer_bytes: 0x0004_0000,
        };
        let mut packet = Packet::answer(NtStatus::SUCCESS);
        packet.body = properties.encode();
        let payload = packet.encode();
        assert_eq!(payload[16..18], [0x02, 0x01]);
        assert_eq!(payload[20..24], [1, 0, 0, 0]);
        assert_eq!(payload[24..28], [0, 0, 4, 0]);
        assert_eq!(Properties::decode(&packet.body), properties);
    }

    #[test]
    fn versions_of_other_layouts_are_unknown() {
        assert!(Version::decode(&Version::V6_2.encode()).is_known());
        assert!(Version::V5_1.is_known());
        for other in [0x0200, 0x0402, 0x0502, 0x0601, 0x0603, 0] {
            assert!(!Version(other).is_known());
        }
    }
}
