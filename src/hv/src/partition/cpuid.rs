//! What CPUID answers in a child by its parent's word.
#![expect(unsafe_code, reason = "keeps records in a frame of the pool")]

use addr::{PAGE_SIZE, Spa};
use tlfs::HvError;
use tlfs::call::RegisterCpuidResult;

use crate::mm::phys;
use crate::mm::pool::Pool;

/// Records that fit in the one frame of a partition that has any.
const ROOM: usize = PAGE_SIZE as usize / size_of::<RegisterCpuidResult>();

/// The records in the order of their registration.
pub struct Overrides {
    frame: Option<Spa>,
    count: usize,
}

impl Overrides {
    /// None.
    pub const fn new() -> Self {
        Self {
            frame: None,
            count: 0,
        }
    }

    fn slots(&mut self) -> &mut [RegisterCpuidResult] {
        match self.frame {
            // SAFETY: the frame is this value's alone, filled with records by `add` up to `count`, and zeros are one too.
            Some(frame) => unsafe {
                core::slice::from_raw_parts_mut(phys::pointer(frame).cast(), self.count)
            },
            None => &mut [],
        }
    }

    /// The records.
    pub fn list(&self) -> &[RegisterCpuidResult] {
        match self.frame {
            // SAFETY: as in `slots`.
            Some(frame) => unsafe {
                core::slice::from_raw_parts(phys::pointer(frame).cast(), self.count)
            },
            None => &[],
        }
    }

    /// Adds a record, or replaces the one for the same leaf of the same VP.
    ///
    /// # Errors
    /// `INSUFFICIENT_MEMORY`: the pool is empty. `NO_RESOURCES`: as many as can be. Nothing changed.
    pub fn add(&mut self, record: RegisterCpuidResult, pool: &mut Pool) -> Result<(), HvError> {
        let same = |old: &&mut RegisterCpuidResult| {
            (old.vp, old.leaf, old.is_subleaf_specific, old.subleaf)
                == (
                    record.vp,
                    record.leaf,
                    record.is_subleaf_specific,
                    record.subleaf,
                )
        };
        if let Some(old) = self.slots().iter_mut().find(same) {
            *old = record;
            return Ok(());
        }
        if self.count >= ROOM {
            return Err(HvError::NO_RESOURCES);
        }
        let frame = match self.frame {
            Some(frame) => frame,
            None => pool.alloc().ok_or(HvError::INSUFFICIENT_MEMORY)?,
        };
        self.frame = Some(frame);
        let slot = phys::pointer(frame)
            .cast::<RegisterCpuidResult>()
            .wrapping_add(self.count);
        // SAFETY: below `ROOM`, so in the frame.
        unsafe { slot.write(record) };
        self.count += 1;
        Ok(())
    }

    /// Forgets all records and gives the frame back.
    pub fn clear(&mut self, pool: &mut Pool) {
        self.count = 0;
        if let Some(frame) = self.frame.take() {
            // SAFETY: it came from the pool, and no record is used any more.
            unsafe { pool.free(frame) };
        }
    }
}
