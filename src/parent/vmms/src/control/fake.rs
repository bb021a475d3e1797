//! A hypervisor for the tests of this crate: as strict about order, pools and frames as the real one.

use std::collections::{BTreeMap, BTreeSet};

use addr::PartitionId;
use slot_proto::{
    Attach, Attached, Call, Generation, ListDone, ListEntry, NO_SLOT, PartitionState, Request,
    Status,
};
use tlfs::call::{
    CreatePartition, CreateVp, MapGpaPages, MapStatePage, PARTITION_SELF, PartitionOnly,
    ResultWord, SetProperty, Withdraw,
};
use tlfs::property::PropertyCode;
use tlfs::wire::Zero;
use tlfs::{CallCode, HvError};

use super::{Answer, Broken, Control};

/// Frames that a VP costs.
const VP_FRAMES: usize = 8;
/// Frames that the first second-level table and overlays cost.
const SPACE_FRAMES: usize = 3;

/// One partition.
#[derive(Debug, Default)]
pub struct FakePartition {
    /// What was deposited and not withdrawn.
    pub pool: BTreeSet<u64>,
    /// Frames of the pool that are in use.
    pub used: usize,
    /// The daemon's number.
    pub tag: u64,
    /// How far its life is.
    pub state: PartitionState,
    /// Frames of the VMBus server.
    pub quota: u64,
    /// Mapped memory: first frame of each large page by GPA.
    pub ram: BTreeMap<u64, u64>,
    /// The large pages of it, by number.
    pub large: BTreeSet<u64>,
    /// VPs, with the number of their state pages.
    pub vps: BTreeMap<u32, usize>,
    /// Slot and generation.
    pub slot: Option<(u32, u32)>,
}

/// The hypervisor.
#[derive(Debug)]
pub struct FakeHypervisor {
    /// Children by id.
    pub children: BTreeMap<u64, FakePartition>,
    /// Frames that it has for partitions themselves.
    pub reserve: usize,
    /// The request, counted from 0, that fails, and how.
    pub fails_at: Option<(usize, HvError)>,
    /// Requests so far.
    pub requests: usize,
    /// Slots that it offers.
    pub slots: u32,
    next_id: u64,
    next_generation: u32,
}

impl Default for FakeHypervisor {
    fn default() -> Self {
        Self {
            children: BTreeMap::new(),
            reserve: 4,
            fails_at: None,
            requests: 0,
            slots: 8,
            next_id: 2,
            next_generation: 1,
        }
    }
}

fn decoded<T>(result: Result<T, HvError>) -> Result<T, HvError> {
    result
}

impl FakeHypervisor {
    fn child(&mut self, id: PartitionId) -> Result<&mut FakePartition, HvError> {
        let child = self.children.get_mut(&id.get());
        child.ok_or(HvError::INVALID_PARTITION_ID)
    }

    /// A frame that a child has, in its pool or as memory, cannot be given again.
    fn is_taken(&self, frame: u64) -> bool {
        self.children
            .values()
            .any(|child| child.pool.contains(&frame) || child.large.contains(&(frame / 512)))
    }

    fn call(&mut self, call: &Call<'_>) -> (Result<Vec<u8>, HvError>, u16) {
        let mut done = 0;
        let result = self.carry_out(call, &mut done);
        (result, done)
    }

