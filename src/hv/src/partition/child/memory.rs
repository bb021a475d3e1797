//! Guest physical memory of a child: what the parent mapped, and the hypervisor's overlays on top.
#![expect(
    unsafe_code,
    reason = "names pool frames that are used as overlays alone"
)]

use core::sync::atomic::Ordering;

use addr::{Gpn, Spa, VpIndex};
use gpa_space::{Below, GpaSpace, Pending, SpaceError};
use paging::{Attributes, Levels, Mapping};
use spin::{Mutex, MutexGuard};
use synic::Overlay;
use tlfs::HvError;

use super::{ChildPartition, ChildVp};
use crate::arch::x86::lp::LpArea;
use crate::mm::owners;
use crate::mm::phys::SharedFrame;
use crate::mm::pool::{Pool, PoolFrames};
use crate::partition::Partition;
use crate::shootdown;
use crate::virt::SecondLevel;

/// What lies below the overlays at one page.
#[derive(Clone, Copy, Default)]
struct Cover {
    page: Option<Gpn>,
    below: Below,
}

/// An overlay page of the interface, where it is, and room for one [`Cover`]: of this page or of another one. There are
/// never more pages under overlays than overlays that are placed.
#[derive(Clone, Copy)]
pub struct OverlayEntry {
    /// The frame that shows.
    pub frame: SharedFrame,
    page: Option<Gpn>,
    cover: Cover,
}

impl OverlayEntry {
    /// An overlay that is placed nowhere.
    ///
    /// # Safety
    /// The frame at `spa` is this overlay's alone, and freed after the overlay is gone.
    pub unsafe fn new(spa: Spa) -> Self {
        Self {
            // SAFETY: passed on to the caller.
            frame: unsafe { SharedFrame::new(spa) },
            page: None,
            cover: Cover::default(),
        }
    }
}

/// Overlays that each VP has: assist page, event flags, messages.
pub const VP_OVERLAYS: usize = 3;
/// Overlays of the partition: hypercall page, reference TSC page.
const PARTITION_OVERLAYS: usize = 2;

/// The number of an overlay among those of its partition or VP; `None` for one that children do not have.
const fn slot(kind: Overlay) -> Option<(bool, usize)> {
    match kind {
        Overlay::Hypercall => Some((false, 0)),
        Overlay::ReferenceTsc => Some((false, 1)),
        Overlay::VpAssist => Some((true, 0)),
        Overlay::EventFlags => Some((true, 1)),
        Overlay::Messages => Some((true, 2)),
        Overlay::EventRing => None,
    }
}

/// The memory, under the partition's lock for it.
pub struct ChildMemory {
    /// Its pages.
    pub space: GpaSpace,
    overlays: [OverlayEntry; PARTITION_OVERLAYS],
    /// For the time of a move.
    spare: Cover,
    /// Pages that are mapped, for the list of partitions.
    pub mapped: u64,
}

impl ChildMemory {
    /// An empty address space with such tables of `levels`.
    ///
    /// # Errors
    /// `INSUFFICIENT_MEMORY`; nothing of the pool is used.
    pub fn new(pool: &Mutex<Pool>, second: &SecondLevel, levels: Levels) -> Result<Self, HvError> {
        let frames = pool.lock().alloc_all();
        let [root, hypercall, tsc] = frames.ok_or(HvError::INSUFFICIENT_MEMORY)?;
        // SAFETY: just allocated; `destroy` frees them.
        let overlays = [hypercall, tsc].map(|spa| unsafe { OverlayEntry::new(spa) });
        Ok(Self {
            space: GpaSpace::new(
                second.format,
                root,
                levels,
                second.max_leaf,
                second.has_marks,
            ),
            overlays,
            spare: Cover::default(),
            mapped: 0,
        })
    }

