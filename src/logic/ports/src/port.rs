//! The receiving side.

use addr::{PartitionId, VpIndex};
use synic::MessageSource;
use tlfs::call::{ConnectionKind, PortId, PortInfo};
use tlfs::message::{EVENT_FLAGS, SINT_COUNT};
use tlfs::{HvError, Message, MessageType};

use crate::chunk::{ChunkId, Chunks, Messages};
use crate::map::{Key, Map};
use crate::record::{At, KIND_DOORBELL, KIND_EVENT, KIND_MESSAGE, Port, QUEUE_MESSAGES, Vp};

/// Numbers of ports and connections have 24 bits.
pub(crate) const ID_MAX: u32 = 0xFF_FFFF;
/// In place of a VP: any.
const ANY_VP: u32 = u32::MAX;

/// Names a port from outside its partition, for as long as the port exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRef {
    /// Whose port it is.
    pub owner: PartitionId,
    /// Its number there.
    pub port: PortId,
    pub(crate) generation: u32,
}

/// Where a port leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The VP, or `None` for any.
    pub vp: Option<VpIndex>,
    /// The source.
    pub sint: u8,
}

/// Which flag an event sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventTarget {
    /// Whose flag.
    pub target: Target,
    /// The flag, below 2048.
    pub flag: u16,
}

/// The ports of one partition, with the messages that wait there.
#[derive(Debug)]
pub struct Ports {
    owner: PartitionId,
    ports: Map<Port>,
    vps: Map<Vp>,
    /// Of the next port.
    generation: u32,
}

impl Ports {
    /// No ports.
    pub const fn new(owner: PartitionId) -> Self {
        Self {
            owner,
            ports: Map::EMPTY,
            vps: Map::EMPTY,
            generation: 0,
        }
    }

    /// Creates port `id`, to which `sender` may connect (`HvCallCreatePort`).
    ///
    /// # Errors
    /// [`HvError::INVALID_PORT_ID`]: 0, more than 24 bits, or in use. [`HvError::INVALID_PARAMETER`]: flags of an event
    /// port that do not exist. [`HvError::INSUFFICIENT_MEMORY`]: deposit and call again. Nothing was changed.
    pub fn create(
        &mut self,
        id: PortId,
        sender: PartitionId,
        info: &PortInfo,
        chunks: &mut impl Chunks,
    ) -> Result<(), HvError> {
        let mut port = Port::new(id, self.generation, sender, info);
        if !(1..=ID_MAX).contains(&id.0) || self.at(id, chunks).is_some() {
            return Err(HvError::INVALID_PORT_ID);
        }
        let flags = u32::from(port.base) + u32::from(port.count);
        if port.kind == KIND_EVENT && (port.count == 0 || flags > EVENT_FLAGS.into()) {
            return Err(HvError::INVALID_PARAMETER);
        }
        if !self.reserve(&mut port, chunks) {
            return Err(HvError::INSUFFICIENT_MEMORY);
        }
        if port.kind != KIND_EVENT {
            self.count_port(port.vp, chunks);
        }
        self.ports
            .insert(&[by_number(id)], port, chunks)
            .ok_or(HvError::OPERATION_FAILED)?;
        self.generation = self.generation.wrapping_add(1);
        Ok(())
    }

    /// Everything that `port` will need, or nothing.
    fn reserve(&mut self, port: &mut Port, chunks: &mut impl Chunks) -> bool {
        let needs_line = port.kind != KIND_EVENT && self.vp_at(port.vp, chunks).is_none();
        if !self.ports.reserve(chunks) || (needs_line && !self.vps.reserve(chunks)) {
            return false;
        }
        if port.kind == KIND_MESSAGE {
            for chunk in &mut port.queue {
                let Some(new) = chunks.allocate() else {
                    free_queue(port, chunks);
                    return false;
                };
                *chunk = new.0;
            }
        }
        true
    }

    fn count_port(&mut self, vp: u32, chunks: &mut impl Chunks) {
        let at = self
            .vp_at(vp, chunks)
            .or_else(|| self.vps.insert(&[by_vp(vp)], Vp::new(vp), chunks));
        if let Some(record) = at.and_then(|at| self.vps.get(at, chunks)) {
            record.ports = record.ports.saturating_add(1);
        }
    }

