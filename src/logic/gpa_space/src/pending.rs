//! What is left to do of a burst of edits.

use addr::{PAGE_SIZE, Spa};
use paging::{Cleanup, TableMemory};

/// Uses that ended and tables that left the tree, until every LP has flushed. Takes the edits of a whole burst, so that
/// one flush serves them all: 512 runs of frames, and some tables. 4 KiB. Dropping it with something in it leaks that.
#[derive(Debug)]
#[must_use = "flush if needed, then call GpaSpace::finish"]
pub struct Pending {
    runs: [u64; RUNS],
    len: usize,
    /// Edits that took tables out of the tree.
    tables: u32,
    cleanup: Cleanup,
}

/// One edit ends at most the uses of 512 leaves that stay in their table.
pub(crate) const RUNS: usize = 512;
/// The leaves of a table that left the tree are looked at when it is freed; this bounds that work.
const TABLES: u32 = 8;
/// A run: the first frame's number above, the number of frames here.
const COUNT_BITS: u32 = 20;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;

impl Default for Pending {
    fn default() -> Self {
        Self::new()
    }
}

impl Pending {
    /// With nothing in it.
    pub const fn new() -> Self {
        Self {
            runs: [0; RUNS],
            len: 0,
            tables: 0,
            cleanup: Cleanup::new(),
        }
    }

    /// Whether a processor may hold a translation that is no longer in the tree.
    pub fn flush_needed(&self) -> bool {
        self.cleanup.flush_needed()
    }

    /// Whether there is anything to finish.
    pub fn is_empty(&self) -> bool {
        self.len == 0 && !self.flush_needed()
    }

    /// Whether it is time to flush and finish, rather than to add more.
    pub fn is_full(&self) -> bool {
        self.room() == 0
    }

    /// Runs that still fit.
    pub(crate) fn room(&self) -> usize {
        if self.tables < TABLES {
            RUNS.saturating_sub(self.len)
        } else {
            0
        }
    }

    /// Adds `bytes` at `spa`, up to 1 GiB, to the uses that ended. The caller has asked for room.
    pub(crate) fn add(&mut self, spa: Spa, bytes: u64) {
        let (frame, count) = (spa.page().get(), bytes / PAGE_SIZE);
        if let Some(last) = self
            .len
            .checked_sub(1)
            .and_then(|last| self.runs.get_mut(last))
        {
            let before = *last & COUNT_MAX;
            if (*last >> COUNT_BITS).saturating_add(before) == frame
                && before.saturating_add(count) <= COUNT_MAX
            {
                *last = last.saturating_add(count);
                return;
            }
        }
        if let Some(run) = self.runs.get_mut(self.len) {
            *run = (frame << COUNT_BITS) | (count & COUNT_MAX);
            self.len += 1;
        }
    }

    /// Takes over what an edit left.
    pub(crate) fn absorb(&mut self, cleanup: Cleanup, mem: &mut dyn TableMemory) {
        self.tables = self
            .tables
            .saturating_add(u32::from(cleanup.holds_tables()));
        self.cleanup.absorb(cleanup, mem);
    }

    pub(crate) fn release(&mut self, release: &mut dyn FnMut(Spa, u64)) {
        for run in self.runs.iter().take(self.len) {
            release(Spa::new((run >> COUNT_BITS) * PAGE_SIZE), run & COUNT_MAX);
        }
        self.len = 0;
        self.tables = 0;
    }

    pub(crate) fn take_cleanup(&mut self) -> Cleanup {
        core::mem::take(&mut self.cleanup)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_grow_until_their_count_ends() {
        const GIB: u64 = 1 << 30;
        let mut pending = Pending::new();
        for part in 0..9 {
            pending.add(Spa::new(0x12_3456_7000 + part * GIB), GIB);
        }
        pending.add(Spa::new(0), PAGE_SIZE);
        let mut next = 0x12_3456_7000;
        let mut runs = 0;
        pending.release(&mut |spa, count| {
            runs += 1;
            if spa.get() != 0 {
                assert_eq!(spa.get(), next);
                next += count * PAGE_SIZE;
            }
        });
        assert_eq!((runs, next), (4, 0x12_3456_7000 + 9 * GIB));
        assert!(pending.is_empty());
    }
}