    /// Frees the overlay frames and the first table. Everything else was released.
    ///
    /// # Safety
    /// No LP uses the tables or the frames any more.
    pub unsafe fn destroy(self, pool: &Mutex<Pool>) {
        self.space.destroy(&mut PoolFrames(pool));
        for overlay in self.overlays {
            // SAFETY: passed on to the caller.
            unsafe { pool.lock().free(overlay.frame.spa()) };
        }
    }
}

/// The overlays of a partition while one edit runs.
struct Held<'a> {
    partition: &'a ChildPartition,
    shared: &'a mut [OverlayEntry; PARTITION_OVERLAYS],
    spare: &'a mut Cover,
    guard: Option<MutexGuard<'static, [OverlayEntry; VP_OVERLAYS]>>,
}

impl Held<'_> {
    /// The first overlay for which `is_it` holds, those of the partition before those of VPs.
    fn find(&mut self, is_it: impl Fn(&OverlayEntry) -> bool) -> Option<(&mut OverlayEntry, bool)> {
        if let Some(at) = self.shared.iter().position(&is_it) {
            return Some((self.shared.get_mut(at)?, at == 0));
        }
        self.guard = None;
        for vp in self.partition.vps() {
            let guard = vp.overlays.lock();
            if let Some(at) = guard.iter().position(&is_it) {
                return Some((self.guard.insert(guard).get_mut(at)?, false));
            }
        }
        None
    }

    /// What shows at `page`: the first of the overlays there.
    fn shown(&mut self, page: Gpn) -> Option<(Spa, Attributes)> {
        let is_shared = self.shared.iter().any(|entry| entry.page == Some(page));
        let (entry, is_code) = self.find(|entry| entry.page == Some(page))?;
        // Guests do not write to the hypercall page and the reference TSC page.
        let rights = match (is_shared, is_code) {
            (_, true) => Attributes::RX,
            (true, _) => Attributes::RO,
            (false, _) => Attributes::RW,
        };
        Some((entry.frame.spa(), rights))
    }

    /// Sets where the overlay in `place` is; gives the page before.
    fn set_page(&mut self, place: Place, page: Option<Gpn>) -> Option<Gpn> {
        let entry = match place {
            Place::Partition(at) => self.shared.get_mut(at),
            Place::Vp(vp, at) => {
                self.guard = None;
                self.guard.insert(vp.overlays.lock()).get_mut(at)
            }
        };
        core::mem::replace(&mut entry?.page, page)
    }

    fn has_cover(&mut self, page: Gpn) -> bool {
        self.spare.page == Some(page) || self.find(|entry| entry.cover.page == Some(page)).is_some()
    }

    /// Keeps `cover` in an entry that stays. There is one: never more pages are under overlays than overlays are placed.
    fn keep(&mut self, cover: Cover) {
        let is_free = |entry: &&mut OverlayEntry| entry.cover.page.is_none();
        if let Some(entry) = self.shared.iter_mut().find(is_free) {
            entry.cover = cover;
            return;
        }
        self.guard = None;
        let staying = |vp: &&'static ChildVp| !vp.is_ending.load(Ordering::SeqCst);
        for vp in self.partition.vps().filter(staying) {
            if let Some(entry) = vp.overlays.lock().iter_mut().find(is_free) {
                entry.cover = cover;
                return;
            }
        }
        log::error!("no place for what lies below an overlay page");
    }

    fn drop_cover(&mut self, page: Gpn) {
        if let Some((entry, _)) = self.find(|entry| entry.cover.page == Some(page)) {
            entry.cover = Cover::default();
        }
    }
}

impl gpa_space::Overlays for Held<'_> {
    fn below(&mut self, page: Gpn) -> Option<&mut Below> {
        if self.spare.page == Some(page) {
            return Some(&mut self.spare.below);
        }
        let (entry, _) = self.find(|entry| entry.cover.page == Some(page))?;
        Some(&mut entry.cover.below)
    }
}

