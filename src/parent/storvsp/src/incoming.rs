//! What comes from the child, and the way back.

use storvsp_proto::PACKET_LEN;

/// A channel of the controller: 0 is the primary one, then its sub-channels by their index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Channel(pub u16);

impl Channel {
    /// The one that the handshake runs on.
    pub const PRIMARY: Self = Self(0);
}

/// The range of a GPA-direct packet, copied out of the ring.
#[derive(Clone, Copy, Debug)]
pub struct GpaRange<'a> {
    /// Bytes in the first page before the buffer.
    pub byte_offset: u32,
    /// Bytes of the buffer.
    pub byte_count: u32,
    /// Guest page numbers.
    pub pages: &'a [u64],
}

/// One packet, copied out of the ring: in-band when it has no range, GPA-direct when it has.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// Where it came from.
    pub channel: Channel,
    /// To be repeated in the completion.
    pub transaction_id: u64,
    /// Whether the packet asks for a completion.
    pub wants_completion: bool,
    /// What follows the descriptor and the ranges.
    pub payload: &'a [u8],
    /// The ranges of a GPA-direct packet.
    pub ranges: &'a [GpaRange<'a>],
}

/// The way back to the child. Calls come from any thread, several at once.
pub trait Link: Send + Sync {
    /// Sends a completion packet. A full ring is no reason to wait here, nor to drop it: keep it and send it when there
    /// is room. No more than [`crate::Config::max_in_flight`] commands, and one step of the handshake, can be kept.
    fn complete(&self, channel: Channel, transaction_id: u64, payload: &[u8; PACKET_LEN]);

    /// A request ended, with or without a completion: what was [`NotTaken::Full`](crate::NotTaken::Full) may be tried
    /// again.
    fn has_room(&self) {}

    /// Sends an in-band packet on the primary channel that asks for no completion, transaction id 0.
    fn notify(&self, payload: &[u8; PACKET_LEN]);

    /// Offers sub-channels 1 to `count` to the child. Its request for them was completed before.
    fn offer_sub_channels(&self, count: u16);
}
