//! The hypervisor's end of the control channel and of a slot.

use ring::{Corrupt, Outgoing, Packet, Reader, RingMem, Unusable, WriteError, Writer, reset};
use ring_proto::{DESCRIPTOR_BYTES, PacketFlags, PacketType};
use slot_proto::{
    ChannelKind, Generation, Header, HelloDone, MAGIC, MAJOR, MAX_PACKET_BYTES, MINOR, Request,
    SessionNotice, SessionOver, Status, Type, is_callers, split,
};
use tlfs::call::PARTITION_SELF;
use tlfs::{CallCode, HvError};

use crate::outstanding::Outstanding;
use crate::{Attachment, Doorbell, Flag, MAX_OUTSTANDING, Ticket, check_call};

/// What a completion takes in the ring, at most.
const COMPLETION_BYTES: u32 = MAX_PACKET_BYTES as u32 + 8;
/// What a body can have, at most.
const BODY_BYTES: usize = MAX_PACKET_BYTES - DESCRIPTOR_BYTES - Header::BYTES;
/// Transaction id of what the hypervisor sends unasked.
const OWN_TRANSACTION: u64 = 1 << 63;

/// Where generations come from: one for all channels.
#[derive(Debug, Default)]
pub struct Generations(u32);

impl Generations {
    /// None was given out yet.
    pub const fn new() -> Self {
        Self(0)
    }

    /// A number that no session had before; `None` after 2^32 - 1 of them.
    pub fn fresh(&mut self) -> Option<Generation> {
        self.0 = self.0.checked_add(1)?;
        Some(Generation(self.0))
    }
}

/// What HELLO tells about the hypervisor and the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Control channel or slot.
    pub kind: ChannelKind,
    /// Number of the slot, 0 for the control channel.
    pub slot: u32,
    /// Chosen when the hypervisor started.
    pub boot_id: u64,
    /// Features that user space may rely on.
    pub features: u64,
}

/// A channel cannot be opened with these rings: no proper size, or no room for two completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenError;

impl From<Unusable> for OpenError {
    fn from(_: Unusable) -> Self {
        Self
    }
}

/// Why nothing is read any more from a channel, until it is attached or opened anew. A slot's partition is suspended then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The peer broke a ring.
    Corrupt(Corrupt),
    /// A packet that is not a request: type, flags, transaction id or framing.
    Malformed,
    /// The first packet was not HELLO.
    NoHello,
}

/// Why a request has to wait in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// Its completion has no room. User space signals when it has.
    Space,
    /// Others must be completed first, because one of them or this one is a barrier, or because those of former sessions
    /// hold all places. Try again after [`Channel::complete`].
    Others,
}

/// One step of [`Channel::next`].
#[derive(Debug)]
pub enum Turn<'b> {
    /// There is no request.
    Idle,
    /// The next one must wait.
    Blocked(Blocked),
    /// One was answered here, and there is nothing to do. `Some`: its session is new; what former ones had asked for
    /// need not be done any more, only [completed](Channel::complete).
    Answered(Option<Generation>),
    /// The caller of this CALL does not want it any more. It may stop, and is to be completed.
    Cancel(Ticket),
    /// A request to be done and completed.
    Run(Ticket, Request<'b>),
    /// See [`Stop`]; also at each later call.
    Stopped(Stop),
}

/// Outcome of [`Channel::flush`].
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flushed {
    /// The channel must be interrupted now.
    pub interrupts: bool,
    /// A request is there that nothing holds up, perhaps without a signal, or a [`Stop`] to be heard of: call
    /// [`Channel::next`] again.
    pub has_more: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// HELLO must come first.
    Fresh,
    Greeted,
    Stopped(Stop),
}

/// One open channel: its rings and its session.
///
/// One LP at a time uses it: at each signal of user space, and after completing a request later, it calls
/// [`next`](Self::next) a bounded number of times, then [`flush`](Self::flush), which shows user space what was done.
#[derive(Debug)]
pub struct Channel<M> {
    identity: Identity,
    state: State,
    /// [`Generation::NONE`]: no session.
    generation: Generation,
    granted: u32,
    outstanding: Outstanding,
    requests: Reader<M>,
    completions: Writer<M>,
    /// User space has not been interrupted for all of them yet.
    has_news: bool,
    /// The last [`next`](Self::next) was held up, or told of a stop.
    is_held: bool,
}

/// Where the body of the packet in the buffer lies.
struct Place {
    header: Header,
    start: usize,
    end: usize,
    transaction: u64,
}

