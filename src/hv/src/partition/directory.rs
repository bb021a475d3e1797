//! The child partitions that there are, by slot and by identifier.
//!
//! A slot holds a pointer to the partition's frame; nothing else is kept for partitions that do not exist. An
//! identifier is the slot and a number that is never used again, so that an old one names nobody.
#![expect(
    unsafe_code,
    reason = "hands out references to partitions in frames that are freed"
)]

use core::ops::Deref;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use addr::{PartitionId, VpIndex};
use sched::{Entities, Entity, EntityId};
use spin::Mutex;

use super::child::ChildPartition;
use super::{Partition, Seat, VpShared};

/// Child partitions that can be at a time.
pub const CHILDREN: usize = 1024;

const SLOT_BITS: u32 = CHILDREN.ilog2();
const VP_BITS: u32 = super::CHILD_VPS.ilog2();

static SLOTS: [AtomicPtr<ChildPartition>; CHILDREN] =
    [const { AtomicPtr::new(core::ptr::null_mut()) }; CHILDREN];

/// Orders who looks a partition up and who takes it away. Held for a few instructions.
static LOCK: Mutex<()> = Mutex::new(());

/// The slot that `id` would be in.
pub const fn slot_of(id: PartitionId) -> usize {
    id.get() as usize & (CHILDREN - 1)
}

/// A reference to a child that keeps it from being deleted. Held for one piece of a call at most.
pub struct ChildRef(&'static ChildPartition);

impl Deref for ChildRef {
    type Target = ChildPartition;

    fn deref(&self) -> &ChildPartition {
        self.0
    }
}

impl ChildRef {
    /// The partition, for as long as the caller can show that it stays: a VP of its own does.
    pub const fn forever(&self) -> &'static ChildPartition {
        self.0
    }
}

impl Drop for ChildRef {
    fn drop(&mut self) {
        self.0.core().users.fetch_sub(1, Ordering::Release);
    }
}

/// A free slot and an identifier for it.
pub fn reserve() -> Option<(usize, PartitionId)> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let slot = SLOTS
        .iter()
        .position(|slot| slot.load(Ordering::Relaxed).is_null())?;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Some((slot, PartitionId::new(number << SLOT_BITS | slot as u64)))
}

/// Puts `partition` into `slot`. False where another came first.
///
/// # Safety
/// It stays until [`remove`].
pub unsafe fn insert(slot: usize, partition: &'static ChildPartition) -> bool {
    let _lock = LOCK.lock();
    let Some(entry) = SLOTS.get(slot) else {
        return false;
    };
    if !entry.load(Ordering::Relaxed).is_null() {
        return false;
    }
    entry.store((&raw const *partition).cast_mut(), Ordering::Release);
    true
}

/// Takes the partition out of its slot, and waits until nobody uses it. Those who do are inside one piece of a call.
pub fn remove(partition: &ChildPartition) {
    let core = partition.core();
    {
        let _lock = LOCK.lock();
        if let Some(entry) = SLOTS.get(slot_of(core.id)) {
            entry.store(core::ptr::null_mut(), Ordering::Release);
        }
    }
    while core.users.load(Ordering::Acquire) != 0 {
        crate::panic::stop_if_asked();
        core::hint::spin_loop();
    }
}

/// The child with this identifier.
pub fn find(id: PartitionId) -> Option<ChildRef> {
    at(slot_of(id)).filter(|child| child.core().id == id)
}

/// The child in `slot`.
pub fn at(slot: usize) -> Option<ChildRef> {
    let _lock = LOCK.lock();
    let entry = SLOTS.get(slot)?.load(Ordering::Acquire);
    // SAFETY: what is in a slot stays while the lock is held.
    let child: &'static ChildPartition = unsafe { entry.as_ref() }?;
    child.core().users.fetch_add(1, Ordering::Acquire);
    Some(ChildRef(child))
}

/// The entity of VP `vp` in partition slot `slot`.
pub const fn entity_id(slot: usize, vp: VpIndex) -> EntityId {
    EntityId((slot as u32) << VP_BITS | vp.get())
}

/// The slot of the partition that an entity belongs to.
pub const fn slot_of_entity(id: EntityId) -> usize {
    (id.0 >> VP_BITS) as usize
}

/// The VP index of an entity.
pub const fn vp_of_entity(id: EntityId) -> VpIndex {
    VpIndex::new(id.0 & (super::CHILD_VPS as u32 - 1))
}

/// The VP of an entity that a run queue names: it is off all queues before its partition goes.
pub fn vp(id: EntityId) -> Option<&'static VpShared> {
    let entry = SLOTS.get(slot_of_entity(id))?.load(Ordering::Acquire);
    // SAFETY: a partition whose VPs are in queues is in its slot, and stays.
    let child: &'static ChildPartition = unsafe { entry.as_ref() }?;
    child.core().vps.get(vp_of_entity(id))
}

/// All VPs of children, for the run queues.
pub struct Directory;

impl Entities for Directory {
    fn get(&self, id: EntityId) -> Option<&Entity> {
        match &vp(id)?.seat {
            Seat::Scheduled(scheduled) => Some(&scheduled.entity),
            Seat::Fixed(_) => None,
        }
    }
}
