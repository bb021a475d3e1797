//! The end of tables: freed at once, or emptied in pieces.

use addr::Spa;

use crate::attributes::{Attributes, Backing, PageSize, span_bytes};
use crate::format::{Entry, Format};
use crate::leaves::Leaves;
use crate::memory::{ENTRIES, TableMemory, entry_at};

/// Frees `table` of `level` and all tables below it, and tells the counted leaves; returns the number of tables. All
/// their leaves go from `leaves`.
pub(crate) fn free_tree(
    format: Format,
    mem: &mut dyn TableMemory,
    table: Spa,
    level: u32,
    leaves: &mut Leaves,
    released: &mut dyn FnMut(Spa, u64),
) -> u64 {
    let mut freed = 1;
    for index in 0..ENTRIES {
        let entry = mem.load(entry_at(table, index));
        match format.decode(entry, PageSize::from_level(level)) {
            Entry::Empty => {}
            Entry::Table(below) => {
                freed = free_tree(format, mem, below, level - 1, leaves, released)
                    .saturating_add(freed);
            }
            Entry::Leaf(spa, attributes) => {
                leaves.went(level);
                release(spa, level, attributes, released);
            }
        }
    }
    mem.free(table);
    freed
}

/// Bytes of a leaf whose release costs as much as a table, as a shift.
const COSTLY_SHIFT: u32 = 18;

/// Empties `table` of `level` while the budget lasts; whether it is empty.
pub(crate) fn drain_table(
    format: Format,
    mem: &mut dyn TableMemory,
    table: Spa,
    level: u32,
    budget: &mut u32,
    leaves: &mut Leaves,
    released: &mut dyn FnMut(Spa, u64),
) -> bool {
    for index in 0..ENTRIES {
        let at = entry_at(table, index);
        match format.decode(mem.load(at), PageSize::from_level(level)) {
            Entry::Empty => continue,
            Entry::Table(below) => {
                if !drain_table(format, mem, below, level - 1, budget, leaves, released)
                    || *budget == 0
                {
                    return false;
                }
                mem.store(at, 0);
                mem.free(below);
            }
            Entry::Leaf(spa, attributes) => {
                if *budget == 0 {
                    return false;
                }
                mem.store(at, 0);
                leaves.went(level);
                release(spa, level, attributes, released);
                // A large leaf counts for what giving back its frames costs.
                let pieces = (span_bytes(level) >> COSTLY_SHIFT).min(u64::from(u32::MAX)) as u32;
                *budget = (*budget).saturating_sub(pieces).max(1);
            }
        }
        *budget -= 1;
    }
    true
}

/// Tells a leaf of `level` if it is counted.
fn release(spa: Spa, level: u32, attributes: Attributes, released: &mut dyn FnMut(Spa, u64)) {
    if attributes.backing == Backing::Counted {
        released(spa, span_bytes(level));
    }
}
