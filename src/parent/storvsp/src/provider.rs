//! One controller.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use disk::Pool;
use scsi::{Completion, Data, ScatterList, Target};
use storvsp_proto::{
    BODY_LEN, DataDirection, NtStatus, Operation, Packet, ScsiRequest, ScsiResponse, ScsiStatus,
    SrbStatus, Version,
};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use crate::flight::{Flights, Number, Scope};
use crate::handshake::Handshake;
use crate::incoming::{Channel, GpaRange, Incoming, Link};

const PAGE: u64 = 4096;

/// Limits of a controller.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Largest buffer of a command in bytes, a multiple of 4096 up to 2 MiB.
    pub max_transfer_bytes: u32,
    /// Sub-channels that the child may have, usually its VPs less one.
    pub max_sub_channels: u16,
    /// Commands that may be on their way on all channels together.
    pub max_in_flight: usize,
}

impl Default for Config {
    /// 256 KiB at once, no sub-channels, 1024 commands.
    fn default() -> Self {
        Self {
            max_transfer_bytes: 256 * 1024,
            max_sub_channels: 0,
            max_in_flight: 1024,
        }
    }
}

/// Why a packet was not taken. It was not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// As many commands are on their way as may be: try again after the next completion.
    Full,
    /// The channel is not open.
    Closed,
}

/// One SCSI controller of a child.
pub struct Provider {
    shared: Arc<Shared>,
    handshake: Mutex<Handshake>,
    pool: Arc<Pool>,
    config: Config,
}

/// What the threads of the pool need.
struct Shared {
    target: Arc<Target>,
    memory: Arc<GuestMemoryMmap>,
    link: Arc<dyn Link>,
    flights: Mutex<Flights>,
}

impl Shared {
    fn flights(&self) -> MutexGuard<'_, Flights> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that was taken. Its end is told once, at the latest when this is dropped.
struct Flight {
    shared: Arc<Shared>,
    number: Number,
    channel: Channel,
    transaction_id: u64,
    wants_completion: bool,
    /// What the request said; the answer repeats most of it.
    body: [u8; BODY_LEN],
    answer: Option<Packet>,
}

impl Flight {
    fn end(mut self, answer: Packet) {
        self.answer = Some(answer);
    }

    fn end_command(self, response: ScsiResponse) {
        let mut answer = Packet::answer(NtStatus::SUCCESS);
        answer.body = response.encode(&self.body);
        self.end(answer);
    }

    fn is_cancelled(&self) -> bool {
        self.shared
            .flights()
            .is_cancelled(self.number, self.channel)
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let answer = self.answer.take().unwrap_or_else(|| {
            // Nobody gave an answer: the command failed inside.
            let failed = ScsiResponse::new(SrbStatus::INTERNAL_ERROR, ScsiStatus::GOOD, 0);
            let mut answer = Packet::answer(NtStatus::SUCCESS);
            answer.body = failed.encode(&self.body);
            answer
        });
        let is_wanted = self.wants_completion && self.shared.flights().is_wanted(self.number);
        if is_wanted {
            self.shared
                .link
                .complete(self.channel, self.transaction_id, &answer.encode());
        }
        // Only now: whoever waits for this end may take the ring away.
        let ripe = self.shared.flights().finish(self.number);
        self.shared.link.has_room();
        for done in ripe {
            done();
        }
    }
}

impl Provider {
    /// A controller whose channels are closed.
    pub fn new(
        target: Arc<Target>,
        memory: Arc<GuestMemoryMmap>,
        link: Arc<dyn Link>,
        pool: Arc<Pool>,
        config: Config,
    ) -> Self {
        let handshake = Handshake::new(config.max_sub_channels, config.max_transfer_bytes);
        Self {
            shared: Arc::new(Shared {
                target,
                memory,
                link,
                flights: Mutex::default(),
            }),
            handshake: Mutex::new(handshake),
            pool,
            config,
        }
    }

    fn handshake(&self) -> MutexGuard<'_, Handshake> {
        self.handshake
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The child opened a channel. `false` refuses: a sub-channel that it did not ask for, or a channel whose close is
    /// not over.
    pub fn open(&self, channel: Channel) -> bool {
        let mut handshake = self.handshake();
        let mut flights = self.shared.flights();
        let is_known = channel == Channel::PRIMARY || channel.0 <= handshake.sub_channels();
        if !is_known || !flights.open(channel) {
            return false;
        }
        if channel == Channel::PRIMARY {
            handshake.open();
        }
        true
    }

