//! A tree of page tables and what can be done to it.

use addr::{PAGE_SIZE, Spa};

use crate::attributes::{Attributes, Backing, PageSize, shift, span_bytes};
use crate::change::{Change, Event, Marks, OverOverlays};
use crate::cleanup::Cleanup;
use crate::edit::{Edit, Editor, Span, tables_needed};
use crate::format::{Entry, Format};
use crate::leaves::Leaves;
use crate::levels::Levels;
use crate::memory::{ENTRIES, OutOfFrames, Reserve, TableMemory, entry_at};
use crate::release::{drain_table, free_tree};

/// Why an edit was refused. The tree is as it was and no frame was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EditError {
    /// Too few frames for the tables that the edit needs.
    OutOfFrames,
    /// An address or length is not a multiple of 4 KiB.
    Misaligned,
    /// The range is empty, leaves the address space, or crosses the gap between its canonical halves.
    OutOfRange,
    /// Write or execute without read.
    BadAttributes,
}

impl From<OutOfFrames> for EditError {
    fn from(_: OutOfFrames) -> Self {
        Self::OutOfFrames
    }
}

/// The translation of one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// What the address translates to.
    pub spa: Spa,
    /// Size of the leaf that translates it.
    pub size: PageSize,
    /// Its rights and type.
    pub attributes: Attributes,
}

/// A tree of page tables. Addresses are guest physical in a second-level format and virtual in
/// the host's; ranges are in bytes, at multiples of 4 KiB.
///
/// The tables are the state; this names them. Whoever edits holds it exclusively; processors may walk at any
/// time. Every edit either does all of what it says or fails and changes nothing.
#[derive(Debug)]
pub struct Table {
    root: Spa,
    levels: Levels,
    max_leaf: PageSize,
    format: Format,
    leaves: Leaves,
}

/// First SPA that an entry cannot hold.
const SPA_END: u64 = 1 << 52;

impl Table {
    /// The tree whose top table is the frame at `root`: zeroed, or one that this crate built. No leaf larger
    /// than `max_leaf`, which the processor must support, is made.
    pub const fn new(format: Format, root: Spa, levels: Levels, max_leaf: PageSize) -> Self {
        Self {
            root,
            levels,
            max_leaf,
            format,
            leaves: Leaves([0; 3]),
        }
    }

    /// The top table.
    pub const fn root(&self) -> Spa {
        self.root
    }

    /// The format of entries.
    pub const fn format(&self) -> Format {
        self.format
    }

    /// Leaves of `size`, with those in tables that wait for [`Table::finish`]. Counted since [`Table::new`]: of a tree
    /// that had leaves by then it is the difference, modulo 2^64.
    pub fn leaves(&self, size: PageSize) -> u64 {
        self.leaves.of(size)
    }

    /// The depth.
    pub const fn levels(&self) -> Levels {
        self.levels
    }

    /// Maps `len` bytes at `start` to `spa`: [`Change::Map`].
    ///
    /// # Errors
    /// Any [`EditError`]; nothing changed.
    pub fn map(
        &mut self,
        mem: &mut dyn TableMemory,
        start: u64,
        len: u64,
        spa: Spa,
        attributes: Attributes,
    ) -> Result<Cleanup, EditError> {
        let change = Change::Map(spa, attributes);
        self.change(mem, start, len, change, OverOverlays::Replace, &mut |_| {})
    }

    /// Removes every mapping from `len` bytes at `start`: [`Change::Unmap`].
    ///
    /// # Errors
    /// Any [`EditError`]; nothing changed. A larger leaf that the range covers in part needs a table to divide.
    pub fn unmap(
        &mut self,
        mem: &mut dyn TableMemory,
        start: u64,
        len: u64,
    ) -> Result<Cleanup, EditError> {
        let over = OverOverlays::Replace;
        self.change(mem, start, len, Change::Unmap, over, &mut |_| {})
    }

