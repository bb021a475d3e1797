//! Overlay pages: frames of the hypervisor that the guest places over its own pages.
//!
//! Each page of the interface has one slot, and a frame from the beginning. Several slots may be placed at one GPA;
//! the slot with the lowest number shows (TLFS, "GPA Overlay Pages", leaves the order open). What lies below an
//! overlay keeps its contents.
#![expect(
    unsafe_code,
    reason = "names frames that are allocated for overlays alone"
)]

use core::sync::atomic::{Ordering, fence};

use addr::{Gpn, VpIndex};
use bootinfo::Status;
use synic::{Overlay, SynicPage};

use crate::mm::frames::{self, FrameUse};
use crate::mm::phys::SharedFrame;

/// Number of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverlaySlot(usize);

const PARTITION_SLOTS: usize = 2;
const VP_SLOTS: usize = 4;

impl OverlaySlot {
    /// The slot of `kind`, for VP `vp` where each VP has one.
    pub const fn of(kind: Overlay, vp: VpIndex) -> Self {
        let first = PARTITION_SLOTS + vp.get() as usize * VP_SLOTS;
        Self(match kind {
            Overlay::Hypercall => 0,
            Overlay::ReferenceTsc => 1,
            Overlay::VpAssist => first,
            Overlay::EventFlags => first + 1,
            Overlay::Messages => first + 2,
            Overlay::EventRing => first + 3,
        })
    }

    /// The guest may write to it: not to code, and not to the reference TSC page.
    const fn is_writable(self) -> bool {
        self.0 >= PARTITION_SLOTS
    }
}

struct Entry {
    frame: SharedFrame,
    page: Option<Gpn>,
}

/// All overlays of a partition.
pub struct Overlays {
    entries: &'static mut [Entry],
}

impl Overlays {
    /// Slots for a partition of `vp_count` VPs, none of them placed, all frames zero.
    pub fn new(vp_count: usize) -> Result<Self, Status> {
        let entries = frames::place_with(
            FrameUse::Partition,
            PARTITION_SLOTS + vp_count * VP_SLOTS,
            |_| {
                let spa = frames::alloc(FrameUse::Overlay, 1)?;
                // SAFETY: just allocated for this slot, and never freed.
                let frame = unsafe { SharedFrame::new(spa) };
                Some(Entry { frame, page: None })
            },
        );
        Ok(Self {
            entries: entries.ok_or(Status::NO_MEMORY)?,
        })
    }

    /// The frame of `slot`.
    pub fn frame(&self, slot: OverlaySlot) -> Option<SharedFrame> {
        self.entries.get(slot.0).map(|entry| entry.frame)
    }

    /// Where `slot` is placed.
    pub fn page(&self, slot: OverlaySlot) -> Option<Gpn> {
        self.entries.get(slot.0).and_then(|entry| entry.page)
    }

    /// Places `slot` at `page`, or takes it away. Only the record; the SLAT follows by [`Overlays::frame_at`].
    pub fn place(&mut self, slot: OverlaySlot, page: Option<Gpn>) {
        if let Some(entry) = self.entries.get_mut(slot.0) {
            entry.page = page;
        }
    }

    /// The frame that shows at `page`, and whether the guest may write to it.
    pub fn frame_at(&self, page: Gpn) -> Option<(SharedFrame, bool)> {
        let index = self
            .entries
            .iter()
            .position(|entry| entry.page == Some(page))?;
        let entry = self.entries.get(index)?;
        Some((entry.frame, OverlaySlot(index).is_writable()))
    }
}

impl SynicPage for SharedFrame {
    fn load_u32(&self, offset: usize) -> u32 {
        self.half(offset).load(Ordering::Acquire)
    }

    fn store_u32(&self, offset: usize, value: u32) {
        self.half(offset).store(value, Ordering::Release);
    }

    fn or_u8(&self, offset: usize, bits: u8) {
        self.byte(offset).fetch_or(bits, Ordering::SeqCst);
    }

    fn or_u32(&self, offset: usize, bits: u32) -> u32 {
        self.half(offset).fetch_or(bits, Ordering::SeqCst)
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        Self::write(*self, offset, bytes);
    }

    fn fence(&self) {
        fence(Ordering::SeqCst);
    }
}
