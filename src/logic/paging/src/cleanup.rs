//! What is left to do after an edit: flush, then free the tables that left the tree.

use addr::Spa;

use crate::memory::{TableMemory, entry_at};

/// The rest of an edit. First flush the translations of the tree on every LP that may hold them, if
/// [`Cleanup::flush_needed`]; then pass this to [`Table::finish`](crate::Table::finish). Dropping it leaks
/// the tables that it holds.
///
/// # The list of detached tables
/// A processor that cached the way to a detached table goes on walking it until the flush, and must find the
/// old mapping there. So the list cannot use the entries' meaning; it uses bits 56:52 of the first nine
/// entries, which every format and every level ignores: 40 bits for the frame number of the next table, five
/// for the level of this one and for whether a leaf has taken its place.
#[derive(Debug, Default, PartialEq, Eq)]
#[must_use = "flush if needed, then call Table::finish"]
pub struct Cleanup {
    flush: bool,
    /// First and last table of the list.
    list: Option<(Spa, Spa)>,
}

const LINK_SHIFT: u32 = 52;
const LINK_BITS: u32 = 5;
const LINK_MASK: u64 = ((1 << LINK_BITS) - 1) << LINK_SHIFT;
/// Entries that hold the frame number; the one after them holds the level and [`MERGED`].
const LINK_ENTRIES: u64 = 8;
/// The table went because a leaf that maps the same took its place: its leaves are not released.
const MERGED: u64 = 1 << 4;

impl Cleanup {
    /// Nothing to do.
    pub const fn new() -> Self {
        Self {
            flush: false,
            list: None,
        }
    }

    /// Whether a processor may hold a translation, or a way to a table, that is no longer in the tree.
    pub fn flush_needed(&self) -> bool {
        self.flush
    }

    /// Whether tables wait to be freed. They only do when a flush is needed.
    pub fn holds_tables(&self) -> bool {
        self.list.is_some()
    }

    /// Takes over what is left to do of another edit of the same tree, so that one flush serves both.
    pub fn absorb(&mut self, other: Self, mem: &mut dyn TableMemory) {
        self.flush |= other.flush;
        self.list = match (self.list, other.list) {
            (Some((first, last)), Some((next, end))) => {
                set_next(mem, last, Some(next));
                Some((first, end))
            }
            (mine, theirs) => mine.or(theirs),
        };
    }

    pub(crate) fn need_flush(&mut self) {
        self.flush = true;
    }

    /// Adds `table` of `level`, which no entry of the tree names any more, with everything below it.
    pub(crate) fn push(&mut self, mem: &mut dyn TableMemory, table: Spa, level: u32, merged: bool) {
        self.flush = true;
        let merged = if merged { MERGED } else { 0 };
        set_bits(
            mem,
            entry_at(table, LINK_ENTRIES),
            u64::from(level) | merged,
        );
        set_next(mem, table, self.list.map(|(first, _)| first));
        self.list = Some((table, self.list.map_or(table, |(_, last)| last)));
    }

    /// Takes one table off the list, with its level and whether a leaf took its place.
    pub(crate) fn pop(&mut self, mem: &dyn TableMemory) -> Option<(Spa, u32, bool)> {
        let (first, last) = self.list?;
        let kind = bits(mem, entry_at(first, LINK_ENTRIES));
        self.list = match next(mem, first) {
            Some(next) if first != last => Some((next, last)),
            _ => None,
        };
        Some((first, (kind & !MERGED) as u32, kind & MERGED != 0))
    }
}

fn bits(mem: &dyn TableMemory, entry: Spa) -> u64 {
    (mem.load(entry) & LINK_MASK) >> LINK_SHIFT
}

fn set_bits(mem: &mut dyn TableMemory, entry: Spa, value: u64) {
    let old = mem.load(entry);
    let new = (old & !LINK_MASK) | ((value << LINK_SHIFT) & LINK_MASK);
    if new != old {
        mem.store(entry, new);
    }
}

fn next(mem: &dyn TableMemory, table: Spa) -> Option<Spa> {
    let mut frame = 0;
    for index in (0..LINK_ENTRIES).rev() {
        frame = (frame << LINK_BITS) | bits(mem, entry_at(table, index));
    }
    (frame != 0).then(|| Spa::new(frame << 12))
}

fn set_next(mem: &mut dyn TableMemory, table: Spa, next: Option<Spa>) {
    let mut frame = next.map_or(0, |next| next.page().get());
    for index in 0..LINK_ENTRIES {
        set_bits(mem, entry_at(table, index), frame);
        frame >>= LINK_BITS;
    }
}