    /// The child closes a channel, or lost it. Commands that were not started are dropped; when the others have ended,
    /// `done` is called, on this thread or on one of the pool. After that nothing touches the channel's rings or the
    /// buffers of its requests. From this call on no completion goes to the channel, but one that is on its way there
    /// already.
    pub fn close(&self, channel: Channel, done: impl FnOnce() + Send + 'static) {
        if channel == Channel::PRIMARY {
            self.handshake().close();
        }
        let mut flights = self.shared.flights();
        flights.close(channel);
        flights.cancel(Scope::One(channel));
        let ripe = flights.barrier_now(Scope::One(channel), Box::new(done));
        drop(flights);
        for done in ripe {
            done();
        }
    }

    /// Closes all channels at once: the child was reset, or unloaded VMBus. `done` as for [`Provider::close`].
    pub fn stop(&self, done: impl FnOnce() + Send + 'static) {
        self.handshake().close();
        let mut flights = self.shared.flights();
        for channel in flights.open_channels() {
            flights.close(channel);
        }
        flights.cancel(Scope::All);
        let ripe = flights.barrier_now(Scope::All, Box::new(done));
        drop(flights);
        for done in ripe {
            done();
        }
    }

    /// Calls `done` when every command that was taken so far has been completed. Nothing is cancelled: to pause, take no
    /// packets meanwhile.
    pub fn settle(&self, done: impl FnOnce() + Send + 'static) {
        let ripe = self
            .shared
            .flights()
            .barrier_now(Scope::All, Box::new(done));
        for done in ripe {
            done();
        }
    }

    /// Commands on their way.
    pub fn in_flight(&self) -> usize {
        self.shared.flights().len()
    }

    /// The version that the child agreed to.
    pub fn version(&self) -> Option<Version> {
        self.handshake().version()
    }

    /// Tells the child that units came or went; it scans the bus. Nothing is said before the end of the handshake, as
    /// the child scans then anyway.
    pub fn announce_change(&self) {
        let is_running = self.handshake().is_running();
        if is_running {
            let packet = Packet::notice(Operation::ENUMERATE_BUS);
            self.shared.link.notify(&packet.encode());
        }
    }

    /// Takes a packet. What it asks for has been answered when this returns, or will be from a thread of the pool.
    ///
    /// # Errors
    /// See [`NotTaken`].
    pub fn receive(&self, incoming: &Incoming<'_>) -> Result<(), NotTaken> {
        let number = {
            let mut flights = self.shared.flights();
            if !flights.is_open(incoming.channel) {
                return Err(NotTaken::Closed);
            }
            if flights.len() >= self.config.max_in_flight {
                return Err(NotTaken::Full);
            }
            flights.start(incoming.channel)
        };
        let mut flight = Flight {
            shared: Arc::clone(&self.shared),
            number,
            channel: incoming.channel,
            transaction_id: incoming.transaction_id,
            wants_completion: incoming.wants_completion,
            body: [0; BODY_LEN],
            answer: None,
        };
        let Ok(packet) = Packet::decode(incoming.payload) else {
            flight.end(Packet::answer(NtStatus::INVALID_PARAMETER));
            return Ok(());
        };
        flight.body = packet.body;
        match packet.operation {
            Operation::EXECUTE_SRB => self.execute(flight, incoming.ranges),
            Operation::RESET_BUS | Operation::RESET_ADAPTER | Operation::RESET_LUN => {
                self.reset(flight);
            }
            _ => self.step(flight, &packet),
        }
        Ok(())
    }

    fn step(&self, flight: Flight, packet: &Packet) {
        if flight.channel != Channel::PRIMARY {
            flight.end(Packet::answer(NtStatus::INVALID_DEVICE_STATE));
            return;
        }
        let reply = self.handshake().step(packet);
        flight.end(reply.packet);
        if reply.offer > 0 {
            self.shared.link.offer_sub_channels(reply.offer);
        }
    }

