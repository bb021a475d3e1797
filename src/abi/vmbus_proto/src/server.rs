//! Messages that a guest is sent.

use tlfs::Writer;
use tlfs::wire::{Field, Zero, blocks};

use crate::{
    GpadlHandle, Guid, MessageType, Offer, OfferFlags, Relid, TlConnect, UserData, Version,
};

/// Statuses in answers.
pub mod status {
    /// Done.
    pub const SUCCESS: u32 = 0;
    /// Not done, for any reason.
    pub const FAILURE: u32 = 0x8000_FFFF;
    /// Nobody listens (`STATUS_CONNECTION_REFUSED`).
    pub const CONNECTION_REFUSED: u32 = 0xC000_0236;
}

/// Words in the body of the longest answer.
const ANSWER_WORDS: usize = 9;

blocks! {
    /// `CHANNELMSG_OFFERCHANNEL`, whole.
    OfferChannel[196] {
        kind: MessageType, padding: Zero<4>, class: Guid, instance: Guid, reserved: Zero<16>, flags: OfferFlags,
        mmio_megabytes: u16, user: UserData, sub_channel: u16, reserved_2: Zero<2>, relid: Relid,
        /// 0xFF for none.
        monitor_id: u8, /// False: the guest signals by a call.
        is_monitored: bool, /// 1: the guest leaves the interrupt page alone.
        is_dedicated: u16, /// For `HvCallSignalEvent`.
        connection: u32,
    }
    /// Any other message: its type, how many words its body has, and those.
    Answer[44] { kind: MessageType, len: u32, words: [u32; ANSWER_WORDS], }
}

impl OfferChannel {
    /// `offer` as channel `relid`, which the guest signals through `connection`.
    pub fn new(offer: &Offer, relid: Relid, connection: u32) -> Self {
        Self {
            kind: MessageType::OFFER_CHANNEL,
            class: offer.class,
            instance: offer.instance,
            flags: offer.flags,
            mmio_megabytes: offer.mmio_megabytes,
            user: offer.user,
            sub_channel: offer.sub_channel,
            relid,
            monitor_id: 0xFF,
            is_dedicated: 1,
            connection,
            ..Self::default()
        }
    }
}

impl Answer {
    fn of<const N: usize>(kind: MessageType, body: [u32; N]) -> Self {
        let mut words = [0; ANSWER_WORDS];
        words.iter_mut().zip(body).for_each(|(to, from)| *to = from);
        Self {
            kind,
            len: N as u32,
            words,
        }
    }

    /// The payload of the synthetic message: as many bytes as the second value says.
    pub fn payload(&self) -> ([u8; 8 + ANSWER_WORDS * 4], usize) {
        let mut bytes = [0; 8 + ANSWER_WORDS * 4];
        let mut w = Writer::new(&mut bytes);
        [self.kind.0, 0].write(&mut w);
        self.words.write(&mut w);
        (bytes, 8 + 4 * (self.len as usize).min(ANSWER_WORDS))
    }

    /// `CHANNELMSG_RESCIND_CHANNELOFFER`.
    pub fn rescind(relid: Relid) -> Self {
        Self::of(MessageType::RESCIND_CHANNEL_OFFER, [relid.0])
    }

    /// `CHANNELMSG_ALLOFFERS_DELIVERED`.
    pub fn all_offers_delivered() -> Self {
        Self::of(MessageType::ALL_OFFERS_DELIVERED, [])
    }

    /// `CHANNELMSG_OPENCHANNEL_RESULT`.
    pub fn open_result(relid: Relid, open_id: u32, status: u32) -> Self {
        Self::of(MessageType::OPEN_CHANNEL_RESULT, [relid.0, open_id, status])
    }

    /// `CHANNELMSG_GPADL_CREATED`.
    pub fn gpadl_created(relid: Relid, handle: GpadlHandle, status: u32) -> Self {
        Self::of(MessageType::GPADL_CREATED, [relid.0, handle.0, status])
    }

    /// `CHANNELMSG_GPADL_TORNDOWN`.
    pub fn gpadl_torndown(handle: GpadlHandle) -> Self {
        Self::of(MessageType::GPADL_TORNDOWN, [handle.0])
    }

    /// `CHANNELMSG_VERSION_RESPONSE` to a guest that asked for `version`. From 5.0 on it names the connection for
    /// everything that follows.
    pub fn version_response(version: Version) -> Self {
        let word = if version < Version::V5_0 {
            version.0
        } else {
            crate::MESSAGE_CONNECTIONS[1].0
        };
        Self::of(
            MessageType::VERSION_RESPONSE,
            [version.is_supported().into(), word],
        )
    }

    /// `CHANNELMSG_UNLOAD_RESPONSE`.
    pub fn unload_response() -> Self {
        Self::of(MessageType::UNLOAD_RESPONSE, [])
    }

    /// `CHANNELMSG_TL_CONNECT_RESULT`.
    pub fn tl_connect_result(to: &TlConnect, status: u32) -> Self {
        let mut words = [0; ANSWER_WORDS];
        for (word, bytes) in words.iter_mut().zip(to.encode().as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        words[ANSWER_WORDS - 1] = status;
        Self::of(MessageType::TL_CONNECT_RESULT, words)
    }

    /// `CHANNELMSG_MODIFYCHANNEL_RESPONSE`.
    pub fn modify_response(relid: Relid, status: u32) -> Self {
        Self::of(MessageType::MODIFY_CHANNEL_RESPONSE, [relid.0, status])
    }
}

const _: () = assert!(TlConnect::BYTES == 4 * (ANSWER_WORDS - 1));
