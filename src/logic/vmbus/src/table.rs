//! Records with numbers.

use core::marker::PhantomData;

use crate::frames::{Content, FrameId, Frames};

/// A record of a table. The link of a free one is the number of the next.
pub(crate) trait Record: Copy + Default + 'static {
    type Slab: Content;
    const IN_SLAB: u16;
    fn records(slab: &mut Self::Slab) -> &mut [Self];
    fn link(&mut self) -> &mut u16;
}

/// Records in up to `N` frames, numbered from 1. Free ones are used again; frames come back at the end.
#[derive(Debug)]
pub(crate) struct Table<T, const N: usize> {
    frames: [u32; N],
    /// Records that there is room for; their numbers are 1 to this.
    pub(crate) room: u16,
    /// The first free one, 0 for none.
    free: u16,
    record: PhantomData<fn() -> T>,
}

impl<T: Record, const N: usize> Table<T, N> {
    pub(crate) const EMPTY: Self = Self {
        frames: [0; N],
        room: 0,
        free: 0,
        record: PhantomData,
    };

    pub(crate) fn get<'f>(&self, number: u16, frames: &'f mut impl Frames) -> Option<&'f mut T> {
        let place = number.checked_sub(1)?;
        let frame = *self.frames.get(usize::from(place / T::IN_SLAB))?;
        if frame == 0 {
            return None;
        }
        let slab = frames.get::<T::Slab>(FrameId(frame))?;
        T::records(slab).get_mut(usize::from(place % T::IN_SLAB))
    }

    /// Adds a record. `None` when there is no room and no frame, or a table of its kind may not be longer.
    pub(crate) fn add(
        &mut self,
        record: T,
        quota: &mut u32,
        frames: &mut impl Frames,
    ) -> Option<u16> {
        if self.free == 0 {
            let first = self.room.checked_add(1)?;
            self.grow(quota, frames)?;
            self.chain(first, frames, |_| true);
        }
        let number = self.free;
        let place = self.get(number, frames)?;
        self.free = *place.link();
        *place = record;
        Some(number)
    }

    /// Puts a record where a saved state had it. The free records are to be [chained](Self::chain) afterwards.
    pub(crate) fn put(
        &mut self,
        number: u16,
        record: T,
        quota: &mut u32,
        frames: &mut impl Frames,
    ) -> Option<()> {
        while self.room < number {
            self.grow(quota, frames)?;
        }
        *self.get(number, frames)? = record;
        Some(())
    }

    fn grow(&mut self, quota: &mut u32, frames: &mut impl Frames) -> Option<()> {
        let slot = self.frames.get_mut(usize::from(self.room / T::IN_SLAB))?;
        let left = quota.checked_sub(1)?;
        let room = self.room.checked_add(T::IN_SLAB)?;
        *slot = frames.allocate()?.0;
        (*quota, self.room) = (left, room);
        Some(())
    }

    /// Makes the chain of free records anew, lowest number first: those of `first` and up that are.
    pub(crate) fn chain(
        &mut self,
        first: u16,
        frames: &mut impl Frames,
        is_free: impl Fn(&T) -> bool,
    ) {
        self.free = 0;
        for number in (first..=self.room).rev() {
            if let Some(record) = self.get(number, frames)
                && is_free(record)
            {
                *record.link() = self.free;
                self.free = number;
            }
        }
    }

    /// Frees all records.
    pub(crate) fn clear(&mut self, frames: &mut impl Frames) {
        for number in 1..=self.room {
            if let Some(record) = self.get(number, frames) {
                *record = T::default();
            }
        }
        self.chain(1, frames, |_| true);
    }

    pub(crate) fn remove(&mut self, number: u16, frames: &mut impl Frames) {
        if let Some(record) = self.get(number, frames) {
            *record = T::default();
            *record.link() = self.free;
            self.free = number;
        }
    }

    /// Frees a chain of records at once, which their links hold together.
    pub(crate) fn remove_chain(&mut self, first: u16, last: u16, frames: &mut impl Frames) {
        if let Some(record) = self.get(last, frames) {
            *record.link() = self.free;
            self.free = first;
        }
    }

    /// The lowest number for which `is` holds.
    pub(crate) fn find(&self, frames: &mut impl Frames, is: impl Fn(&T) -> bool) -> Option<u16> {
        (1..=self.room).find(|number| self.get(*number, frames).is_some_and(|record| is(record)))
    }

    #[cfg(test)]
    pub(crate) fn first_free(&self) -> u16 {
        self.free
    }

    pub(crate) fn take_frame(&mut self) -> Option<FrameId> {
        (self.room, self.free) = (0, 0);
        let slot = self.frames.iter_mut().find(|frame| **frame != 0)?;
        Some(FrameId(core::mem::take(slot)))
    }
}
