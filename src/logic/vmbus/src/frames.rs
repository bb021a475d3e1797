//! Memory in frames of 4 KiB.

/// Names a frame, for instance by its number. Not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct FrameId(pub u32);

/// Contents of a frame: 4096 bytes at most, aligned to 8. All bytes zero is a value, namely the default.
pub trait Content: sealed::Sealed + Default {}

/// A source of frames.
pub trait Frames {
    /// A frame filled with zeros, or `None` when the pool is empty.
    fn allocate(&mut self) -> Option<FrameId>;
    /// Gives a frame back.
    fn free(&mut self, frame: FrameId);
    /// The contents of a frame, always asked for as the same type. `None` for one that was not allocated.
    fn get<T: Content>(&mut self, frame: FrameId) -> Option<&mut T>;
}

/// A frame of records.
#[derive(Debug)]
#[repr(transparent)]
pub struct Slab<T, const N: usize>(pub(crate) [T; N]);

impl<T: Copy + Default, const N: usize> Default for Slab<T, N> {
    fn default() -> Self {
        Self([T::default(); N])
    }
}

pub(crate) mod sealed {
    pub trait Sealed: 'static {}
}

/// Makes frames of records, as many as fit. Their default must be all zeros, which holds for integers, arrays of them,
/// `bool`, and enumerations of a fixed size whose default is numbered 0.
macro_rules! slabs {
    ($($type:ty)*) => {$(
        impl $crate::frames::sealed::Sealed for $crate::frames::Slab<$type, { 4096 / size_of::<$type>() }> {}
        impl $crate::frames::Content for $crate::frames::Slab<$type, { 4096 / size_of::<$type>() }> {}
        impl $crate::table::Record for $type {
            type Slab = $crate::frames::Slab<Self, { 4096 / size_of::<$type>() }>;
            const IN_SLAB: u16 = (4096 / size_of::<$type>()) as u16;
            fn records(slab: &mut Self::Slab) -> &mut [Self] {
                &mut slab.0
            }
            fn link(&mut self) -> &mut u16 {
                &mut self.link
            }
        }
        const _: () = assert!(align_of::<$type>() <= 8);
    )*};
}
pub(crate) use slabs;
