//! The providers' end of a child's VMBus: offers, channels, rings, and the devices behind them.
//!
//! The VMBus server of a child is in the hypervisor. It tells a worker what concerns it by notices, and the worker answers
//! by requests ([`Server`]). [`Bus`] is all that the worker has of it: it belongs to one thread, which hands it notices
//! and signals and lets it [work](Bus::work). Devices ([`Device`]) may complete requests from threads of their own,
//! through the [`Output`] of a channel.
//!
//! | | |
//! |---|---|
//! | [`Bus`] | which channels there are, and in what state |
//! | `Input` | a channel's ring from the child: packets for the device |
//! | [`Output`] | the ring to the child: packets of the device, those that found no room included |
//! | [`GuestRing`] | a ring in pages of the child's RAM |
//! | [`Device`] | what a class of devices does with packets; [`Scsi`] is one |
//!
//! What holds, whatever the child does:
//!
//! - A packet that the device cannot take stays in the ring; one that the child has no room for waits here. Nothing is
//!   dropped while the channel is open.
//! - CLOSE, GPADL_TEARDOWN and RESET are answered when the device has let go of the channel's rings and of the child's
//!   memory, and the rings are unmapped.
//! - A child that breaks a ring loses that channel until it opens it anew, and nobody else notices.
//!
//! Locks: each [`Output`] has one, and nothing is called while it is held.
#![forbid(unsafe_code)]

mod bus;
mod channel;
mod device;
mod events;
mod input;
mod memory;
mod output;
mod scsi;
mod server;
#[cfg(test)]
mod tests;

pub use bus::Bus;
pub use device::{Device, Done, NotTaken, Packet, Range};
pub use events::{Events, Wake};
pub use memory::GuestRing;
pub use output::{Output, SignalChild};
pub use scsi::{Scsi, ScsiConfig};
pub use server::{BusError, GpadlPages, Server, ServerError};
