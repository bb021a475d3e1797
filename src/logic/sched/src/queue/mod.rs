//! The queue of one LP.

mod balance;
mod choice;

use crate::entity::{Entities, Entity, EntityId, State, before, later};
use crate::heap::Heap;
use crate::parent::Parent;
use crate::published::Published;

pub use choice::Choice;
use choice::outdoes;

/// Period of the caps, in slices.
const PERIOD_SLICES: u64 = 50;

/// What a wake-up asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// The LP of the queue should choose again at once.
    Preempt,
    /// It waits for its turn; an idle LP could take it.
    Queued,
    /// It was awake.
    Already,
}

/// Why an operation changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no such entity.
    NoSuchEntity,
    /// The entity belongs to the queue of another LP: ask [`Entity::home`] again.
    Elsewhere,
    /// The entity is in another state than the operation is for.
    WrongState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Current {
    Nobody,
    Parent,
    Vp(EntityId),
}

/// The runnable and the halted entities of one LP.
#[derive(Debug)]
pub struct RunQueue<'p> {
    lp: u32,
    slice: u64,
    queued: Heap,
    bound: Heap,
    throttled: Heap,
    parked: Heap,
    current: Current,
    /// Up to when `current` was charged.
    since: u64,
    /// When its slice ends.
    slice_end: u64,
    /// The parent has the LP to itself: the LP does not choose again at the end of the slice.
    is_alone: bool,
    /// Virtual time of this LP: never goes back.
    floor: u64,
    parent: Parent,
    /// Where the next look at other LPs begins.
    next_peer: u32,
    published: &'p Published,
}

impl<'p> RunQueue<'p> {
    /// An empty queue of LP `lp`, with slices of `slice` ticks (1 ms is meant).
    pub const fn new(lp: u32, slice: u64, published: &'p Published) -> Self {
        Self {
            lp,
            slice,
            queued: Heap::EMPTY,
            bound: Heap::EMPTY,
            throttled: Heap::EMPTY,
            parked: Heap::EMPTY,
            current: Current::Nobody,
            since: 0,
            slice_end: 0,
            is_alone: false,
            floor: 0,
            parent: Parent::new(),
            next_peer: 0,
            published,
        }
    }

