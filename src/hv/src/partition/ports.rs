//! Ports and connections of partitions: the frames that they lie in, and the way from them to a VP.
//!
//! A VP takes the messages of its ports with its SynIC locked; so the order is: a VP's SynIC, then its partition's ports,
//! then a pool. Whoever sends lets go of one partition's ports or connections before it locks another's.
#![expect(unsafe_code, reason = "names frames that are chunks")]

use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, Ordering};

use addr::{PAGE_SIZE, PartitionId, Spa, VpIndex};
use ports::{Chunk, ChunkId, Chunks, Connections, PortRef, Ports, Target};
use spin::{Mutex, MutexGuard};
use synic::{EventError, Overlay, RingError};
use tlfs::call::{PostMessage, SignalEvent};
use tlfs::{HvError, Message};

use super::directory::{self, ChildRef};
use super::parent::PARENT;
use super::{ParentPartition, Partition, VpShared};
use crate::arch::x86::insn;
use crate::arch::x86::lp::LpArea;
use crate::mm::frames::{self, FrameUse};
use crate::mm::phys::{self, SharedFrame};
use crate::mm::pool::Pool;

/// Rings that one call tries again: more than a ring has entries.
const RINGS: usize = 64;

/// Frames as chunks: of the hypervisor's reserve for the parent, of its pool for a child. A chunk is named by its frame
/// number plus one.
pub enum FrameChunks<'a> {
    /// With what the parent deposited for itself.
    Reserve,
    /// Without that: for what stays when the parent starts anew.
    Block,
    /// Of a child.
    Pool(&'a Mutex<Pool>),
}

impl FrameChunks<'_> {
    fn give_back(&mut self, spa: Spa) {
        match self {
            // SAFETY: the callers have it from `allocate`, and give it back once.
            Self::Reserve => unsafe { frames::free(FrameUse::Child, spa) },
            // SAFETY: the same.
            Self::Block => unsafe { frames::free(FrameUse::Partition, spa) },
            // SAFETY: the same.
            Self::Pool(pool) => unsafe { pool.lock().free(spa) },
        }
    }
}

pub(super) fn spa_of(chunk: ChunkId) -> Option<Spa> {
    Some(Spa::new(u64::from(chunk.0.checked_sub(1)?) * PAGE_SIZE))
}

impl Chunks for FrameChunks<'_> {
    fn allocate(&mut self) -> Option<ChunkId> {
        let spa = match self {
            Self::Reserve => frames::alloc(FrameUse::Child, 1),
            Self::Block => frames::alloc_own(FrameUse::Partition),
            Self::Pool(pool) => pool.lock().alloc(),
        }?;
        let Ok(name) = u32::try_from(spa.get() / PAGE_SIZE + 1) else {
            // Beyond 16 TiB.
            self.give_back(spa);
            return None;
        };
        Some(ChunkId(name))
    }

    fn free(&mut self, chunk: ChunkId) {
        if let Some(spa) = spa_of(chunk) {
            self.give_back(spa);
        }
    }

    fn get<T: Chunk>(&mut self, chunk: ChunkId) -> Option<&mut T> {
        let spa = spa_of(chunk)?;
        // SAFETY: `ports` names chunks that it allocated and has not freed, each by one object that is locked meanwhile;
        // a chunk fits in a frame, and any contents are a value of it.
        Some(unsafe { &mut *phys::pointer(spa).cast() })
    }
}

/// Ports and connections of one partition.
pub struct Links {
    ports: Mutex<Ports>,
    connections: Mutex<Connections>,
    /// Looked at with one of them locked.
    is_open: AtomicBool,
    /// There is a port that takes messages or doorbells. As it was when the ports were last unlocked.
    takes_messages: AtomicBool,
}

/// The ports of one partition, locked.
pub struct LockedPorts<'a> {
    ports: MutexGuard<'a, Ports>,
    takes_messages: &'a AtomicBool,
}

impl Deref for LockedPorts<'_> {
    type Target = Ports;

    fn deref(&self) -> &Ports {
        &self.ports
    }
}

impl DerefMut for LockedPorts<'_> {
    fn deref_mut(&mut self) -> &mut Ports {
        &mut self.ports
    }
}

impl Drop for LockedPorts<'_> {
    fn drop(&mut self) {
        self.takes_messages
            .store(!self.ports.is_quiet(), Ordering::SeqCst);
    }
}

