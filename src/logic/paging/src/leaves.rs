//! How many leaves a tree has, by size.

use crate::attributes::PageSize;
use crate::format::Entry;

/// Leaves by size. Sums wrap, so that changes can be kept before they are added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leaves(pub(crate) [u64; 3]);

impl Leaves {
    pub(crate) fn of(self, size: PageSize) -> u64 {
        match (self.0, size) {
            ([small, ..], PageSize::Size4K) => small,
            ([_, large, _], PageSize::Size2M) => large,
            ([.., huge], PageSize::Size1G) => huge,
        }
    }

    /// `count` more in tables of `level`.
    pub(crate) fn came(&mut self, level: u32, count: u64) {
        if let Some(leaves) = self.0.get_mut(level.wrapping_sub(1) as usize) {
            *leaves = leaves.wrapping_add(count);
        }
    }

    /// One less in tables of `level`.
    pub(crate) fn went(&mut self, level: u32) {
        self.came(level, u64::MAX);
    }

    /// In a table of `level`, `new` took the place of `old`.
    pub(crate) fn replaced(&mut self, level: u32, old: &Entry, new: &Entry) {
        if matches!(old, Entry::Leaf(..)) {
            self.went(level);
        }
        if matches!(new, Entry::Leaf(..)) {
            self.came(level, 1);
        }
    }

    /// Adds a change.
    pub(crate) fn add(&mut self, change: Self) {
        for (level, count) in (1..).zip(change.0) {
            self.came(level, count);
        }
    }
}