    /// Makes `change` to `len` bytes at `start` and tells `events` what it came across. Counted leaves in tables that
    /// leave the tree are told by [`Table::finish_with`] instead.
    ///
    /// # Errors
    /// Any [`EditError`]; nothing changed, nothing told. A larger leaf that the range covers in part needs a table to
    /// divide; a [`Change::Mark`] only where it clears the dirty bit of one.
    pub fn change(
        &mut self,
        mem: &mut dyn TableMemory,
        start: u64,
        len: u64,
        change: Change,
        over: OverOverlays,
        events: &mut dyn FnMut(Event),
    ) -> Result<Cleanup, EditError> {
        let span = self.span(start, len)?;
        let change = match change {
            Change::Map(spa, attributes) => {
                if !spa.is_aligned(PAGE_SIZE) {
                    return Err(EditError::Misaligned);
                }
                if spa.checked_add(len).is_none_or(|end| end.get() > SPA_END) {
                    return Err(EditError::OutOfRange);
                }
                Change::Map(spa, self.checked(attributes)?)
            }
            Change::Unmap | Change::Mark(_) => change,
        };
        let edit = Edit {
            change,
            origin: start,
            over,
            format: self.format,
            max_leaf: self.max_leaf,
        };
        let levels = self.levels.count();
        let needed = tables_needed(mem, self.format.table(self.root), levels, span, &edit);
        let reserve = Reserve::fill(mem, needed)?;
        let mut editor = Editor {
            mem,
            format: self.format,
            reserve,
            cleanup: Cleanup::default(),
            events,
            leaves: Leaves::default(),
        };
        editor.apply(self.root, levels, span, &edit);
        let Editor {
            mem,
            reserve,
            cleanup,
            leaves,
            ..
        } = editor;
        self.leaves.add(leaves);
        reserve.give_back(mem);
        Ok(cleanup)
    }

    /// Merges the tables above `address`, from the lowest up: a table without entries is taken out, one whose
    /// entries together map one aligned piece with one set of attributes becomes a leaf. Translations stay as
    /// they are. Reads up to 2048 entries.
    pub fn coalesce(&mut self, mem: &mut dyn TableMemory, address: u64) -> Cleanup {
        if self.span(address & !(PAGE_SIZE - 1), PAGE_SIZE).is_err() {
            return Cleanup::default();
        }
        let mut editor = Editor {
            mem,
            format: self.format,
            reserve: Reserve::default(),
            cleanup: Cleanup::default(),
            events: &mut |_| {},
            leaves: Leaves::default(),
        };
        // Once with the lowest table that can merge, then again with the one above it.
        while let Some((at, old, new, level)) = self.mergeable(editor.mem, address) {
            editor.replace(at, old, new, level, true);
        }
        let Editor {
            cleanup, leaves, ..
        } = editor;
        self.leaves.add(leaves);
        cleanup
    }

    /// The lowest entry on the way to `address` that leads to a table, if that table can be merged: where the
    /// entry is, what it holds, what it shall hold, its level.
    fn mergeable(&self, mem: &dyn TableMemory, address: u64) -> Option<(Spa, u64, u64, u32)> {
        let mut table = self.root;
        let mut level = self.levels.count();
        let mut lowest = None;
        loop {
            let at = entry_at(table, Self::index(address, level));
            let entry = mem.load(at);
            match self.format.decode(entry, PageSize::from_level(level)) {
                Entry::Table(below) => {
                    lowest = Some((at, entry, below, level));
                    (table, level) = (below, level - 1);
                }
                _ => break,
            }
        }
        let (at, old, below, level) = lowest?;
        Some((at, old, self.merged(mem, below, level - 1)?, level))
    }

    /// The translation of `address`, or `None` when nothing is mapped there.
    pub fn lookup(&self, mem: &dyn TableMemory, address: u64) -> Option<Mapping> {
        self.span(address & !(PAGE_SIZE - 1), PAGE_SIZE).ok()?;
        let mut table = self.root;
        let mut level = self.levels.count();
        loop {
            let size = PageSize::from_level(level);
            match self
                .format
                .decode(mem.load(entry_at(table, Self::index(address, level))), size)
            {
                Entry::Table(below) => (table, level) = (below, level - 1),
                Entry::Leaf(spa, attributes) => {
                    let size = size?;
                    let spa = Spa::new(spa.get() | (address & (size.bytes() - 1)));
                    return Some(Mapping {
                        spa,
                        size,
                        attributes,
                    });
                }
                Entry::Empty => return None,
            }
        }
    }

    /// Sets marks of the leaf at `address`, as a processor does that uses the page. Nothing where there is no leaf.
    pub fn mark(&self, mem: &mut dyn TableMemory, address: u64, marks: Marks) {
        if self.span(address & !(PAGE_SIZE - 1), PAGE_SIZE).is_err() {
            return;
        }
        let (mut table, mut level) = (self.root, self.levels.count());
        loop {
            let entry = entry_at(table, Self::index(address, level));
            match self
                .format
                .decode(mem.load(entry), PageSize::from_level(level))
            {
                Entry::Table(below) => (table, level) = (below, level - 1),
                Entry::Leaf(..) => {
                    mem.update(entry, 0, marks.bits(self.format));
                    return;
                }
                Entry::Empty => return,
            }
        }
    }

