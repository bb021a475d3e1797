//! The connection: who the client says it is, and how it goes.

use addr::VpIndex;
use tlfs::HvError;
use tlfs::wire::{blocks, choices};
use vmbus_proto::{Answer, GpadlHandle, InitiateContact, Version};

use crate::channel::{Channel, ChannelState, Due, NoticeState};
use crate::frames::Frames;
use crate::notice::Cause;
use crate::{Bus, Guest, Refused, ResetRule};

choices! {
    /// State of the connection.
    ConnectionState: u8 {
        /// The client has not agreed on a version, or has unloaded.
        Idle = 0,
        /// A version is agreed on.
        Connected = 1,
        /// The client has unloaded or made contact anew; the back end is asked to let go of everything first.
        Resetting = 2,
    }
    /// What follows a reset.
    After: u8 {
        /// The partition is reset, so nobody waits.
        Nothing = 0,
        /// The answer to an unload.
        Unload = 1,
        /// The contact that was made.
        Contact = 2,
    }
}

blocks! {
    /// The connection, saved as it is.
    Connection[52] {
        state: ConnectionState, /// RESET.
        notice: NoticeState, after: After, cause: Cause, /// The client wants to know of every channel.
        wants_offers: bool, /// The client waits for the end of the offers.
        owes_all_offers: bool, /// For messages and signals; 0 before the first contact.
        sint: u8, reserved: u8, version: Version, /// For messages.
        vp: VpIndex, reserved_2: u32, /// Follows the reset.
        contact: InitiateContact,
    }
}

impl Connection {
    pub(crate) const NONE: Self = Self {
        state: ConnectionState::Idle,
        notice: NoticeState::Quiet,
        after: After::Nothing,
        cause: Cause::Unload,
        wants_offers: false,
        owes_all_offers: false,
        sint: 0,
        reserved: 0,
        version: Version(0),
        vp: VpIndex::new(0),
        reserved_2: 0,
        contact: InitiateContact {
            version: Version(0),
            vp: VpIndex::new(0),
            target: 0,
            monitor_pages: tlfs::wire::Pad,
        },
    };

    pub(crate) fn is_connected(&self) -> bool {
        self.state == ConnectionState::Connected
    }
}

