//! The queue of one LP.

use crate::entity::{Entities, Entity, EntityId, State, before, later};
use crate::heap::Heap;
use crate::parent::{Parent, ParentState};
use crate::published::Published;

/// Period of the caps, in slices.
const PERIOD_SLICES: u64 = 50;
/// Entities that one choice takes out of the heaps of the halted and the throttled, each.
const RELEASED_AT_ONCE: usize = 16;
/// Lag behind the own candidate, in slices of the heavier of the two, from which an entity is stolen.
const STEAL_STEPS: u64 = 4;
/// Lag, in slices of the lighter, that is still made up for after a move.
const LAG_STEPS: u64 = 16;
/// LPs that a busy one looks at in one go.
const PEERS_AT_ONCE: u32 = 16;

/// What to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The parent's VP.
    Parent {
        /// Choose again at this time.
        until: u64,
    },
    /// A child's VP.
    Vp {
        /// Which.
        id: EntityId,
        /// Choose again at this time.
        until: u64,
    },
    /// Nothing.
    Idle {
        /// Choose again at this time; `u64::MAX` for when something happens.
        until: u64,
    },
}

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

    /// Charges what ran since the last choice, wakes the halted whose deadline has passed, and chooses what runs from
    /// `now` on. What ran goes on if it is runnable and nothing has a better claim.
    pub fn choose(&mut self, now: u64, parent: ParentState, entities: &impl Entities) -> Choice {
        self.charge(now, entities);
        self.release(now, entities);
        let child = self.best_child(now, entities);
        if let Some((_, entity)) = child {
            self.floor = later(self.floor, entity.virtual_time.get());
        }
        self.parent.observe(parent, self.floor, now, self.slice);
        let is_parent = self.parent.is_runnable()
            && child.is_none_or(|(_, entity)| self.parent_goes_first(now, entity));
        let next = match child {
            _ if is_parent => Current::Parent,
            Some((id, _)) => Current::Vp(id),
            None => Current::Nobody,
        };
        if next != self.current || now >= self.slice_end {
            self.slice_end = now.saturating_add(self.slice);
        }
        self.switch_to(next, entities);
        self.publish(entities);
        self.is_alone = child.is_none();
        let event = self.next_event(entities);
        let until = self.slice_end.min(event);
        match next {
            Current::Nobody => Choice::Idle { until: event },
            Current::Parent if self.is_alone => Choice::Parent { until: event },
            Current::Parent => Choice::Parent { until },
            Current::Vp(id) => {
                let left = child.and_then(|(_, entity)| entity.left(now, self.period()));
                Choice::Vp {
                    id,
                    until: left.map_or(until, |left| until.min(now.saturating_add(left.max(1)))),
                }
            }
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

    /// After a choice: the LP whose first waiting entity should run here instead, if any. `peer` gives what each of the
    /// LPs 0 to `lps` - 1 publishes.
    pub fn balance<'a>(
        &mut self,
        lps: u32,
        peer: impl Fn(u32) -> Option<&'a Published>,
        entities: &impl Entities,
    ) -> Option<u32> {
        let mine = match self.current {
            Current::Parent => return None,
            Current::Nobody => None,
            Current::Vp(id) => Some(entities.get(id)?),
        };
        let count = if mine.is_some() {
            lps.min(PEERS_AT_ONCE)
        } else {
            lps
        };
        let mut best: Option<(u64, u64, u32)> = None;
        for _ in 0..count {
            let other = self.next_peer.checked_rem(lps)?;
            self.next_peer = other.wrapping_add(1);
            let Some((first, step)) = peer(other)
                .filter(|_| other != self.lp)
                .and_then(Published::first)
            else {
                continue;
            };
            if best.is_none_or(|(least, ..)| before(first, least)) {
                best = Some((first, step, other));
            }
        }
        let (first, step, other) = best?;
        let Some(mine) = mine else { return Some(other) };
        let (time, own_step) = (mine.virtual_time.get(), self.step(mine));
        if before(
            first.wrapping_add(step.min(own_step).saturating_mul(STEAL_STEPS)),
            time,
        ) {
            return Some(other);
        }
        // Who runs although nobody waits that has had more is owed nothing for it.
        let least = self
            .first_waiting(entities)
            .map(|(_, entity)| entity.virtual_time.get())
            .filter(|waiting| before(*waiting, first))
            .unwrap_or(first);
        let earliest = least.wrapping_sub(step.max(own_step).saturating_mul(LAG_STEPS));
        mine.virtual_time.set(later(time, earliest));
        None
    }

    /// Takes the first waiting entity that may run elsewhere, for LP `thief`, which must [`RunQueue::adopt`] it.
    pub fn steal(&mut self, thief: u32, entities: &impl Entities) -> Option<EntityId> {
        let (id, entity) = self.queued.first(entities)?;
        self.queued.remove(id, entities);
        entity.set_state(State::InTransit);
        entity.move_to(thief);
        self.publish(entities);
        Some(id)
    }

    /// Queues an entity that was stolen for this LP.
    ///
    /// # Errors
    /// See [`Refused`]. [`Refused::WrongState`] when it was removed meanwhile: nothing is to be done.
    pub fn adopt(
        &mut self,
        id: EntityId,
        now: u64,
        entities: &impl Entities,
    ) -> Result<(), Refused> {
        let entity = self.own(id, entities)?;
        if entity.state() != State::InTransit {
            return Err(Refused::WrongState);
        }
        // The queues of two LPs may have grown apart, where entities are bound or have more weight than one LP is worth.
        let time = entity.virtual_time.get();
        let running = match self.current {
            Current::Vp(other) => entities.get(other),
            _ => self.first_waiting(entities).map(|(_, other)| other),
        };
        match running {
            None => self.floor = later(self.floor, time),
            Some(other) => {
                let most = self
                    .step(entity)
                    .max(self.step(other))
                    .saturating_mul(LAG_STEPS);
                let near = later(time, self.floor.wrapping_sub(most));
                let latest = self.floor.wrapping_add(most);
                entity
                    .virtual_time
                    .set(if before(latest, near) { latest } else { near });
            }
        }
        self.enqueue(id, entity, now, entities);
        self.publish(entities);
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

    /// Makes runnable who waited for a time that has come.
    fn release(&mut self, now: u64, entities: &impl Entities) {
        for _ in 0..RELEASED_AT_ONCE {
            if let Some((id, _)) = due(&self.parked, now, entities) {
                // Cannot be refused: what is parked here is ours.
                let _ = self.wake(id, now, entities);
            }
            if let Some((id, entity)) = due(&self.throttled, now, entities) {
                self.throttled.remove(id, entities);
                self.enqueue(id, entity, now, entities);
            }
        }
    }

    /// When somebody becomes runnable by itself.
    fn next_event(&self, entities: &impl Entities) -> u64 {
        [&self.parked, &self.throttled]
            .into_iter()
            .filter_map(|heap| heap.first(entities))
            .map(|(_, entity)| entity.node.key.get())
            .min()
            .unwrap_or(u64::MAX)
    }

    fn first_waiting<'e, E: Entities>(&self, entities: &'e E) -> Option<(EntityId, &'e Entity)> {
        let (queued, bound) = (self.queued.first(entities), self.bound.first(entities));
        match (queued, bound) {
            (Some(a), Some(b)) if before(b.1.virtual_time.get(), a.1.virtual_time.get()) => Some(b),
            (None, other) => other,
            (first, _) => first,
        }
    }

    /// The child with the best claim: who runs, within its slice, unless somebody lags a slice behind it.
    fn best_child<'e, E: Entities>(
        &self,
        now: u64,
        entities: &'e E,
    ) -> Option<(EntityId, &'e Entity)> {
        let waiting = self.first_waiting(entities);
        let Current::Vp(id) = self.current else {
            return waiting;
        };
        let running = entities.get(id)?;
        let Some((_, first)) = waiting else {
            return Some((id, running));
        };
        let (a, b) = (first.virtual_time.get(), running.virtual_time.get());
        let is_replaced = if now < self.slice_end {
            outdoes(a, self.step(first), b, self.step(running))
        } else {
            !before(b, a)
        };
        if is_replaced {
            waiting
        } else {
            Some((id, running))
        }
    }

    fn parent_goes_first(&self, now: u64, child: &Entity) -> bool {
        let (time, step) = (self.parent.virtual_time, Parent::step(self.slice));
        if self.parent.is_first(now) {
            return true;
        }
        match self.current {
            Current::Parent if now < self.slice_end => !self.child_outdoes_parent(child),
            Current::Vp(_) if now < self.slice_end => {
                outdoes(time, step, child.virtual_time.get(), self.step(child))
            }
            _ => before(time, child.virtual_time.get()),
        }
    }

    fn child_outdoes_parent(&self, child: &Entity) -> bool {
        let parent_step = Parent::step(self.slice);
        outdoes(
            child.virtual_time.get(),
            self.step(child),
            self.parent.virtual_time,
            parent_step,
        )
    }

    fn switch_to(&mut self, next: Current, entities: &impl Entities) {
        if next == self.current {
            return;
        }
        if let Current::Vp(id) = self.current
            && let Some(entity) = entities.get(id)
        {
            self.enqueue(id, entity, self.since, entities);
        }
        if let Current::Vp(id) = next
            && let Some(entity) = entities.get(id)
        {
            if let Some(heap) = self.heap(entity.state()) {
                heap.remove(id, entities);
            }
            entity.set_state(State::Running);
            entity.woken.set(0);
        }
        self.current = next;
    }

    fn publish(&self, entities: &impl Entities) {
        let (time, step) = self.queued.first(entities).map_or((0, 0), |(_, entity)| {
            (entity.virtual_time.get(), self.step(entity))
        });
        self.published.set(self.queued.len(), time, step);
        self.published.set_idle(self.current == Current::Nobody);
    }
}

/// Whether the first lags far enough behind the second, which is within its slice, to take its place: by a slice of the
/// heavier of them.
fn outdoes(time: u64, step: u64, other_time: u64, other_step: u64) -> bool {
    before(time.wrapping_add(step.min(other_step)), other_time)
}

/// The first of `heap`, if its time has come.
fn due<'e, E: Entities>(heap: &Heap, now: u64, entities: &'e E) -> Option<(EntityId, &'e Entity)> {
    heap.first(entities)
        .filter(|(_, entity)| !before(now, entity.node.key.get()))
}
