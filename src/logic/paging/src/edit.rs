//! One edit of a range: count the tables it needs, then carry it out without a failure.

use addr::Spa;

use crate::attributes::{Attributes, PageSize, shift, span_bytes};
use crate::cleanup::Cleanup;
use crate::format::{Entry, Format};
use crate::memory::{ENTRIES, Reserve, TableMemory, entry_at};

/// A range of addresses with both ends inclusive, so that it can reach the end of the space.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    pub first: u64,
    pub last: u64,
}

impl Span {
    /// The part of the span in each slot of a table at `level`, in order.
    fn slots(self, level: u32) -> impl Iterator<Item = Slot> {
        let size = span_bytes(level);
        let mut next = Some(self.first);
        core::iter::from_fn(move || {
            let first = next?;
            let start = first & !(size - 1);
            let end = start | (size - 1);
            let part = Span {
                first,
                last: end.min(self.last),
            };
            next = if part.last < self.last {
                part.last.checked_add(1)
            } else {
                None
            };
            Some(Slot {
                index: (start >> shift(level)) & (ENTRIES - 1),
                start,
                whole: part.first == start && part.last == end,
                part,
            })
        })
    }
}

/// One entry's share of a span.
struct Slot {
    index: u64,
    /// First address under the entry.
    start: u64,
    /// Whether the span covers all addresses under the entry.
    whole: bool,
    part: Span,
}

/// What to do to a range.
#[derive(Clone, Copy)]
pub(crate) enum Edit {
    /// Map it; `spa` is the target of address `origin`.
    Map {
        origin: u64,
        spa: u64,
        attributes: Attributes,
    },
    /// Map nothing.
    Unmap,
    /// Give what is mapped other attributes.
    Protect(Attributes),
}

enum Step {
    Keep,
    Put(u64),
    Descend,
}

impl Edit {
    /// What to do with `entry` in `slot` of a table at `level`.
    fn step<F: Format>(&self, slot: &Slot, level: u32, entry: Entry, max_leaf: PageSize) -> Step {
        let size = PageSize::from_level(level).filter(|size| *size <= max_leaf);
        match (*self, entry) {
            (Self::Unmap | Self::Protect(_), Entry::Empty) => Step::Keep,
            (Self::Unmap, _) if slot.whole => Step::Put(0),
            (Self::Protect(new), Entry::Leaf(_, old)) if old == new => Step::Keep,
            (Self::Protect(new), Entry::Leaf(spa, _)) if slot.whole => {
                match PageSize::from_level(level) {
                    Some(size) => Step::Put(F::leaf(spa, size, new)),
                    None => Step::Keep,
                }
            }
            (
                Self::Map {
                    origin,
                    spa,
                    attributes,
                },
                entry,
            ) => {
                // The target of the slot's first address; wraps where the slot begins before the range does.
                let target = spa.wrapping_add(slot.start.wrapping_sub(origin));
                match (entry, size) {
                    (Entry::Leaf(old, rights), _)
                        if old.get() == target && rights == attributes =>
                    {
                        Step::Keep
                    }
                    (_, Some(size)) if slot.whole && target & (size.bytes() - 1) == 0 => {
                        Step::Put(F::leaf(Spa::new(target), size, attributes))
                    }
                    _ => Step::Descend,
                }
            }
            _ => Step::Descend,
        }
    }
}

/// The entry that stands for `index` once `parent`, an entry of a table at `level + 1`, became a table.
fn piece(parent: Entry, level: u32, index: u64) -> Entry {
    match parent {
        Entry::Leaf(spa, attributes) => {
            Entry::Leaf(Spa::new(spa.get() | (index << shift(level))), attributes)
        }
        // A table has entries of its own and is read, not divided.
        Entry::Empty | Entry::Table(_) => Entry::Empty,
    }
}

/// The number of tables that `edit` has to add below `node`, an entry that leads to a table at `level`.
pub(crate) fn tables_needed<F: Format>(
    mem: &impl TableMemory,
    node: Entry,
    level: u32,
    span: Span,
    edit: &Edit,
    max_leaf: PageSize,
) -> u64 {
    let mut needed = 0;
    for slot in span.slots(level) {
        let entry = match node {
            Entry::Table(table) => F::decode(
                mem.load(entry_at(table, slot.index)),
                PageSize::from_level(level),
            ),
            _ => piece(node, level, slot.index),
        };
        if let Step::Descend = edit.step::<F>(&slot, level, entry, max_leaf)
            && level > 1
        {
            // Address space ends long before 2^64 tables; saturating only keeps the sum free of a check.
            let below = tables_needed::<F>(mem, entry, level - 1, slot.part, edit, max_leaf);
            needed = below
                .saturating_add(needed)
                .saturating_add(u64::from(!matches!(entry, Entry::Table(_))));
        }
    }
    needed
}

/// An edit under way.
pub(crate) struct Editor<'a, M> {
    pub mem: &'a mut M,
    pub reserve: Reserve,
    pub cleanup: Cleanup,
    pub max_leaf: PageSize,
}

impl<M: TableMemory> Editor<'_, M> {
    /// Carries `edit` out in `table` of `level`. The reserve holds what [`tables_needed`] counted.
    pub(crate) fn apply<F: Format>(&mut self, table: Spa, level: u32, span: Span, edit: &Edit) {
        for slot in span.slots(level) {
            let at = entry_at(table, slot.index);
            let old = self.mem.load(at);
            let entry = F::decode(old, PageSize::from_level(level));
            match (edit.step::<F>(&slot, level, entry, self.max_leaf), entry) {
                (Step::Keep, _) => {}
                (Step::Put(new), _) => self.replace::<F>(at, old, new, level),
                (Step::Descend, _) if level == 1 => {}
                (Step::Descend, Entry::Table(below)) => {
                    self.apply::<F>(below, level - 1, slot.part, edit)
                }
                (Step::Descend, entry) => {
                    // Counted beforehand with the same steps, so the reserve cannot be empty.
                    let Some(below) = self.reserve.take(self.mem) else {
                        return;
                    };
                    self.divide::<F>(below, level - 1, entry);
                    // The new table gets its final content before it is linked: one store publishes all of it.
                    self.apply::<F>(below, level - 1, slot.part, edit);
                    self.replace::<F>(at, old, F::table(below), level);
                }
            }
        }
    }

    /// Fills the unlinked `table` of `level` so that it means what `entry` means.
    fn divide<F: Format>(&mut self, table: Spa, level: u32, entry: Entry) {
        let Some(size) = PageSize::from_level(level) else {
            return;
        };
        for index in 0..ENTRIES {
            if let Entry::Leaf(spa, attributes) = piece(entry, level, index) {
                self.mem
                    .store(entry_at(table, index), F::leaf(spa, size, attributes));
            }
        }
    }

    /// Stores `new` over `old` in a table of `level`, and keeps for later what that leaves over.
    pub(crate) fn replace<F: Format>(&mut self, at: Spa, old: u64, new: u64, level: u32) {
        if new == old {
            return;
        }
        self.mem.store(at, new);
        if F::is_present(old) {
            self.cleanup.need_flush();
        }
        if let Entry::Table(gone) = F::decode(old, PageSize::from_level(level)) {
            self.cleanup.push(self.mem, gone, level - 1);
        }
    }
}
