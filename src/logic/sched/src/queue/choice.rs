//! What an LP runs next.

use super::{Current, RunQueue};
use crate::entity::{Entities, Entity, EntityId, State, before, later};
use crate::heap::Heap;
use crate::parent::{Parent, ParentState};

/// Entities that one choice takes out of the heaps of the halted and the throttled, each.
const RELEASED_AT_ONCE: usize = 16;

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

impl RunQueue<'_> {
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

    /// Makes runnable who waited for a time that has come.
    fn release(&mut self, now: u64, entities: &impl Entities) {
        for _ in 0..RELEASED_AT_ONCE {
            let Some((id, _)) = due(&self.parked, now, entities) else {
                break;
            };
            // Cannot be refused: what is parked here is ours.
            let _ = self.wake(id, now, entities);
        }
        for _ in 0..RELEASED_AT_ONCE {
            let Some((id, entity)) = due(&self.throttled, now, entities) else {
                break;
            };
            self.throttled.remove(id, entities);
            self.enqueue(id, entity, now, entities);
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

    pub(super) fn child_outdoes_parent(&self, child: &Entity) -> bool {
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
}

/// Whether the first lags far enough behind the second, which is within its slice, to take its place: by a slice of the
/// heavier of them.
pub(super) fn outdoes(time: u64, step: u64, other_time: u64, other_step: u64) -> bool {
    before(time.wrapping_add(step.min(other_step)), other_time)
}

/// The first of `heap`, if its time has come.
fn due<'e, E: Entities>(heap: &Heap, now: u64, entities: &'e E) -> Option<(EntityId, &'e Entity)> {
    heap.first(entities)
        .filter(|(_, entity)| !before(now, entity.node.key.get()))
}