    /// Deletes port `id` with what waits there (`HvCallDeletePort`). Connections to it stay, and lead nowhere.
    ///
    /// # Errors
    /// [`HvError::INVALID_PORT_ID`]: no such port.
    pub fn delete(&mut self, id: PortId, chunks: &mut impl Chunks) -> Result<(), HvError> {
        let at = self.at(id, chunks).ok_or(HvError::INVALID_PORT_ID)?;
        self.unline(at, chunks);
        let port = *self.ports.get(at, chunks).ok_or(HvError::INVALID_PORT_ID)?;
        free_queue(&port, chunks);
        self.ports.remove(&[by_number(id)], at, chunks);
        if port.kind != KIND_EVENT
            && let Some(vp_at) = self.vp_at(port.vp, chunks)
            && let Some(vp) = self.vps.get(vp_at, chunks)
        {
            vp.ports = vp.ports.saturating_sub(1);
            if vp.ports == 0 {
                self.vps.remove(&[by_vp(port.vp)], vp_at, chunks);
            }
        }
        Ok(())
    }

    /// Finds the port that `sender` wants to connect to.
    ///
    /// # Errors
    /// [`HvError::INVALID_PORT_ID`]: there is none with this number for this partition.
    /// [`HvError::INVALID_PARAMETER`]: the port takes something else.
    pub fn connectable(
        &self,
        id: PortId,
        sender: PartitionId,
        kind: &ConnectionKind,
        chunks: &mut impl Chunks,
    ) -> Result<PortRef, HvError> {
        let at = self.at(id, chunks);
        let port = at
            .and_then(|at| self.ports.get(at, chunks))
            .filter(|port| port.sender == sender.get())
            .ok_or(HvError::INVALID_PORT_ID)?;
        let wanted = match kind {
            ConnectionKind::Message => KIND_MESSAGE,
            ConnectionKind::Event => KIND_EVENT,
            ConnectionKind::Doorbell(_) => KIND_DOORBELL,
        };
        if port.kind != wanted {
            return Err(HvError::INVALID_PARAMETER);
        }
        Ok(PortRef {
            owner: self.owner,
            port: id,
            generation: port.generation,
        })
    }

    /// Queues a message of 0 to 240 bytes at a port. The VP of the target is to be served next, with [`Ports::messages`].
    ///
    /// # Errors
    /// [`HvError::INVALID_PORT_ID`]: the port is gone. [`HvError::INSUFFICIENT_BUFFERS`]: its queue is full.
    /// [`HvError::INVALID_PARAMETER`]: not a message that one partition sends another.
    pub fn post(
        &mut self,
        to: PortRef,
        kind: MessageType,
        payload: &[u8],
        chunks: &mut impl Chunks,
    ) -> Result<Target, HvError> {
        let message = Message::new(kind, to.port.0.into(), payload)
            .filter(|message| !message.kind().is_from_hypervisor())
            .ok_or(HvError::INVALID_PARAMETER)?;
        let (at, port) = self.resolve(to, KIND_MESSAGE, chunks)?;
        if port.waiting >= QUEUE_MESSAGES {
            return Err(HvError::INSUFFICIENT_BUFFERS);
        }
        let place = port.place(port.waiting);
        let room = place.and_then(|(chunk, i)| chunks.get::<Messages>(chunk)?.0.get_mut(i));
        *room.ok_or(HvError::OPERATION_FAILED)? = message;
        if let Some(port) = self.ports.get(at, chunks) {
            port.waiting += 1; // at most QUEUE_MESSAGES
        }
        self.line_up(at, chunks);
        Ok(target(&port))
    }

