//! Sessions between the hypervisor and the parent's user space: the control channel and the slots, from both sides.
//!
//! | | hypervisor | user space |
//! |---|---|---|
//! | packets | [`Channel`]: takes requests, writes completions | [`Client`]: sends requests, matches completions |
//! | event area | [`Events`], [`NoticeQueue`] | [`Watcher`] |
//! | signal page | [`collect_signals`] | [`SignalPage`] |
//! | interrupt | [`Doorbell`] | - |
//!
//! State lies in shared pages and the interrupt says no more than "look": a worker that was dead or slow finds all there
//! is when it looks, and nothing can overflow. The ring carries requests and completions alone, and a request is taken
//! only when its completion has room, so the hypervisor never waits for a worker and never drops an answer.
//!
//! `docs/channels.md` tells the whole; `slot_proto` has the bytes. Nothing here acts: calls answer what is to be done. All shared memory is behind [`ring::RingMem`] and [`SharedWords`].
#![no_std]
#![forbid(unsafe_code)]

mod calls;
mod channel;
mod client;
mod doorbell;
mod events;
mod outstanding;
mod signals;
mod turns;
mod watcher;
mod words;

pub use calls::{Attachment, check_call};
pub use channel::{Blocked, Channel, Flushed, Generations, Identity, OpenError, Stop, Turn};
pub use client::{Client, Completion, Incoming, SendError, Violation};
pub use doorbell::{Doorbell, Flag};
pub use events::{Events, NoticeError, NoticeQueue};
pub use outstanding::{MAX_OUTSTANDING, Ticket};
pub use signals::{SignalPage, collect_signals};
pub use turns::Turns;
pub use watcher::{BadArea, News, Watcher};
pub use words::SharedWords;
