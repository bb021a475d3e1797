//! The memory of a ring, as both sides reach it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use ring::{Contiguous, ControlPage};
use ring_proto::Control;

/// A ring's memory.
pub struct Ring {
    control: ControlPage,
    data: Vec<AtomicU64>,
}

impl Ring {
    /// With a data area of `bytes`, whole pages.
    pub fn new(bytes: usize) -> Self {
        let control: ControlPage = std::array::from_fn(|_| AtomicU32::new(0));
        control[Control::Features.word()].store(1, Ordering::Relaxed);
        Self {
            control,
            data: (0..bytes / 8).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    pub fn mem(&self) -> Contiguous<'_> {
        Contiguous::new(&self.control, &self.data)
    }
}

/// The fields of a ring's control page.
pub const FIELDS: [Control; 5] = [
    Control::WriteIndex,
    Control::ReadIndex,
    Control::InterruptMask,
    Control::PendingSendSize,
    Control::Features,
];
