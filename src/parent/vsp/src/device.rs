//! What a device is to the bus.

use std::sync::Arc;

use vmbus_proto::Offer;

use crate::Output;

/// Called once, from any thread, when something is over.
pub type Done = Box<dyn FnOnce() + Send>;

/// A range of the child's memory that goes with a packet, copied out of the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// Bytes in the first page before the range.
    pub byte_offset: u32,
    /// Bytes of the range.
    pub byte_count: u32,
    /// Guest page numbers, as many as that takes.
    pub pages: Vec<u64>,
}

/// A packet of the child, copied out of the ring.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// To be repeated in the completion.
    pub transaction: u64,
    /// Whether the child waits for a completion.
    pub wants_completion: bool,
    /// The payload, with up to 7 bytes of padding.
    pub payload: &'a [u8],
    /// The ranges of a GPA-direct packet, none for an in-band one or where they make no sense.
    pub ranges: &'a [Range],
}

/// Why a packet was not taken. It was not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// Not now. [`Events::has_room`](crate::Events::has_room) follows when it may be tried again.
    Full,
    /// The channel is not open for the device.
    Closed,
}

/// A device of a child: what is behind its channel and its sub-channels. Calls come from the thread of the bus.
pub trait Device: Send {
    /// As what the primary channel is offered. Sub-channels have the same offer but for their index.
    fn offer(&self) -> Offer;

    /// The child opens channel `index`, 0 for the primary one. The device sends by `output` from now on. `false` refuses.
    fn open(&mut self, index: u16, output: Arc<Output>) -> bool;

    /// Takes a packet.
    ///
    /// # Errors
    /// [`NotTaken`].
    fn receive(&mut self, index: u16, packet: &Packet<'_>) -> Result<(), NotTaken>;

    /// The child closes channel `index`. `done` is called when nothing uses its output or memory that came with its
    /// packets.
    fn close(&mut self, index: u16, done: Done);

    /// All channels are void at once. `done` as for [`Device::close`].
    fn stop(&mut self, done: Done);

    /// Calls `done` when all packets taken so far are completed. The bus takes no more meanwhile.
    fn settle(&mut self, done: Done);
}
