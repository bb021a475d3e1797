//! Pages of the parent that the hypervisor fills: intercept message, register page, statistics.
#![expect(unsafe_code, reason = "names frames of the parent that are pinned")]

use core::sync::atomic::Ordering;

use addr::{PAGE_SIZE, Spa};
use frames::FrameError;

use crate::mm::phys::SharedFrame;
use crate::mm::{owners, phys};

/// A page of the parent, in use as long as this value is.
pub struct PinnedPage(Spa);

impl PinnedPage {
    /// Pins the page at `spa`.
    ///
    /// # Errors
    /// It is no RAM of the parent.
    pub fn new(spa: Spa) -> Result<Self, FrameError> {
        owners::table().pin(spa)?;
        Ok(Self(spa))
    }

    /// Copies `bytes` to `offset`; what does not fit is left out.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        let room = (PAGE_SIZE as usize).saturating_sub(offset);
        let bytes = bytes.get(..room).unwrap_or(bytes);
        // SAFETY: a pinned frame of RAM, and the range lies in it.
        unsafe { phys::write_frame(Spa::new(self.0.get() + offset as u64), bytes) };
    }

    /// Stores `value` as word `index` of eight bytes, in one piece.
    pub fn set_word(&self, index: usize, value: u64) {
        // SAFETY: a pinned frame of RAM, which is written as a page that a guest sees, and the value does not stay.
        let frame = unsafe { SharedFrame::new(self.0) };
        frame.word(index * 8).store(value, Ordering::Relaxed);
    }

    /// Copies from `offset` on.
    pub fn read(&self, offset: usize, buffer: &mut [u8]) {
        let room = (PAGE_SIZE as usize).saturating_sub(offset);
        let len = buffer.len().min(room);
        if let Some(buffer) = buffer.get_mut(..len) {
            // SAFETY: as above.
            unsafe { phys::read_frame(Spa::new(self.0.get() + offset as u64), buffer) };
        }
    }
}

impl Drop for PinnedPage {
    fn drop(&mut self) {
        if owners::table().unpin(self.0).is_err() {
            log::error!("the page at {:?} was not in use", self.0);
        }
    }
}

/// Pages about one VP.
pub struct StatePages {
    /// The last intercept.
    pub intercept: Option<PinnedPage>,
    /// Its registers at that time.
    pub registers: Option<PinnedPage>,
}

impl StatePages {
    /// None.
    pub const fn new() -> Self {
        Self {
            intercept: None,
            registers: None,
        }
    }
}
