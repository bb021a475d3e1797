//! Records found by a number.

use core::marker::PhantomData;

use crate::chunk::{ChunkId, Chunks, Heads};
use crate::record::{At, Record};

/// Chains to a kind of key.
const CHAINS: usize = 256;

/// A hash table that grows by chunks. Free records are used again; chunks come back when the map is released.
#[derive(Debug)]
pub(crate) struct Map<R> {
    heads: u32,
    slabs: u32,
    free: At,
    record: PhantomData<fn() -> R>,
}

/// Which chain: by number (0) or by the other key (1), and the key.
pub(crate) type Key = (usize, u64);

fn head(heads: u32, (kind, key): Key, chunks: &mut impl Chunks) -> Option<&mut At> {
    let hash = key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56;
    let heads = chunks.get::<Heads>(ChunkId(heads))?;
    heads.0.get_mut(kind * CHAINS + hash as usize % CHAINS)
}

impl<R: Record> Map<R> {
    pub(crate) const EMPTY: Self = Self {
        heads: 0,
        slabs: 0,
        free: 0,
        record: PhantomData,
    };

    /// Whether nothing was ever reserved.
    pub(crate) const fn is_empty(&self) -> bool {
        self.heads == 0
    }

    pub(crate) fn get<'c>(&self, at: At, chunks: &'c mut impl Chunks) -> Option<&'c mut R> {
        let place = (at as u32).checked_sub(1)?;
        let slab = chunks.get::<R::Slab>(ChunkId((at >> 32) as u32))?;
        R::parts(slab).1.get_mut(place as usize)
    }

    /// Makes room for one record. False when there is no memory; what was allocated is used later.
    pub(crate) fn reserve(&mut self, chunks: &mut impl Chunks) -> bool {
        if self.heads == 0 {
            let Some(chunk) = chunks.allocate() else {
                return false;
            };
            self.heads = chunk.0;
        }
        if self.free != 0 {
            return true;
        }
        let Some(chunk) = chunks.allocate() else {
            return false;
        };
        let Some(slab) = chunks.get::<R::Slab>(chunk) else {
            return false;
        };
        let (next, records) = R::parts(slab);
        *next = u64::from(self.slabs);
        for (place, record) in (1..).zip(records) {
            record.links()[0] = self.free;
            self.free = u64::from(chunk.0) << 32 | place;
        }
        self.slabs = chunk.0;
        true
    }

    /// Adds a record for which there is room, to the chains of `keys`.
    pub(crate) fn insert(
        &mut self,
        keys: &[Key],
        record: R,
        chunks: &mut impl Chunks,
    ) -> Option<At> {
        let at = self.free;
        let slot = self.get(at, chunks)?;
        let free = slot.links()[0];
        *slot = record;
        self.free = free;
        for key in keys {
            let first = core::mem::replace(head(self.heads, *key, chunks)?, at);
            *self.link(at, key.0, chunks)? = first;
        }
        Some(at)
    }

    pub(crate) fn find(
        &self,
        key: Key,
        chunks: &mut impl Chunks,
        is: impl Fn(&R) -> bool,
    ) -> Option<At> {
        let mut at = *head(self.heads, key, chunks)?;
        loop {
            let record = self.get(at, chunks)?;
            if is(record) {
                return Some(at);
            }
            at = *record.links().get(key.0)?;
        }
    }

    /// Takes a record out of the chains of `keys`, which are those that it was added with.
    pub(crate) fn remove(&mut self, keys: &[Key], at: At, chunks: &mut impl Chunks) {
        for key in keys {
            self.unchain(*key, at, chunks);
        }
        let free = self.free;
        if let Some(record) = self.get(at, chunks) {
            *record = R::default();
            record.links()[0] = free;
            self.free = at;
        }
    }

    fn unchain(&self, key: Key, at: At, chunks: &mut impl Chunks) -> Option<()> {
        let behind = *self.link(at, key.0, chunks)?;
        let mut before = *head(self.heads, key, chunks)?;
        if before == at {
            *head(self.heads, key, chunks)? = behind;
            return Some(());
        }
        loop {
            let link = self.link(before, key.0, chunks)?;
            if *link == at {
                *link = behind;
                return Some(());
            }
            before = *link;
        }
    }

    fn link<'c>(&self, at: At, kind: usize, chunks: &'c mut impl Chunks) -> Option<&'c mut At> {
        self.get(at, chunks)?.links().get_mut(kind)
    }

    /// Gives one slab back, after `visit` saw its records, or the last chunk. False when there is none left.
    /// Nothing but this may be called once it has begun.
    pub(crate) fn release<C: Chunks>(
        &mut self,
        chunks: &mut C,
        mut visit: impl FnMut(&R, &mut C),
    ) -> bool {
        self.free = 0;
        let chunk = ChunkId(self.slabs);
        let count = chunks
            .get::<R::Slab>(chunk)
            .map_or(0, |slab| R::parts(slab).1.len());
        if self.slabs == 0 || count == 0 {
            let heads = core::mem::take(&mut self.heads);
            if heads != 0 {
                chunks.free(ChunkId(heads));
            }
            return heads != 0;
        }
        for place in 0..count {
            let Some(slab) = chunks.get::<R::Slab>(chunk) else {
                break;
            };
            let (next, records) = R::parts(slab);
            self.slabs = *next as u32;
            if let Some(record) = records.get(place).copied() {
                visit(&record, chunks);
            }
        }
        chunks.free(chunk);
        true
    }
}
