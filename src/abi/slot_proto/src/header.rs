//! What every payload begins with.

use tlfs::wire::{Zero, blocks, choices, open_fields};
use tlfs::{HvError, Reader};
use vmbus_proto::UserData;

use crate::{MAGIC, MAJOR, MINOR};

/// Number of a session; 0 is none. No two sessions since the machine's start have the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Generation(pub u32);

impl Generation {
    /// No session.
    pub const NONE: Self = Self(0);
}

/// Type of a request and of its completion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Type(pub u16);

macro_rules! types {
    ($($name:ident = $value:literal: $doc:literal,)*) => {
        impl Type { $(#[doc = $doc] pub const $name: Self = Self($value);)* }
    };
}

types! {
    HELLO = 1: "Both channels: which protocol, and how much at a time.",
    CALL = 2: "Both channels: a hypercall.",
    CANCEL = 3: "Both channels: a CALL may stop.",
    SLOT_ADD = 16: "Control channel: one more slot.",
    ATTACH = 17: "Control channel: a slot becomes a partition's.",
    DETACH = 18: "Control channel: a slot's session ends.",
    LIST = 19: "Control channel: which partitions there are.",
    TAG = 20: "Control channel: a number to find a partition again.",
    OFFER = 32: "Slot: a channel for the child.",
    RESCIND = 33: "Slot: a channel is taken back.",
    OPEN_RESULT = 34: "Slot: answer to the notice OPEN.",
    CLOSE_DONE = 35: "Slot: answer to the notice CLOSE.",
    GPADL_PAGES = 36: "Slot: the pages of a GPADL.",
    GPADL_DONE = 37: "Slot: answer to the notice GPADL_TEARDOWN.",
    RESET_DONE = 38: "Slot: answer to the notice RESET, or unasked.",
    VMBUS_SAVE = 39: "Slot: a part of the VMBus server's state.",
    VMBUS_RESTORE = 40: "Slot: a part of that state comes back.",
    SESSION_NOTICE = 0x100: "From the hypervisor: [`SessionNotice`](crate::SessionNotice).",
}

open_fields! { Generation: u32; Type: u16; }

choices! {
    /// Which of the two.
    ChannelKind: u32 {
        /// The control channel.
        Control = 0,
        /// A slot.
        Slot = 1,
    }
}

blocks! {
    /// The first 16 bytes of every payload, both ways.
    Header[16] {
        kind: Type,
        /// Length of this header: 16, or more from a newer sender.
        header_bytes: u16,
        /// The session that the packet belongs to.
        generation: Generation,
        /// Length of what follows the header, without padding.
        body_bytes: u32,
        flags: Zero<4>,
    }

    /// What our offers carry as user data, for those who look at them.
    OfferData[16] {
        magic: u32, major: u16, minor: u16, kind: ChannelKind,
        /// Number of the slot, 0 for the control channel.
        slot: u32,
    }
}

impl Header {
    /// Header of a body of `body_bytes`.
    pub const fn new(kind: Type, generation: Generation, body_bytes: u32) -> Self {
        Self {
            kind,
            header_bytes: Self::BYTES as u16,
            generation,
            body_bytes,
            flags: Zero,
        }
    }
}

impl OfferData {
    /// Of this version.
    pub const fn new(kind: ChannelKind, slot: u32) -> Self {
        Self {
            magic: MAGIC,
            major: MAJOR,
            minor: MINOR,
            kind,
            slot,
        }
    }

    /// As it stands in the offer.
    pub fn user_data(&self) -> UserData {
        let mut user = UserData::default();
        if let Some(head) = user.0.first_chunk_mut() {
            *head = self.encode();
        }
        user
    }
}

/// The payload is not of the form header, body, padding. Nobody can tell what it was meant to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framing;

/// Takes a payload apart, as it comes from the ring with up to 7 bytes of padding.
///
/// # Errors
/// [`Framing`] when the lengths contradict each other or flags are set.
pub fn split(payload: &[u8]) -> Result<(Header, &[u8]), Framing> {
    let header = Header::decode(payload).map_err(|_: HvError| Framing)?;
    if usize::from(header.header_bytes) < Header::BYTES {
        return Err(Framing);
    }
    let mut rest = Reader::new(payload);
    rest.skip(usize::from(header.header_bytes))
        .map_err(|_| Framing)?;
    let body = rest.take(header.body_bytes as usize).map_err(|_| Framing)?;
    if rest.rest().len() >= 8 {
        return Err(Framing);
    }
    Ok((header, body))
}

/// Whether user space may use `transaction`: not 0, and bit 63, the hypervisor's own, is clear.
pub const fn is_callers(transaction: u64) -> bool {
    transaction != 0 && transaction >> 63 == 0
}
