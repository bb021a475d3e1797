//! The memory that tables live in, and a reserve of tables taken from it before an edit begins.

use addr::Spa;

/// No frame is left for a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfFrames;

/// Access to the frames of page tables.
///
/// The core is the only writer of a tree but for the accessed and dirty bits, which are preset in a new leaf. Only
/// [`TableMemory::update`] clears them, so nothing else needs an atomic read and write.
pub trait TableMemory {
    /// The entry at `entry`, which is 8-byte aligned and inside a table of this memory.
    fn load(&self, entry: Spa) -> u64;
    /// Writes an entry in one store that no earlier store of this LP can pass (release).
    fn store(&mut self, entry: Spa, value: u64);
    /// Clears the bits `clear` of an entry and sets `set`, in one step that no bit set by a processor is lost in, and
    /// gives what the entry held.
    fn update(&mut self, entry: Spa, clear: u64, set: u64) -> u64;
    /// A frame of 4 KiB, filled with zeroes. Never the one at address 0.
    ///
    /// # Errors
    /// [`OutOfFrames`] when there is none. Nothing changed.
    fn alloc(&mut self) -> Result<Spa, OutOfFrames>;
    /// Takes a frame back that `alloc` gave.
    fn free(&mut self, table: Spa);
}

/// Entries in a table.
pub(crate) const ENTRIES: u64 = 512;

/// Address of entry `index` (0 to 511) of `table`.
pub(crate) fn entry_at(table: Spa, index: u64) -> Spa {
    // A table is a 4 KiB frame below 2^52, so the sum cannot carry.
    Spa::new(table.get() | ((index & (ENTRIES - 1)) << 3))
}

/// Tables allocated for an edit and not yet in the tree. They form a list through their first entries, which
/// no processor can see.
#[derive(Default)]
pub(crate) struct Reserve {
    head: Option<Spa>,
}

impl Reserve {
    /// Allocates `count` tables, or none.
    pub(crate) fn fill(mem: &mut dyn TableMemory, count: u64) -> Result<Self, OutOfFrames> {
        let mut reserve = Self::default();
        for _ in 0..count {
            match mem.alloc() {
                Ok(table) => {
                    // 0 ends the list: no table lies there.
                    mem.store(table, reserve.head.map_or(0, Spa::get));
                    reserve.head = Some(table);
                }
                Err(error) => {
                    reserve.give_back(mem);
                    return Err(error);
                }
            }
        }
        Ok(reserve)
    }

    /// A zeroed table out of the reserve.
    pub(crate) fn take(&mut self, mem: &mut dyn TableMemory) -> Option<Spa> {
        let table = self.head?;
        let next = mem.load(table);
        self.head = (next != 0).then(|| Spa::new(next));
        mem.store(table, 0);
        Some(table)
    }

    /// Frees what was not taken.
    pub(crate) fn give_back(mut self, mem: &mut dyn TableMemory) {
        while let Some(table) = self.take(mem) {
            mem.free(table);
        }
    }
}
