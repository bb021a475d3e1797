//! One edit of a range: count the tables it needs, then carry it out without a failure.

use addr::Spa;

use crate::attributes::{Backing, PageSize, shift, span_bytes};
use crate::change::{Change, Event, MarkChange, Marks, OverOverlays};
use crate::cleanup::Cleanup;
use crate::format::{Entry, Format};
use crate::leaves::Leaves;
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

impl Slot {
    /// Bytes of the part. Only the whole space has none to spare for the sum, and no entry spans that.
    fn len(&self) -> u64 {
        (self.part.last - self.part.first).saturating_add(1)
    }
}

/// What to do to a range of a tree.
#[derive(Clone, Copy)]
pub(crate) struct Edit {
    pub change: Change,
    /// The address that [`Change::Map`]'s target is for.
    pub origin: u64,
    pub over: OverOverlays,
    pub format: Format,
    pub max_leaf: PageSize,
}

enum Step {
    Keep,
    Put(u64),
    Mark { clear: u64, set: u64 },
    Cover,
    Descend,
}

impl Edit {
    /// What to do with entry `raw` in `slot` of a table at `level`.
    fn step(&self, mem: &dyn TableMemory, slot: &Slot, level: u32, raw: u64) -> Step {
        let entry = self.format.decode(raw, PageSize::from_level(level));
        let step = self.plain_step(slot, level, raw, entry);
        match (step, entry) {
            (step, _) if self.over == OverOverlays::Replace => step,
            (_, Entry::Leaf(_, attributes)) if attributes.backing == Backing::Overlay => {
                Step::Cover
            }
            (Step::Put(_), Entry::Table(below))
                if holds_overlay(self.format, mem, below, level - 1) =>
            {
                Step::Descend
            }
            (step, _) => step,
        }
    }

    /// The same without a look at overlays.
    fn plain_step(&self, slot: &Slot, level: u32, raw: u64, entry: Entry) -> Step {
        match (self.change, entry) {
            (Change::Unmap | Change::Mark(_), Entry::Empty) => Step::Keep,
            (Change::Unmap, _) if slot.whole => Step::Put(0),
            (Change::Mark(MarkChange { clear, set }), Entry::Leaf(..)) => {
                let (clear, set) = (clear.bits(self.format), set.bits(self.format));
                if slot.whole {
                    Step::Mark { clear, set }
                } else if raw & clear & self.format.dirty() != 0 {
                    // The rest of the leaf stays dirty.
                    Step::Descend
                } else {
                    Step::Mark { clear: 0, set }
                }
            }
            (Change::Map(spa, attributes), entry) => {
                // The target of the slot's first address; wraps where the slot begins before the range does.
                let target = spa.get().wrapping_add(slot.start.wrapping_sub(self.origin));
                let size = PageSize::from_level(level).filter(|size| *size <= self.max_leaf);
                match (entry, size) {
                    (Entry::Leaf(old, rights), _)
                        if old.get() == target && rights == attributes =>
                    {
                        Step::Keep
                    }
                    (_, Some(size)) if slot.whole && target & (size.bytes() - 1) == 0 => {
                        let mut new = self.format.leaf(Spa::new(target), size, attributes);
                        if !attributes.read && may_be_dirty(self.format, raw, entry) {
                            new |= self.format.dirty();
                        }
                        Step::Put(new)
                    }
                    _ => Step::Descend,
                }
            }
            _ => Step::Descend,
        }
    }
}

/// Whether a page under the entry may have been written since it was last cleared. A processor may be about to set
/// the dirty bit of any page that it may write.
fn may_be_dirty(format: Format, raw: u64, entry: Entry) -> bool {
    match entry {
        Entry::Empty => false,
        Entry::Table(_) => true,
        Entry::Leaf(_, attributes) => attributes.write || raw & format.dirty() != 0,
    }
}

fn holds_overlay(format: Format, mem: &dyn TableMemory, table: Spa, level: u32) -> bool {
    (0..ENTRIES).any(|index| {
        match format.decode(
            mem.load(entry_at(table, index)),
            PageSize::from_level(level),
        ) {
            Entry::Empty => false,
            Entry::Leaf(_, attributes) => attributes.backing == Backing::Overlay,
            Entry::Table(below) => holds_overlay(format, mem, below, level - 1),
        }
    })
}

/// Entry `index` of a table of `level` below `parent`: that of the table it names, or else of one that means the same.
fn child(format: Format, mem: &dyn TableMemory, parent: u64, level: u32, index: u64) -> u64 {
    match (
        format.decode(parent, PageSize::from_level(level + 1)),
        PageSize::from_level(level),
    ) {
        (Entry::Table(table), _) => mem.load(entry_at(table, index)),
        (Entry::Leaf(spa, attributes), Some(size)) => {
            let spa = Spa::new(spa.get() | (index << shift(level)));
            format.leaf(spa, size, attributes) | (parent & format.dirty())
        }
        _ => 0,
    }
}