    fn carry_out(&mut self, call: &Call<'_>, done: &mut u16) -> Result<Vec<u8>, HvError> {
        let input = call.input;
        let count = call.control.rep_count();
        *done = call.control.rep_start();
        match call.control.code() {
            CallCode::CREATE_PARTITION => {
                decoded(CreatePartition::decode(input))?;
                self.reserve = self
                    .reserve
                    .checked_sub(1)
                    .ok_or(HvError::INSUFFICIENT_MEMORY)?;
                let id = self.next_id;
                self.next_id += 1;
                self.children.insert(id, FakePartition::default());
                return Ok(id.to_le_bytes().to_vec());
            }
            CallCode::DEPOSIT_MEMORY => {
                let header = PartitionOnly::decode(input)?;
                for frame in list(input, PartitionOnly::BYTES, *done, count) {
                    if self.is_taken(frame) {
                        return Err(HvError::INVALID_PARAMETER);
                    }
                    if header.partition == PARTITION_SELF {
                        self.reserve += 1;
                    } else {
                        self.child(header.partition)?.pool.insert(frame);
                    }
                    *done += 1;
                    // In slices, as a hypervisor that has other work may.
                    if done.is_multiple_of(100) {
                        break;
                    }
                }
            }
            CallCode::WITHDRAW_MEMORY => {
                let header = Withdraw::decode(input)?;
                let child = self.child(header.partition)?;
                let mut out = vec![0; usize::from(*done) * 8];
                while *done < count {
                    let is_free = child.pool.len() > child.used;
                    let Some(frame) = child.pool.pop_first().filter(|_| is_free) else {
                        // What came out so far is told with the error, as the real one does.
                        return if *done > 0 {
                            Ok(out)
                        } else {
                            Err(HvError::NO_RESOURCES)
                        };
                    };
                    out.extend(frame.to_le_bytes());
                    *done += 1;
                }
                return Ok(out);
            }
            CallCode::SET_PARTITION_PROPERTY => {
                let set = SetProperty::decode(input)?;
                let child = self.child(set.partition)?;
                if set.code == PropertyCode::VMBUS {
                    if child.state != PartitionState::CREATED {
                        return Err(HvError::INVALID_PARTITION_STATE);
                    }
                    child.quota = set.value;
                }
            }
            CallCode::INITIALIZE_PARTITION => {
                let child = self.child(PartitionOnly::decode(input)?.partition)?;
                if child.state != PartitionState::CREATED {
                    return Err(HvError::INVALID_PARTITION_STATE);
                }
                child.take(SPACE_FRAMES + usize::from(child.quota > 0))?;
                child.state = PartitionState::ACTIVE;
            }
            CallCode::MAP_GPA_PAGES => {
                let header = MapGpaPages::decode(input)?;
                for frame in list(input, MapGpaPages::BYTES, *done, count) {
                    if self.is_taken(frame) || frame % 512 != 0 {
                        return Err(HvError::INVALID_PARAMETER);
                    }
                    let child = self.child(header.partition)?;
                    child.active()?;
                    let gpa = header.base.get() * 4096 + u64::from(*done) * (2 << 20);
                    if gpa % (1 << 30) == 0 {
                        child.take(1)?;
                    }
                    child.ram.insert(gpa, frame);
                    child.large.insert(frame / 512);
                    *done += 1;
                }
            }
            CallCode::CREATE_VP => {
                let create = CreateVp::decode(input)?;
                let child = self.child(create.partition)?;
                child.active()?;
                child.take(VP_FRAMES)?;
                child.vps.insert(create.vp.get(), 0);
            }
            CallCode::MAP_VP_STATE_PAGE => {
                let map = MapStatePage::decode(input)?;
                let pages = self.child(map.partition)?.vps.get_mut(&map.vp.get());
                *pages.ok_or(HvError::INVALID_VP_INDEX)? += 1;
                return Ok(map.page.get().to_le_bytes().to_vec());
            }
            CallCode::FINALIZE_PARTITION => {
                let child = self.child(PartitionOnly::decode(input)?.partition)?;
                *child = FakePartition {
                    pool: std::mem::take(&mut child.pool),
                    tag: child.tag,
                    state: PartitionState::FINALIZED,
                    slot: child.slot,
                    ..FakePartition::default()
                };
            }
            CallCode::DELETE_PARTITION => {
                let id = PartitionOnly::decode(input)?.partition;
                let child = self.child(id)?;
                if child.state == PartitionState::ACTIVE {
                    return Err(HvError::INVALID_PARTITION_STATE);
                }
                if !child.pool.is_empty() {
                    return Err(HvError::OPERATION_DENIED);
                }
                self.children.remove(&id.get());
                self.reserve += 1;
            }
            _ => return Err(HvError::INVALID_HYPERCALL_CODE),
        }
        Ok(Vec::new())
    }

