//! User space's end of the control channel and of a slot.

use ring::{Corrupt, Outgoing, Reader, RingMem, Signal, Unusable, WriteError, Writer};
use ring_proto::{Control, PacketFlags, PacketType};
use slot_proto::{
    Generation, Header, Hello, HelloDone, MAGIC, MAJOR, MAX_PACKET_BYTES, MINOR, Request,
    SessionNotice, SessionOver, Type, is_callers, split,
};
use tlfs::wire::Zero;
use tlfs::{HvError, status};

use crate::MAX_OUTSTANDING;

/// One more than can be granted, for a CANCEL.
const PLACES: usize = MAX_OUTSTANDING as usize + 1;

/// What user space needs to ask the hypervisor and to match its answers.
///
/// One process at a time uses a channel. Sleep goes like this: [`flush`](Self::flush); [`rest`](Self::rest);
/// `write(fd, 1)`, which arms the doorbell, unless there was one since the last interrupt and the last notice; look at
/// [`has_more`](Self::has_more) and [`Watcher::has_news`](crate::Watcher::has_news) once more; `read(fd)`, which takes the
/// interrupt. On wake-up: [`attend`](Self::attend), then look at everything.
#[derive(Debug)]
pub struct Client<M> {
    requests: Writer<M>,
    completions: Reader<M>,
    generation: Generation,
    /// Requests at a time: one until HELLO is answered.
    granted: u32,
    outstanding: [Option<(u64, Type)>; PLACES],
    next_transaction: u64,
}

/// Why a request was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// As many as were granted have no completion yet.
    TooMany,
    /// The ring is full: wait for a completion.
    Full,
    /// No packet can hold it.
    TooLong,
    /// The hypervisor broke the ring.
    Corrupt(Corrupt),
}

/// The hypervisor does not keep to the protocol: this channel is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// It broke a ring.
    Corrupt(Corrupt),
    /// A packet that is neither completion nor notice, or has no proper body.
    Packet,
}

/// The answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion<'b> {
    /// What [`Client::send`] answered.
    pub transaction: u64,
    /// Type of the request.
    pub kind: Type,
    /// Its outcome. Of a CALL that failed, the result word tells how far it came.
    pub result: Result<(), HvError>,
    /// The body, status included: see the blocks in `slot_proto`.
    pub body: &'b [u8],
}

/// What came from the hypervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming<'b> {
    /// An answer.
    Completion(Completion<'b>),
    /// The session is over. No answer comes any more.
    Over(SessionOver),
}

impl<M: RingMem> Client<M> {
    /// The end of a channel that was just opened, or of a slot that was just attached as `generation`. `upstream` goes
    /// to the hypervisor, `downstream` comes from there.
    ///
    /// # Errors
    /// [`Unusable`] when the rings have no proper size.
    pub fn new(generation: Generation, upstream: M, downstream: M) -> Result<Self, Unusable> {
        let (requests, completions) = (Writer::new(upstream)?, Reader::new(downstream)?);
        Ok(Self::with(generation, requests, completions, 1))
    }

    /// The end of a channel that another process left behind, in session `generation`: that of a slot, or
    /// [`Generation::NONE`] where HELLO follows. `first_transaction` (from 1 on, bit 63 clear) should differ from those
    /// that it used: its completions may still arrive.
    ///
    /// # Errors
    /// [`Unusable`] when the rings have no proper size or indices.
    pub fn resume(
        generation: Generation,
        upstream: M,
        downstream: M,
        first_transaction: u64,
    ) -> Result<Self, Unusable> {
        let (requests, completions) = (Writer::resume(upstream)?, Reader::resume(downstream)?);
        Ok(Self::with(
            generation,
            requests,
            completions,
            first_transaction,
        ))
    }

    const fn with(
        generation: Generation,
        requests: Writer<M>,
        completions: Reader<M>,
        next_transaction: u64,
    ) -> Self {
        Self {
            requests,
            completions,
            generation,
            granted: 1,
            outstanding: [None; PLACES],
            next_transaction,
        }
    }

