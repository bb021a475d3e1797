//! What `vmms` and the worker of one child say to each other, and how it travels.
//!
//! The two ends of a [`Link`] are a pair of `SOCK_SEQPACKET` sockets. Each message is one packet of JSON; file descriptors
//! go with it (`SCM_RIGHTS`). The daemon sends [`ToWorker::Start`] once, with all files that the worker will ever have,
//! and hears [`FromWorker`]. What the worker says is not believed: it runs the child's devices, and may be in the child's
//! hands.
//!
//! A worker is the program `vmwp` with its end of the link as standard input ([`Link::into_socket`] into
//! `Command::stdin`), started as root without arguments: it becomes [`Start::identity`] itself, after it has left the
//! parent's namespaces.
//!
//! The end of `vmms` can be passed on to a later `vmms`: [`ToWorker::Report`] asks for the state of things. A worker
//! whose link is closed goes on.
//!
//! [`stop_point`] is for tests that kill one of the two at a certain point.
//!
//! [`pages`] is the layout of the memory that worker and hypervisor share.
#![forbid(unsafe_code)]

mod link;
mod message;
pub mod pages;
mod stop;

pub use link::{FDS_MAX, Link, LinkError, MESSAGE_MAX, Pair};
pub use message::{
    CRASH_TEXT_MAX, Disk, DiskKind, FdIndex, FromWorker, Identity, ImageFormat, Start, StopReason,
    ToWorker,
};
pub use stop::{STOP_VARIABLE, stop_point, stop_wanted};