impl<F: Frames> Bus<'_, F> {
    /// Whether the server takes answers and requests of the back end.
    pub(crate) fn ready(&self) -> Result<(), HvError> {
        if self.server.connection.state == ConnectionState::Resetting
            || self.server.restoring.is_begun()
        {
            return Err(HvError::INVALID_PARTITION_STATE);
        }
        Ok(())
    }

    /// The client makes contact, for the first time or anew: whatever it had is void.
    pub(crate) fn contact(
        &mut self,
        contact: &InitiateContact,
        guest: &mut impl Guest,
    ) -> Result<(), Refused> {
        // Nobody could be answered.
        if !(1..16).contains(&contact.sint()) || contact.vtl() != 0 || !guest.has_vp(contact.vp) {
            return Err(Refused::Malformed);
        }
        self.server.connection.contact = *contact;
        self.begin_reset(Cause::Contact, After::Contact);
        Ok(())
    }

    /// The client goes.
    pub(crate) fn unload(&mut self) -> Result<(), Refused> {
        if self.server.connection.state == ConnectionState::Idle {
            return Err(Refused::OutOfOrder);
        }
        self.begin_reset(Cause::Unload, After::Unload);
        Ok(())
    }

    /// Stops all traffic, and finishes at once when no back end is concerned.
    fn begin_reset(&mut self, cause: Cause, after: After) {
        let was = self.server.connection.state;
        self.server.answers.clear();
        self.server.connection.after = after;
        if was == ConnectionState::Resetting {
            return;
        }
        (
            self.server.connection.wants_offers,
            self.server.connection.owes_all_offers,
        ) = (false, false);
        let mut is_in_use =
            self.server.rule == ResetRule::Always && was == ConnectionState::Connected;
        for number in 1..=self.server.channels.room {
            let Some(channel) = self.server.channels.get(number, self.frames) else {
                continue;
            };
            channel.due = Due::Nothing;
            let is_unheard =
                channel.state == ChannelState::Opening && channel.notice == NoticeState::Due;
            is_in_use |= channel.is_in_use() && !is_unheard;
            if channel.state != ChannelState::Released {
                channel.notice = NoticeState::Quiet;
            }
        }
        for number in 1..=self.server.gpadls.room {
            if let Some(gpadl) = self.server.gpadls.get(number, self.frames) {
                is_in_use |= gpadl.is_held;
                gpadl.notice = NoticeState::Quiet;
            }
        }
        if is_in_use {
            let connection = &mut self.server.connection;
            connection.state = ConnectionState::Resetting;
            (connection.notice, connection.cause) = (NoticeState::Due, cause);
            self.server.may_notify = true;
        } else {
            self.finish_reset();
        }
    }

    /// Answers [`Notice::Reset`](crate::Notice::Reset) and every older notice: nobody is in a ring or a page of the
    /// client. Or the caller has reset the whole partition, with `is_partition_reset`: then the client is forgotten.
    ///
    /// # Errors
    /// [`HvError::INVALID_PARTITION_STATE`]: the back end was not asked.
    pub fn reset_done(&mut self, is_partition_reset: bool) -> Result<(), HvError> {
        if is_partition_reset {
            self.begin_reset(Cause::Unload, After::Nothing);
            self.finish_reset();
            return Ok(());
        }
        if self.server.connection.notice != NoticeState::Sent {
            return Err(HvError::INVALID_PARTITION_STATE);
        }
        self.finish_reset();
        Ok(())
    }

    fn finish_reset(&mut self) {
        for number in 1..=self.server.gpadls.room {
            self.drop_gpadl(number);
        }
        for number in 1..=self.server.channels.room {
            let Some(channel) = self.server.channels.get(number, self.frames) else {
                continue;
            };
            // A sub-channel is asked for anew by the driver; of a channel that was taken back, the client will not
            // speak any more.
            let goes = channel.state == ChannelState::Revoked
                || (channel.is_live() && channel.offer.sub_channel != 0);
            if goes {
                channel.release();
                self.server.may_notify = true;
            } else if channel.is_live() {
                *channel = Channel::closed(&channel.offer);
            }
        }
        self.server.answers.clear();
        let connection = &mut self.server.connection;
        let Connection {
            after,
            contact,
            sint,
            vp,
            ..
        } = *connection;
        *connection = Connection::NONE;
        match after {
            After::Nothing => {}
            After::Unload => {
                (connection.sint, connection.vp) = (sint, vp);
                self.push(Answer::unload_response());
            }
            After::Contact => {
                (connection.sint, connection.vp) = (contact.sint(), contact.vp);
                if contact.version.is_supported() {
                    (connection.state, connection.version) =
                        (ConnectionState::Connected, contact.version);
                }
                self.push(Answer::version_response(contact.version));
            }
        }
        self.settle();
    }

    /// The client wants to know of every channel, once in a connection.
    pub(crate) fn request_offers(&mut self) -> Result<(), Refused> {
        let server = &mut *self.server;
        if core::mem::replace(&mut server.connection.wants_offers, true) {
            return Err(Refused::OutOfOrder);
        }
        for number in 1..=server.channels.room {
            if let Some(channel) = server.channels.get(number, self.frames)
                && channel.is_live()
            {
                channel.due = Due::Offer;
            }
        }
        (server.connection.owes_all_offers, server.may_answer) = (true, true);
        Ok(())
    }
}

impl Channel {
    /// Offered; the client does not know.
    pub(crate) fn closed(offer: &vmbus_proto::Offer) -> Self {
        Self {
            state: ChannelState::Closed,
            offer: *offer,
            ..Self::default()
        }
    }

    /// The client knows it no more; the back end is to hear of that.
    pub(crate) fn release(&mut self) {
        (self.state, self.notice, self.due) =
            (ChannelState::Released, NoticeState::Due, Due::Nothing);
        (self.is_told, self.reopens, self.ring) = (false, false, GpadlHandle(0));
    }
}