    /// Frees the tables that edits took out of the tree, after the flush that [`Cleanup`] asked for. Returns
    /// their number.
    pub fn finish(&mut self, mem: &mut dyn TableMemory, cleanup: Cleanup) -> u64 {
        self.finish_with(mem, cleanup, &mut |_, _| {})
    }

    /// The same, and tells `released` the counted leaves that left the tree with their tables, as address and length
    /// in bytes.
    pub fn finish_with(
        &mut self,
        mem: &mut dyn TableMemory,
        mut cleanup: Cleanup,
        released: &mut dyn FnMut(Spa, u64),
    ) -> u64 {
        let mut freed = 0;
        let leaves = &mut self.leaves;
        while let Some((table, level, merged)) = cleanup.pop(mem) {
            freed = if merged {
                free_tree(self.format, mem, table, level, leaves, &mut |_, _| {})
            } else {
                free_tree(self.format, mem, table, level, leaves, released)
            }
            .saturating_add(freed);
        }
        freed
    }

    /// Frees every table of the tree, the top one included, and returns their number. No processor may use the
    /// tree any more, and none may hold anything of it in its TLB.
    pub fn destroy(mut self, mem: &mut dyn TableMemory) -> u64 {
        free_tree(
            self.format,
            mem,
            self.root,
            self.levels.count(),
            &mut self.leaves,
            &mut |_, _| {},
        )
    }

    /// Empties the tree in pieces: takes out up to `budget` leaves and tables (512 entries are read for each at most),
    /// frees the tables and tells `released` the counted leaves. True when only the top table is left; until then to
    /// be called again. The conditions of [`Table::destroy`] hold.
    pub fn drain(
        &mut self,
        mem: &mut dyn TableMemory,
        budget: u32,
        released: &mut dyn FnMut(Spa, u64),
    ) -> bool {
        let mut budget = budget;
        drain_table(
            self.format,
            mem,
            self.root,
            self.levels.count(),
            &mut budget,
            &mut self.leaves,
            released,
        )
    }

    /// The entry for a table of `level + 1` that means what all of `table` of `level` means.
    fn merged(&self, mem: &dyn TableMemory, table: Spa, level: u32) -> Option<u64> {
        let size = PageSize::from_level(level);
        let load = |index| mem.load(entry_at(table, index));
        let decode = |raw| self.format.decode(raw, size);
        // From the last entry down: a table that is being filled upwards is found unfit at once.
        let mut rest = (1..ENTRIES).rev().map(load);
        match decode(load(0)) {
            Entry::Table(_) => None,
            Entry::Empty => rest.all(|raw| decode(raw) == Entry::Empty).then_some(0),
            Entry::Leaf(spa, attributes) => {
                let whole =
                    PageSize::from_level(level + 1).filter(|whole| *whole <= self.max_leaf)?;
                let mut dirty = load(0) & self.format.dirty();
                let uniform = spa.is_aligned(whole.bytes())
                    && attributes.backing != Backing::Overlay
                    && (1..ENTRIES).rev().all(|index| {
                        let raw = load(index);
                        dirty |= raw & self.format.dirty();
                        let spa = Spa::new(spa.get() | (index << shift(level)));
                        decode(raw) == Entry::Leaf(spa, attributes)
                    });
                uniform.then(|| self.format.leaf(spa, whole, attributes) | dirty)
            }
        }
    }

    fn index(address: u64, level: u32) -> u64 {
        (address >> shift(level)) & (ENTRIES - 1)
    }

    fn checked(&self, attributes: Attributes) -> Result<Attributes, EditError> {
        if attributes.is_expressible() {
            Ok(self.format.keep(attributes))
        } else {
            Err(EditError::BadAttributes)
        }
    }

    fn span(&self, start: u64, len: u64) -> Result<Span, EditError> {
        if (start | len) & (PAGE_SIZE - 1) != 0 {
            return Err(EditError::Misaligned);
        }
        let last = len
            .checked_sub(1)
            .and_then(|more| start.checked_add(more))
            .ok_or(EditError::OutOfRange)?;
        // Bytes of the whole space: one more level's entry.
        let space = span_bytes(self.levels.count() + 1);
        let fits = if self.format.is_virtual() {
            let half = space / 2;
            last < half || start >= half.wrapping_neg()
        } else {
            last < space
        };
        if fits {
            Ok(Span { first: start, last })
        } else {
            Err(EditError::OutOfRange)
        }
    }
}
