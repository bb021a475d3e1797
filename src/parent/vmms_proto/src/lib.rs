//! What `vmctl` and `vmms` say to each other: lines of JSON over the socket [`SOCKET`].
//!
//! A connection carries any number of [`Request`]s, each answered by one [`Reply`]. After [`Reply::Console`] the
//! connection is the child's console, byte by byte, until either side closes it.
#![forbid(unsafe_code)]

mod line;
mod message;

pub use line::{LINE_MAX, LineError, receive, send};
pub use message::{ChildInfo, ChildState, CrashInfo, DiskInfo, Reply, Request};

/// Where `vmms` listens.
pub const SOCKET: &str = "/run/verdigris/vmms.sock";
