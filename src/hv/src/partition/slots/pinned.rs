//! RAM of the parent that both sides of a session reach: rings, event area, signal page.
#![expect(unsafe_code, reason = "names frames of the parent that are pinned")]

use core::sync::atomic::AtomicU64;

use addr::{Gpn, PAGE_SIZE, Spa};
use ring::{Contiguous, ControlPage, DataPage, Paged};
use slot_proto::{GPADL_PAGES, RING_PAGES};
use tlfs::HvError;

use crate::mm::{owners, phys};

/// Pages of data in a ring.
const DATA_PAGES: usize = RING_PAGES - 1;

/// A ring in the parent's RAM. A copy is used only while the [`RingPages`] that it came from are there.
pub type Ring = Paged<'static, [&'static DataPage; DATA_PAGES]>;

/// The pages of both rings of a channel, in use as long as this value is.
pub struct RingPages {
    pages: [Spa; GPADL_PAGES],
    /// So many of them are pinned.
    pinned: usize,
}

impl RingPages {
    /// Pins `pages`, or none of them: they must be as many as a channel of ours has, and RAM of the parent.
    pub fn new(pages: &[Gpn]) -> Option<Self> {
        if pages.len() != GPADL_PAGES {
            return None;
        }
        let mut all = Self {
            pages: [Spa::new(0); GPADL_PAGES],
            pinned: 0,
        };
        for (place, page) in all.pages.iter_mut().zip(pages) {
            // The parent's memory is mapped to itself.
            let spa = Spa::new(page.start()?.get());
            owners::table().pin(spa).ok()?;
            *place = spa;
            all.pinned += 1;
        }
        Some(all)
    }

    /// The rings to the hypervisor and to user space.
    pub fn rings(&self) -> (Ring, Ring) {
        let (upstream, downstream) = self.pages.split_at(RING_PAGES);
        (ring_of(upstream), ring_of(downstream))
    }

    /// The control page of the ring to user space, used as the rings are.
    pub fn bell(&self) -> Contiguous<'static> {
        let at = self.pages.get(RING_PAGES).copied();
        Contiguous::new(control(at.unwrap_or(Spa::new(0))), &[])
    }
}

impl Drop for RingPages {
    fn drop(&mut self) {
        for spa in self.pages.iter().take(self.pinned) {
            if owners::table().unpin(*spa).is_err() {
                log::error!("the page at {spa:?} was not in use");
            }
        }
    }
}

/// The ring in these pages, the first being its control page.
fn ring_of(pages: &[Spa]) -> Ring {
    let at = |index: usize| pages.get(index).copied().unwrap_or(Spa::new(0));
    let data = core::array::from_fn(|index| {
        // SAFETY: as in `control`.
        let page: &'static DataPage = unsafe { &*phys::pointer(at(index + 1)).cast() };
        page
    });
    Paged::new(control(at(0)), data)
}

fn control(spa: Spa) -> &'static ControlPage {
    // SAFETY: pinned frames of RAM, which are used as atomic words only; the ring is dropped before they are unpinned.
    unsafe { &*phys::pointer(spa).cast() }
}

/// Contiguous pages of words, in use as long as this value is.
pub struct PinnedWords {
    first: Spa,
    pages: usize,
}

impl PinnedWords {
    /// Pins `pages` pages from `gpa` on.
    ///
    /// # Errors
    /// `INVALID_PARAMETER`: not aligned to a page, or no RAM of the parent. `OPERATION_DENIED`: deposited.
    /// `NO_RESOURCES`: a page has as many uses as can be counted.
    pub fn new(gpa: addr::Gpa, pages: usize) -> Result<Self, HvError> {
        let first = Spa::new(gpa.get());
        if !first.is_aligned(PAGE_SIZE) {
            return Err(HvError::INVALID_PARAMETER);
        }
        owners::table()
            .pin_range(first, pages as u64)
            .map_err(owners::status)?;
        Ok(Self { first, pages })
    }

    /// The words.
    pub fn words(&self) -> &[AtomicU64] {
        let words = self.pages * (PAGE_SIZE as usize / size_of::<AtomicU64>());
        // SAFETY: pinned frames of RAM, side by side in the physical map too, used as atomic words only while pinned.
        unsafe { core::slice::from_raw_parts(phys::pointer(self.first).cast(), words) }
    }
}

impl Drop for PinnedWords {
    fn drop(&mut self) {
        if owners::table()
            .unpin_range(self.first, self.pages as u64)
            .is_err()
        {
            log::error!("the pages at {:?} were not in use", self.first);
        }
    }
}