    /// Makes `id` runnable. Whatever it is woken for must be there before.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn wake(
        &mut self,
        id: EntityId,
        now: u64,
        entities: &impl Entities,
    ) -> Result<Wake, Refused> {
        let entity = self.own(id, entities)?;
        match entity.state() {
            State::Off => {}
            State::Parked => self.parked.remove(id, entities),
            State::Running => {
                entity.woken.set(1);
                return Ok(Wake::Already);
            }
            _ => return Ok(Wake::Already),
        }
        // It has not saved up the time that it slept, but for one slice.
        let credit = self.step(entity).min(self.slice);
        let earliest = self.floor.wrapping_sub(credit);
        entity
            .virtual_time
            .set(later(entity.virtual_time.get(), earliest));
        self.enqueue(id, entity, now, entities);
        self.publish(entities);
        let ran = now.saturating_sub(self.since);
        let (time, step) = (entity.virtual_time.get(), self.step(entity));
        let preempts = match self.current {
            // The LP must also learn of the end of a period of a cap.
            Current::Nobody => true,
            Current::Parent if self.is_alone => true,
            _ if entity.state() == State::Throttled => false,
            Current::Parent => !self.parent.is_first(now) && self.child_outdoes_parent(entity),
            Current::Vp(other) => entities.get(other).is_some_and(|other| {
                let then = other.virtual_time.get().wrapping_add(other.scaled(ran));
                outdoes(time, step, then, self.step(other))
            }),
        };
        Ok(if preempts {
            Wake::Preempt
        } else {
            Wake::Queued
        })
    }

    /// The VP that runs here waits, to be woken or until `deadline`. Gives false, and the VP is still running, when it
    /// was woken since it was chosen: it looks again whether it has to wait.
    ///
    /// # Errors
    /// See [`Refused`]: it does not run.
    pub fn block(
        &mut self,
        id: EntityId,
        deadline: Option<u64>,
        now: u64,
        entities: &impl Entities,
    ) -> Result<bool, Refused> {
        let entity = self.own(id, entities)?;
        if self.current != Current::Vp(id) {
            return Err(Refused::WrongState);
        }
        if entity.woken.get() != 0 {
            entity.woken.set(0);
            return Ok(false);
        }
        self.remove(id, now, entities)?;
        if let Some(deadline) = deadline {
            let latest = now.saturating_add(u64::MAX / 4);
            entity.set_state(State::Parked);
            self.parked.insert(id, deadline.min(latest), entities);
        }
        Ok(true)
    }

    /// Makes `id` not runnable, wherever it is. Gives true when it runs here: the LP is to be kicked, and has left the
    /// VP once it has chosen again.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn remove(
        &mut self,
        id: EntityId,
        now: u64,
        entities: &impl Entities,
    ) -> Result<bool, Refused> {
        let entity = self.own(id, entities)?;
        let was_running = self.current == Current::Vp(id);
        if was_running {
            self.charge(now, entities); // may put it into the heap of the throttled
            self.current = Current::Nobody;
        }
        if let Some(heap) = self.heap(entity.state()) {
            heap.remove(id, entities);
        }
        entity.set_state(State::Off);
        self.publish(entities);
        Ok(was_running)
    }

    /// Binds an entity that is not runnable to LP `lp`, or binds it no longer. It belongs to the queue of `lp` from then on.
    ///
    /// # Errors
    /// See [`Refused`]: [`RunQueue::remove`] it before.
    pub fn assign(
        &mut self,
        id: EntityId,
        lp: u32,
        bound: bool,
        entities: &impl Entities,
    ) -> Result<(), Refused> {
        let entity = self.own(id, entities)?;
        if entity.state() != State::Off {
            return Err(Refused::WrongState);
        }
        entity.set_bound(bound);
        entity.move_to(lp);
        Ok(())
    }

    /// Whether an entity waits here that an idle LP could run: one is to be kicked.
    pub fn has_surplus(&self, now: u64) -> bool {
        self.queued.len() != 0 && !(self.current == Current::Parent && self.parent.is_first(now))
    }

    /// Whether the LP was last told to run `id`.
    pub fn is_current(&self, id: EntityId) -> bool {
        self.current == Current::Vp(id)
    }

    #[cfg(test)]
    pub(crate) fn heaps(&self) -> [(State, &Heap); 4] {
        [
            (State::Queued, &self.queued),
            (State::Bound, &self.bound),
            (State::Throttled, &self.throttled),
            (State::Parked, &self.parked),
        ]
    }

    fn own<'e, E: Entities>(&self, id: EntityId, entities: &'e E) -> Result<&'e Entity, Refused> {
        let entity = entities.get(id).ok_or(Refused::NoSuchEntity)?;
        if entity.home() != self.lp {
            return Err(Refused::Elsewhere);
        }
        Ok(entity)
    }

    fn period(&self) -> u64 {
        self.slice.saturating_mul(PERIOD_SLICES)
    }

    /// What a slice is in the virtual time of `entity`.
    fn step(&self, entity: &Entity) -> u64 {
        entity.scaled(self.slice)
    }

    fn heap(&mut self, state: State) -> Option<&mut Heap> {
        match state {
            State::Queued => Some(&mut self.queued),
            State::Bound => Some(&mut self.bound),
            State::Throttled => Some(&mut self.throttled),
            State::Parked => Some(&mut self.parked),
            State::Off | State::Running | State::InTransit => None,
        }
    }

    /// Queues a runnable entity that is in no heap.
    fn enqueue(&mut self, id: EntityId, entity: &Entity, now: u64, entities: &impl Entities) {
        let (state, key) = if entity.left(now, self.period()) == Some(0) {
            (State::Throttled, entity.period_end.get())
        } else if entity.is_bound() {
            (State::Bound, entity.virtual_time.get())
        } else {
            (State::Queued, entity.virtual_time.get())
        };
        entity.set_state(state);
        if let Some(heap) = self.heap(state) {
            heap.insert(id, key, entities);
        }
    }

    /// Charges what ran until `now`. A VP whose cap is used up goes.
    fn charge(&mut self, now: u64, entities: &impl Entities) {
        let elapsed = now.saturating_sub(self.since);
        self.since = self.since.max(now);
        self.parent
            .charge(elapsed, now, self.current == Current::Parent, self.slice);
        let Current::Vp(id) = self.current else {
            return;
        };
        let Some(entity) = entities.get(id) else {
            self.current = Current::Nobody;
            return;
        };
        entity.charge(elapsed, now, self.period());
        if entity.left(now, self.period()) == Some(0) {
            self.current = Current::Nobody;
            self.enqueue(id, entity, now, entities);
        }
    }

    fn first_waiting<'e, E: Entities>(&self, entities: &'e E) -> Option<(EntityId, &'e Entity)> {
        let (queued, bound) = (self.queued.first(entities), self.bound.first(entities));
        match (queued, bound) {
            (Some(a), Some(b)) if before(b.1.virtual_time.get(), a.1.virtual_time.get()) => Some(b),
            (None, other) => other,
            (first, _) => first,
        }
    }

    fn publish(&self, entities: &impl Entities) {
        let (time, step) = self.queued.first(entities).map_or((0, 0), |(_, entity)| {
            (entity.virtual_time.get(), self.step(entity))
        });
        self.published.set(self.queued.len(), time, step);
        self.published.set_idle(self.current == Current::Nobody);
    }
}