enum Place {
    Partition(usize),
    Vp(&'static ChildVp, usize),
}

impl Clone for Place {
    fn clone(&self) -> Self {
        *self
    }
}

impl Copy for Place {}

/// The status for an edit that was refused.
pub fn status(error: SpaceError) -> HvError {
    match error {
        SpaceError::OutOfFrames => HvError::INSUFFICIENT_MEMORY,
        SpaceError::Invalid | SpaceError::NoOverlay => HvError::INVALID_PARAMETER,
        SpaceError::Full => HvError::OPERATION_FAILED,
    }
}

impl ChildPartition {
    fn place_of(&self, kind: Overlay, vp: VpIndex) -> Option<Place> {
        let (is_vps, at) = slot(kind)?;
        Some(if is_vps {
            Place::Vp(self.vp(vp)?, at)
        } else {
            Place::Partition(at)
        })
    }

    /// The frame of an overlay, wherever it is.
    pub fn overlay_frame(&self, kind: Overlay, vp: VpIndex) -> Option<SharedFrame> {
        match self.place_of(kind, vp)? {
            Place::Vp(vp, at) => vp.overlays.lock().get(at).map(|entry| entry.frame),
            Place::Partition(at) => {
                let memory = self.memory.lock();
                memory.as_ref()?.overlays.get(at).map(|entry| entry.frame)
            }
        }
    }

