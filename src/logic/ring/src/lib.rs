//! The two ends of a VMBus ring, over memory that the peer may change at any moment.
//!
//! [`Writer`] is the producer, [`Reader`] the consumer; a channel has one of each at either end. Both serve providers
//! in the parent's user space and the hypervisor as the far end of its own channels. The memory is behind [`RingMem`]:
//! [`Contiguous`] for a ring mapped in one piece, [`Paged`] for one that lies in scattered pages.
//!
//! **Trust.** Each end keeps its own index privately and never reads it back. What the peer writes is loaded once,
//! checked, then used: its index, and the copy of a packet's descriptor. An index out of range, or not a multiple of
//! 8, or a packet longer than what is in the ring, is [`Corrupt`]; that state stays, because nothing says where the
//! next packet would begin. An empty or a full ring is no error of the peer and is reported apart from it.
//!
//! **Signals.** Neither end sends one: the functions that publish an index say whether the peer must be told
//! ([`Signal`]). The rules are those of Linux's `drivers/hv/ring_buffer.c`:
//!
//! - The writer signals when its packet found the ring empty and the mask is 0.
//! - The reader signals when a blocked writer can go on: [`Control::PendingSendSize`](ring_proto::Control) is crossed.
//! - Before it sleeps, the reader [arms](Reader::arm) and the writer [waits for space](Writer::wait_for_space): both
//!   publish, pass a full barrier and look again. Therefore no wake-up is lost, as `tests/interleavings.rs` shows.
#![no_std]
#![forbid(unsafe_code)]

mod mem;
mod reader;
mod writer;

pub use mem::{Contiguous, ControlPage, DataPage, Paged, RingMem, reset};
pub use reader::{Armed, Packet, Reader};
pub use writer::{Outgoing, Space, WriteError, Writer, ring_bytes};

use ring_proto::Descriptor;

/// The smallest data area: one packet without payload, and the 8 bytes that stay free.
pub const MIN_DATA_BYTES: u32 = 40;
/// The largest data area. Sums of two offsets cannot overflow.
pub const MAX_DATA_BYTES: u32 = 1 << 30;

/// Whether the peer must be signalled now.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// It may sleep and wait for this.
    Needed,
    /// It does not wait, or does not wait for this.
    NotNeeded,
}

impl Signal {
    /// Whether it is [`Signal::Needed`].
    pub const fn is_needed(self) -> bool {
        matches!(self, Self::Needed)
    }

    /// Needed when one of the two is.
    pub const fn or(self, other: Self) -> Self {
        if self.is_needed() { self } else { other }
    }

    const fn needed_if(condition: bool) -> Self {
        if condition {
            Self::Needed
        } else {
            Self::NotNeeded
        }
    }
}

/// What the peer broke. The end that found it does nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Corrupt {
    /// The peer's index: out of range or not a multiple of 8.
    Index(u32),
    /// A packet shorter than its header, or longer than what the ring holds.
    Packet(Descriptor),
    /// A packet longer than this end takes.
    TooLong(Descriptor),
    /// Too few bytes for any packet.
    Fragment(u32),
}

/// A ring that cannot be used: the size of the data area is not a multiple of 8 or not in
/// [`MIN_DATA_BYTES`]..=[`MAX_DATA_BYTES`], or the index to go on from is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unusable;

/// Size of a data area and the arithmetic in it. Offsets are below the size.
#[derive(Clone, Copy, Debug)]
struct Area(u32);

impl Area {
    fn of(mem: &impl RingMem) -> Result<Self, Unusable> {
        let bytes = mem.data_bytes();
        if !bytes.is_multiple_of(8) || !(MIN_DATA_BYTES..=MAX_DATA_BYTES).contains(&bytes) {
            return Err(Unusable);
        }
        Ok(Self(bytes))
    }

    const fn is_index(self, value: u32) -> bool {
        value < self.0 && value.is_multiple_of(8)
    }

    fn index(self, value: u32) -> Result<u32, Corrupt> {
        if self.is_index(value) {
            Ok(value)
        } else {
            Err(Corrupt::Index(value))
        }
    }

    /// `at` moved on by `bytes`, at most the size.
    const fn advance(self, at: u32, bytes: u32) -> u32 {
        let to = at.wrapping_add(bytes);
        if to >= self.0 {
            to.wrapping_sub(self.0)
        } else {
            to
        }
    }

    /// Bytes from `from` on to `to`.
    const fn distance(self, from: u32, to: u32) -> u32 {
        if to >= from {
            to.wrapping_sub(from)
        } else {
            self.0.wrapping_sub(from.wrapping_sub(to))
        }
    }
}
