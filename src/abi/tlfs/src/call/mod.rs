//! Call codes, the control and result words, and the parameters of every call (TLFS, "Hypercall Interface").
//!
//! The parameters are blocks with `decode` and `encode`. Bytes that the specification reserves must be zero;
//! padding that Linux does not clear may be anything.

use crate::{HvError, Reader};

mod guest;
mod interrupt;
mod memory;
mod partition;
mod port;
mod vp;

#[cfg(test)]
mod tests;

pub use guest::*;
pub use interrupt::*;
pub use memory::*;
pub use partition::*;
pub use port::*;
pub use vp::*;

/// Number of a hypercall, bits 15:0 of the control word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct CallCode(pub u16);

macro_rules! codes {
    ($($name:ident = $value:literal,)*) => {
        /// The codes by the names of their calls.
        #[allow(missing_docs, reason = "named as in the TLFS")]
        impl CallCode { $(pub const $name: Self = Self($value);)* }
    };
}

codes! {
    FLUSH_VIRTUAL_ADDRESS_SPACE = 0x0002,
    FLUSH_VIRTUAL_ADDRESS_LIST = 0x0003,
    NOTIFY_LONG_SPIN_WAIT = 0x0008,
    SEND_SYNTHETIC_CLUSTER_IPI = 0x000B,
    FLUSH_VIRTUAL_ADDRESS_SPACE_EX = 0x0013,
    FLUSH_VIRTUAL_ADDRESS_LIST_EX = 0x0014,
    SEND_SYNTHETIC_CLUSTER_IPI_EX = 0x0015,
    CREATE_PARTITION = 0x0040,
    INITIALIZE_PARTITION = 0x0041,
    FINALIZE_PARTITION = 0x0042,
    DELETE_PARTITION = 0x0043,
    GET_PARTITION_PROPERTY = 0x0044,
    SET_PARTITION_PROPERTY = 0x0045,
    GET_PARTITION_ID = 0x0046,
    GET_NEXT_CHILD_PARTITION = 0x0047,
    DEPOSIT_MEMORY = 0x0048,
    WITHDRAW_MEMORY = 0x0049,
    MAP_GPA_PAGES = 0x004B,
    UNMAP_GPA_PAGES = 0x004C,
    INSTALL_INTERCEPT = 0x004D,
    CREATE_VP = 0x004E,
    DELETE_VP = 0x004F,
    GET_VP_REGISTERS = 0x0050,
    SET_VP_REGISTERS = 0x0051,
    TRANSLATE_VIRTUAL_ADDRESS = 0x0052,
    READ_GPA = 0x0053,
    WRITE_GPA = 0x0054,
    CLEAR_VIRTUAL_INTERRUPT = 0x0056,
    DELETE_PORT = 0x0058,
    DISCONNECT_PORT = 0x005B,
    POST_MESSAGE = 0x005C,
    SIGNAL_EVENT = 0x005D,
    MAP_STATS_PAGE = 0x006C,
    UNMAP_STATS_PAGE = 0x006D,
    NOTIFY_PORT_RING_EMPTY = 0x008B,
    REGISTER_INTERCEPT_RESULT = 0x0091,
    ASSERT_VIRTUAL_INTERRUPT = 0x0094,
    CREATE_PORT = 0x0095,
    CONNECT_PORT = 0x0096,
    START_VIRTUAL_PROCESSOR = 0x0099,
    GET_VP_INDEX_FROM_APIC_ID = 0x009A,
    SIGNAL_EVENT_DIRECT = 0x00C0,
    POST_MESSAGE_DIRECT = 0x00C1,
    GET_GPA_PAGES_ACCESS_STATES = 0x00C9,
    MAP_VP_STATE_PAGE = 0x00E1,
    UNMAP_VP_STATE_PAGE = 0x00E2,
    GET_VP_STATE = 0x00E3,
    SET_VP_STATE = 0x00E4,
    GET_VP_CPUID_VALUES = 0x00F4,
    GET_PARTITION_PROPERTY_EX = 0x0101,
    MAP_STATS_PAGE_2 = 0x0131,
    EXT_QUERY_CAPABILITIES = 0x8001,
}

