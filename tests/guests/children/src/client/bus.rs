//! VMBus as a guest speaks it, without a driver: messages by posts, answers out of the message slot.

use alloc::vec::Vec;

use machine::insn;
use tlfs::{CallCode, HvError, msr};
use vmbus_proto::{
    GpadlHandle, GpadlHeader, InitiateContact, MessageType, OfferChannel, OpenChannel, Relid,
    Version,
};

use super::{call, port, synic};
use crate::arena;

/// Source of the bus, Linux's.
pub const SINT: u8 = 2;
/// Its vector.
pub const VECTOR: u8 = 0xCD;
/// Connection of contact.
const CONTACT: u32 = 4;
/// How long an answer may take, in microseconds.
const PATIENCE: u64 = 2_000_000;
/// Page numbers in the first message of a GPADL, and in the others.
const FIRST_PAGES: usize = 26;
const MORE_PAGES: usize = 28;

/// The parent's connection to its server.
pub struct Bus {
    slot: u64,
    events: u64,
    connection: u32,
}

/// A message of the server: its type and its body.
pub type Answer = (MessageType, Vec<u8>);

/// The payload of a channel message.
pub fn message(kind: MessageType, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 + body.len());
    bytes.extend_from_slice(&u64::from(kind.0).to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// The contact of a guest that wants messages at [`SINT`] of VP 0.
pub fn contact() -> [u8; InitiateContact::BYTES] {
    InitiateContact {
        version: Version::V5_3,
        target: SINT.into(),
        ..InitiateContact::default()
    }
    .encode()
}

/// The word at `at` of a body.
pub fn word(body: &[u8], at: usize) -> u32 {
    body.get(at * 4..)
        .and_then(|rest| rest.first_chunk())
        .map_or(u32::MAX, |bytes| u32::from_le_bytes(*bytes))
}

impl Bus {
    /// Sets the SynIC's source up and makes contact. `None` where the server does not answer as it should.
    pub fn connect() -> Option<Self> {
        let events = arena::frame();
        insn::wrmsr(msr::SIEFP, events | 1);
        insn::wrmsr(msr::SINT0 + u32::from(SINT), VECTOR.into());
        let bus = Self {
            slot: synic::page() + u64::from(SINT) * 256,
            events,
            connection: CONTACT,
        };
        bus.contact().then_some(bus)
    }

    /// Makes contact, once more where that was done.
    pub fn contact(&self) -> bool {
        self.post(MessageType::INITIATE_CONTACT, &contact()).is_ok()
            && self
                .answer_of(MessageType::VERSION_RESPONSE)
                .is_some_and(|body| word(&body, 0) & 0xFF == 1 && word(&body, 1) == CONTACT)
    }

    /// Posts a message.
    pub fn post(&self, kind: MessageType, body: &[u8]) -> Result<(), HvError> {
        port::post(self.connection, 1, &message(kind, body))
    }

    /// The next message of the server, or `None` after `us` microseconds.
    pub fn answer_within(&self, us: u64) -> Option<Answer> {
        let head = || insn::read_mmio32(self.slot);
        if !synic::sleep_until(us, || head() != 0) {
            return None;
        }
        let len = insn::read_mmio32(self.slot + 4) as usize & 0xFF;
        let mut bytes = Vec::with_capacity(240);
        for at in 0..30 {
            let word = insn::read_phys64(self.slot + 16 + at * 8);
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.truncate(len);
        insn::write_mmio32(self.slot, 0);
        if insn::read_mmio32(self.slot + 4) & 0x100 != 0 {
            insn::wrmsr(msr::EOM, 0);
        }
        let kind = MessageType(word(&bytes, 0));
        Some((kind, bytes.split_off(8.min(len))))
    }

    /// The body of the next message, if it is of type `kind`.
    pub fn answer_of(&self, kind: MessageType) -> Option<Vec<u8>> {
        let (found, body) = self.answer_within(PATIENCE)?;
        (found == kind).then_some(body)
    }

    /// Asks for offers: what comes until all were delivered.
    pub fn offers(&self) -> Vec<OfferChannel> {
        let mut offers = Vec::new();
        if self.post(MessageType::REQUEST_OFFERS, &[]).is_err() {
            return offers;
        }
        while let Some((kind, body)) = self.answer_within(PATIENCE) {
            if kind != MessageType::OFFER_CHANNEL {
                break;
            }
            let bytes = message(kind, &body);
            offers.extend(OfferChannel::decode(&bytes));
        }
        offers
    }

    /// Makes a GPADL of `pages` (addresses); the status in the answer.
    pub fn gpadl(&self, relid: Relid, handle: GpadlHandle, pages: &[u64]) -> Option<u32> {
        let header = GpadlHeader {
            relid,
            handle,
            range_bytes: 8 + 8 * pages.len() as u16,
            range_count: 1,
            byte_count: 4096 * pages.len() as u32,
            byte_offset: 0,
        };
        let (first, rest) = pages.split_at(pages.len().min(FIRST_PAGES));
        let numbers = |body: &mut Vec<u8>, pages: &[u64]| {
            for page in pages {
                body.extend_from_slice(&(page / 4096).to_le_bytes());
            }
        };
        let mut body = header.encode().to_vec();
        numbers(&mut body, first);
        self.post(MessageType::GPADL_HEADER, &body).ok()?;
        for piece in rest.chunks(MORE_PAGES) {
            let mut body = [0_u32, handle.0].map(u32::to_le_bytes).concat();
            numbers(&mut body, piece);
            self.post(MessageType::GPADL_BODY, &body).ok()?;
        }
        let answer = self.answer_of(MessageType::GPADL_CREATED)?;
        (word(&answer, 1) == handle.0).then(|| word(&answer, 2))
    }

    /// Opens a channel; the status in the answer.
    pub fn open(&self, relid: Relid, ring: GpadlHandle, downstream_page: u32) -> Option<u32> {
        let open = OpenChannel {
            relid,
            open_id: relid.0,
            ring,
            vp: 0,
            downstream_page,
            ..OpenChannel::default()
        };
        self.post(MessageType::OPEN_CHANNEL, &open.encode()).ok()?;
        let answer = self.answer_of(MessageType::OPEN_CHANNEL_RESULT)?;
        (word(&answer, 0) == relid.0).then(|| word(&answer, 2))
    }

    /// Closes a channel and takes its ring back. Whether that was answered.
    pub fn close(&self, relid: Relid, ring: GpadlHandle) -> bool {
        self.post(MessageType::CLOSE_CHANNEL, &relid.0.to_le_bytes())
            .is_ok()
            && self.teardown(relid, ring)
    }

    /// Takes a GPADL back. Whether that was answered.
    pub fn teardown(&self, relid: Relid, handle: GpadlHandle) -> bool {
        let body = [relid.0, handle.0].map(u32::to_le_bytes).concat();
        self.post(MessageType::GPADL_TEARDOWN, &body).is_ok()
            && self
                .answer_of(MessageType::GPADL_TORNDOWN)
                .is_some_and(|body| word(&body, 0) == handle.0)
    }

    /// Unloads. Whether that was answered.
    pub fn unload(&self) -> bool {
        self.post(MessageType::UNLOAD, &[]).is_ok()
            && self.answer_of(MessageType::UNLOAD_RESPONSE).is_some()
    }

    /// Takes the event flag of channel `relid`; whether it was set.
    pub fn take_event(&self, relid: Relid) -> bool {
        let at = self.events + u64::from(SINT) * 256 + u64::from(relid.0 / 64) * 8;
        let bit = 1 << (relid.0 % 64);
        let word = insn::read_phys64(at);
        insn::write_phys64(at, word & !bit);
        word & bit != 0
    }

    /// Lets go of the pages.
    pub fn leave(self) {
        insn::wrmsr(msr::SINT0 + u32::from(SINT), 1 << 16);
        insn::wrmsr(msr::SIEFP, 0);
        arena::free(self.events);
    }
}

/// Signals a channel through `connection`.
pub fn signal(connection: u32) -> Result<(), HvError> {
    call::fast(CallCode::SIGNAL_EVENT, connection.into(), 0)
}
