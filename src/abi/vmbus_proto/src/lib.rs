//! The channel protocol of VMBus: messages between a guest and the VMBus server, versions 4.0 to 5.3.
//!
//! Every message is a type, four bytes of padding and a body; all numbers are little endian. [`ClientMessage`] is what a
//! guest posts; it is sent an [`Answer`] or an [`OfferChannel`]. Rings and the packets in them are the crate `ring_proto`'s.
//!
//! Layouts and rules are those that Linux's `drivers/hv` and `include/linux/hyperv.h` follow; the specification of this
//! protocol is not public.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod client;
mod guid;
mod number;
mod offer;
mod server;
#[cfg(test)]
mod tests;

pub mod class;

pub use client::{
    ClientMessage, GpadlHeader, InitiateContact, MAX_GPADL_PAGES, ModifyChannel, OpenChannel,
    PageNumbers, TlConnect,
};
pub use guid::Guid;
pub use number::{GpadlHandle, MessageType, Relid, Version};
pub use offer::{Offer, OfferFlags, UserData};
pub use server::{Answer, OfferChannel, status};

/// Connections through which a guest posts to the VMBus server: contact up to version 4.1 and all that follows go
/// through the first; contact from 5.0 on goes through the second.
pub const MESSAGE_CONNECTIONS: [tlfs::call::ConnectionId; 2] =
    [tlfs::call::ConnectionId(1), tlfs::call::ConnectionId(4)];

/// Type of the synthetic message that carries a channel message, both ways.
pub const SYNTHETIC_MESSAGE_TYPE: tlfs::MessageType = tlfs::MessageType(1);

/// In place of a VP in [`OpenChannel`]: no interrupts.
pub const NO_VP: u32 = u32::MAX;