    fn attach(&mut self, attach: &Attach) -> Result<Generation, HvError> {
        let is_in_use = |child: &FakePartition| child.slot.is_some_and(|(n, _)| n == attach.slot);
        if attach.slot >= self.slots || self.children.values().any(is_in_use) {
            return Err(HvError::INVALID_PARTITION_STATE);
        }
        let generation = self.next_generation;
        self.next_generation += 1;
        let child = self.child(attach.partition)?;
        child.active()?;
        child.slot = Some((attach.slot, generation));
        Ok(Generation(generation))
    }

    fn list(&self) -> Vec<u8> {
        let entries = self.children.iter().map(|(id, child)| ListEntry {
            partition: PartitionId::new(*id),
            tag: child.tag,
            state: child.state,
            slot: child.slot.map_or(NO_SLOT, |(slot, _)| slot),
            generation: Generation(child.slot.map_or(0, |(_, generation)| generation)),
            reserved: Zero,
            deposited_pages: child.pool.len() as u64,
            mapped_pages: child.ram.len() as u64 * 512,
        });
        let entries: Vec<_> = entries.collect();
        let mut body = ListDone {
            status: 0,
            count: entries.len() as u16,
            next: 0,
        }
        .encode()
        .to_vec();
        entries.iter().for_each(|entry| body.extend(entry.encode()));
        body
    }

    fn simple(&mut self, request: &Request<'_>) -> Result<Vec<u8>, HvError> {
        match request {
            Request::Attach(attach) => {
                let generation = self.attach(attach)?;
                let attached = Attached {
                    status: 0,
                    reserved: Zero,
                    generation,
                };
                return Ok(attached.encode().to_vec());
            }
            Request::Detach(detach) => {
                let wanted = Some((detach.slot, detach.generation.0));
                let child = self
                    .children
                    .values_mut()
                    .find(|child| child.slot == wanted);
                child.ok_or(HvError::INVALID_PARTITION_STATE)?.slot = None;
            }
            Request::List(_) => return Ok(self.list()),
            Request::Tag(tag) => self.child(tag.partition)?.tag = tag.tag,
            Request::SlotAdd(add) => self.slots = self.slots.max(add.number + 1),
            _ => return Err(HvError::INVALID_HYPERCALL_CODE),
        }
        Ok(Status::of(Ok(())).encode().to_vec())
    }
}

impl FakePartition {
    fn take(&mut self, frames: usize) -> Result<(), HvError> {
        if self.pool.len() < self.used + frames {
            return Err(HvError::INSUFFICIENT_MEMORY);
        }
        self.used += frames;
        Ok(())
    }

    fn active(&self) -> Result<(), HvError> {
        match self.state {
            PartitionState::ACTIVE => Ok(()),
            _ => Err(HvError::INVALID_PARTITION_STATE),
        }
    }
}

fn list(input: &[u8], header: usize, start: u16, count: u16) -> Vec<u64> {
    input[header..]
        .chunks_exact(8)
        .take(count.into())
        .skip(start.into())
        .map(|frame| u64::from_le_bytes(frame.try_into().unwrap()))
        .collect()
}

impl Control for FakeHypervisor {
    fn ask(&mut self, request: &Request<'_>) -> Result<Answer, Broken> {
        let number = self.requests;
        self.requests += 1;
        let failure = self.fails_at.filter(|(at, _)| *at == number);
        if let Request::Call(call) = request {
            let (result, done) = match failure {
                Some((_, error)) => (Err(error), call.control.rep_start()),
                None => self.call(call),
            };
            let status = result.as_ref().map(|_| ()).map_err(|error| *error);
            let mut body = ResultWord::new(status, done).0.to_le_bytes().to_vec();
            body.extend(result.unwrap_or_default());
            return Ok(Answer {
                result: status,
                body,
            });
        }
        let result = match failure {
            Some((_, error)) => Err(error),
            None => self.simple(request),
        };
        let status = result.as_ref().map(|_| ()).map_err(|error| *error);
        Ok(Answer {
            result: status,
            body: result.unwrap_or_else(|error| Status::of(Err(error)).encode().to_vec()),
        })
    }
}
