//! What the hypervisor and the parent's user space say to each other: the control channel, the slots, and the pages
//! that they share.
//!
//! Both are VMBus channels of our own classes, reached through Debian's `uio_hv_generic`. The control channel belongs
//! to the daemon, a slot to the worker of one child. A *session* is the time in which the two sides understand each
//! other, numbered by its [`Generation`]: on the control channel from HELLO on, on a slot from ATTACH to DETACH.
//!
//! - **Packets.** User space sends [`Request`]s as in-band packets that ask for a completion; each payload is a
//!   [`Header`] and a body. Each request has exactly one completion, with the same transaction id and type, whose body
//!   begins with a status. Of its own accord the hypervisor sends [`SessionNotice`] alone.
//! - **Event area** ([`event`]): pages of the parent in which the hypervisor leaves state for the worker.
//! - **Signal page** ([`signal`]): a page in which the worker leaves signals for the child.
//! - **Doorbell**: the interrupt of the channel says no more than "look".
//!
//! Numbers are little endian. Reserved fields are 0 and checked.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod completion;
pub mod event;
mod header;
mod notice;
mod request;
pub mod signal;
#[cfg(test)]
mod tests;

pub use completion::{
    Attached, CallDone, FIXED_MAX, Fixed, GpadlPagesDone, HelloDone, ListDone, ListEntry, NO_SLOT,
    OfferDone, PartitionState, SaveDone, SessionNotice, SessionOver, Status,
};
pub use header::{ChannelKind, Framing, Generation, Header, OfferData, Type, is_callers, split};
pub use notice::{NOTICE_WORDS, Notice, Opening, ResetCause};
pub use request::{
    Attach, AttachFlags, Call, Cancel, Detach, GpadlName, GpadlPagesFrom, Hello, List, NoArguments,
    OpenResult, RelidOnly, Request, RestorePart, SaveFrom, SlotAdd, Tag,
};
pub use tlfs::HvError;

/// Slots that there can be; their numbers are below. Each costs the parent's kernel 256 KiB for good.
pub const SLOTS: u32 = 200;

/// In HELLO and in the user data of our offers: the two sides mean this protocol.
pub const MAGIC: u32 = 0x2643_68CC;
/// Both sides must have the same one.
pub const MAJOR: u16 = 1;
/// The lower one of the two sides counts.
pub const MINOR: u16 = 0;
/// The longest packet either way, descriptor included, trailer not.
pub const MAX_PACKET_BYTES: usize = 4224;
/// Largest input and largest output of a CALL.
pub const MAX_CALL_BYTES: usize = 4096;
/// Most page numbers in one answer to GPADL_PAGES.
pub const MAX_GPADL_PAGES: usize = 510;
/// Most bytes of state in one VMBUS_SAVE or VMBUS_RESTORE.
pub const MAX_STATE_BYTES: usize = 4088;
/// Most partitions in one answer to LIST.
pub const MAX_LIST_ENTRIES: usize = 64;
/// Pages of a ring with its control page, as `uio_hv_generic` makes them for a class that it does not know.
pub const RING_PAGES: usize = 17;
/// Pages of the GPADL of our channels: two rings.
pub const GPADL_PAGES: usize = 2 * RING_PAGES;