impl Links {
    /// None, and with `is_open` there can be some.
    pub const fn new(owner: PartitionId, is_open: bool) -> Self {
        Self {
            ports: Mutex::new(Ports::new(owner)),
            connections: Mutex::new(Connections::new()),
            is_open: AtomicBool::new(is_open),
            takes_messages: AtomicBool::new(false),
        }
    }

    /// Whether messages may wait at the ports. Takes no lock: who leaves a message after this calls the VP.
    pub fn may_have_messages(&self) -> bool {
        self.takes_messages.load(Ordering::SeqCst)
    }

    /// From now on there can be some.
    pub fn open(&self) {
        self.is_open.store(true, Ordering::SeqCst);
    }

    /// Ports that lead here and connections from here are as if they were gone.
    pub fn close(&self) {
        self.is_open.store(false, Ordering::SeqCst);
    }

    /// Closes them and frees some chunks. False when nothing is left; with `reopen` there can be new ones then.
    pub fn release(&self, chunks: &mut impl Chunks, budget: usize, reopen: bool) -> bool {
        let (mut ports, mut connections) = (self.locked(), self.connections.lock());
        self.close();
        let is_more = (0..budget).all(|_| ports.release(chunks) || connections.release(chunks));
        self.is_open.store(!is_more && reopen, Ordering::SeqCst);
        is_more
    }

    /// The ports.
    ///
    /// # Errors
    /// `INVALID_PARTITION_STATE`.
    pub fn ports(&self) -> Result<LockedPorts<'_>, HvError> {
        self.if_open(self.locked())
    }

    fn locked(&self) -> LockedPorts<'_> {
        LockedPorts {
            ports: self.ports.lock(),
            takes_messages: &self.takes_messages,
        }
    }

    /// The connections.
    ///
    /// # Errors
    /// `INVALID_PARTITION_STATE`.
    pub fn connections(&self) -> Result<MutexGuard<'_, Connections>, HvError> {
        self.if_open(self.connections.lock())
    }

    fn if_open<T>(&self, locked: T) -> Result<T, HvError> {
        if self.is_open.load(Ordering::SeqCst) {
            Ok(locked)
        } else {
            Err(HvError::INVALID_PARTITION_STATE)
        }
    }
}

/// A partition at the other end.
pub enum Peer {
    /// The parent.
    Parent(&'static ParentPartition),
    /// A child.
    Child(ChildRef),
}

impl Deref for Peer {
    type Target = dyn Partition;

    fn deref(&self) -> &dyn Partition {
        match self {
            Self::Parent(parent) => *parent,
            Self::Child(child) => &**child,
        }
    }
}

/// Sends between the partitions of a machine, from one of its LPs.
pub struct Sender {
    /// The LP.
    pub lp: &'static LpArea,
    /// The parent.
    pub parent: &'static ParentPartition,
}

impl Sender {
    fn owner(&self, to: PortRef) -> Result<Peer, HvError> {
        if to.owner == PARENT {
            return Ok(Peer::Parent(self.parent));
        }
        directory::find(to.owner)
            .map(Peer::Child)
            .ok_or(HvError::INVALID_PORT_ID)
    }

    /// `HvCallPostMessage` of `from`.
    ///
    /// # Errors
    /// Those of [`Connections::message`] and [`Ports::post`]; nothing was sent.
    pub fn post(&self, from: &impl Partition, call: &PostMessage<'_>) -> Result<(), HvError> {
        let to = from
            .core()
            .links
            .connections()?
            .message(call.connection, &mut from.chunks())?;
        let owner = self.owner(to)?;
        let target =
            owner
                .core()
                .links
                .ports()?
                .post(to, call.kind, call.payload, &mut owner.chunks())?;
        if let Some(vp) = vp_of(&*owner, target) {
            vp.call_to_synic(self.lp);
        }
        Ok(())
    }

    /// `HvCallSignalEvent` of `from`.
    ///
    /// # Errors
    /// Those of [`Connections::event`], [`Ports::event`] and [`signal`]; nothing was signalled.
    pub fn signal(&self, from: &impl Partition, call: &SignalEvent) -> Result<(), HvError> {
        let to = from
            .core()
            .links
            .connections()?
            .event(call.connection, &mut from.chunks())?;
        let owner = self.owner(to)?;
        let event = owner
            .core()
            .links
            .ports()?
            .event(to, call.flag, &mut owner.chunks())?;
        let vp = vp_of(&*owner, event.target).ok_or(HvError::INVALID_VP_INDEX)?;
        signal(self.lp, &*owner, vp, event.target.sint, event.flag).map(|_| ())
    }

