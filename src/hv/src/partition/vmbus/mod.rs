//! The VMBus server of a partition at work: its state in frames, the way of messages and signals to and from it.
//!
//! The parent always has one, whose back end is the hypervisor (`parent`); a child has one when its parent gave it frames
//! for it by [`PropertyCode::VMBUS`](tlfs::property::PropertyCode::VMBUS), and its back end is whoever has the child's slot.
//! The rules are the crate [`vmbus`]'s; here is what they need of the machine.
//!
//! A server is locked where ports are, after a VP's SynIC, and before its partition's memory and pool. It tells nobody
//! anything itself: who has used it calls [`settle`] with nothing locked.

mod frames;
mod messages;
pub mod parent;

use core::sync::atomic::{AtomicBool, Ordering};

use addr::{Gpn, VpIndex};
use spin::{Mutex, MutexGuard};
use tlfs::HvError;
use tlfs::call::{PostMessage, SignalEvent};
use vmbus::{Bus, EventTarget, Guest, Refused, ResetRule, Server};
use vmbus_proto::{Relid, SYNTHETIC_MESSAGE_TYPE};

use super::ports::{self, FrameChunks};
use super::{Partition, slots};
use crate::arch::x86::lp::LpArea;

pub use messages::BusMessages;

/// Frames that a child's server can be given: fewer do not make one connection work.
pub const QUOTAS: core::ops::RangeInclusive<u32> = 8..=65_536;

/// Times that a signal follows a channel that moves from VP to VP.
const MOVES: usize = 4;

/// The server of a partition, if it has one.
pub struct VmBus {
    server: Mutex<Option<&'static mut Server>>,
    /// Looked at with the server locked, and before that so as not to lock it.
    is_on: AtomicBool,
    /// A message waits, or did so a moment ago.
    has_message: AtomicBool,
    /// The hypervisor's work as back end of the parent.
    own: parent::BackEnd,
}

impl VmBus {
    /// None.
    pub const fn off() -> Self {
        Self {
            server: Mutex::new(None),
            is_on: AtomicBool::new(false),
            has_message: AtomicBool::new(false),
            own: parent::BackEnd::new(),
        }
    }

    /// Whether there is one.
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// Whether a message may wait for a VP of the partition. Takes no lock: who leaves one after this calls the VP.
    pub fn may_have_messages(&self) -> bool {
        self.has_message.load(Ordering::SeqCst)
    }

    /// Makes one that will use up to `quota` frames beside its own.
    ///
    /// # Errors
    /// `INSUFFICIENT_MEMORY`; nothing was allocated.
    pub fn start(
        &self,
        mut frames: FrameChunks<'_>,
        quota: u32,
        rule: ResetRule,
    ) -> Result<(), HvError> {
        let mut server = self.server.lock();
        *server = Some(frames.place_server(Server::new(quota, rule))?);
        self.is_on.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// From now on it is as if there were none.
    pub fn close(&self) {
        self.is_on.store(false, Ordering::SeqCst);
    }

    /// Closes it and frees some frames. False when none is left.
    pub fn release(&self, mut frames: FrameChunks<'_>, budget: usize) -> bool {
        self.close();
        let mut guard = self.server.lock();
        let Some(server) = guard.as_mut() else {
            return false;
        };
        if (0..budget).all(|_| server.with(&mut frames).release()) {
            return true;
        }
        if let Some(server) = guard.take() {
            frames.free_server(server);
        }
        false
    }

    fn lock(&self) -> Option<MutexGuard<'_, Option<&'static mut Server>>> {
        // Once without the lock, for partitions that have none.
        self.is_on()
            .then(|| self.server.lock())
            .filter(|_| self.is_on.load(Ordering::SeqCst))
    }
}

/// What a server asks about the partition.
pub struct Client<'a>(pub &'a dyn Partition);

