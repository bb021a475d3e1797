//! What CPUID answers in a child by its parent's word, and the leaves that it answers itself.
#![expect(unsafe_code, reason = "keeps records in frames of the pool")]

use addr::{PAGE_SIZE, Spa, VpIndex};
use tlfs::HvError;
use tlfs::call::{RegisterCpuidResult, VP_ANY};

use crate::mm::phys;
use crate::mm::pool::Pool;

/// Records in a frame.
const ROOM: usize = PAGE_SIZE as usize / size_of::<RegisterCpuidResult>();
/// Frames that a partition can have of them: enough for each leaf and subleaf of each of 8 VPs.
const FRAMES: usize = 64;
/// Records that can match one subleaf of one VP: with and without subleaf, of the VP and of all.
pub const MATCHES: usize = 8;

/// Leaves that one partition's parent can intercept.
const LEAVES: usize = 32;

/// Leaves whose CPUID the parent answers.
pub struct Leaves {
    leaves: [u32; LEAVES],
    count: usize,
}

impl Leaves {
    /// None.
    pub const fn new() -> Self {
        Self {
            leaves: [0; LEAVES],
            count: 0,
        }
    }

    fn all(&self) -> &[u32] {
        self.leaves.get(..self.count).unwrap_or(&[])
    }

    /// Whether `leaf` is one of them.
    pub fn has(&self, leaf: u32) -> bool {
        self.all().contains(&leaf)
    }

    /// Adds a leaf, or takes it out; nothing happens where that is so already.
    ///
    /// # Errors
    /// `NO_RESOURCES`: as many as can be. Nothing changed.
    pub fn set(&mut self, leaf: u32, is_wanted: bool) -> Result<(), HvError> {
        let place = self.all().iter().position(|&other| other == leaf);
        match (place, is_wanted) {
            (None, true) => {
                let free = self.leaves.get_mut(self.count);
                *free.ok_or(HvError::NO_RESOURCES)? = leaf;
                self.count += 1;
            }
            (Some(place), false) => {
                self.count -= 1;
                self.leaves.swap(place, self.count);
            }
            _ => {}
        }
        Ok(())
    }
}

/// The records in the order of their registration.
pub struct Overrides {
    frames: [Option<Spa>; FRAMES],
    count: usize,
}

impl Overrides {
    /// None.
    pub const fn new() -> Self {
        Self {
            frames: [None; FRAMES],
            count: 0,
        }
    }

    fn slots(&self) -> impl Iterator<Item = *mut RegisterCpuidResult> + '_ {
        let frames = self.frames.iter().flatten();
        frames
            .flat_map(|&frame| {
                let first = phys::pointer(frame).cast::<RegisterCpuidResult>();
                (0..ROOM).map(move |at| first.wrapping_add(at))
            })
            .take(self.count)
    }

    /// Copies the records for a leaf and subleaf of VP `vp`, the latest last, as far as there is room; gives how many.
    pub fn find(
        &self,
        vp: VpIndex,
        (leaf, subleaf): (u32, u32),
        found: &mut [RegisterCpuidResult; MATCHES],
    ) -> usize {
        let mut count = 0;
        for slot in self.slots() {
            // SAFETY: the first `count` slots were written by `add`, in frames that are this value's alone.
            let record = unsafe { &*slot };
            if record.leaf == leaf
                && (!record.is_subleaf_specific || record.subleaf == subleaf)
                && (record.vp == vp || record.vp == VP_ANY)
                && let Some(place) = found.get_mut(count)
            {
                *place = *record;
                count += 1;
            }
        }
        count
    }

    /// Adds a record, or replaces the one for the same leaf of the same VP.
    ///
    /// # Errors
    /// `INSUFFICIENT_MEMORY`: the pool is empty. `NO_RESOURCES`: as many as can be. Nothing changed.
    pub fn add(&mut self, record: RegisterCpuidResult, pool: &mut Pool) -> Result<(), HvError> {
        let key = |r: &RegisterCpuidResult| (r.vp, r.leaf, r.is_subleaf_specific, r.subleaf);
        // SAFETY: as in `find`; nobody else has a reference while this value is borrowed for a change.
        let old = self
            .slots()
            .find(|&slot| key(unsafe { &*slot }) == key(&record));
        let slot = match old {
            Some(old) => old,
            None => {
                let frame = self.frames.get_mut(self.count / ROOM);
                let frame = frame.ok_or(HvError::NO_RESOURCES)?;
                if frame.is_none() {
                    *frame = Some(pool.alloc().ok_or(HvError::INSUFFICIENT_MEMORY)?);
                }
                let frame = frame.ok_or(HvError::NO_RESOURCES)?;
                let first = phys::pointer(frame).cast::<RegisterCpuidResult>();
                let slot = first.wrapping_add(self.count % ROOM);
                self.count += 1;
                slot
            }
        };
        // SAFETY: a place for a record in a frame of this value's.
        unsafe { slot.write(record) };
        Ok(())
    }

    /// Forgets all records and gives the frames back.
    pub fn clear(&mut self, pool: &mut Pool) {
        self.count = 0;
        for frame in self.frames.iter_mut().filter_map(Option::take) {
            // SAFETY: it came from the pool, and no record is used any more.
            unsafe { pool.free(frame) };
        }
    }
}