    /// Which flag an event `flag` at a port sets.
    ///
    /// # Errors
    /// [`HvError::INVALID_PORT_ID`]: the port is gone. [`HvError::INVALID_PARAMETER`]: it has no such flag.
    pub fn event(
        &self,
        to: PortRef,
        flag: u16,
        chunks: &mut impl Chunks,
    ) -> Result<EventTarget, HvError> {
        let (_, port) = self.resolve(to, KIND_EVENT, chunks)?;
        if flag >= port.count {
            return Err(HvError::INVALID_PARAMETER);
        }
        Ok(EventTarget {
            target: target(&port),
            flag: port.base.saturating_add(flag),
        })
    }

    /// Where a doorbell rings.
    ///
    /// # Errors
    /// [`HvError::INVALID_PORT_ID`]: the port is gone.
    pub fn doorbell(&self, to: PortRef, chunks: &mut impl Chunks) -> Result<Target, HvError> {
        self.resolve(to, KIND_DOORBELL, chunks)
            .map(|(_, port)| target(&port))
    }

    /// Remembers that a doorbell rang that found its event ring full; once, however often it rings.
    pub fn keep_rung(&mut self, id: PortId, chunks: &mut impl Chunks) {
        if let Some(at) = self.at(id, chunks)
            && self
                .ports
                .get(at, chunks)
                .is_some_and(|port| port.kind == KIND_DOORBELL)
        {
            self.line_up(at, chunks);
        }
    }

    /// A doorbell that [`Ports::keep_rung`] remembers for VP `vp` or for any, and forgets now. When the ring of its
    /// source is still full, it is to be kept again, and no more are asked for.
    pub fn next_rung(&mut self, vp: VpIndex, chunks: &mut impl Chunks) -> Option<(PortId, u8)> {
        let at = [vp.get(), ANY_VP]
            .into_iter()
            .find_map(|vp| self.first(vp, Vp::DOORBELLS, chunks))?;
        self.unline(at, chunks);
        self.ports
            .get(at, chunks)
            .map(|port| (PortId(port.id), port.sint))
    }

    /// The messages that wait for VP `vp`, or for any.
    pub fn messages<'a, C: Chunks>(
        &'a mut self,
        vp: VpIndex,
        chunks: &'a mut C,
    ) -> VpMessages<'a, C> {
        VpMessages {
            ports: self,
            vp: vp.get(),
            chunks,
        }
    }

    /// Whether there is no port that takes messages or doorbells.
    pub const fn is_quiet(&self) -> bool {
        self.vps.is_empty()
    }

    /// The partition goes: gives some chunks back. False when all are; only then may the object be used again.
    pub fn release(&mut self, chunks: &mut impl Chunks) -> bool {
        self.ports
            .release(chunks, |port, chunks| free_queue(port, chunks))
            || self.vps.release(chunks, |_, _| {})
    }

    fn at(&self, id: PortId, chunks: &mut impl Chunks) -> Option<At> {
        self.ports
            .find(by_number(id), chunks, |port| port.id == id.0)
    }

    fn vp_at(&self, vp: u32, chunks: &mut impl Chunks) -> Option<At> {
        self.vps.find(by_vp(vp), chunks, |record| record.vp == vp)
    }

    /// The port, if it is still the one that was connected to. Its kind cannot be another then; it is compared anyway.
    fn resolve(
        &self,
        to: PortRef,
        kind: u8,
        chunks: &mut impl Chunks,
    ) -> Result<(At, Port), HvError> {
        let at = self.at(to.port, chunks);
        at.and_then(|at| Some((at, *self.ports.get(at, chunks)?)))
            .filter(|(_, port)| {
                self.owner == to.owner && port.generation == to.generation && port.kind == kind
            })
            .ok_or(HvError::INVALID_PORT_ID)
    }

    fn first(&self, vp: u32, line: usize, chunks: &mut impl Chunks) -> Option<At> {
        let at = self.vp_at(vp, chunks)?;
        let [first, _] = *self.vps.get(at, chunks)?.lines.get(line)?;
        (first != 0).then_some(first)
    }

    /// Puts a port at the end of its line, if it is not in it.
    fn line_up(&mut self, at: At, chunks: &mut impl Chunks) -> Option<()> {
        let port = *self.ports.get(at, chunks)?;
        if port.is_lined != 0 {
            return None;
        }
        let vp_at = self.vp_at(port.vp, chunks)?;
        let [first, last] = self.vps.get(vp_at, chunks)?.lines.get_mut(line_of(&port))?;
        let before = core::mem::replace(last, at);
        if before == 0 {
            *first = at;
        }
        if let Some(before) = self.ports.get(before, chunks) {
            before.behind = at;
        }
        let port = self.ports.get(at, chunks)?;
        (port.is_lined, port.before, port.behind) = (1, before, 0);
        Some(())
    }

    /// Takes a port out of its line, if it is in it.
    fn unline(&mut self, at: At, chunks: &mut impl Chunks) -> Option<()> {
        let port = self.ports.get(at, chunks)?;
        let Port { before, behind, .. } = *port;
        if core::mem::take(&mut port.is_lined) == 0 {
            return None;
        }
        let (vp, line) = (port.vp, line_of(port));
        if let Some(before) = self.ports.get(before, chunks) {
            before.behind = behind;
        }
        if let Some(behind) = self.ports.get(behind, chunks) {
            behind.before = before;
        }
        let vp_at = self.vp_at(vp, chunks)?;
        let [first, last] = self.vps.get(vp_at, chunks)?.lines.get_mut(line)?;
        if before == 0 {
            *first = behind;
        }
        if behind == 0 {
            *last = before;
        }
        Some(())
    }
}