impl Guest for Client<'_> {
    fn is_ram(&mut self, page: Gpn) -> bool {
        self.0.is_ram(page)
    }

    fn has_vp(&mut self, vp: VpIndex) -> bool {
        self.0.core().vps.get(vp).is_some()
    }
}

/// Uses the server of `partition`; [`settle`] is to follow.
///
/// # Errors
/// `INVALID_PARTITION_STATE`: there is none.
pub fn with_bus<T>(
    partition: &dyn Partition,
    then: impl FnOnce(&mut Bus<'_, FrameChunks<'_>>) -> T,
) -> Result<T, HvError> {
    let vmbus = &partition.core().vmbus;
    let mut guard = vmbus.lock().ok_or(HvError::INVALID_PARTITION_STATE)?;
    let server = guard.as_mut().ok_or(HvError::INVALID_PARTITION_STATE)?;
    let mut frames = partition.server_frames();
    let mut bus = server.with(&mut frames);
    let result = then(&mut bus);
    vmbus.has_message.store(bus.has_message(), Ordering::SeqCst);
    Ok(result)
}

/// Makes the VP look that is to take the messages of its partition's server, and the worker of a child look at its
/// notices. Those of the parent are the hypervisor's own, see [`parent`].
pub fn settle(me: &LpArea, partition: &dyn Partition) {
    if partition.core().vmbus.may_have_messages() {
        let target = with_bus(partition, |bus| bus.message_target());
        if let Ok(Some((vp, _))) = target
            && let Some(vp) = partition.core().vps.get(vp)
        {
            vp.call_to_synic(me);
        }
    }
    if partition.core().id != super::parent::PARENT {
        slots::notices(me, partition);
    }
}

/// `partition` posts to its server. [`settle`] is to follow.
///
/// # Errors
/// `INVALID_PARAMETER`: it is no message of VMBus. `INSUFFICIENT_BUFFERS`: nobody has taken what was answered before.
/// Nothing was done.
pub fn receive(partition: &dyn Partition, call: &PostMessage<'_>) -> Result<(), HvError> {
    if call.kind != SYNTHETIC_MESSAGE_TYPE {
        return Err(HvError::INVALID_PARAMETER);
    }
    with_bus(partition, |bus| {
        bus.receive(call.payload, &mut Client(partition))
    })?
    .or_else(Refused::status)
}

/// What a partition signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signalled {
    /// Nothing of its server's.
    Other,
    /// A channel that is not open: nothing is to be done.
    Nobody,
    /// A channel that is.
    Channel(Relid),
}

/// What `partition` means by a signal.
///
/// # Errors
/// `INVALID_PARAMETER`: a flag that channels do not have.
#[inline(never)]
pub fn signalled(partition: &dyn Partition, call: &SignalEvent) -> Result<Signalled, HvError> {
    match with_bus(partition, |bus| bus.signalled(call.connection)) {
        Err(_) | Ok(Err(_)) => Ok(Signalled::Other),
        Ok(Ok(_)) if call.flag != 0 => Err(HvError::INVALID_PARAMETER),
        Ok(Ok(None)) => Ok(Signalled::Nobody),
        Ok(Ok(Some(relid))) => Ok(Signalled::Channel(relid)),
    }
}

/// Signals channel `relid` to `partition`. Does nothing when it is not open.
pub fn signal_client(me: &LpArea, partition: &dyn Partition, relid: Relid) {
    let target =
        || -> Option<EventTarget> { with_bus(partition, |bus| bus.event_target(relid)).ok()? };
    let mut to = target();
    for _ in 0..MOVES {
        let Some(EventTarget { vp, sint, flag }) = to else {
            return;
        };
        if let Some(vp) = partition.core().vps.get(vp) {
            // Lost where the VP does not take it, as events are.
            let _ = ports::signal(me, partition, vp, sint, flag);
        }
        // The channel may have gone to another VP meanwhile, and this one offline.
        let now = target();
        if now == to {
            return;
        }
        to = now;
    }
}