/// The control word: RCX, or EDX:EAX of a 32-bit caller (TLFS, "Hypercall Inputs").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Control(pub u64);

impl Control {
    /// Bits 30:27, 31 (nested), 47:44 and 63:60, which a caller of ours leaves zero.
    pub const RESERVED: u64 = 0xF << 27 | 1 << 31 | 0xF << 44 | 0xF << 60;
    /// Bit 16: the input is in registers.
    pub const FAST: u64 = 1 << 16;
    /// Bits 26:17: size of the variable header.
    pub const VARIABLE_HEADER: u64 = 0x3FF << 17;
    /// Bits 43:32: number of elements.
    pub const REP_COUNT: u64 = 0xFFF << 32;
    /// Bits 59:48: the element to go on with.
    pub const REP_START: u64 = 0xFFF << 48;

    /// A simple call without variable header.
    pub const fn simple(code: CallCode) -> Self {
        Self(code.0 as u64)
    }

    /// The call.
    pub const fn code(self) -> CallCode {
        CallCode(self.0 as u16)
    }

    /// Whether the input is in registers.
    pub const fn is_fast(self) -> bool {
        self.0 & Self::FAST != 0
    }

    /// Size of the variable header in bytes, 0 to 8184.
    pub const fn variable_header_bytes(self) -> usize {
        ((self.0 & Self::VARIABLE_HEADER) >> 17) as usize * 8
    }

    /// Number of elements, 0 to 4095.
    pub const fn rep_count(self) -> u16 {
        ((self.0 & Self::REP_COUNT) >> 32) as u16
    }

    /// The element to go on with, 0 to 4095.
    pub const fn rep_start(self) -> u16 {
        ((self.0 & Self::REP_START) >> 48) as u16
    }

    /// The same call, to go on with element `start` (its low 12 bits).
    pub const fn with_rep_start(self, start: u16) -> Self {
        Self((self.0 & !Self::REP_START) | (((start & 0xFFF) as u64) << 48))
    }

    /// Whether a reserved bit is set.
    pub const fn has_reserved_bits(self) -> bool {
        self.0 & Self::RESERVED != 0
    }
}

/// The result word: RAX, or EDX:EAX of a 32-bit caller (TLFS, "Hypercall Outputs").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct ResultWord(pub u64);

impl ResultWord {
    /// Outcome of a call after `reps_done` elements (12 bits), counted from element 0 of the call.
    pub const fn new(result: Result<(), HvError>, reps_done: u16) -> Self {
        let status = match result {
            Ok(()) => crate::status::SUCCESS,
            Err(error) => error.0,
        };
        Self(status as u64 | ((reps_done & 0xFFF) as u64) << 32)
    }

    /// The status: 0, or the number of an [`HvError`].
    pub const fn status(self) -> u16 {
        self.0 as u16
    }

    /// Elements done, counted from element 0 of the call.
    pub const fn reps_done(self) -> u16 {
        ((self.0 >> 32) & 0xFFF) as u16
    }
}

/// Number of a connection, the sender's name for a port. 32 bits wide on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct ConnectionId(pub u32);

/// `HvCallPostMessage`, checked: the payload is present and at most 240 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PostMessage<'a> {
    /// Where to.
    pub connection: ConnectionId,
    /// The type that the receiver will see. The hypervisor's own range (bit 31) is refused.
    pub kind: crate::MessageType,
    /// 0 to 240 bytes.
    pub payload: &'a [u8],
}

impl<'a> PostMessage<'a> {
    /// Size of the parameter block in bytes.
    pub const INPUT_BYTES: usize = 256;