/// The number of tables that `edit` has to add below `node`, an entry of `level + 1`.
pub(crate) fn tables_needed(
    mem: &dyn TableMemory,
    node: u64,
    level: u32,
    span: Span,
    edit: &Edit,
) -> u64 {
    let mut needed = 0;
    for slot in span.slots(level) {
        let raw = child(edit.format, mem, node, level, slot.index);
        if let Step::Descend = edit.step(mem, &slot, level, raw)
            && level > 1
        {
            // Address space ends long before 2^64 tables; saturating only keeps the sum free of a check.
            let below = tables_needed(mem, raw, level - 1, slot.part, edit);
            let is_table = matches!(
                edit.format.decode(raw, PageSize::from_level(level)),
                Entry::Table(_)
            );
            needed = below
                .saturating_add(needed)
                .saturating_add(u64::from(!is_table));
        }
    }
    needed
}

/// An edit under way.
pub(crate) struct Editor<'a> {
    pub mem: &'a mut dyn TableMemory,
    pub format: Format,
    pub reserve: Reserve,
    pub cleanup: Cleanup,
    pub events: &'a mut dyn FnMut(Event),
    /// What changes in their number. Those in tables that leave the tree go when the tables are freed.
    pub leaves: Leaves,
}

impl Editor<'_> {
    /// Carries `edit` out in `table` of `level`. The reserve holds what [`tables_needed`] counted.
    pub(crate) fn apply(&mut self, table: Spa, level: u32, span: Span, edit: &Edit) {
        for slot in span.slots(level) {
            let at = entry_at(table, slot.index);
            let old = self.mem.load(at);
            let entry = self.format.decode(old, PageSize::from_level(level));
            match (edit.step(self.mem, &slot, level, old), entry) {
                (Step::Keep, entry) => self.kept(&slot, old, entry, edit),
                (Step::Cover, _) => (self.events)(Event::Covered(slot.start)),
                (Step::Mark { clear, set }, _) => self.mark(at, &slot, clear, set),
                (Step::Put(new), entry) => {
                    self.release(&slot, entry);
                    self.replace(at, old, new, level, false);
                }
                (Step::Descend, _) if level == 1 => {}
                (Step::Descend, Entry::Table(below)) => {
                    self.apply(below, level - 1, slot.part, edit)
                }
                (Step::Descend, entry) => {
                    // Counted beforehand with the same steps. Only a leaf that a processor made dirty since then is
                    // not: it stays as it is, and dirty.
                    let Some(below) = self.reserve.take(self.mem) else {
                        self.kept(&slot, old, entry, edit);
                        continue;
                    };
                    for index in 0..ENTRIES {
                        let piece = child(self.format, self.mem, old, level - 1, index);
                        self.mem.store(entry_at(below, index), piece);
                    }
                    if let Entry::Leaf(..) = entry {
                        self.leaves.came(level - 1, ENTRIES);
                    }
                    // The new table gets its final content before it is linked: one store publishes all of it.
                    self.apply(below, level - 1, slot.part, edit);
                    self.replace(at, old, self.format.table(below), level, false);
                }
            }
        }
    }

    /// Tells what is to be told of an entry that stays.
    fn kept(&mut self, slot: &Slot, old: u64, entry: Entry, edit: &Edit) {
        match edit.change {
            Change::Map(..) => self.release(slot, entry),
            Change::Mark(_) => (self.events)(Event::Marks {
                marks: Marks::of(self.format, old),
                len: slot.len(),
            }),
            Change::Unmap => {}
        }
    }

    /// Tells the uses that end when the slot's part of `entry` does.
    fn release(&mut self, slot: &Slot, entry: Entry) {
        if let Entry::Leaf(spa, attributes) = entry
            && attributes.backing == Backing::Counted
        {
            (self.events)(Event::Released {
                spa: Spa::new(spa.get() | (slot.part.first - slot.start)),
                len: slot.len(),
            });
        }
    }

    fn mark(&mut self, at: Spa, slot: &Slot, clear: u64, set: u64) {
        let old = self.mem.update(at, clear, set);
        // A processor that holds a dirty translation does not set the bit again.
        if self.format.is_present(old) && old & clear & self.format.dirty() != 0 {
            self.cleanup.need_flush();
        }
        (self.events)(Event::Marks {
            marks: Marks::of(self.format, old),
            len: slot.len(),
        });
    }

    /// Stores `new` over `old` in a table of `level`, and keeps for later what that leaves over. `merged`: `new` maps
    /// what `old` did.
    pub(crate) fn replace(&mut self, at: Spa, old: u64, new: u64, level: u32, merged: bool) {
        if new == old {
            return;
        }
        self.mem.store(at, new);
        let size = PageSize::from_level(level);
        let before = self.format.decode(old, size);
        let after = self.format.decode(new, size);
        self.leaves.replaced(level, &before, &after);
        if self.format.is_present(old) {
            self.cleanup.need_flush();
        }
        if let Entry::Table(gone) = before {
            self.cleanup.push(self.mem, gone, level - 1, merged);
        }
    }
}
