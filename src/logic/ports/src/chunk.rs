//! Memory in chunks of a page.

use tlfs::Message;

use crate::record::{Connection, Port, Record, Vp};

/// Names a chunk, for instance by its frame number. Not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct ChunkId(pub u32);

/// Contents of a chunk: integers only, so that any bits are a value; 4096 bytes at most, aligned to 8.
pub trait Chunk: sealed::Sealed + Sized + 'static {
    /// One of zeros, for a pool that cannot take any bits for it.
    fn zeroed() -> Self;
}

/// A source of chunks.
pub trait Chunks {
    /// A chunk filled with zeros, or `None` when the pool is empty.
    fn allocate(&mut self) -> Option<ChunkId>;
    /// Gives a chunk back.
    fn free(&mut self, chunk: ChunkId);
    /// The contents of a chunk, always asked for as the same type. `None` for a chunk that was not allocated.
    fn get<T: Chunk>(&mut self, chunk: ChunkId) -> Option<&mut T>;
}

/// Chains of records.
#[derive(Debug)]
#[repr(transparent)]
pub struct Heads(pub(crate) [u64; 512]);

/// Records.
#[derive(Debug)]
#[repr(C)]
pub struct Slab<T, const N: usize> {
    /// The next slab of the same map; 0 for none.
    pub(crate) next: u64,
    pub(crate) records: [T; N],
}

/// A piece of a message queue.
#[derive(Debug)]
#[repr(transparent)]
pub struct Messages(pub(crate) [Message; 16]);

mod sealed {
    pub trait Sealed {}
}

impl sealed::Sealed for Heads {}
impl Chunk for Heads {
    fn zeroed() -> Self {
        Self([0; 512])
    }
}

impl sealed::Sealed for Messages {}
impl Chunk for Messages {
    fn zeroed() -> Self {
        Self([Message::EMPTY; 16])
    }
}

impl<T, const N: usize> sealed::Sealed for Slab<T, N> {}
impl<T: Record, const N: usize> Chunk for Slab<T, N> {
    fn zeroed() -> Self {
        Self {
            next: 0,
            records: [T::default(); N],
        }
    }
}

macro_rules! check {
    ($($type:ty)*) => {$(
        const _: () = assert!(size_of::<$type>() <= 4096 && align_of::<$type>() <= 8);
    )*};
}
check! { Heads Messages Slab<Port, { Port::IN_SLAB }> Slab<Connection, { Connection::IN_SLAB }> Slab<Vp, { Vp::IN_SLAB }> }