    /// Reads the parameter block.
    ///
    /// # Errors
    /// [`HvError::INVALID_PARAMETER`] when the payload is longer than 240 bytes, or the type is 0 (an empty
    /// slot) or of the hypervisor's own range.
    pub fn decode(input: &'a [u8]) -> Result<Self, HvError> {
        let mut r = Reader::new(input);
        let connection = ConnectionId(r.u32()?);
        r.skip(4)?; // padding
        let kind = crate::MessageType(r.u32()?);
        let len = r.u32()? as usize;
        if len > crate::message::PAYLOAD_BYTES
            || kind == crate::MessageType::NONE
            || kind.is_from_hypervisor()
        {
            return Err(HvError::INVALID_PARAMETER);
        }
        Ok(Self {
            connection,
            kind,
            payload: r.take(len)?,
        })
    }
}

/// `HvCallSignalEvent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalEvent {
    /// Where to.
    pub connection: ConnectionId,
    /// Flag within the port's range of flags.
    pub flag: u16,
}

impl SignalEvent {
    /// Size of the parameter block in bytes.
    pub const INPUT_BYTES: usize = 8;

    /// Reads the parameter block. The two reserved bytes are ignored.
    ///
    /// # Errors
    /// [`HvError::INVALID_PARAMETER`] when `input` is too short.
    pub fn decode(input: &[u8]) -> Result<Self, HvError> {
        let mut r = Reader::new(input);
        Ok(Self {
            connection: ConnectionId(r.u32()?),
            flag: r.u16()?,
        })
    }
}

#[cfg(test)]
mod words {
    use super::*;
    use crate::MessageType;
    use proptest::prelude::*;

    #[test]
    fn the_fields_of_the_control_word_are_where_the_specification_has_them() {
        let c = Control(0x0ABC_0123_0000_005C | 1 << 16 | 5 << 17);
        assert_eq!(c.code(), CallCode::POST_MESSAGE);
        assert!(c.is_fast());
        assert_eq!(c.variable_header_bytes(), 40);
        assert_eq!(c.rep_count(), 0x123);
        assert_eq!(c.rep_start(), 0xABC);
        assert!(!c.has_reserved_bits());
        assert_eq!(
            c.with_rep_start(0x001).0,
            0x0001_0123_0000_005C | 1 << 16 | 5 << 17
        );
    }

    #[test]
    fn the_fields_and_the_reserved_bits_make_up_the_whole_word() {
        let fields = 0xFFFF
            | Control::FAST
            | Control::VARIABLE_HEADER
            | Control::REP_COUNT
            | Control::REP_START;
        assert_eq!(fields ^ Control::RESERVED, u64::MAX);
        assert_eq!(fields & Control::RESERVED, 0);
    }

    #[test]
    fn a_result_word_carries_status_and_progress() {
        let word = ResultWord::new(Err(HvError::INSUFFICIENT_MEMORY), 7);
        assert_eq!(word.0, 0x0000_0007_0000_000B);
        assert_eq!(ResultWord::new(Ok(()), 0).0, 0);
    }

    #[test]
    fn a_message_of_241_bytes_is_refused() {
        let mut input = [0u8; 256];
        input[8] = 1;
        input[12] = 241;
        assert_eq!(PostMessage::decode(&input), Err(HvError::INVALID_PARAMETER));
        input[12] = 240;
        assert_eq!(
            PostMessage::decode(&input).map(|m| m.payload.len()),
            Ok(240)
        );
    }

    #[test]
    fn a_message_of_a_type_that_means_empty_or_hypervisor_is_refused() {
        let mut input = [0u8; 256];
        assert_eq!(PostMessage::decode(&input), Err(HvError::INVALID_PARAMETER));
        input[11] = 0x80;
        input[8] = 0x10;
        assert_eq!(PostMessage::decode(&input), Err(HvError::INVALID_PARAMETER));
        input[11] = 0;
        assert_eq!(
            PostMessage::decode(&input).map(|m| m.kind),
            Ok(MessageType(0x10))
        );
    }

    proptest! {
        #[test]
        fn decoding_any_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(message) = PostMessage::decode(&bytes) {
                prop_assert!(message.payload.len() <= 240);
            }
            let _ = SignalEvent::decode(&bytes);
        }
    }
}
