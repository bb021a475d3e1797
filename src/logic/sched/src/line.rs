//! Entities in line, for instance those of whose intercept a VP of the parent is still to be told.

use crate::entity::{Entities, EntityId, Half, Node};

/// A place in a line. An entity is in one line at a time.
#[derive(Debug)]
pub(crate) struct Place {
    before: Half,
    behind: Half,
    is_taken: Half,
}

impl Place {
    pub(crate) const fn new() -> Self {
        Self {
            before: Half::new(Node::NONE),
            behind: Half::new(Node::NONE),
            is_taken: Half::new(0),
        }
    }
}

/// First in, first out. Whoever pushes or removes an entity holds the lock of the line, and knows which line it is in.
#[derive(Debug)]
pub struct Line {
    first: u32,
    last: u32,
}

fn place(entities: &impl Entities, link: u32) -> Option<&Place> {
    entities.get(EntityId(link)).map(|entity| &entity.place)
}

impl Line {
    /// Nobody.
    pub const EMPTY: Self = Self {
        first: Node::NONE,
        last: Node::NONE,
    };

    /// The first in line, and whether another stands behind it.
    pub fn first(&self) -> Option<(EntityId, bool)> {
        (self.first != Node::NONE).then_some((EntityId(self.first), self.first != self.last))
    }

    /// Puts `id` at the end. False when it stands in line already, or there is no such entity.
    pub fn push(&mut self, id: EntityId, entities: &impl Entities) -> bool {
        let Some(new) = place(entities, id.0).filter(|place| place.is_taken.get() == 0) else {
            return false;
        };
        new.is_taken.set(1);
        new.before.set(self.last);
        new.behind.set(Node::NONE);
        match place(entities, self.last) {
            Some(last) => last.behind.set(id.0),
            None => self.first = id.0,
        }
        self.last = id.0;
        true
    }

    /// Takes `id` out, wherever in this line it stands. False when it stands in none.
    pub fn remove(&mut self, id: EntityId, entities: &impl Entities) -> bool {
        let Some(old) = place(entities, id.0).filter(|place| place.is_taken.get() != 0) else {
            return false;
        };
        old.is_taken.set(0);
        let (before, behind) = (old.before.get(), old.behind.get());
        match place(entities, before) {
            Some(place) => place.behind.set(behind),
            None => self.first = behind,
        }
        match place(entities, behind) {
            Some(place) => place.before.set(before),
            None => self.last = before,
        }
        true
    }
}
