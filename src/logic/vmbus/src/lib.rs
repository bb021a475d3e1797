//! The VMBus server: what one client partition, a child or the parent itself, and the back ends of its channels may do,
//! and what each of them is told.
//!
//! A [`Server`] is the state for one client. [`Server::with`] its frames it takes
//!
//! - messages of the client: [`Bus::receive`], and its signals: [`Bus::signalled`];
//! - requests of the back end: [`Bus::offer`], [`Bus::rescind`], and its answers to notices: [`Bus::opened`],
//!   [`Bus::closed`], [`Bus::gpadl_done`], [`Bus::reset_done`].
//!
//! Nothing is done to anybody from within. What is to be done waits in the state until the caller fetches it, so nothing
//! is lost when there is no room for it, and nothing is queued twice:
//!
//! - messages for the client: [`Bus::outgoing`] is a [`synic::MessageSource`];
//! - notices for the back end: [`Bus::next_notice`].
//!
//! The back end is a VSP in the parent, which gets the notices through a queue in shared memory, or the hypervisor
//! itself, which fetches them after each call here and answers at once. The server treats both alike and touches neither
//! rings nor any other page of the client: it hands out page numbers ([`Bus::gpadl_pages`]), and whoever maps them holds
//! them until it answers [`Notice::Close`], [`Notice::GpadlTeardown`] or [`Notice::Reset`].
//!
//! Channels, GPADLs and undelivered answers lie in frames of a pool that the client's quota bounds ([`Frames`]). Beyond
//! it a client gets failures, never an unanswered question. Monitor pages and the interrupt page are never used.
//!
//! Messages, their order and their answers are those that Linux's `drivers/hv` expects; the specification of the
//! protocol is not public.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod answers;
mod channel;
mod check;
mod connection;
mod frames;
mod gpadl;
mod notice;
mod offer;
mod receive;
mod restore;
mod save;
mod signal;
mod table;

#[cfg(test)]
mod tests;

use addr::{Gpn, VpIndex};

pub use answers::{Outgoing, QUEUE_ANSWERS};
pub use frames::{Content, FrameId, Frames};
pub use gpadl::GpadlPages;
pub use notice::{Cause, Notice, Opening};
pub use receive::Refused;
pub use signal::EventTarget;

use answers::Answers;
use channel::Channel;
use connection::Connection;
use gpadl::{Gpadl, PageBlock};
use restore::Restoring;
use table::Table;

/// What the server asks about its client.
pub trait Guest {
    /// Whether `page` is RAM of the client that the back end may reach.
    fn is_ram(&mut self, page: Gpn) -> bool;
    /// Whether there is such a VP.
    fn has_vp(&mut self, vp: VpIndex) -> bool;
}

/// When the back end hears of a client that goes or comes anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetRule {
    /// While it has a channel open or holds a GPADL; otherwise nobody need be asked.
    WhenInUse,
    /// Always, because more depends on it: the parent's children go before the parent is answered.
    Always,
}

/// State of the server for one client.
#[derive(Debug)]
pub struct Server {
    rule: ResetRule,
    /// Frames that may still be allocated.
    quota: u32,
    connection: Connection,
    channels: Table<Channel, 64>,
    gpadls: Table<Gpadl, 8>,
    blocks: Table<PageBlock, 256>,
    answers: Answers,
    /// False when no notice is due; the same for answers that were not queued yet. True may be out of date.
    may_notify: bool,
    may_answer: bool,
    restoring: Restoring,
}

const _: () = assert!(size_of::<Server>() <= 4096);

impl Server {
    /// Nobody is connected and nothing offered. At most `quota` frames will be in use at a time: three for answers, and at
    /// least one each for channels, GPADLs and page numbers. With fewer a client is not even answered.
    pub const fn new(quota: u32, rule: ResetRule) -> Self {
        Self {
            rule,
            quota,
            connection: Connection::NONE,
            channels: Table::EMPTY,
            gpadls: Table::EMPTY,
            blocks: Table::EMPTY,
            answers: Answers::EMPTY,
            may_notify: false,
            may_answer: false,
            restoring: Restoring::NOTHING,
        }
    }

    /// The server at work. `frames` is always that of the same pool.
    pub const fn with<'a, F: Frames>(&'a mut self, frames: &'a mut F) -> Bus<'a, F> {
        Bus {
            server: self,
            frames,
        }
    }
}

/// A server and its frames.
#[derive(Debug)]
pub struct Bus<'a, F> {
    server: &'a mut Server,
    frames: &'a mut F,
}

impl<F: Frames> Bus<'_, F> {
    /// The client is gone: gives a frame back. False when all are; until then nothing else may be called, and after it
    /// the server is as new.
    pub fn release(&mut self) -> bool {
        let server = &mut *self.server;
        server.connection = Connection::NONE;
        server.restoring = Restoring::NOTHING;
        let frame = server
            .channels
            .take_frame()
            .or_else(|| server.gpadls.take_frame())
            .or_else(|| server.blocks.take_frame())
            .or_else(|| server.answers.take_frame());
        if let Some(frame) = frame {
            self.frames.free(frame);
            server.quota = server.quota.saturating_add(1);
        }
        frame.is_some()
    }
}
