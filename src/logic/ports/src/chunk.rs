//! Memory in chunks of a page.

use tlfs::Message;

use crate::record::{Connection, Port, Vp};

/// Names a chunk, for instance by its frame number. Not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct ChunkId(pub u32);

/// Contents of a chunk: integers only, so that any bits are a value; 4096 bytes at most, aligned to 8.
pub trait Chunk: sealed::Sealed + Sized {}

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
    pub trait Sealed: 'static {
        /// For pools of tests, which cannot cast.
        #[cfg(test)]
        fn zeroed() -> std::boxed::Box<dyn std::any::Any>;
    }
}

macro_rules! chunks {
    ($($type:ty)*) => {$(
        impl sealed::Sealed for $type {
            #[cfg(test)]
            fn zeroed() -> std::boxed::Box<dyn std::any::Any> {
                <$type>::boxed()
            }
        }
        impl Chunk for $type {}
        const _: () = assert!(size_of::<$type>() <= 4096 && align_of::<$type>() <= 8);
    )*};
}
chunks! { Heads Messages Slab<Port, { Port::IN_SLAB }> Slab<Connection, { Connection::IN_SLAB }> Slab<Vp, { Vp::IN_SLAB }> }

#[cfg(test)]
mod zero {
    use super::*;
    use std::any::Any;
    use std::boxed::Box;

    impl Heads {
        pub(super) fn boxed() -> Box<dyn Any> {
            Box::new(Self([0; 512]))
        }
    }

    impl Messages {
        pub(super) fn boxed() -> Box<dyn Any> {
            Box::new(Self([Message::EMPTY; 16]))
        }
    }

    impl<T: Copy + Default + 'static, const N: usize> Slab<T, N> {
        pub(super) fn boxed() -> Box<dyn Any> {
            let records = [T::default(); N];
            Box::new(Self { next: 0, records })
        }
    }
}
