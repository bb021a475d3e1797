//! The hypervisor's first page tables, built once from nothing (Intel SDM vol. 3A, "Paging", 4-level and
//! 5-level paging).
//!
//! Only additions: a mapping that meets another is an error. Leaves get their accessed and dirty bits, so that
//! the processor never writes to these tables.

use addr::Spa;

use crate::PAGE;

const PRESENT: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;

/// How a mapping may be used. There is no writable and executable one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Access {
    Read,
    ReadWrite,
    ReadExecute,
}

impl Access {
    const fn bits(self) -> u64 {
        match self {
            Self::Read => NO_EXECUTE,
            Self::ReadWrite => WRITE | NO_EXECUTE,
            Self::ReadExecute => 0,
        }
    }
}

/// Largest leaf that a mapping may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names say it")]
pub enum LeafLimit {
    Size4K,
    Size2M,
    Size1G,
}

/// Memory that holds the tables.
pub trait TableMemory {
    /// A page of zeroes, or `None` when there is none left.
    fn allocate(&mut self) -> Option<Spa>;
    /// Entry `index` (0 to 511) of the table at `table`, which came from [`Self::allocate`].
    fn read(&self, table: Spa, index: usize) -> u64;
    /// Sets entry `index` (0 to 511) of the table at `table`, which came from [`Self::allocate`].
    fn write(&mut self, table: Spa, index: usize, entry: u64);
}

/// Why a mapping was refused. Pages before the one at fault stay mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// An address or the length is not a multiple of 4 KiB.
    Misaligned,
    /// The addresses run past the end of an address space, or the virtual ones are not canonical.
    OutOfRange,
    /// Part of it is mapped already.
    Overlap,
    /// There is no memory left for tables.
    NoMemory,
}

/// A tree of page tables.
#[derive(Debug)]
pub struct Tables<M> {
    memory: M,
    root: Spa,
    levels: u32,
}

impl<M: TableMemory> Tables<M> {
    /// An empty tree of 4 or 5 `levels`; `None` for another depth or without memory for its root.
    pub fn new(mut memory: M, levels: u32) -> Option<Self> {
        if levels != 4 && levels != 5 {
            return None;
        }
        let root = memory.allocate()?;
        Some(Self {
            memory,
            root,
            levels,
        })
    }

    /// Address of the root table.
    pub const fn root(&self) -> Spa {
        self.root
    }

    /// The memory that the tables come from.
    pub const fn memory_mut(&mut self) -> &mut M {
        &mut self.memory
    }

    /// Gives the memory back.
    pub fn into_memory(self) -> M {
        self.memory
    }

    /// Maps `len` bytes from the virtual address `va` on to `spa` and following, with leaves as large as
    /// alignment and `limit` allow.
    ///
    /// # Errors
    /// [`MapError`].
    pub fn map(
        &mut self,
        va: u64,
        spa: Spa,
        len: u64,
        access: Access,
        limit: LeafLimit,
    ) -> Result<(), MapError> {
        if !va.is_multiple_of(PAGE) || !spa.is_aligned(PAGE) || !len.is_multiple_of(PAGE) {
            return Err(MapError::Misaligned);
        }
        let last = len.saturating_sub(1);
        let spa_end = spa.get().checked_add(len).ok_or(MapError::OutOfRange)?;
        let va_last = va.checked_add(last).ok_or(MapError::OutOfRange)?;
        if spa_end & !(ADDRESS | (PAGE - 1)) != 0
            || !self.is_canonical(va)
            || !self.is_canonical(va_last)
        {
            return Err(MapError::OutOfRange);
        }
        let mut done = 0;
        while done < len {
            let (va, spa, left) = (va + done, spa.get() + done, len - done);
            let leaf_level = [(LeafLimit::Size1G, 3), (LeafLimit::Size2M, 2)]
                .into_iter()
                .find(|&(size, level)| {
                    let bytes = leaf_bytes(level);
                    size <= limit && left >= bytes && (va | spa).is_multiple_of(bytes)
                })
                .map_or(1, |(_, level)| level);
            self.map_leaf(va, spa, leaf_level, access)?;
            done += leaf_bytes(leaf_level);
        }
        Ok(())
    }

    fn map_leaf(
        &mut self,
        va: u64,
        spa: u64,
        leaf_level: u32,
        access: Access,
    ) -> Result<(), MapError> {
        let mut table = self.root;
        for level in (leaf_level + 1..=self.levels).rev() {
            let index = table_index(va, level);
            let entry = self.memory.read(table, index);
            table = if entry & PRESENT == 0 {
                let new = self.memory.allocate().ok_or(MapError::NoMemory)?;
                self.memory
                    .write(table, index, new.get() | PRESENT | WRITE | ACCESSED);
                new
            } else if entry & LARGE != 0 {
                return Err(MapError::Overlap);
            } else {
                Spa::new(entry & ADDRESS)
            };
        }
        let index = table_index(va, leaf_level);
        if self.memory.read(table, index) & PRESENT != 0 {
            return Err(MapError::Overlap);
        }
        let large = if leaf_level > 1 { LARGE } else { 0 };
        self.memory.write(
            table,
            index,
            spa | PRESENT | ACCESSED | DIRTY | large | access.bits(),
        );
        Ok(())
    }

    /// Whether the unused upper bits of `va` repeat its highest used one.
    const fn is_canonical(&self, va: u64) -> bool {
        let unused = 64 - (12 + 9 * self.levels);
        ((va << unused) as i64 >> unused) as u64 == va
    }
}

const fn leaf_bytes(level: u32) -> u64 {
    PAGE << (9 * (level - 1))
}

const fn table_index(va: u64, level: u32) -> usize {
    (va >> (12 + 9 * (level - 1))) as usize & 511
}

#[cfg(test)]
mod tests;
