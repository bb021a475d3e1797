//! Channels of the parent's VMBus in user space: Debian's `uio_hv_generic` hands channels of classes that Linux does not
//! know to whoever opens `/dev/uioN`.
//!
//! [`Bus`] finds and opens a channel, [`Channel`] is an open one: its two rings and its doorbell. [`Mapping`] is
//! memory that somebody else writes too, and the one place of the parent's programs that maps any.
//!
//! **Open each device once.** Opening one anew leaks memory of the kernel each time, and a process that maps a ring
//! whose device goes away keeps pages that belong to somebody else. So the daemon opens a channel once and passes
//! duplicates on. All duplicates share one event counter: one process waits for it.

mod bus;
mod channel;
mod mapping;

pub use bus::{Bus, BusError};
pub use channel::{Channel, ChannelError, Ring};
pub use mapping::{Mapping, Words};
