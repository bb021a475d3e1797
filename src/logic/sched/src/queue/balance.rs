//! Between the queues of two LPs.

use super::{Current, Refused, RunQueue};
use crate::entity::{Entities, EntityId, State, before, later};
use crate::published::Published;

/// Lag behind the own candidate, in slices of the heavier of the two, from which an entity is stolen.
const STEAL_STEPS: u64 = 4;
/// Lag, in slices of the lighter, that is still made up for after a move.
const LAG_STEPS: u64 = 16;
/// LPs that a busy one looks at in one go.
const PEERS_AT_ONCE: u32 = 16;

impl RunQueue<'_> {
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
}
