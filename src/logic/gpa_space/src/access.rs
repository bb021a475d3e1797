//! Accessed and dirty pages: `HvCallGetGpaPagesAccessStates`.

use addr::{Gpn, PAGE_SIZE};
use paging::{Change, EditError, Event, MarkChange, Marks, OverOverlays, TableMemory};

use crate::{GpaSpace, Pending, SpaceError};

impl GpaSpace {
    /// Tells for each of `pages` pages from `page` on, in order, whether it was accessed and written since its marks
    /// were last cleared, as runs of pages that are alike; then clears marks and sets others. What is told may be too
    /// much, never too little: marks belong to leaves; a new mapping, and one that was split or merged, counts as
    /// accessed and written; a page that lost its access stays dirty until cleared; an overlay tells its own.
    ///
    /// Of a large leaf that the range covers in part, only the part becomes clean: the leaf is split. Where no frame is
    /// to be had for that it stays dirty, which is no error. The marks told are final once `pending` is flushed; it
    /// needs no room.
    ///
    /// # Errors
    /// `Invalid`: the range is empty or leaves the space. Nothing is told.
    pub fn marks(
        &mut self,
        mem: &mut dyn TableMemory,
        page: Gpn,
        pages: u64,
        change: MarkChange,
        pending: &mut Pending,
        tell: &mut dyn FnMut(Marks, u64),
    ) -> Result<(), SpaceError> {
        let start = page.start().ok_or(SpaceError::Invalid)?.get();
        let len = pages.checked_mul(PAGE_SIZE).ok_or(SpaceError::Invalid)?;
        let mut run = |mem: &mut dyn TableMemory, change| {
            let mut events = |event| {
                if let Event::Marks { marks, len } = event {
                    tell(marks, len / PAGE_SIZE);
                }
            };
            let (change, over) = (Change::Mark(change), OverOverlays::Replace);
            self.table
                .change(mem, start, len, change, over, &mut events)
        };
        let change = if self.has_marks {
            change
        } else {
            MarkChange::default()
        };
        let cleanup = match run(mem, change) {
            // Where nothing is cleared, no leaf is split.
            Err(EditError::OutOfFrames) => run(
                mem,
                MarkChange {
                    clear: Marks::default(),
                    ..change
                },
            ),
            done => done,
        }?;
        pending.absorb(cleanup, mem);
        Ok(())
    }
}
