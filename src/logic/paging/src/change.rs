//! What can be done to a range of a tree, and what is told of it.

use addr::Spa;

use crate::attributes::Attributes;
use crate::format::Format;

/// What to do to a range.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    /// Map it to the memory at this address, with the largest leaves that alignment permits. What was mapped there
    /// before is replaced.
    Map(Spa, Attributes),
    /// Map nothing. Holes in the range are no error.
    Unmap,
    /// Tell the accessed and dirty bits of the range ([`Event::Marks`]), clear some of them, then set some.
    Mark(MarkChange),
}

/// A change of marks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MarkChange {
    /// To be cleared.
    pub clear: Marks,
    /// To be set.
    pub set: Marks,
}

/// The marks that a processor leaves on a page. They are kept by leaf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// It was used.
    pub accessed: bool,
    /// It was written.
    pub dirty: bool,
}

impl Marks {
    pub(crate) fn bits(self, format: Format) -> u64 {
        (u64::from(self.accessed) * format.accessed()) | (u64::from(self.dirty) * format.dirty())
    }

    pub(crate) fn of(format: Format, entry: u64) -> Self {
        Self {
            accessed: entry & format.accessed() != 0,
            dirty: entry & format.dirty() != 0,
        }
    }
}

/// What an edit does where an overlay lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverOverlays {
    /// It leaves the overlay and tells the page ([`Event::Covered`]): the change is for what lies below.
    Below,
    /// It treats the overlay as any leaf.
    Replace,
}

/// What an edit came across. Told in the order of addresses, while the edit is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A counted leaf no longer maps `len` bytes at `spa`; or it maps them as before, and was to be mapped so again.
    /// Processors may use the frames until they have flushed.
    Released {
        /// The first frame.
        spa: Spa,
        /// Bytes, a multiple of 4 KiB.
        len: u64,
    },
    /// An overlay stays over the page at this address.
    Covered(u64),
    /// The marks of the next `len` bytes, as they were before the change.
    Marks {
        /// The marks.
        marks: Marks,
        /// Bytes, a multiple of 4 KiB.
        len: u64,
    },
}
