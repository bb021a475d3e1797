//! Frames of the hypervisor over pages of the guest.

use addr::{Gpn, PAGE_SIZE, Spa};
use paging::{Attributes, Backing, Change, OverOverlays, TableMemory};

use crate::{GpaSpace, Pending, SpaceError};

/// What lies below an overlay: the page's state without it, with the use of its frame. Empty when unmapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Below(pub(crate) Option<(Spa, Attributes)>);

impl Below {
    pub(crate) fn replace(&mut self, new: Option<(Spa, Attributes)>, pending: &mut Pending) {
        if let Some((spa, attributes)) = core::mem::replace(&mut self.0, new)
            && attributes.backing == Backing::Counted
        {
            pending.add(spa, PAGE_SIZE);
        }
    }
}

/// Where the caller keeps what lies below its overlays.
pub trait Overlays {
    /// The place for `page`, the same from before an overlay is placed there until it is removed. Asked only for pages
    /// that have an overlay or get one.
    fn below(&mut self, page: Gpn) -> Option<&mut Below>;
}

impl GpaSpace {
    /// Puts `frame`, one of the hypervisor's, over `page`, or instead of the overlay that is there.
    ///
    /// # Errors
    /// [`SpaceError`], never `Full`; nothing changed.
    pub fn place(
        &mut self,
        mem: &mut dyn TableMemory,
        overlays: &mut dyn Overlays,
        page: Gpn,
        frame: Spa,
        attributes: Attributes,
        pending: &mut Pending,
    ) -> Result<(), SpaceError> {
        let start = page.start().ok_or(SpaceError::Invalid)?.get();
        let below = overlays.below(page).ok_or(SpaceError::NoOverlay)?;
        let current = self.table.lookup(mem, start);
        let change = Change::Map(frame, attributes.with_backing(Backing::Overlay));
        let over = OverOverlays::Replace;
        let cleanup = self
            .table
            .change(mem, start, PAGE_SIZE, change, over, &mut |_| {})?;
        pending.absorb(cleanup, mem);
        if current.is_none_or(|current| current.attributes.backing != Backing::Overlay) {
            // The use of the frame goes along.
            below.0 = current.map(|current| (current.spa, current.attributes));
        }
        Ok(())
    }

    /// Takes the overlay over `page` away, if there is one: what lies below shows again. Needs no frame.
    ///
    /// # Errors
    /// `Invalid` and `NoOverlay`; nothing changed.
    pub fn remove(
        &mut self,
        mem: &mut dyn TableMemory,
        overlays: &mut dyn Overlays,
        page: Gpn,
        pending: &mut Pending,
    ) -> Result<(), SpaceError> {
        let start = page.start().ok_or(SpaceError::Invalid)?.get();
        let current = self.table.lookup(mem, start);
        if current.is_none_or(|current| current.attributes.backing != Backing::Overlay) {
            return Ok(());
        }
        let below = overlays.below(page).ok_or(SpaceError::NoOverlay)?;
        let change = below.0.map_or(Change::Unmap, |(spa, attributes)| {
            Change::Map(spa, attributes)
        });
        let over = OverOverlays::Replace;
        let cleanup = self
            .table
            .change(mem, start, PAGE_SIZE, change, over, &mut |_| {})?;
        below.0 = None;
        pending.absorb(cleanup, mem);
        let merged = self.table.coalesce(mem, start);
        pending.absorb(merged, mem);
        Ok(())
    }
}
