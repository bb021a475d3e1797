//! A channel's ring towards the child.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ring::{Outgoing, Signal, WriteError, Writer, ring_bytes};
use ring_proto::{PacketFlags, PacketType};
use vmbus_proto::Relid;

use crate::GuestRing;

/// The way to signal the child on one of its channels.
pub trait SignalChild: Send + Sync {
    /// Signals channel `relid`.
    fn signal(&self, relid: Relid);
}

/// A packet for the child.
struct Outbound {
    kind: PacketType,
    transaction: u64,
    payload: Vec<u8>,
}

struct State {
    /// `None`: closed, or broken by the child.
    writer: Option<Writer<GuestRing>>,
    /// Packets that found no room, in order.
    waiting: VecDeque<Outbound>,
}

/// Where a device sends packets of one open channel, from any thread. Nobody waits: what finds no room in the ring is
/// kept and sent when the child has made some. How much that can be is the device's to bound.
pub struct Output {
    relid: Relid,
    child: Arc<dyn SignalChild>,
    state: Mutex<State>,
}

impl Output {
    pub(crate) fn new(
        relid: Relid,
        child: Arc<dyn SignalChild>,
        writer: Writer<GuestRing>,
    ) -> Self {
        Self {
            relid,
            child,
            state: Mutex::new(State {
                writer: Some(writer),
                waiting: VecDeque::new(),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a completion of the packet with this transaction id.
    pub fn complete(&self, transaction: u64, payload: &[u8]) {
        self.send(PacketType::COMPLETION, transaction, payload);
    }

    /// Sends an in-band packet that wants no completion.
    pub fn notify(&self, payload: &[u8]) {
        self.send(PacketType::IN_BAND, 0, payload);
    }

    fn send(&self, kind: PacketType, transaction: u64, payload: &[u8]) {
        let mut state = self.state();
        if state.writer.is_none() {
            return;
        }
        state.waiting.push_back(Outbound {
            kind,
            transaction,
            payload: payload.to_vec(),
        });
        self.drain(state);
    }

    /// The child signalled: it may have made room.
    pub(crate) fn resume(&self) {
        let state = self.state();
        if !state.waiting.is_empty() {
            self.drain(state);
        }
    }

    /// Packets that wait for room.
    pub fn waiting(&self) -> usize {
        self.state().waiting.len()
    }

    /// Lets go of the ring. Packets that wait, and all later ones, are dropped.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.writer = None;
        state.waiting.clear();
    }

    fn drain(&self, mut state: MutexGuard<'_, State>) {
        let signal = state.drain();
        drop(state);
        if signal.is_needed() {
            self.child.signal(self.relid);
        }
    }
}

impl State {
    /// Writes as much of what waits as finds room.
    fn drain(&mut self) -> Signal {
        let mut signal = Signal::NotNeeded;
        let Some(writer) = &mut self.writer else {
            return signal;
        };
        while let Some(packet) = self.waiting.front() {
            let written = writer.put(&Outgoing {
                kind: packet.kind,
                flags: PacketFlags::empty(),
                transaction: packet.transaction,
                header: &[],
                payload: &[&packet.payload],
            });
            let is_full = match written {
                Ok(()) => {
                    self.waiting.pop_front();
                    false
                }
                Err(WriteError::Full) => {
                    let bytes = ring_bytes(0, packet.payload.len()).unwrap_or(u32::MAX);
                    match writer.wait_for_space(bytes) {
                        Ok(space) => {
                            signal = signal.or(space.signal);
                            !space.is_there
                        }
                        Err(_) => return self.give_up(),
                    }
                }
                Err(WriteError::TooLong | WriteError::Corrupt(_)) => return self.give_up(),
            };
            if is_full {
                return signal;
            }
        }
        signal.or(writer.commit())
    }

    /// The child broke the ring, or made it too short for any answer. It gets none until it opens the channel anew.
    fn give_up(&mut self) -> Signal {
        self.writer = None;
        self.waiting.clear();
        Signal::NotNeeded
    }
}
