//! What holds in every state, checked where the state comes from outside.

use addr::PAGE_SIZE;

use crate::Bus;
use crate::channel::{Channel, ChannelState, Due, NoticeState};
use crate::connection::{After, ConnectionState};
use crate::frames::Frames;
use crate::gpadl::{Gpadl, GpadlState};

/// `Err` with what should have been.
pub(crate) type Check = Result<(), &'static str>;

fn hold(is: bool, what: &'static str) -> Check {
    if is { Ok(()) } else { Err(what) }
}

impl<F: Frames> Bus<'_, F> {
    pub(crate) fn check(&mut self) -> Check {
        let connection = self.server.connection;
        let state = connection.state;
        let (is_connected, is_resetting) = (
            connection.is_connected(),
            state == ConnectionState::Resetting,
        );
        hold(connection.sint < 16, "a SINT")?;
        hold(
            state == ConnectionState::Idle || connection.sint != 0,
            "a client to answer",
        )?;
        hold(
            !is_connected || connection.version.is_supported(),
            "a version",
        )?;
        hold(
            is_connected || !connection.wants_offers,
            "offers for a client",
        )?;
        hold(
            connection.wants_offers || !connection.owes_all_offers,
            "an end of offers",
        )?;
        hold(
            is_resetting == (connection.notice != NoticeState::Quiet),
            "RESET while resetting",
        )?;
        hold(
            is_resetting || connection.after == After::Nothing,
            "nothing after no reset",
        )?;

        let mut rings = 0u16;
        for number in 1..=self.server.channels.room {
            let Some(channel) = self.server.channels.get(number, self.frames) else {
                continue;
            };
            channel.check(is_resetting)?;
            hold(
                !channel.is_told || state != ConnectionState::Idle,
                "nobody knows",
            )?;
            rings = rings.saturating_add(channel.is_in_use().into());
        }
        for number in 1..=self.server.gpadls.room {
            let Some(gpadl) = self.server.gpadls.get(number, self.frames).copied() else {
                continue;
            };
            if gpadl.state == GpadlState::Free {
                continue;
            }
            let (_, channel) = self
                .channel(gpadl.relid)
                .ok_or("a channel for each GPADL")?;
            hold(
                channel.is_live() && channel.is_told,
                "a channel that can have a GPADL",
            )?;
            let is_ring = channel.ring == gpadl.handle;
            gpadl.check(is_ring, is_resetting)?;
            rings = rings
                .checked_sub(is_ring.into())
                .ok_or("a GPADL for one ring")?;
        }
        hold(rings == 0, "a GPADL for each ring")
    }
}

impl Channel {
    fn check(&self, is_resetting: bool) -> Check {
        let is_good = match (self.state, self.notice) {
            (ChannelState::Free, notice) => notice == NoticeState::Quiet,
            (ChannelState::Released, notice) => notice == NoticeState::Due,
            (_, notice) if is_resetting => notice == NoticeState::Quiet,
            (ChannelState::Closed | ChannelState::Revoked, notice) => notice == NoticeState::Quiet,
            (ChannelState::Opening | ChannelState::Closing, notice) => notice != NoticeState::Quiet,
            (ChannelState::Abandoned, notice) => notice == NoticeState::Sent,
            (ChannelState::Open, notice) => notice != NoticeState::Sent,
        };
        hold(is_good, "the notice of the state")?;
        let is_good = match self.due {
            Due::Nothing => true,
            Due::Offer => self.state == ChannelState::Closed && !self.is_told,
            Due::Rescind => self.state == ChannelState::Revoked,
            Due::OpenResult => {
                matches!(self.state, ChannelState::Open | ChannelState::Closed) && self.is_told
            }
        };
        hold(
            is_good && (self.due == Due::Nothing || !is_resetting),
            "the answer of the state",
        )?;
        hold(
            self.is_in_use() == (self.ring.0 != 0),
            "a ring while in use",
        )?;
        hold(
            self.is_told || !(self.is_in_use() || self.state == ChannelState::Revoked),
            "a client that knows",
        )?;
        let may_reopen = matches!(self.state, ChannelState::Abandoned | ChannelState::Closing);
        hold(may_reopen || !self.reopens, "reopened while closing")
    }
}

impl Gpadl {
    fn check(&self, is_ring: bool, is_resetting: bool) -> Check {
        let end = u64::from(self.byte_offset) + u64::from(self.byte_count);
        let is_sized = self.byte_count != 0
            && u64::from(self.byte_offset) < PAGE_SIZE
            && end.div_ceil(PAGE_SIZE) == u64::from(self.pages);
        hold(is_sized && self.handle.0 != 0, "pages for the bytes")?;
        hold(self.got <= self.pages, "no page too many")?;
        hold(
            (self.got < self.pages) == (self.state == GpadlState::Assembling),
            "pages of the state",
        )?;
        let has_pages = matches!(self.state, GpadlState::Ready | GpadlState::Tearing);
        hold(
            has_pages || !(self.is_held || is_ring),
            "pages while in use",
        )?;
        let asks = self.state == GpadlState::Tearing && !is_ring && !is_resetting;
        hold(
            asks == (self.notice != NoticeState::Quiet),
            "the notice of a teardown",
        )?;
        hold(!asks || self.is_held, "a holder to ask")
    }
}