    /// Carries out an edit with the memory locked, then makes every LP forget what it took away and gives back the
    /// frames. The VPs of the partition that `me` has loaded are left to the caller, who flushes them when this says so.
    ///
    /// # Errors
    /// Those of `edit`, and `INVALID_PARTITION_STATE` where there is no memory.
    pub fn edit_memory<R>(
        &self,
        me: &LpArea,
        edit: impl FnOnce(&mut ChildMemory, &mut PoolFrames<'_>, &mut Pending) -> Result<R, HvError>,
    ) -> Result<(R, bool), HvError> {
        let mut guard = self.memory.lock();
        let memory = guard.as_mut().ok_or(HvError::INVALID_PARTITION_STATE)?;
        let mut frames = PoolFrames(&self.pool);
        let mut pending = me.pending.lock();
        let done = edit(memory, &mut frames, &mut pending);
        let is_flush_needed = pending.flush_needed();
        if is_flush_needed {
            shootdown::all_others(me, self.core());
        }
        let mut released = 0;
        memory
            .space
            .finish(&mut frames, &mut pending, &mut |spa, count| {
                released += count;
                unpin(spa, count);
            });
        memory.mapped = memory.mapped.saturating_sub(released);
        Ok((done?, is_flush_needed))
    }

    /// Places the overlay `kind` of VP `vp` at `page`, or takes it away. True when the caller must flush its own VP.
    ///
    /// # Errors
    /// `INSUFFICIENT_MEMORY`, `INVALID_PARAMETER`; nothing changed.
    pub fn place_overlay(
        &self,
        me: &LpArea,
        kind: Overlay,
        vp: VpIndex,
        page: Option<Gpn>,
    ) -> Result<bool, HvError> {
        let place = self.place_of(kind, vp).ok_or(HvError::INVALID_PARAMETER)?;
        self.edit_memory(me, |memory, frames, pending| {
            let (space, mut held) = memory.parts(self);
            let old = held.set_page(place, page);
            if old == page {
                return Ok(());
            }
            if let Some(new) = page {
                // First, because only this can fail.
                if !held.has_cover(new) {
                    *held.spare = Cover {
                        page: Some(new),
                        below: Below::default(),
                    };
                }
                let placed = match held.shown(new) {
                    Some((frame, rights)) => {
                        space.place(frames, &mut held, new, frame, rights, pending)
                    }
                    None => Err(SpaceError::NoOverlay),
                };
                if let Err(error) = placed {
                    *held.spare = Cover::default();
                    held.set_page(place, old);
                    return Err(status(error));
                }
            }
            if let Some(old) = old {
                // Neither needs a frame.
                let _ = match held.shown(old) {
                    Some((frame, rights)) => {
                        space.place(frames, &mut held, old, frame, rights, pending)
                    }
                    None => {
                        let removed = space.remove(frames, &mut held, old, pending);
                        held.drop_cover(old);
                        removed
                    }
                };
            }
            let spare = core::mem::take(held.spare);
            if spare.page.is_some() {
                held.keep(spare);
            }
            Ok(())
        })
        .map(|((), is_flush_needed)| is_flush_needed)
    }

    /// Takes the overlays of the whole partition away.
    pub fn remove_partition_overlays(&self, me: &LpArea) {
        for kind in [Overlay::Hypercall, Overlay::ReferenceTsc] {
            let _ = self.place_overlay(me, kind, VpIndex::new(0), None);
        }
    }

    /// Takes the overlays of a VP away that is still in the table.
    pub fn remove_vp_overlays(&self, me: &LpArea, vp: &ChildVp) {
        for kind in [Overlay::VpAssist, Overlay::EventFlags, Overlay::Messages] {
            let _ = self.place_overlay(me, kind, vp.shared.index, None);
        }
        // What it keeps for others goes to entries that stay. From now on it keeps nothing.
        vp.is_ending.store(true, Ordering::SeqCst);
        let _ = self.edit_memory(me, |memory, _, _| {
            let (_, mut held) = memory.parts(self);
            for at in 0..VP_OVERLAYS {
                let cover = {
                    let mut entries = vp.overlays.lock();
                    entries
                        .get_mut(at)
                        .map(|entry| core::mem::take(&mut entry.cover))
                };
                if let Some(cover) = cover.filter(|cover| cover.page.is_some()) {
                    held.keep(cover);
                }
            }
            Ok(())
        });
    }

    /// Maps one page of 4 KiB or 2 MiB. The caller has counted a use of its frames, which stays the caller's on failure.
    /// `Ok(false)`: what the edits before have ended must be given back first; call again in a new edit.
    ///
    /// # Errors
    /// `INSUFFICIENT_MEMORY`, `INVALID_PARAMETER`; nothing changed.
    pub fn map(
        &self,
        memory: &mut ChildMemory,
        frames: &mut PoolFrames<'_>,
        page: Gpn,
        target: Mapping,
        pending: &mut Pending,
    ) -> Result<bool, HvError> {
        let (space, mut held) = memory.parts(self);
        match space.map(frames, &mut held, page, target, pending) {
            Ok(()) => {
                memory.mapped += target.size.bytes() >> 12;
                Ok(true)
            }
            Err(SpaceError::Full) => Ok(false),
            Err(error) => Err(status(error)),
        }
    }

    /// Declares pages without access, or with `is_unmap` takes them away. Gives how many are done: see
    /// [`GpaSpace::declare_no_access`]; 0 as `Ok(false)` above.
    ///
    /// # Errors
    /// `INSUFFICIENT_MEMORY`, `INVALID_PARAMETER`; nothing changed.
    pub fn sweep(
        &self,
        memory: &mut ChildMemory,
        frames: &mut PoolFrames<'_>,
        page: Gpn,
        pages: u64,
        is_unmap: bool,
        pending: &mut Pending,
    ) -> Result<u64, HvError> {
        let (space, mut held) = memory.parts(self);
        let done = if is_unmap {
            space.unmap(frames, &mut held, page, pages, pending)
        } else {
            space.declare_no_access(frames, &mut held, page, pages, pending)
        };
        match done {
            Err(SpaceError::Full) => Ok(0),
            done => done.map_err(status),
        }
    }
}

impl ChildMemory {
    fn parts<'a>(&'a mut self, partition: &'a ChildPartition) -> (&'a mut GpaSpace, Held<'a>) {
        let held = Held {
            partition,
            shared: &mut self.overlays,
            spare: &mut self.spare,
            guard: None,
        };
        (&mut self.space, held)
    }
}

fn unpin(spa: Spa, count: u64) {
    if owners::table().unpin_range(spa, count).is_err() {
        log::error!("frames at {spa:?} were not in use");
    }
}
