//! A pool that runs out.

use std::any::Any;
use std::collections::BTreeMap;

use ports::{Chunk, ChunkId, Chunks};

/// Frames that are interpreted as the type they are first asked for, and stay that: a real pool casts.
pub struct Pool {
    pub frames: BTreeMap<u32, Option<Box<dyn Any>>>,
    next: u32,
    /// How many are left.
    pub left: usize,
}

impl Pool {
    pub fn new(left: usize) -> Self {
        Self {
            frames: BTreeMap::new(),
            next: 1,
            left,
        }
    }
}

impl Chunks for Pool {
    fn allocate(&mut self) -> Option<ChunkId> {
        self.left = self.left.checked_sub(1)?;
        self.next += 1;
        self.frames.insert(self.next, None);
        Some(ChunkId(self.next))
    }

    fn free(&mut self, chunk: ChunkId) {
        assert!(
            self.frames.remove(&chunk.0).is_some(),
            "{chunk:?} is freed twice"
        );
        self.left += 1;
    }

    fn get<T: Chunk>(&mut self, chunk: ChunkId) -> Option<&mut T> {
        let frame = self.frames.get_mut(&chunk.0)?;
        frame
            .get_or_insert_with(|| Box::new(T::zeroed()))
            .downcast_mut()
    }
}
