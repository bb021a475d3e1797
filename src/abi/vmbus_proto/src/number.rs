//! Numbers of the protocol as types.

use tlfs::wire::open_fields;

/// Number of a channel in one guest (`CHILD_RELID`), 1 to 2047 and the number of its event flag. 0 is no channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Relid(pub u32);

/// Number that a guest gives to a GPADL. 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct GpadlHandle(pub u32);

/// Type of a channel message (`CHANNELMSG_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct MessageType(pub u32);

/// Version of the protocol: major << 16 | minor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Version(pub u32);

open_fields! { Relid: u32; GpadlHandle: u32; MessageType: u32; Version: u32; }

impl Version {
    /// The oldest that the server speaks, and the oldest that Linux 6.1 and later do.
    pub const V4_0: Self = Self(0x4_0000);
    /// A guest may move a channel to another VP.
    pub const V4_1: Self = Self(0x4_0001);
    /// Contact goes through a connection of its own and names a SINT.
    pub const V5_0: Self = Self(0x5_0000);
    /// No rule that concerns the server.
    pub const V5_1: Self = Self(0x5_0001);
    /// No rule that concerns the server.
    pub const V5_2: Self = Self(0x5_0002);
    /// A guest waits for the answer when it moves a channel. The newest that the server speaks.
    pub const V5_3: Self = Self(0x5_0003);

    /// Whether the server speaks it.
    pub const fn is_supported(self) -> bool {
        matches!(
            self,
            Self::V4_0 | Self::V4_1 | Self::V5_0 | Self::V5_1 | Self::V5_2 | Self::V5_3
        )
    }
}

macro_rules! types {
    ($($name:ident = $value:literal;)*) => {
        #[allow(missing_docs, reason = "named as in the protocol")]
        impl MessageType {
            $(pub const $name: Self = Self($value);)*
        }
    };
}

types! {
    OFFER_CHANNEL = 1;
    RESCIND_CHANNEL_OFFER = 2;
    REQUEST_OFFERS = 3;
    ALL_OFFERS_DELIVERED = 4;
    OPEN_CHANNEL = 5;
    OPEN_CHANNEL_RESULT = 6;
    CLOSE_CHANNEL = 7;
    GPADL_HEADER = 8;
    GPADL_BODY = 9;
    GPADL_CREATED = 10;
    GPADL_TEARDOWN = 11;
    GPADL_TORNDOWN = 12;
    RELID_RELEASED = 13;
    INITIATE_CONTACT = 14;
    VERSION_RESPONSE = 15;
    UNLOAD = 16;
    UNLOAD_RESPONSE = 17;
    TL_CONNECT_REQUEST = 21;
    MODIFY_CHANNEL = 22;
    TL_CONNECT_RESULT = 23;
    MODIFY_CHANNEL_RESPONSE = 24;
}