    /// Answers a reset when all older commands have been completed, those that were not started with a status that says
    /// so.
    fn reset(&self, flight: Flight) {
        if !self.handshake().is_running() {
            flight.end(Packet::answer(NtStatus::INVALID_DEVICE_STATE));
            return;
        }
        let shared = Arc::clone(&self.shared);
        let mut flights = shared.flights();
        flights.cancel(Scope::All);
        let number = flight.number;
        let end = move || flight.end(Packet::answer(NtStatus::SUCCESS));
        // What is older counts: not the reset itself.
        let ripe = flights.barrier(Scope::All, number, Box::new(end));
        drop(flights);
        for done in ripe {
            done();
        }
    }

    fn execute(&self, flight: Flight, ranges: &[GpaRange<'_>]) {
        if !self.handshake().is_running() {
            flight.end(Packet::answer(NtStatus::INVALID_DEVICE_STATE));
            return;
        }
        let refused = ScsiResponse::new(SrbStatus::INVALID_REQUEST, ScsiStatus::GOOD, 0);
        let Ok(request) = ScsiRequest::decode(&flight.body) else {
            flight.end_command(refused);
            return;
        };
        let Some(pieces) = pieces(&request, ranges, self.config.max_transfer_bytes) else {
            flight.end_command(refused);
            return;
        };
        // A pool that is closed drops the job, and the flight ends with an internal error.
        let _ = self.pool.submit(move || run(flight, &request, &pieces));
    }
}

/// The pieces of the child's memory that a request is about, checked but for whether they are memory: at most one range,
/// of the length that the request says, not longer than agreed, with as many pages as it takes.
fn pieces(
    request: &ScsiRequest,
    ranges: &[GpaRange<'_>],
    max_transfer_bytes: u32,
) -> Option<Vec<(GuestAddress, usize)>> {
    let range = match ranges {
        [] => return (request.transfer_bytes == 0).then(Vec::new),
        [range] => range,
        _ => return None,
    };
    let offset = u64::from(range.byte_offset);
    let count = u64::from(range.byte_count);
    let pages = (offset + count).div_ceil(PAGE);
    if range.byte_count != request.transfer_bytes
        || range.byte_count > max_transfer_bytes
        || offset >= PAGE
        || pages != range.pages.len() as u64
    {
        return None;
    }
    let mut left = count;
    let mut skip = offset;
    let mut pieces = Vec::with_capacity(range.pages.len());
    for page in range.pages {
        let address = page.checked_mul(PAGE)?.checked_add(skip)?;
        let bytes = left.min(PAGE - skip);
        pieces.push((GuestAddress(address), bytes as usize));
        left -= bytes;
        skip = 0;
    }
    Some(pieces)
}

/// Carries out one command on a thread of the pool.
fn run(flight: Flight, request: &ScsiRequest, pieces: &[(GuestAddress, usize)]) {
    if flight.is_cancelled() {
        let reset = ScsiResponse::new(SrbStatus::BUS_RESET, ScsiStatus::GOOD, 0);
        flight.end_command(reset);
        return;
    }
    let shared = Arc::clone(&flight.shared);
    let Ok(list) = ScatterList::new(&shared.memory, pieces.iter().copied()) else {
        let refused = ScsiResponse::new(SrbStatus::INVALID_REQUEST, ScsiStatus::GOOD, 0);
        flight.end_command(refused);
        return;
    };
    let data = match request.direction {
        DataDirection::Read => Data::In(list),
        DataDirection::Write => Data::Out(list),
        DataDirection::None => Data::None,
    };
    let address = request.address;
    let completion = if address.path == 0 && address.target == 0 {
        shared.target.execute(address.lun, request.cdb(), &data)
    } else {
        Target::execute_nowhere(request.cdb(), &data)
    };
    flight.end_command(response(completion, request.sense_bytes));
}

/// How the end of a command looks to the child's driver.
fn response(completion: Completion, sense_room: u8) -> ScsiResponse {
    match completion {
        Completion::Good(bytes) => ScsiResponse::new(SrbStatus::SUCCESS, ScsiStatus::GOOD, bytes),
        Completion::Check(sense) => ScsiResponse::check_condition(&sense.fixed(), sense_room),
        Completion::Overrun => ScsiResponse::new(SrbStatus::DATA_OVERRUN, ScsiStatus::GOOD, 0),
        Completion::NoUnit => ScsiResponse::new(SrbStatus::INVALID_LUN, ScsiStatus::GOOD, 0),
    }
}
