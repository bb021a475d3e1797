//! Messages and event flags (TLFS, "Inter-Partition Communication").

/// Bytes of a message slot, header and payload (`HV_MESSAGE`).
pub const MESSAGE_BYTES: usize = 256;
/// Bytes of the longest payload.
pub const PAYLOAD_BYTES: usize = 240;
/// Synthetic interrupt sources of a VP, and so slots of a message page and areas of an event flags page.
pub const SINT_COUNT: usize = 16;
/// Event flags of one source.
pub const EVENT_FLAGS: u16 = 2048;
/// Bytes of the event flags of one source.
pub const EVENT_FLAGS_BYTES: usize = 256;

/// Offsets in a message slot, in bytes.
pub mod offset {
    /// Type, u32. 0 means that the slot is empty.
    pub const KIND: usize = 0;
    /// Size of the payload, u8.
    pub const PAYLOAD_SIZE: usize = 4;
    /// Flags, u8; see [`super::FLAG_PENDING`].
    pub const FLAGS: usize = 5;
    /// Sender: partition or port, u64.
    pub const ORIGIN: usize = 8;
    /// Payload, 240 bytes.
    pub const PAYLOAD: usize = 16;
}

/// Bit 0 of the flags: more messages wait for this slot, so the guest is to write EOM.
pub const FLAG_PENDING: u8 = 1;

/// `HV_MESSAGE_TYPE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct MessageType(pub u32);

impl MessageType {
    /// The slot is empty.
    pub const NONE: Self = Self(0);
    /// A timer in message mode expired.
    pub const TIMER_EXPIRED: Self = Self(0x8000_0010);

    /// Whether only the hypervisor may send such messages.
    pub const fn is_from_hypervisor(self) -> bool {
        self.0 & 1 << 31 != 0
    }
}

/// One message as it lies in a slot, but for the flags, which belong to the slot.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Message {
    kind: MessageType,
    payload_size: u8,
    flags: u8,
    reserved: u16,
    origin: u64,
    payload: [u8; PAYLOAD_BYTES],
}

const _: () = assert!(core::mem::size_of::<Message>() == MESSAGE_BYTES);
const _: () = assert!(core::mem::offset_of!(Message, payload_size) == offset::PAYLOAD_SIZE);
const _: () = assert!(core::mem::offset_of!(Message, flags) == offset::FLAGS);
const _: () = assert!(core::mem::offset_of!(Message, origin) == offset::ORIGIN);
const _: () = assert!(core::mem::offset_of!(Message, payload) == offset::PAYLOAD);

impl Message {
    /// No message: what an empty slot holds.
    pub const EMPTY: Self = Self {
        kind: MessageType::NONE,
        payload_size: 0,
        flags: 0,
        reserved: 0,
        origin: 0,
        payload: [0; PAYLOAD_BYTES],
    };

    /// A message of type `kind` from `origin` (a partition or a port). `None` when the payload is longer than
    /// 240 bytes or `kind` is the one that means empty.
    pub fn new(kind: MessageType, origin: u64, payload: &[u8]) -> Option<Self> {
        if kind == MessageType::NONE {
            return None;
        }
        let mut message = Self {
            kind,
            payload_size: u8::try_from(payload.len()).ok()?,
            origin,
            ..Self::EMPTY
        };
        message
            .payload
            .get_mut(..payload.len())?
            .copy_from_slice(payload);
        Some(message)
    }

    /// The message that tells of the expiry of timer `index` at `expiration`, written at `delivery`; both are
    /// reference times in units of 100 ns (`HV_TIMER_MESSAGE_PAYLOAD`).
    pub fn timer_expired(index: u32, expiration_100ns: u64, delivery_100ns: u64) -> Self {
        let mut payload = [0; PAYLOAD_BYTES];
        let fields = u128::from(index) | u128::from(expiration_100ns) << 64;
        for (to, from) in payload.iter_mut().zip(
            fields
                .to_le_bytes()
                .into_iter()
                .chain(delivery_100ns.to_le_bytes()),
        ) {
            *to = from;
        }
        Self {
            kind: MessageType::TIMER_EXPIRED,
            payload_size: 24,
            payload,
            ..Self::EMPTY
        }
    }

    /// The type, never [`MessageType::NONE`] for what [`Message::new`] made.
    pub const fn kind(&self) -> MessageType {
        self.kind
    }

    /// Partition or port that sent it.
    pub const fn origin(&self) -> u64 {
        self.origin
    }

    /// The payload, 0 to 240 bytes.
    pub fn payload(&self) -> &[u8] {
        self.payload
            .get(..usize::from(self.payload_size))
            .unwrap_or(&self.payload)
    }

    /// The whole message as it lies in a page of its own, flags clear.
    pub fn image(&self) -> [u8; MESSAGE_BYTES] {
        // What `new` and `timer_expired` left behind the payload is 0.
        let mut image = [0; MESSAGE_BYTES];
        let (header, payload) = image.split_at_mut(offset::PAYLOAD);
        header.copy_from_slice(&self.header(0).to_le_bytes());
        payload.copy_from_slice(&self.payload);
        image
    }

    /// Bytes 4 to 15 of the slot: everything of the header but the type, with `flags`.
    pub const fn header_tail(&self, flags: u8) -> [u8; 12] {
        let [_, _, _, _, tail @ ..] = self.header(flags).to_le_bytes();
        tail
    }

    /// The header as a number whose low byte comes first in the slot.
    const fn header(&self, flags: u8) -> u128 {
        self.kind.0 as u128
            | (self.payload_size as u128) << (8 * offset::PAYLOAD_SIZE)
            | (flags as u128) << (8 * offset::FLAGS)
            | (self.origin as u128) << (8 * offset::ORIGIN)
    }
}

impl Default for Message {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl core::fmt::Debug for Message {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "Message({:#x} from {:#x}, {} bytes)",
            self.kind.0, self.origin, self.payload_size
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_of_241_bytes_makes_no_message() {
        assert!(Message::new(MessageType(1), 0, &[0; 241]).is_none());
        assert_eq!(
            Message::new(MessageType(1), 0, &[7; 240]).map(|m| m.payload().len()),
            Some(240)
        );
        assert!(Message::new(MessageType::NONE, 0, &[]).is_none());
    }

    #[test]
    fn a_timer_message_has_index_expiration_and_delivery() {
        let message = Message::timer_expired(3, 0x1122, 0x3344);
        let mut expected = [0; 24];
        expected[0] = 3;
        expected[8..10].copy_from_slice(&[0x22, 0x11]);
        expected[16..18].copy_from_slice(&[0x44, 0x33]);
        assert_eq!(message.payload(), expected);
    }

    #[test]
    fn the_header_carries_size_flags_and_origin() {
        let message = Message::new(MessageType(1), 0x0102_0304_0506_0708, &[0; 9]).unwrap();
        assert_eq!(
            message.header_tail(FLAG_PENDING),
            [9, 1, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1]
        );
    }
}