impl<M: RingMem> Channel<M> {
    /// The channel, just opened by the kernel: `upstream` comes from user space, `downstream` goes there.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(identity: Identity, upstream: M, downstream: M) -> Result<Self, OpenError> {
        if downstream.data_bytes() / COMPLETION_BYTES < 2 {
            return Err(OpenError);
        }
        Ok(Self {
            identity,
            state: State::Fresh,
            generation: Generation::NONE,
            granted: 0,
            outstanding: Outstanding::NONE,
            requests: Reader::new(upstream)?,
            completions: Writer::new(downstream)?,
            has_news: false,
            is_held: false,
        })
    }

    /// ATTACH of a slot: a session begins, with empty rings. Nobody is at their other end: the old worker is gone and the
    /// new one waits for the generation.
    pub fn attach(&mut self, generation: Generation) {
        reset(self.requests.mem());
        reset(self.completions.mem());
        self.requests.restart();
        self.completions.restart();
        (self.state, self.generation, self.granted) = (State::Fresh, generation, 0);
    }

    /// The session is over, by DETACH or because the partition or the slot goes. The worker is told when there is room;
    /// its requests are refused from now on.
    pub fn detach(&mut self, reason: SessionOver) {
        let generation = self.generation;
        if generation == Generation::NONE {
            return;
        }
        let body = SessionNotice { reason, generation }.encode();
        let header = Header::new(Type::SESSION_NOTICE, generation, body.len() as u32);
        // Room that is kept for completions is not needed any more. No room at all: the event area tells.
        let _ = self.completions.put(&Outgoing {
            kind: PacketType::IN_BAND,
            transaction: OWN_TRANSACTION,
            payload: &[&header.encode(), &body],
            ..Outgoing::default()
        });
        self.has_news = true;
        self.generation = Generation::NONE;
    }

    /// The session, if there is one.
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// Whether the session has begun and greeted, and is not stopped.
    pub fn is_live(&self) -> bool {
        self.state == State::Greeted && self.generation != Generation::NONE
    }

    /// Whether a request of any session is not completed yet.
    pub fn is_busy(&self) -> bool {
        !self.outstanding.is_empty()
    }

    /// Takes the next request. `attachment` is the slot's, `None` on the control channel and on a slot without partition.
    ///
    /// Requests of wrong sessions, of unknown types, and beyond what was granted are answered here, and so are HELLO and
    /// calls that the slot may not make. The partition id of a slot's CALL is the attached one, whatever it was.
    pub fn next<'b>(
        &mut self,
        buffer: &'b mut [u8; MAX_PACKET_BYTES],
        attachment: Option<&Attachment>,
        generations: &mut Generations,
    ) -> Turn<'b> {
        let turn = self.take(buffer, attachment, generations);
        self.is_held = matches!(turn, Turn::Blocked(_) | Turn::Stopped(_));
        turn
    }

    fn take<'b>(
        &mut self,
        buffer: &'b mut [u8; MAX_PACKET_BYTES],
        attachment: Option<&Attachment>,
        generations: &mut Generations,
    ) -> Turn<'b> {
        if let State::Stopped(stop) = self.state {
            return Turn::Stopped(stop);
        }
        if self.outstanding.has_barrier() {
            return Turn::Blocked(Blocked::Others);
        }
        match self.has_room() {
            Ok(true) => {}
            Ok(false) => return Turn::Blocked(Blocked::Space),
            Err(corrupt) => return self.stop(Stop::Corrupt(corrupt)),
        }
        let place = match self.requests.next(&mut buffer[..]) {
            Ok(Some(packet)) => frame(&packet),
            Ok(None) => return Turn::Idle,
            Err(corrupt) => return self.stop(Stop::Corrupt(corrupt)),
        };
        let Some(place) = place else {
            return self.stop(Stop::Malformed);
        };
        let (header, transaction) = (place.header, place.transaction);
        if self.state == State::Fresh && header.kind != Type::HELLO {
            return self.stop(Stop::NoHello);
        }
        if header.kind == Type::CALL && self.identity.kind == ChannelKind::Slot {
            name_partition(buffer, &place, attachment);
        }
        let body = buffer.get(place.start..place.end).unwrap_or_default();
        let request = match self.check(&header, body, transaction, attachment) {
            Ok(request) => request,
            Err(error) => {
                self.answer(header.kind, transaction, &Status::of(Err(error)).encode());
                return Turn::Answered(None);
            }
        };
        match request {
            Request::Hello(hello) => {
                let begun = self.greet(&hello, transaction, generations);
                return Turn::Answered(begun);
            }
            Request::Cancel(cancel) => {
                let found = self
                    .outstanding
                    .find(cancel.transaction, self.generation)
                    .filter(|ticket| ticket.kind == Type::CALL);
                let result = found.map(|_| ()).ok_or(HvError::NOT_FOUND);
                self.answer(header.kind, transaction, &Status::of(result).encode());
                return found.map_or(Turn::Answered(None), Turn::Cancel);
            }
            _ => {}
        }
        let is_barrier = self.identity.kind == ChannelKind::Control && is_barrier(&request);
        if is_barrier && !self.outstanding.is_empty() {
            self.requests.put_back();
            return Turn::Blocked(Blocked::Others);
        }
        match self
            .outstanding
            .add(transaction, self.generation, header.kind, is_barrier)
        {
            Some(ticket) => Turn::Run(ticket, request),
            None => {
                self.requests.put_back();
                Turn::Blocked(Blocked::Others)
            }
        }
    }

    /// Completes a request with the body that its type has, in two pieces; a failed one with [`Status`]. Nothing is
    /// written when its session is over. False, and nothing done, when it was completed before or the pieces are too
    /// long for a completion.
    pub fn complete(&mut self, ticket: Ticket, fixed: &[u8], rest: &[u8]) -> bool {
        if fixed.len().saturating_add(rest.len()) > BODY_BYTES || !self.outstanding.remove(ticket) {
            return false;
        }
        if ticket.generation != self.generation || matches!(self.state, State::Stopped(_)) {
            return true;
        }
        self.put(ticket.kind, ticket.transaction, &[fixed, rest])
    }

    /// Shows user space all that was done: the requests that were taken, and the completions.
    pub fn flush<F: Flag>(&mut self, doorbell: &Doorbell<F>) -> Flushed {
        let space = self.requests.publish();
        let _ = self.completions.commit(); // The doorbell has a rule of its own.
        let has_news = core::mem::take(&mut self.has_news) || space.is_needed();
        let is_stopped = matches!(self.state, State::Stopped(_));
        Flushed {
            interrupts: has_news && doorbell.ring(self.completions.mem()),
            // An error is found by `next`.
            has_more: !self.is_held && (is_stopped || self.requests.has_more().unwrap_or(true)),
        }
    }

    /// The ring towards user space, for the [`Doorbell`].
    pub const fn downstream(&self) -> &M {
        self.completions.mem()
    }

    fn check<'b>(
        &self,
        header: &Header,
        body: &'b [u8],
        transaction: u64,
        attachment: Option<&Attachment>,
    ) -> Result<Request<'b>, HvError> {
        let is_hello = header.kind == Type::HELLO;
        let is_slot = self.identity.kind == ChannelKind::Slot;
        let is_ours = header.generation == self.generation;
        if is_hello {
            // The control channel's HELLO begins a session; a slot's tells that the worker knows of it.
            let is_again = self.state == State::Greeted && self.generation != Generation::NONE;
            if is_slot && (!is_ours || is_again) {
                return Err(HvError::INVALID_PARTITION_STATE);
            }
        } else if !is_ours || self.generation == Generation::NONE {
            return Err(HvError::INVALID_PARTITION_STATE);
        }
        let request = Request::decode(header.kind, body)?;
        match (&request, attachment) {
            (Request::Hello(_) | Request::Cancel(_), _) => return Ok(request),
            (Request::Call(call), Some(attachment)) if is_slot => check_call(call, attachment)?,
            (Request::Call(_), _) if !is_slot => {}
            (_, Some(_)) if is_slot && is_for_slot(header.kind) => {}
            (_, None) if is_slot => return Err(HvError::INVALID_PARTITION_STATE),
            _ if !is_slot && !is_for_slot(header.kind) => {}
            _ => return Err(HvError::INVALID_HYPERCALL_CODE),
        }
        if self
            .outstanding
            .find(transaction, self.generation)
            .is_some()
        {
            return Err(HvError::INVALID_PARAMETER);
        }
        if self.outstanding.count(self.generation) >= self.granted {
            return Err(HvError::INSUFFICIENT_BUFFERS);
        }
        Ok(request)
    }

    /// Answers HELLO. On the control channel a session begins by it; the new generation is returned.
    fn greet(
        &mut self,
        hello: &slot_proto::Hello,
        transaction: u64,
        generations: &mut Generations,
    ) -> Option<Generation> {
        let refuse = |channel: &mut Self, error| {
            channel.answer(Type::HELLO, transaction, &Status::of(Err(error)).encode());
            None
        };
        if hello.magic != MAGIC || hello.major != MAJOR || hello.max_outstanding == 0 {
            return refuse(self, HvError::INVALID_PARAMETER);
        }
        let mut begun = None;
        if self.identity.kind == ChannelKind::Control {
            let Some(generation) = generations.fresh() else {
                return refuse(self, HvError::NO_RESOURCES);
            };
            self.generation = generation;
            begun = Some(generation);
        }
        self.state = State::Greeted;
        // One completion more than is granted has room, for what is answered at once.
        let room = (self.completions.mem().data_bytes() - 1) / COMPLETION_BYTES;
        self.granted = hello
            .max_outstanding
            .min(MAX_OUTSTANDING)
            .min(room.saturating_sub(1));
        let done = HelloDone {
            status: 0,
            #[expect(clippy::unnecessary_min_or_max, reason = "MINOR will not stay 0")]
            minor: hello.minor.min(MINOR),
            generation: self.generation,
            kind: self.identity.kind,
            slot: self.identity.slot,
            max_outstanding: self.granted,
            max_packet: MAX_PACKET_BYTES as u32,
            boot_id: self.identity.boot_id,
            features: self.identity.features,
        };
        self.answer(Type::HELLO, transaction, &done.encode());
        begun
    }

    /// Whether one completion more has room beside those that are owed.
    fn has_room(&mut self) -> Result<bool, Corrupt> {
        let owed = self.outstanding.count(self.generation);
        let bytes = owed.saturating_add(1).saturating_mul(COMPLETION_BYTES);
        if self.completions.fits(bytes)? {
            return Ok(true);
        }
        // What is committed by this is found by `flush`.
        self.completions
            .wait_for_space(bytes)
            .map(|space| space.is_there)
    }

    fn answer(&mut self, kind: Type, transaction: u64, body: &[u8]) {
        self.put(kind, transaction, &[body, &[]]);
    }

    /// Room was kept for this: only a peer who broke the ring makes it fail.
    fn put(&mut self, kind: Type, transaction: u64, body: &[&[u8]; 2]) -> bool {
        let [fixed, rest] = body;
        let len = fixed.len().saturating_add(rest.len());
        let header = Header::new(kind, self.generation, len as u32);
        let written = self.completions.put(&Outgoing {
            kind: PacketType::COMPLETION,
            transaction,
            payload: &[&header.encode(), fixed, rest],
            ..Outgoing::default()
        });
        self.has_news = true;
        if let Err(WriteError::Corrupt(corrupt)) = written {
            self.state = State::Stopped(Stop::Corrupt(corrupt));
        }
        written.is_ok()
    }

    fn stop<'b>(&mut self, stop: Stop) -> Turn<'b> {
        self.state = State::Stopped(stop);
        Turn::Stopped(stop)
    }
}

