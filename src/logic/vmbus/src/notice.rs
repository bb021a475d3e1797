//! What the back end is told.

use tlfs::wire::choices;
use vmbus_proto::{GpadlHandle, OpenChannel, Relid, UserData, Version};

use crate::Bus;
use crate::channel::{Channel, ChannelState, NoticeState};
use crate::connection::ConnectionState;
use crate::frames::Frames;
use crate::gpadl::{Gpadl, GpadlState};

choices! {
    /// Why a client's state is void.
    Cause: u8 {
        /// It said that it goes (1 in the notice).
        Unload = 0,
        /// It made contact anew (2).
        Contact = 1,
    }
}

/// A notice for the back end. All but [`Notice::IsOpen`] and [`Notice::Released`] want an answer, and until it comes there
/// is no other notice about the same channel, GPADL or connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The client opens a channel. Answer: [`Bus::opened`].
    Open(Opening),
    /// A channel is open; the back end has changed and could not know. No answer.
    IsOpen(Opening),
    /// The client closed a channel; no signal comes any more. Answer, off the ring and with all I/O ended:
    /// [`Bus::closed`].
    Close(Relid),
    /// The client wants a GPADL's pages back that the back end asked for. Answer: [`Bus::gpadl_done`].
    GpadlTeardown(Relid, GpadlHandle),
    /// The client let go of a channel that was taken back, or lost it by a reset: number and instance are free. No
    /// answer.
    Released(Relid),
    /// The client starts anew. Answer, off every ring and page: [`Bus::reset_done`].
    Reset(Cause),
}

/// How a client opens a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The channel.
    pub relid: Relid,
    /// Holds both rings; at least two pages each.
    pub ring: GpadlHandle,
    /// Where the ring from back end to client begins.
    pub downstream_page: u32,
    /// The VP to be signalled, [`vmbus_proto::NO_VP`] for none.
    pub vp: u32,
    /// Version of the protocol.
    pub version: Version,
    /// For the back end.
    pub user: UserData,
}

impl<F: Frames> Bus<'_, F> {
    /// The next notice. It is fetched by this, so the caller has room for it.
    pub fn next_notice(&mut self) -> Option<Notice> {
        if !self.server.may_notify {
            return None;
        }
        let next = self
            .reset_notice()
            .or_else(|| self.channel_notice())
            .or_else(|| self.gpadl_notice());
        self.server.may_notify = next.is_some();
        next
    }

    fn reset_notice(&mut self) -> Option<Notice> {
        let connection = &mut self.server.connection;
        if connection.notice != NoticeState::Due {
            return None;
        }
        connection.notice = NoticeState::Sent;
        Some(Notice::Reset(connection.cause))
    }

    fn channel_notice(&mut self) -> Option<Notice> {
        let version = self.server.connection.version;
        let channels = &mut self.server.channels;
        let number = channels.find(self.frames, |channel: &Channel| {
            channel.notice == NoticeState::Due
        })?;
        let relid = Relid(number.into());
        let channel = channels.get(number, self.frames)?;
        channel.notice = NoticeState::Sent;
        let OpenChannel {
            downstream_page,
            vp,
            user,
            ..
        } = channel.open;
        let opening = Opening {
            relid,
            ring: channel.ring,
            downstream_page,
            vp,
            version,
            user,
        };
        match channel.state {
            ChannelState::Opening => Some(Notice::Open(opening)),
            ChannelState::Open => {
                channel.notice = NoticeState::Quiet;
                Some(Notice::IsOpen(opening))
            }
            ChannelState::Closing => Some(Notice::Close(relid)),
            ChannelState::Released => {
                channels.remove(number, self.frames);
                Some(Notice::Released(relid))
            }
            // Nothing of these states is told.
            ChannelState::Free
            | ChannelState::Closed
            | ChannelState::Abandoned
            | ChannelState::Revoked => {
                channel.notice = NoticeState::Quiet;
                None
            }
        }
    }

    fn gpadl_notice(&mut self) -> Option<Notice> {
        let gpadls = &mut self.server.gpadls;
        let number = gpadls.find(self.frames, |gpadl: &Gpadl| {
            gpadl.notice == NoticeState::Due
        })?;
        let gpadl = gpadls.get(number, self.frames)?;
        gpadl.notice = NoticeState::Sent;
        Some(Notice::GpadlTeardown(gpadl.relid, gpadl.handle))
    }

    /// Another process is the back end from now on, with nothing mapped or opened: every notice without an answer is due
    /// again, and every open channel is told.
    pub fn attach(&mut self) {
        self.server.may_notify = true;
        let connection = &mut self.server.connection;
        connection.notice = again(connection.notice);
        let is_resetting = connection.state == ConnectionState::Resetting;
        for number in 1..=self.server.channels.room {
            let Some(channel) = self.server.channels.get(number, self.frames) else {
                continue;
            };
            channel.notice = again(channel.notice);
            match channel.state {
                _ if is_resetting => {}
                // Who was asked to open it is gone.
                ChannelState::Abandoned => channel.state = ChannelState::Closing,
                ChannelState::Open => channel.notice = NoticeState::Due,
                _ => {}
            }
        }
        for number in 1..=self.server.gpadls.room {
            if let Some(gpadl) = self.server.gpadls.get(number, self.frames)
                && gpadl.state == GpadlState::Tearing
            {
                gpadl.notice = again(gpadl.notice);
            }
        }
    }
}

fn again(notice: NoticeState) -> NoticeState {
    match notice {
        NoticeState::Sent => NoticeState::Due,
        other => other,
    }
}