fn by_number(id: PortId) -> Key {
    (0, id.0.into())
}

fn by_vp(vp: u32) -> Key {
    (0, vp.into())
}

fn line_of(port: &Port) -> usize {
    if port.kind == KIND_DOORBELL {
        Vp::DOORBELLS
    } else {
        port.sint.into()
    }
}

fn target(port: &Port) -> Target {
    Target {
        vp: (port.vp != ANY_VP).then(|| VpIndex::new(port.vp)),
        sint: port.sint,
    }
}

fn free_queue(port: &Port, chunks: &mut impl Chunks) {
    for chunk in port.queue.iter().filter(|chunk| **chunk != 0) {
        chunks.free(ChunkId(*chunk));
    }
}

/// The messages of all ports of one VP; ports with the same source take turns.
#[derive(Debug)]
pub struct VpMessages<'a, C> {
    ports: &'a mut Ports,
    vp: u32,
    chunks: &'a mut C,
}

impl<C: Chunks> VpMessages<'_, C> {
    /// The ports at the heads of the lines of the VP and of any VP.
    fn fronts(&mut self, sint: usize) -> [Option<At>; 2] {
        [self.vp, ANY_VP].map(|vp| self.ports.first(vp, sint, self.chunks))
    }
}

impl<C: Chunks> MessageSource for VpMessages<'_, C> {
    fn waiting(&mut self) -> u16 {
        let mut mask = 0;
        for vp in [self.vp, ANY_VP] {
            let at = self.ports.vp_at(vp, self.chunks);
            let Some(record) = at.and_then(|at| self.ports.vps.get(at, self.chunks)) else {
                continue;
            };
            for (sint, [first, _]) in record.lines.iter().take(SINT_COUNT).enumerate() {
                mask |= u16::from(*first != 0) << sint;
            }
        }
        mask
    }

    fn first(&mut self, sint: usize) -> Option<(Message, bool)> {
        let [own, any] = self.fronts(sint);
        let port = *self.ports.ports.get(own.or(any)?, self.chunks)?;
        let (chunk, i) = port.place(0)?;
        let message = *self.chunks.get::<Messages>(chunk)?.0.get(i)?;
        let more = port.waiting > 1 || port.behind != 0 || (own.is_some() && any.is_some());
        Some((message, more))
    }

    fn pop(&mut self, sint: usize) {
        let [own, any] = self.fronts(sint);
        let Some(at) = own.or(any) else { return };
        self.ports.unline(at, self.chunks);
        let Some(port) = self.ports.ports.get(at, self.chunks) else {
            return;
        };
        port.head = (port.head + 1) % QUEUE_MESSAGES;
        port.waiting = port.waiting.saturating_sub(1);
        if port.waiting != 0 {
            self.ports.line_up(at, self.chunks);
        }
    }
}
