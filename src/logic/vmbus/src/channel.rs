//! Channels: what the client and the back end have agreed on.

use tlfs::wire::{Zero, blocks, choices};
use vmbus_proto::{Answer, GpadlHandle, MessageType, Offer, OpenChannel, Relid};

use crate::Bus;
use crate::frames::{Frames, slabs};
use crate::gpadl::GpadlState;

choices! {
    /// State of a channel. The ring belongs to the back end in the four from `Opening` to `Closing`.
    ChannelState: u8 {
        /// No channel has this number.
        Free = 0,
        /// Offered, or about to be; the client may open it.
        Closed = 1,
        /// The client opened it and waits; the back end is asked.
        Opening = 2,
        /// The client closed it before the back end, which was asked to open it, had answered.
        Abandoned = 3,
        /// Both ends have it; signals pass.
        Open = 4,
        /// The client closed it; the back end is asked to leave the ring.
        Closing = 5,
        /// The back end took it back; the client has not let go of the number.
        Revoked = 6,
        /// The client has let go of the number; the back end is yet to hear of it.
        Released = 7,
    }
    /// A notice about an object, of which there is one at a time.
    NoticeState: u8 {
        /// The back end has nothing to be told.
        Quiet = 0,
        /// To be fetched.
        Due = 1,
        /// Fetched; the back end has not answered.
        Sent = 2,
    }
    /// What the client is to be sent about a channel as soon as there is room.
    Due: u8 {
        /// Nothing.
        Nothing = 0,
        /// That there is one.
        Offer = 1,
        /// That it is gone.
        Rescind = 2,
        /// How its opening ended.
        OpenResult = 3,
    }
}

blocks! {
    /// A channel; its number is the relid. Saved as it is.
    Channel[316] {
        state: ChannelState, notice: NoticeState, due: Due, /// The client knows of it.
        is_told: bool, /// The client has opened it anew, as `open` says, before the back end was done with the last time.
        reopens: bool, reserved: Zero<1>, link: u16, offer: Offer, /// As the client opened it last.
        open: OpenChannel, /// The ring that the back end may have mapped, 0 for none.
        ring: GpadlHandle, /// Of the last opening.
        status: u32,
    }
}
slabs! { Channel }

impl Channel {
    /// Whether the back end may be in the ring.
    pub(crate) const fn is_in_use(&self) -> bool {
        matches!(
            self.state,
            ChannelState::Opening
                | ChannelState::Abandoned
                | ChannelState::Open
                | ChannelState::Closing
        )
    }

    /// Whether it is offered and was not taken back.
    pub(crate) const fn is_live(&self) -> bool {
        self.is_in_use() || matches!(self.state, ChannelState::Closed)
    }

    /// What the client is to be sent, once.
    pub(crate) fn take_due(&mut self, number: u16) -> Option<Answer> {
        let relid = Relid(number.into());
        match core::mem::take(&mut self.due) {
            Due::Nothing => None,
            Due::Offer => {
                self.is_told = true;
                Some(Answer {
                    kind: MessageType::OFFER_CHANNEL,
                    len: 1,
                    words: [relid.0, 0, 0, 0, 0, 0, 0, 0, 0],
                })
            }
            Due::Rescind => Some(Answer::rescind(relid)),
            Due::OpenResult => Some(Answer::open_result(relid, self.open.open_id, self.status)),
        }
    }

    fn has_left_ring(&mut self) {
        (self.state, self.notice) = (ChannelState::Closed, NoticeState::Quiet);
        self.ring = GpadlHandle(0);
    }
}

impl<F: Frames> Bus<'_, F> {
    /// Channel `relid`, if there is one, and its number as a record.
    pub(crate) fn channel(&mut self, relid: Relid) -> Option<(u16, &mut Channel)> {
        let number = u16::try_from(relid.0).ok()?;
        let channel = self.server.channels.get(number, self.frames)?;
        (channel.state != ChannelState::Free).then_some((number, channel))
    }

    /// Whether there is a channel `relid`, offered or taken back.
    pub fn has_channel(&mut self, relid: Relid) -> bool {
        self.channel(relid).is_some()
    }

    /// Asks the back end to open a closed channel with what the client gave, or says no.
    pub(crate) fn start_opening(&mut self, relid: Relid) -> Option<()> {
        let open = self.channel(relid)?.1.open;
        let ring = self.gpadl(open.ring).map(|(_, gpadl)| *gpadl);
        let is_good = ring.is_some_and(|gpadl| {
            gpadl.relid == relid
                && gpadl.state == GpadlState::Ready
                && gpadl.has_rings(open.downstream_page)
        });
        let (number, channel) = self.channel(relid)?;
        if is_good {
            (channel.state, channel.notice) = (ChannelState::Opening, NoticeState::Due);
            channel.ring = open.ring;
            self.server.may_notify = true;
        } else {
            channel.status = vmbus_proto::status::FAILURE;
            self.owe(number, Due::OpenResult);
        }
        Some(())
    }

    /// The client closes a channel. `None` when it is not open.
    pub(crate) fn close(&mut self, relid: Relid) -> Option<()> {
        let (_, channel) = self.channel(relid)?;
        match channel.state {
            ChannelState::Open => {
                (channel.state, channel.notice) = (ChannelState::Closing, NoticeState::Due);
                self.server.may_notify = true;
            }
            // The back end has not heard of it.
            ChannelState::Opening if channel.notice == NoticeState::Due => {
                channel.has_left_ring();
                self.advance_teardowns(relid);
            }
            ChannelState::Opening => channel.state = ChannelState::Abandoned,
            ChannelState::Abandoned | ChannelState::Closing if channel.reopens => {
                channel.reopens = false
            }
            // A driver that goes closes a channel that was taken back.
            ChannelState::Revoked => {}
            _ => return None,
        }
        Some(())
    }

    /// The back end is off the ring: what waited for that goes on.
    pub(crate) fn left_ring(&mut self, relid: Relid) -> Option<()> {
        let (_, channel) = self.channel(relid)?;
        channel.has_left_ring();
        if core::mem::take(&mut channel.reopens) {
            self.start_opening(relid);
        }
        self.advance_teardowns(relid);
        Some(())
    }
}
