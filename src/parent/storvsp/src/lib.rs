//! The storage provider: the parent's end of a child's synthetic SCSI controller.
//!
//! [`Provider`] is one controller. Whoever owns the rings hands it packets ([`Incoming`]) and carries what it says back
//! ([`Link`]); it knows nothing of rings, GPADLs or signals. Commands run on a [`disk::Pool`], against a
//! [`scsi::Target`], directly on the child's memory.
//!
//! What holds, whatever the child sends:
//!
//! - Every packet that was taken and wants a completion gets exactly one, on the channel it came from.
//! - A packet that cannot be taken now ([`NotTaken`]) was not looked at: it stays in the ring.
//! - A buffer lies in the child's memory as the worker knows it, or the request is refused.
//! - [`Provider::close`] and [`Provider::stop`] call back when no thread uses the rings or the child's memory for that
//!   channel any more, and not before.
//!
//! The protocol is that of `hv_storvsc`, versions 5.1 to 6.2; see `storvsp_proto`.
//!
//! Locks: the handshake's, then the flights'. Neither is held while an image or the [`Link`] is called.
#![forbid(unsafe_code)]

mod flight;
mod handshake;
mod incoming;
mod provider;

pub use incoming::{Channel, GpaRange, Incoming, Link};
pub use provider::{Config, NotTaken, Provider};
