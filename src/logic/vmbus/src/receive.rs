//! Messages of the client.

use tlfs::HvError;
use vmbus_proto::{
    Answer, ClientMessage, ModifyChannel, NO_VP, OpenChannel, Relid, Version, status,
};

use crate::channel::ChannelState;
use crate::frames::Frames;
use crate::{Bus, Guest};

/// A message did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no room for an answer: the call that posted it fails with [`Refused::status`], and is made again.
    QueueFull,
    /// Too short, of an unknown type, or with fields that cannot be.
    Malformed,
    /// Not in this state.
    OutOfOrder,
}

impl Refused {
    /// What `HvCallPostMessage` answers. A message that breaks the protocol counts as posted.
    pub const fn status(self) -> Result<(), HvError> {
        match self {
            Self::QueueFull => Err(HvError::INSUFFICIENT_BUFFERS),
            Self::Malformed | Self::OutOfOrder => Ok(()),
        }
    }
}

impl<F: Frames> Bus<'_, F> {
    /// The client posted a message with `payload`, a copy of what it wrote, to one of
    /// [`vmbus_proto::MESSAGE_CONNECTIONS`]. Serve its messages and fetch notices afterwards.
    ///
    /// # Errors
    /// See [`Refused`]; nothing was changed.
    pub fn receive(&mut self, payload: &[u8], guest: &mut impl Guest) -> Result<(), Refused> {
        let message = ClientMessage::decode(payload).map_err(|_| Refused::Malformed)?;
        let server = &mut *self.server;
        if server.restoring.is_begun() {
            return Err(Refused::OutOfOrder);
        }
        // These two empty the queue. A kernel that starts after a crash is not to wait for the one before it.
        let starts_anew = matches!(
            message,
            ClientMessage::InitiateContact(_) | ClientMessage::Unload
        );
        let has_room = server.answers.reserve(&mut server.quota, self.frames);
        if !has_room || (server.answers.is_full() && !starts_anew) {
            return Err(Refused::QueueFull);
        }
        if !starts_anew && !server.connection.is_connected() {
            return Err(Refused::OutOfOrder);
        }
        match message {
            ClientMessage::InitiateContact(contact) => self.contact(&contact, guest)?,
            ClientMessage::Unload => self.unload()?,
            ClientMessage::RequestOffers => self.request_offers()?,
            ClientMessage::OpenChannel(open) => self.open(&open, guest)?,
            ClientMessage::CloseChannel(relid) => self.close(relid).ok_or(Refused::OutOfOrder)?,
            ClientMessage::GpadlHeader(header, pages) => self.create_gpadl(&header, pages, guest),
            ClientMessage::GpadlBody(handle, pages) => self.continue_gpadl(handle, pages, guest)?,
            ClientMessage::GpadlTeardown(_, handle) => self.tear_down(handle)?,
            ClientMessage::RelidReleased(relid) => self.let_go(relid)?,
            ClientMessage::ModifyChannel(modify) => self.modify(&modify, guest)?,
            // Nobody listens for sockets.
            ClientMessage::TlConnect(to) if self.server.connection.version >= Version::V4_1 => {
                self.push(Answer::tl_connect_result(&to, status::CONNECTION_REFUSED));
            }
            ClientMessage::TlConnect(_) => return Err(Refused::OutOfOrder),
        }
        self.settle();
        Ok(())
    }

    /// The client opens a channel, and waits for ever: every way but one leads to an answer.
    fn open(&mut self, open: &OpenChannel, guest: &mut impl Guest) -> Result<(), Refused> {
        let relid = open.relid;
        let has_vp = open.target().is_none_or(|vp| guest.has_vp(vp));
        let channel = self
            .channel(relid)
            .map(|(_, channel)| channel)
            .filter(|channel| channel.is_told);
        match channel {
            Some(channel) if channel.state == ChannelState::Closed && has_vp => {
                channel.open = *open;
                self.start_opening(relid);
            }
            // Closing has no answer, so the client cannot know that the back end is not done with it.
            Some(channel)
                if matches!(
                    channel.state,
                    ChannelState::Closing | ChannelState::Abandoned
                ) && !channel.reopens
                    && has_vp =>
            {
                (channel.open, channel.reopens) = (*open, true);
            }
            // The message that wakes the client is on its way.
            Some(channel) if channel.state == ChannelState::Revoked => {}
            _ => self.push(Answer::open_result(relid, open.open_id, status::FAILURE)),
        }
        Ok(())
    }

    /// The client has no use for a number any more: of a channel that was taken back, or that it could not take.
    fn let_go(&mut self, relid: Relid) -> Result<(), Refused> {
        let has_gpadls = self
            .server
            .gpadls
            .find(self.frames, |gpadl| gpadl.relid == relid)
            .is_some();
        let (_, channel) = self.channel(relid).ok_or(Refused::OutOfOrder)?;
        match channel.state {
            ChannelState::Revoked => {}
            ChannelState::Closed if channel.is_told && !has_gpadls => {}
            _ => return Err(Refused::OutOfOrder),
        }
        channel.release();
        self.server.may_notify = true;
        Ok(())
    }

    /// The client wants another VP to be signalled. From the answer on the old one is not.
    fn modify(&mut self, modify: &ModifyChannel, guest: &mut impl Guest) -> Result<(), Refused> {
        let version = self.server.connection.version;
        if version < Version::V4_1 {
            return Err(Refused::OutOfOrder);
        }
        let has_vp = modify.vp.get() != NO_VP && guest.has_vp(modify.vp);
        let channel = self.channel(modify.relid).map(|(_, channel)| channel);
        let status = match channel {
            Some(channel)
                if channel.state == ChannelState::Open && channel.open.vp != NO_VP && has_vp =>
            {
                channel.open.vp = modify.vp.get();
                status::SUCCESS
            }
            _ => status::FAILURE,
        };
        // Older clients do not wait.
        if version >= Version::V5_3 {
            self.push(Answer::modify_response(modify.relid, status));
        }
        Ok(())
    }
}
