//! The first page of a ring.

use bitflags::bitflags;

/// Size of the control page in bytes. The data area follows it.
pub const CONTROL_BYTES: usize = 4096;

/// A 32-bit field of the control page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Control {
    /// Where the producer writes next: offset in the data area, a multiple of 8. Written by the producer.
    WriteIndex = 0,
    /// Where the consumer reads next. Equal to the write index: the ring is empty. Written by the consumer.
    ReadIndex = 4,
    /// Not zero: the consumer wants no signals. Written by the consumer.
    InterruptMask = 8,
    /// Bytes that must be free before a blocked producer can go on; 0: it is not blocked. Written by the producer.
    PendingSendSize = 12,
    /// [`Features`]. Set when the channel opens.
    Features = 64,
    /// Not zero: the consumer is awake, looks by itself and wants no interrupt. Written by the consumer. VMBus has no such
    /// field: it is used in the rings to user space of our own channels, because the kernel clears
    /// [`InterruptMask`](Self::InterruptMask) each time that user space signals.
    Attended = 128,
}

impl Control {
    /// Offset in the control page in bytes.
    pub const fn offset(self) -> usize {
        self as usize
    }

    /// Index in the control page taken as words of 32 bits.
    pub const fn word(self) -> usize {
        self as usize / 4
    }
}

bitflags! {
    /// What the ends of a ring know. Other bits mean nothing.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Features: u32 {
        /// The producer uses [`Control::PendingSendSize`].
        const PENDING_SEND_SIZE = 1 << 0;
    }
}
