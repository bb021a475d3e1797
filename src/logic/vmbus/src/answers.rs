//! Messages that wait for the client.
//!
//! What answers a message of the client is queued at once; the client cannot post another while there is no room. What
//! a back end causes is marked at its channel or GPADL first and moves into the queue as there is room.

use addr::VpIndex;
use synic::MessageSource;
use tlfs::Message;
use vmbus_proto::{Answer, MessageType, OfferChannel, SYNTHETIC_MESSAGE_TYPE};

use crate::channel::Due;
use crate::frames::{Content, FrameId, Frames, Slab, sealed::Sealed};
use crate::gpadl::GpadlState;
use crate::{Bus, Server};

/// Answers that can wait.
pub const QUEUE_ANSWERS: u16 = 256;

const IN_SLAB: usize = 4096 / size_of::<Answer>();
type AnswerSlab = Slab<Answer, IN_SLAB>;
impl Sealed for AnswerSlab {}
impl Content for AnswerSlab {}
const _: () = assert!(IN_SLAB * SLABS >= QUEUE_ANSWERS as usize);

const SLABS: usize = 3;

/// The queue, oldest first. Of an offer it holds the channel's number only.
#[derive(Debug)]
pub(crate) struct Answers {
    frames: [u32; SLABS],
    head: u16,
    pub(crate) len: u16,
}

impl Answers {
    pub(crate) const EMPTY: Self = Self {
        frames: [0; SLABS],
        head: 0,
        len: 0,
    };

    pub(crate) const fn is_full(&self) -> bool {
        self.len >= QUEUE_ANSWERS
    }

    /// Takes the frames that the queue needs, once. False without.
    pub(crate) fn reserve(&mut self, quota: &mut u32, frames: &mut impl Frames) -> bool {
        for slot in self.frames.iter_mut().filter(|slot| **slot == 0) {
            let Some(left) = quota.checked_sub(1) else {
                return false;
            };
            let Some(frame) = frames.allocate() else {
                return false;
            };
            (*slot, *quota) = (frame.0, left);
        }
        true
    }

    pub(crate) fn clear(&mut self) {
        (self.head, self.len) = (0, 0);
    }

    /// Answer number `index`, counted from the oldest.
    pub(crate) fn at<'f>(&self, index: u16, frames: &'f mut impl Frames) -> Option<&'f mut Answer> {
        let place = usize::from(self.head.wrapping_add(index) % QUEUE_ANSWERS);
        let frame = *self
            .frames
            .get(place / IN_SLAB)
            .filter(|frame| **frame != 0)?;
        let slab = frames.get::<AnswerSlab>(FrameId(frame))?;
        slab.0.get_mut(place % IN_SLAB)
    }

    /// Appends an answer. There is room, or it is lost: the callers look first.
    pub(crate) fn push(&mut self, answer: Answer, frames: &mut impl Frames) {
        if !self.is_full()
            && let Some(slot) = self.at(self.len, frames)
        {
            *slot = answer;
            self.len = self.len.saturating_add(1);
        }
    }

    pub(crate) fn pop(&mut self) {
        if let Some(len) = self.len.checked_sub(1) {
            self.len = len;
            self.head = self.head.wrapping_add(1) % QUEUE_ANSWERS;
        }
    }

    pub(crate) fn take_frame(&mut self) -> Option<FrameId> {
        self.clear();
        let slot = self.frames.iter_mut().find(|frame| **frame != 0)?;
        Some(FrameId(core::mem::take(slot)))
    }
}

impl<F: Frames> Bus<'_, F> {
    /// The messages for `vp` of the client, which are all for the VP and SINT that it named last.
    pub fn outgoing(&mut self, vp: VpIndex) -> Outgoing<'_, F> {
        Outgoing {
            bus: self.server.with(self.frames),
            vp,
        }
    }

    /// Where messages go, if the client ever said: the VP and SINT to be served when something is queued.
    pub fn message_target(&self) -> Option<(VpIndex, u8)> {
        let connection = &self.server.connection;
        (connection.sint != 0).then_some((connection.vp, connection.sint))
    }

    /// Whether a message waits for the client.
    pub fn has_message(&self) -> bool {
        self.server.answers.len != 0
    }

    pub(crate) fn push(&mut self, answer: Answer) {
        self.server.answers.push(answer, self.frames);
    }

    /// Moves what is marked into the queue, as far as there is room.
    pub(crate) fn settle(&mut self) {
        let Server {
            connection,
            channels,
            gpadls,
            answers,
            may_answer,
            ..
        } = &mut *self.server;
        if !*may_answer {
            return;
        }
        for number in 1..=channels.room {
            if answers.is_full() {
                return;
            }
            if let Some(channel) = channels.get(number, self.frames)
                && let Some(answer) = channel.take_due(number)
            {
                answers.push(answer, self.frames);
            }
        }
        for number in 1..=gpadls.room {
            if answers.is_full() {
                return;
            }
            if let Some(gpadl) = gpadls.get(number, self.frames)
                && gpadl.state == GpadlState::Torn
            {
                let answer = Answer::gpadl_torndown(gpadl.handle);
                answers.push(answer, self.frames);
                gpadls.remove(number, self.frames);
            }
        }
        if answers.is_full() {
            return;
        }
        if core::mem::take(&mut connection.owes_all_offers) {
            answers.push(Answer::all_offers_delivered(), self.frames);
        }
        *may_answer = false;
    }

    /// Marks something for the client at a channel.
    pub(crate) fn owe(&mut self, number: u16, due: Due) {
        if let Some(channel) = self.server.channels.get(number, self.frames) {
            channel.due = due;
            self.server.may_answer = true;
        }
    }

    /// The message for the oldest answer. `None` for the offer of a channel that the client gave up unseen.
    fn message(&mut self, answer: &Answer) -> Option<Message> {
        if answer.kind != MessageType::OFFER_CHANNEL {
            let (bytes, len) = answer.payload();
            return Message::new(SYNTHETIC_MESSAGE_TYPE, 0, bytes.get(..len)?);
        }
        let [number, ..] = answer.words;
        let relid = vmbus_proto::Relid(number);
        let connection = self.event_connection(relid);
        let offer = self.channel(relid)?.1.offer;
        let offer = OfferChannel::new(&offer, relid, connection);
        Message::new(SYNTHETIC_MESSAGE_TYPE, 0, &offer.encode())
    }
}

/// Messages for one VP of the client.
#[derive(Debug)]
pub struct Outgoing<'a, F> {
    bus: Bus<'a, F>,
    vp: VpIndex,
}

impl<F: Frames> MessageSource for Outgoing<'_, F> {
    fn waiting(&mut self) -> u16 {
        let target = self
            .bus
            .message_target()
            .filter(|(vp, _)| *vp == self.vp && self.bus.has_message());
        target.map_or(0, |(_, sint)| 1u16.checked_shl(sint.into()).unwrap_or(0))
    }

    fn first(&mut self, sint: usize) -> Option<(Message, bool)> {
        let (vp, target) = self.bus.message_target()?;
        if vp != self.vp || usize::from(target) != sint {
            return None;
        }
        for _ in 0..QUEUE_ANSWERS {
            let answers = &self.bus.server.answers;
            let has_more = answers.len > 1;
            let answer = *(answers.len != 0)
                .then(|| answers.at(0, self.bus.frames))
                .flatten()?;
            if let Some(message) = self.bus.message(&answer) {
                return Some((message, has_more));
            }
            self.bus.server.answers.pop();
        }
        None
    }

    fn pop(&mut self, _: usize) {
        self.bus.server.answers.pop();
        self.bus.settle();
    }
}