    /// HELLO with what this side speaks.
    pub const fn hello(max_outstanding: u32) -> Request<'static> {
        Request::Hello(Hello {
            magic: MAGIC,
            major: MAJOR,
            minor: MINOR,
            max_outstanding,
            reserved: Zero,
        })
    }

    /// The session; [`Generation::NONE`] before HELLO is answered on the control channel.
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// Requests without completion.
    pub fn outstanding(&self) -> usize {
        self.outstanding.iter().flatten().count()
    }

    /// Writes a request and answers its transaction id. The hypervisor sees it at the next [`flush`](Self::flush).
    ///
    /// CANCEL is always allowed, when the ring has room.
    ///
    /// # Errors
    /// Every [`SendError`]; nothing was sent.
    pub fn send(&mut self, request: &Request<'_>) -> Result<u64, SendError> {
        let kind = request.kind();
        let count = self
            .outstanding
            .iter()
            .flatten()
            .filter(|(_, kind)| *kind != Type::CANCEL)
            .count();
        if kind != Type::CANCEL && count >= self.granted as usize {
            return Err(SendError::TooMany);
        }
        let place = self
            .outstanding
            .iter_mut()
            .find(|place| place.is_none())
            .ok_or(SendError::TooMany)?;
        let transaction = self.next_transaction;
        let (fixed, rest) = request.body();
        let len = fixed.as_bytes().len() + rest.len();
        if len > MAX_PACKET_BYTES - 16 - Header::BYTES {
            return Err(SendError::TooLong);
        }
        let header = Header::new(kind, self.generation, len as u32);
        let packet = Outgoing {
            kind: PacketType::IN_BAND,
            flags: PacketFlags::COMPLETION_REQUESTED,
            transaction,
            header: &[],
            payload: &[&header.encode(), fixed.as_bytes(), rest],
        };
        self.requests.put(&packet).map_err(|error| match error {
            WriteError::Full => SendError::Full,
            WriteError::TooLong => SendError::TooLong,
            WriteError::Corrupt(corrupt) => SendError::Corrupt(corrupt),
        })?;
        *place = Some((transaction, kind));
        let next = transaction.wrapping_add(1);
        self.next_transaction = if is_callers(next) { next } else { 1 };
        Ok(transaction)
    }

    /// Shows the hypervisor what was sent and what was read. Whether it must be signalled (`write(fd, 1)`).
    pub fn flush(&mut self) -> Signal {
        let space = self.completions.publish();
        self.requests.commit().or(space)
    }

    /// What came next. What belongs to former sessions, or to no request, is passed over.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn next<'b>(
        &mut self,
        buffer: &'b mut [u8; MAX_PACKET_BYTES],
    ) -> Result<Option<Incoming<'b>>, Violation> {
        // Two steps because what is passed over must not be borrowed for as long as what is returned.
        loop {
            let Some(packet) = self
                .completions
                .next(&mut buffer[..])
                .map_err(Violation::Corrupt)?
            else {
                return Ok(None);
            };
            let descriptor = packet.descriptor;
            let (header, body) = split(packet.payload).map_err(|_| Violation::Packet)?;
            let len = body.len();
            let is_wanted = match descriptor.kind {
                PacketType::IN_BAND if header.kind == Type::SESSION_NOTICE => {
                    header.generation == self.generation
                }
                PacketType::COMPLETION => self.take(descriptor.transaction, &header, body)?,
                _ => return Err(Violation::Packet),
            };
            if !is_wanted {
                continue;
            }
            let start = descriptor.payload_offset() + usize::from(header.header_bytes);
            let body = buffer
                .get(start..)
                .and_then(|rest| rest.get(..len))
                .unwrap_or_default();
            if descriptor.kind == PacketType::IN_BAND {
                let notice = SessionNotice::decode(body).map_err(|_| Violation::Packet)?;
                return Ok(Some(Incoming::Over(notice.reason)));
            }
            return Ok(Some(Incoming::Completion(Completion {
                transaction: descriptor.transaction,
                kind: header.kind,
                result: outcome(body).ok_or(Violation::Packet)?,
                body,
            })));
        }
    }

    /// Asks for no interrupts: this side is awake and looks by itself.
    pub fn attend(&self) {
        self.set_attended(1);
    }

    /// Asks for an interrupt with what comes next, if there was a `write(fd, 1)` since the last one; then look once more.
    pub fn rest(&self) {
        self.set_attended(0);
    }

    fn set_attended(&self, value: u32) {
        self.completions.mem().set_control(Control::Attended, value);
    }

    /// Whether anything came, after a full barrier: the last look before sleep.
    ///
    /// # Errors
    /// [`Violation::Corrupt`].
    pub fn has_more(&mut self) -> Result<bool, Violation> {
        self.completions.has_more().map_err(Violation::Corrupt)
    }

    /// Whether this completion is one that somebody waits for.
    fn take(&mut self, transaction: u64, header: &Header, body: &[u8]) -> Result<bool, Violation> {
        let is_hello = header.kind == Type::HELLO;
        let wanted = Some((transaction, header.kind));
        let Some(place) = self.outstanding.iter_mut().find(|place| **place == wanted) else {
            return Ok(false);
        };
        if !is_hello && header.generation != self.generation && self.generation != Generation::NONE
        {
            return Ok(false);
        }
        *place = None;
        if is_hello && outcome(body) == Some(Ok(())) {
            let done = HelloDone::decode(body).map_err(|_| Violation::Packet)?;
            (self.generation, self.granted) = (done.generation, done.max_outstanding);
            // What was asked in a session before this one is not answered any more.
            self.outstanding = [None; PLACES];
        }
        Ok(true)
    }
}

/// The status that a body begins with, `None` when it has none.
fn outcome(body: &[u8]) -> Option<Result<(), HvError>> {
    match u16::from_le_bytes(*body.first_chunk()?) {
        status::SUCCESS => Some(Ok(())),
        code => Some(Err(HvError(code))),
    }
}
