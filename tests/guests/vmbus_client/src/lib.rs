//! A client of VMBus without drivers: messages and signals as they are on the wire.
#![no_std]

extern crate alloc;

use alloc::vec::Vec;

use addr::VpIndex;
use tlfs::CallCode;
use vmbus_proto::{
    GpadlHandle, GpadlHeader, InitiateContact, MessageType, ModifyChannel, OfferChannel,
    OpenChannel, Relid, TlConnect, Version,
};

/// SINT for messages and events, as in Linux.
pub const SINT: u8 = 2;
/// Page numbers in a GPADL's first message.
const FIRST_PAGES: usize = 26;
/// Page numbers in each of the others.
const NEXT_PAGES: usize = 28;

/// What a client calls its openings.
const OPEN_ID: u32 = 0x1234;

/// A message of the server.
#[derive(Clone, Copy)]
pub struct Said {
    /// Its type; `None` when the synthetic message is not a channel message.
    pub kind: Option<MessageType>,
    /// All of it.
    pub payload: [u8; 240],
    /// Bytes of it that count.
    pub len: usize,
}

impl Said {
    /// From the 256 bytes of a message slot.
    pub fn of(words: &[u64; 32]) -> Self {
        let mut payload = [0; 240];
        for (to, from) in payload.chunks_exact_mut(8).zip(&words[2..]) {
            to.copy_from_slice(&from.to_le_bytes());
        }
        let is_channel = words[0] as u32 == vmbus_proto::SYNTHETIC_MESSAGE_TYPE.0;
        let kind = MessageType(words[2] as u32);
        Self {
            kind: is_channel.then_some(kind),
            payload,
            len: usize::from((words[0] >> 32) as u8),
        }
    }

    /// Word `n` of the body.
    pub fn word(&self, n: usize) -> u64 {
        let at = 8 + n * 4;
        let bytes = self.payload.get(at..at + 4).filter(|_| at + 4 <= self.len);
        bytes.map_or(u64::MAX, |bytes| {
            u32::from_le_bytes(bytes.try_into().unwrap_or_default()).into()
        })
    }

    /// The offer, if it is one.
    pub fn offer(&self) -> Option<OfferChannel> {
        (self.kind == Some(MessageType::OFFER_CHANNEL) && self.len == OfferChannel::BYTES)
            .then(|| OfferChannel::decode(&self.payload).ok())
            .flatten()
    }
}

/// How a partition talks to its server.
pub trait Wire {
    /// HvCallPostMessage: its status.
    fn post(&mut self, connection: u32, kind: u32, payload: &[u8]) -> u64;
    /// What the server said next, or `None` when it says nothing for a while.
    fn take(&mut self) -> Option<Said>;
    /// HvCallSignalEvent: its status.
    fn signal(&mut self, connection: u32, flag: u16) -> u64;
    /// Whether an event flag of the SINT is set; it is cleared.
    fn take_flag(&mut self, number: u16) -> bool;
}

/// The input of HvCallPostMessage.
pub fn post_input(connection: u32, kind: u32, payload: &[u8]) -> Vec<u8> {
    let mut input = Vec::with_capacity(16 + payload.len());
    for word in [connection, 0, kind, payload.len() as u32] {
        input.extend_from_slice(&word.to_le_bytes());
    }
    input.extend_from_slice(payload);
    input
}

/// Code of HvCallPostMessage.
pub const POST: CallCode = CallCode::POST_MESSAGE;
/// Code of HvCallSignalEvent.
pub const SIGNAL: CallCode = CallCode::SIGNAL_EVENT;

/// A client.
pub struct Client<W> {
    /// Its way to the server.
    pub wire: W,
    /// The connection for everything but contact.
    pub connection: u32,
}

impl<W: Wire> Client<W> {
    /// Not connected.
    pub const fn new(wire: W) -> Self {
        Self {
            wire,
            connection: 4,
        }
    }

    /// Posts a channel message: the call's status.
    pub fn send(&mut self, kind: MessageType, body: &[u8]) -> u64 {
        let mut payload = Vec::with_capacity(8 + body.len());
        payload.extend_from_slice(&u64::from(kind.0).to_le_bytes());
        payload.extend_from_slice(body);
        self.wire.post(
            self.connection,
            vmbus_proto::SYNTHETIC_MESSAGE_TYPE.0,
            &payload,
        )
    }

    /// What the server said next, if that is of type `kind`.
    pub fn expect(&mut self, kind: MessageType) -> Option<Said> {
        self.wire.take().filter(|said| said.kind == Some(kind))
    }

    /// Makes contact: what the server answered within what it still had to say.
    pub fn contact(&mut self, version: Version) -> Option<Said> {
        let status = self.ask_for_contact(version);
        (status == 0).then(|| self.version()).flatten()
    }

    /// Asks for contact: the call's status.
    pub fn ask_for_contact(&mut self, version: Version) -> u64 {
        let is_new = version >= Version::V5_0;
        let body = InitiateContact {
            version,
            vp: VpIndex::new(0),
            target: if is_new { SINT.into() } else { 0x7000 },
            ..InitiateContact::default()
        };
        self.connection = if is_new { 4 } else { 1 };
        self.send(MessageType::INITIATE_CONTACT, &body.encode())
    }

    /// What the server answered to that. One message of the time before may be in the slot.
    pub fn version(&mut self) -> Option<Said> {
        (0..2).find_map(|_| self.expect(MessageType::VERSION_RESPONSE))
    }