    /// Rings at a doorbell's port. False where nobody can hear it.
    pub fn ring(&self, to: PortRef) -> bool {
        let Ok(owner) = self.owner(to) else {
            return false;
        };
        let target = owner
            .core()
            .links
            .ports()
            .and_then(|ports| ports.doorbell(to, &mut owner.chunks()));
        target.is_ok_and(|target| {
            vp_of(&*owner, target)
                .is_some_and(|vp| ring(self.lp, &*owner, vp, target.sint, to.port) != Rung::Unheard)
        })
    }
}

/// The VP that is to look: it takes what waits for any VP as well.
fn vp_of(owner: &dyn Partition, target: Target) -> Option<&'static VpShared> {
    owner
        .core()
        .vps
        .get(target.vp.unwrap_or(const { VpIndex::new(0) }))
}

/// Sets event flag `flag` of SINT `sint` of `vp`, which is `partition`'s. True when it was not set.
///
/// # Errors
/// `INVALID_PARAMETER`: there is no such flag. `INVALID_SYNIC_STATE`: the VP does not take it.
pub fn signal(
    me: &LpArea,
    partition: &dyn Partition,
    vp: &'static VpShared,
    sint: u8,
    flag: u16,
) -> Result<bool, HvError> {
    let frame = partition.overlay_frame(Overlay::EventFlags, vp.index);
    let signalled = vp
        .synic
        .lock()
        .signal_event(sint.into(), flag, frame.as_ref());
    let signalled = signalled.map_err(|error| match error {
        EventError::NoSuchFlag => HvError::INVALID_PARAMETER,
        EventError::Lost => HvError::INVALID_SYNIC_STATE,
    })?;
    if let Some(interrupt) = signalled.interrupt {
        vp.raise(me, interrupt);
    }
    Ok(signalled.is_new)
}

/// Queues `message` for SINT `sint` of `vp`, which is `partition`'s. The VP's own LP delivers it.
///
/// # Errors
/// `INSUFFICIENT_BUFFERS`; nothing was queued.
pub fn post(
    me: &LpArea,
    partition: &impl Partition,
    vp: &'static VpShared,
    sint: u8,
    message: &Message,
) -> Result<(), HvError> {
    let now = partition.core().clock.now(insn::rdtsc());
    let no_page: Option<&SharedFrame> = None;
    let queued = vp
        .synic
        .lock()
        .post(sint.into(), message, now, no_page, &mut ());
    // Nothing was delivered, without a page.
    let _ = queued.map_err(|_| HvError::INSUFFICIENT_BUFFERS)?;
    vp.call_to_synic(me);
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rung {
    /// It is in the ring.
    Heard,
    /// The ring is full: the port keeps it.
    Kept,
    /// The SynIC, the page or the source is off.
    Unheard,
}

fn ring(
    me: &LpArea,
    owner: &dyn Partition,
    vp: &'static VpShared,
    sint: u8,
    port: tlfs::call::PortId,
) -> Rung {
    let frame = owner.overlay_frame(Overlay::EventRing, vp.index);
    // Kept with the SynIC locked: a VP that finds its ring marked as full and empties it then finds what was kept.
    let mut synic = vp.synic.lock();
    match synic.ring(sint.into(), port.0, frame.as_ref()) {
        Ok(interrupt) => {
            let has_message = synic.has_undelivered();
            drop(synic);
            if let Some(interrupt) = interrupt {
                vp.raise(me, interrupt);
            }
            if has_message {
                vp.call_to_synic(me);
            }
            Rung::Heard
        }
        Err(RingError::Full) => match owner.core().links.ports() {
            Ok(mut ports) => {
                ports.keep_rung(port, &mut owner.chunks());
                Rung::Kept
            }
            Err(_) => Rung::Unheard,
        },
        Err(RingError::Off | RingError::NoSuchSint) => Rung::Unheard,
    }
}

/// Rings what was kept for `vp` of `owner`, whose ring of `sint` is empty now.
pub fn ring_again(me: &LpArea, owner: &dyn Partition, vp: &'static VpShared, sint: u8) {
    for _ in 0..RINGS {
        let kept = owner
            .core()
            .links
            .ports()
            .ok()
            .and_then(|mut ports| ports.next_rung(vp.index, &mut owner.chunks()));
        let Some((port, source)) = kept else { return };
        if ring(me, owner, vp, source, port) == Rung::Kept && source == sint {
            return;
        }
    }
}
