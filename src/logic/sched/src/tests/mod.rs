//! Queues seen from outside.

mod machine;
mod properties;
mod rules;
mod shares;

use std::vec::Vec;

use crate::*;

/// Ticks in a slice.
const SLICE: u64 = 1_000_000;

/// Entities by number.
pub struct Table(pub Vec<Entity>);

impl Entities for Table {
    fn get(&self, id: EntityId) -> Option<&Entity> {
        self.0.get(id.0 as usize)
    }
}

fn weight(weight: u32) -> Share {
    Share {
        weight,
        cap_percent: 0,
    }
}
