//! What the parent does to the space: `HvCallMapGpaPages` and `HvCallUnmapGpaPages`.

use addr::{Gpn, PAGE_SIZE, Spa};
use paging::{
    Attributes, Backing, Change, EditError, Event, Mapping, OverOverlays, PageSize, TableMemory,
};

use crate::overlay::{Below, Overlays};
use crate::pending::RUNS;
use crate::{GpaSpace, Pending, SpaceError};

/// Pages in a leaf of 2 MiB.
const LARGE: u64 = 512;

/// What a call asks for.
#[derive(Clone, Copy)]
enum Goal {
    Map(Spa, Attributes),
    NoAccess,
    Unmap,
}

impl GpaSpace {
    /// Maps one leaf at `page` to the frames of `target`, 4 KiB or 2 MiB, over whatever is there. The caller has added
    /// a use to each frame, unless the backing is [`Backing::Plain`] (a device); on failure the uses stay the caller's.
    ///
    /// # Errors
    /// [`SpaceError`] except `NoOverlay`; nothing changed.
    pub fn map(
        &mut self,
        mem: &mut dyn TableMemory,
        overlays: &mut dyn Overlays,
        page: Gpn,
        target: Mapping,
        pending: &mut Pending,
    ) -> Result<(), SpaceError> {
        let Mapping {
            spa,
            size,
            attributes,
        } = target;
        let start = page.start().ok_or(SpaceError::Invalid)?;
        if !attributes.read
            || attributes.backing == Backing::Overlay
            || size > PageSize::Size2M
            || !start.is_aligned(size.bytes())
            || !spa.is_aligned(size.bytes())
        {
            return Err(SpaceError::Invalid);
        }
        if self.runs_needed(mem, start.get(), size.bytes()) > pending.room() {
            return Err(SpaceError::Full);
        }
        let goal = Goal::Map(spa, attributes);
        self.edit(mem, overlays, start.get(), size.bytes(), goal, pending)?;
        Ok(())
    }

    /// Declares `pages` pages from `page` on, without access, whatever they were. Returns how many are done: fewer than
    /// all when `pending` is full or frames for tables ran out, and at least one. Flush, finish, and go on with the
    /// rest.
    ///
    /// # Errors
    /// [`SpaceError`] except `NoOverlay`; nothing changed.
    pub fn declare_no_access(
        &mut self,
        mem: &mut dyn TableMemory,
        overlays: &mut dyn Overlays,
        page: Gpn,
        pages: u64,
        pending: &mut Pending,
    ) -> Result<u64, SpaceError> {
        self.sweep(mem, overlays, page, pages, Goal::NoAccess, pending)
    }

    /// Unmaps `pages` pages from `page` on, whatever they were. Returns and fails as
    /// [`GpaSpace::declare_no_access`] does.
    ///
    /// # Errors
    /// [`SpaceError`] except `NoOverlay`; nothing changed.
    pub fn unmap(
        &mut self,
        mem: &mut dyn TableMemory,
        overlays: &mut dyn Overlays,
        page: Gpn,
        pages: u64,
        pending: &mut Pending,
    ) -> Result<u64, SpaceError> {
        self.sweep(mem, overlays, page, pages, Goal::Unmap, pending)
    }

    /// Goes through the range in pieces: whole 2 MiB where they are whole, else pages of one 2 MiB.
    fn sweep(
        &mut self,
        mem: &mut dyn TableMemory,
        overlays: &mut dyn Overlays,
        page: Gpn,
        pages: u64,
        goal: Goal,
        pending: &mut Pending,
    ) -> Result<u64, SpaceError> {
        let mut done = 0;
        while done < pages {
            let at = page.get().checked_add(done).ok_or(SpaceError::Invalid)?;
            let start = Gpn::new(at).start().ok_or(SpaceError::Invalid)?.get();
            let left = pages - done;
            let room = pending.room();
            let whole = at % LARGE == 0 && left >= LARGE;
            let piece = if whole {
                LARGE
            } else {
                left.min(LARGE - at % LARGE).min(room as u64)
            };
            if piece == 0 || (whole && self.runs_needed(mem, start, LARGE * PAGE_SIZE) > room) {
                return if done == 0 {
                    Err(SpaceError::Full)
                } else {
                    Ok(done)
                };
            }
            match self.edit(mem, overlays, start, piece * PAGE_SIZE, goal, pending) {
                Ok(()) => done += piece,
                Err(error) if done == 0 => return Err(error.into()),
                Err(_) => return Ok(done),
            }
        }
        Ok(done)
    }

    /// Most runs of frames whose uses a change of one leaf of `len` bytes ends while they stay in their table: a table
    /// goes as a whole unless an overlay is in it.
    fn runs_needed(&self, mem: &dyn TableMemory, start: u64, len: u64) -> usize {
        let one = len == PAGE_SIZE
            || self
                .table
                .lookup(mem, start)
                .is_some_and(|there| there.size > PageSize::Size4K);
        if one { 1 } else { RUNS }
    }

    /// Does a whole piece of at most 2 MiB or nothing. `pending` has the room.
    fn edit(
        &mut self,
        mem: &mut dyn TableMemory,
        overlays: &mut dyn Overlays,
        start: u64,
        len: u64,
        goal: Goal,
        pending: &mut Pending,
    ) -> Result<(), EditError> {
        let target = match goal {
            Goal::Map(spa, attributes) => Some((spa, attributes)),
            Goal::NoAccess => Some((Spa::new(start), Attributes::NONE)),
            Goal::Unmap => None,
        };
        let change = target.map_or(Change::Unmap, |(spa, attributes)| {
            Change::Map(spa, attributes)
        });
        let mut events = |event| match event {
            Event::Released { spa, len } => pending.add(spa, len),
            Event::Covered(page) => {
                let new = target
                    .map(|(spa, attributes)| (Spa::new(spa.get() + (page - start)), attributes));
                match overlays.below(Gpn::new(page / PAGE_SIZE)) {
                    Some(below) => below.replace(new, pending),
                    // Without a place the new state is lost, but not the use.
                    None => Below(new).replace(None, pending),
                }
            }
            Event::Marks { .. } => {}
        };
        let over = OverOverlays::Below;
        let cleanup = self
            .table
            .change(mem, start, len, change, over, &mut events)?;
        pending.absorb(cleanup, mem);
        let merged = self.table.coalesce(mem, start);
        pending.absorb(merged, mem);
        Ok(())
    }
}