    /// Asks for offers: all that come. `None` when the end of them does not.
    pub fn offers(&mut self) -> Option<Vec<OfferChannel>> {
        if self.send(MessageType::REQUEST_OFFERS, &[]) != 0 {
            return None;
        }
        let mut list = Vec::new();
        loop {
            let said = self.wire.take()?;
            match said.offer() {
                Some(offer) => list.push(offer),
                None => {
                    return (said.kind == Some(MessageType::ALL_OFFERS_DELIVERED)).then_some(list);
                }
            }
        }
    }

    /// Describes a GPADL of whole pages with as many messages as it needs: the status in the answer.
    pub fn gpadl(&mut self, relid: Relid, handle: GpadlHandle, pages: &[u64]) -> Option<u64> {
        let header = GpadlHeader {
            relid,
            handle,
            range_bytes: 8 + 8 * pages.len() as u16,
            range_count: 1,
            byte_count: 4096 * pages.len() as u32,
            byte_offset: 0,
        };
        let numbers = |pages: &[u64]| -> Vec<u8> {
            pages.iter().flat_map(|page| page.to_le_bytes()).collect()
        };
        let (first, rest) = pages.split_at(pages.len().min(FIRST_PAGES));
        let mut body = header.encode().to_vec();
        body.extend_from_slice(&numbers(first));
        let mut status = self.send(MessageType::GPADL_HEADER, &body);
        for part in rest.chunks(NEXT_PAGES) {
            let mut body = u64::from(handle.0).rotate_left(32).to_le_bytes().to_vec();
            body.extend_from_slice(&numbers(part));
            status |= self.send(MessageType::GPADL_BODY, &body);
        }
        let said = self.expect(MessageType::GPADL_CREATED)?;
        let is_it = said.word(0) == relid.0.into() && said.word(1) == handle.0.into();
        (status == 0 && is_it).then(|| said.word(2))
    }

    /// Opens a channel: the status in the answer.
    pub fn open(
        &mut self,
        relid: Relid,
        ring: GpadlHandle,
        downstream_page: u32,
        vp: u32,
    ) -> Option<u64> {
        let status = self.ask_to_open(relid, ring, downstream_page, vp);
        (status == 0).then(|| self.is_open(relid)).flatten()
    }

    /// Asks for a channel to be opened: the call's status.
    pub fn ask_to_open(
        &mut self,
        relid: Relid,
        ring: GpadlHandle,
        downstream_page: u32,
        vp: u32,
    ) -> u64 {
        let body = OpenChannel {
            relid,
            open_id: OPEN_ID,
            ring,
            vp,
            downstream_page,
            ..OpenChannel::default()
        };
        self.send(MessageType::OPEN_CHANNEL, &body.encode())
    }

    /// The status in the answer to that.
    pub fn is_open(&mut self, relid: Relid) -> Option<u64> {
        let said = self.expect(MessageType::OPEN_CHANNEL_RESULT)?;
        let is_it = said.word(0) == relid.0.into() && said.word(1) == OPEN_ID.into();
        is_it.then(|| said.word(2))
    }

    /// Closes a channel. There is no answer.
    pub fn close(&mut self, relid: Relid) -> u64 {
        self.send(MessageType::CLOSE_CHANNEL, &relid.0.to_le_bytes())
    }

    /// Wants a GPADL back.
    pub fn tear_down(&mut self, relid: Relid, handle: GpadlHandle) -> u64 {
        let body = [relid.0.to_le_bytes(), handle.0.to_le_bytes()].concat();
        self.send(MessageType::GPADL_TEARDOWN, &body)
    }

    /// Whether the server gives GPADL `handle` back next.
    pub fn is_torn_down(&mut self, handle: GpadlHandle) -> bool {
        self.expect(MessageType::GPADL_TORNDOWN)
            .is_some_and(|said| said.word(0) == handle.0.into())
    }

    /// Lets go of a channel's number.
    pub fn release(&mut self, relid: Relid) -> u64 {
        self.send(MessageType::RELID_RELEASED, &relid.0.to_le_bytes())
    }

    /// Moves a channel to another VP: the status in the answer, which versions from 5.3 on give.
    pub fn modify(&mut self, relid: Relid, vp: u32) -> Option<u64> {
        let body = ModifyChannel {
            relid,
            vp: VpIndex::new(vp),
        };
        if self.send(MessageType::MODIFY_CHANNEL, &body.encode()) != 0 {
            return None;
        }
        let said = self.expect(MessageType::MODIFY_CHANNEL_RESPONSE)?;
        (said.word(0) == relid.0.into()).then(|| said.word(1))
    }

    /// Asks for a socket, with a number to know the answer by: the call's status.
    pub fn ask_for_socket(&mut self, number: u64) -> u64 {
        let mut body = TlConnect::default();
        body.endpoint.0[..8].copy_from_slice(&number.to_le_bytes());
        self.send(MessageType::TL_CONNECT_REQUEST, &body.encode())
    }

    /// Unloads: whether the server answers.
    pub fn unload(&mut self) -> bool {
        self.send(MessageType::UNLOAD, &[]) == 0
            && (0..2).any(|_| self.expect(MessageType::UNLOAD_RESPONSE).is_some())
    }

    /// Whether the server says nothing.
    pub fn is_silent(&mut self) -> bool {
        self.wire.take().is_none()
    }
}