/// Where the parts of a request are, `None` when it is none.
fn frame(packet: &Packet<'_>) -> Option<Place> {
    let descriptor = &packet.descriptor;
    if descriptor.kind != PacketType::IN_BAND
        || !descriptor.flags.contains(PacketFlags::COMPLETION_REQUESTED)
        || !is_callers(descriptor.transaction)
        || !packet.header.is_empty()
    {
        return None;
    }
    let (header, body) = split(packet.payload).ok()?;
    let start = descriptor
        .payload_offset()
        .checked_add(usize::from(header.header_bytes))?;
    Some(Place {
        header,
        start,
        end: start.checked_add(body.len())?,
        transaction: descriptor.transaction,
    })
}

/// Writes the attached partition where a slot's CALL says "self": for the caller of the call itself, the parent, that
/// would mean another one.
fn name_partition(buffer: &mut [u8], place: &Place, attachment: Option<&Attachment>) {
    let input = buffer
        .get_mut(place.start..place.end)
        .and_then(|body| body.get_mut(8..))
        .and_then(|input| input.first_chunk_mut());
    if let (Some(partition), Some(attachment)) = (input, attachment)
        && *partition == PARTITION_SELF.get().to_le_bytes()
    {
        *partition = attachment.partition.get().to_le_bytes();
    }
}

const fn is_for_slot(kind: Type) -> bool {
    matches!(kind.0, 32..=40)
}

/// On the control channel nothing overtakes these, and they overtake nothing.
fn is_barrier(request: &Request<'_>) -> bool {
    match request {
        Request::Attach(_) | Request::Detach(_) => true,
        Request::Call(call) => matches!(
            call.control.code(),
            CallCode::INITIALIZE_PARTITION
                | CallCode::FINALIZE_PARTITION
                | CallCode::DELETE_PARTITION
        ),
        _ => false,
    }
}
