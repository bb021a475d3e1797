//! What the back end asks for and answers.

use tlfs::HvError;
use vmbus_proto::{Offer, OfferFlags, Relid, status};

use crate::Bus;
use crate::channel::{Channel, ChannelState, Due, NoticeState};
use crate::frames::Frames;

impl<F: Frames> Bus<'_, F> {
    /// Offers a channel to the client, now or when it asks for offers. Asked for again, gives the same number.
    ///
    /// # Errors
    /// [`HvError::INVALID_PARAMETER`]: flags that are not offered, an instance of another class, or a sub-channel of a
    /// channel that the client does not have. [`HvError::INVALID_PARTITION_STATE`]: the channel was taken back, and its
    /// number is not free yet. [`HvError::INSUFFICIENT_MEMORY`]: beyond the quota.
    pub fn offer(&mut self, offer: &Offer) -> Result<Relid, HvError> {
        if self.server.restoring.is_begun() {
            return Err(HvError::INVALID_PARTITION_STATE);
        }
        if !OfferFlags::OFFERABLE.contains(offer.flags) {
            return Err(HvError::INVALID_PARAMETER);
        }
        if let Some((relid, channel)) = self.offered(offer, offer.sub_channel) {
            return match channel.is_live() {
                true if channel.offer.class == offer.class => Ok(relid),
                true => Err(HvError::INVALID_PARAMETER),
                false => Err(HvError::INVALID_PARTITION_STATE),
            };
        }
        let primary = self.offered(offer, 0).map(|(_, primary)| primary);
        let fits =
            primary.is_some_and(|p| p.offer.class == offer.class && p.is_live() && p.is_told);
        if offer.sub_channel != 0 && !fits {
            return Err(HvError::INVALID_PARAMETER);
        }
        let mut channel = Channel::closed(offer);
        if self.server.connection.wants_offers {
            channel.due = Due::Offer;
            self.server.may_answer = true;
        }
        let server = &mut *self.server;
        let number = server.channels.add(channel, &mut server.quota, self.frames);
        let number = number.ok_or(HvError::INSUFFICIENT_MEMORY)?;
        self.settle();
        Ok(Relid(number.into()))
    }

    /// The channel with the instance of `offer` and this index.
    fn offered(&mut self, offer: &Offer, sub_channel: u16) -> Option<(Relid, Channel)> {
        let number = self
            .server
            .channels
            .find(self.frames, |channel: &Channel| {
                channel.state != ChannelState::Free
                    && channel.offer.instance == offer.instance
                    && channel.offer.sub_channel == sub_channel
            })?;
        let channel = *self.server.channels.get(number, self.frames)?;
        Some((Relid(number.into()), channel))
    }

    /// Takes a channel back, after its sub-channels. The back end vouches that it is off the ring and every other page of
    /// the channel, for the client frees them without asking. [`Notice::Released`](crate::Notice::Released) will tell
    /// when the number is free.
    ///
    /// # Errors
    /// [`HvError::INVALID_PARAMETER`]: no such channel. [`HvError::INVALID_PARTITION_STATE`]: it was taken back, it has
    /// sub-channels, or the client is being reset.
    pub fn rescind(&mut self, relid: Relid) -> Result<(), HvError> {
        self.ready()?;
        let (number, channel) = self.channel(relid).ok_or(HvError::INVALID_PARAMETER)?;
        let (offer, is_live) = (channel.offer, channel.is_live());
        let has_more = |other: &Channel| {
            other.is_live()
                && other.offer.instance == offer.instance
                && other.offer.sub_channel != 0
        };
        let has_subs =
            offer.sub_channel == 0 && self.server.channels.find(self.frames, has_more).is_some();
        if !is_live || has_subs {
            return Err(HvError::INVALID_PARTITION_STATE);
        }
        for gpadl in 1..=self.server.gpadls.room {
            if self
                .server
                .gpadls
                .get(gpadl, self.frames)
                .is_some_and(|gpadl| gpadl.relid == relid)
            {
                self.drop_gpadl(gpadl);
            }
        }
        let (_, channel) = self.channel(relid).ok_or(HvError::INVALID_PARAMETER)?;
        let is_told = channel.is_told;
        channel.release();
        if is_told {
            (channel.state, channel.notice) = (ChannelState::Revoked, NoticeState::Quiet);
            channel.is_told = true;
            self.owe(number, Due::Rescind);
        } else {
            self.server.may_notify = true;
        }
        self.settle();
        Ok(())
    }

    /// Answers [`Notice::Open`](crate::Notice::Open) with the status for the client, 0 when the back end has opened the
    /// channel. Signals pass from now on.
    ///
    /// # Errors
    /// [`HvError::INVALID_PARAMETER`]: no such channel. [`HvError::INVALID_PARTITION_STATE`]: the back end was not asked.
    pub fn opened(&mut self, relid: Relid, status: u32) -> Result<(), HvError> {
        let (number, channel) = self.asked(relid)?;
        let has_opened = status == status::SUCCESS;
        match channel.state {
            ChannelState::Opening if has_opened => {
                (channel.state, channel.notice) = (ChannelState::Open, NoticeState::Quiet);
            }
            ChannelState::Abandoned if has_opened => {
                (channel.state, channel.notice) = (ChannelState::Closing, NoticeState::Due);
                self.server.may_notify = true;
                return Ok(());
            }
            ChannelState::Opening => {}
            ChannelState::Abandoned => {
                self.left_ring(relid);
                self.settle();
                return Ok(());
            }
            _ => return Err(HvError::INVALID_PARTITION_STATE),
        }
        channel.status = status;
        self.owe(number, Due::OpenResult);
        if !has_opened {
            self.left_ring(relid);
        }
        self.settle();
        Ok(())
    }

    /// Answers [`Notice::Close`](crate::Notice::Close).
    ///
    /// # Errors
    /// As for [`Bus::opened`].
    pub fn closed(&mut self, relid: Relid) -> Result<(), HvError> {
        if self.asked(relid)?.1.state != ChannelState::Closing {
            return Err(HvError::INVALID_PARTITION_STATE);
        }
        self.left_ring(relid);
        self.settle();
        Ok(())
    }

    /// A channel about which the back end was asked something.
    fn asked(&mut self, relid: Relid) -> Result<(u16, &mut Channel), HvError> {
        self.ready()?;
        let (number, channel) = self.channel(relid).ok_or(HvError::INVALID_PARAMETER)?;
        match channel.notice {
            NoticeState::Sent => Ok((number, channel)),
            _ => Err(HvError::INVALID_PARTITION_STATE),
        }
    }
}
