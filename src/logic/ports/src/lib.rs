//! Ports, through which a partition receives, and connections, through which it sends (TLFS, "Inter-Partition
//! Communication").
//!
//! A partition has one [`Ports`] and one [`Connections`], each under a lock of its own that is never held together with
//! another of these: a connection holds a [`PortRef`], which names a port of another partition by numbers. A port that
//! was deleted, or made again with the same number, or whose partition is gone, is not found by it any more. So a
//! partition can go at any time, from either side.
//!
//! Nothing has a fixed size: memory comes in chunks of 4 KiB from [`Chunks`], which is always that of the same pool for
//! the same object, and goes back when the object is [released](Ports::release). Chunks hold plain numbers only.
//!
//! A message port has a queue of its own for [`QUEUE_MESSAGES`] messages, allocated when it is created: no sender waits
//! because of another port, and no message fails for lack of memory.
#![no_std]
#![forbid(unsafe_code)]

mod chunk;
mod connection;
mod map;
mod port;
mod record;

pub use chunk::{Chunk, ChunkId, Chunks};
pub use connection::Connections;
pub use port::{EventTarget, PortRef, Ports, Target, VpMessages};
pub use record::QUEUE_MESSAGES;
