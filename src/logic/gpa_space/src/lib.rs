//! The guest physical address space of a child: what its parent declared, and the tables that processors walk.
//!
//! A page is in one of three states. *Mapped*: it has a frame and rights. *Declared without access*: it exists, every
//! access is the parent's to answer. *Unmapped*: nothing is there. All three are entries of one tree ([`paging::Table`]);
//! there is no second set beside it. A page without access is a leaf that no processor uses, whose address is its own,
//! so that neighbours merge up to 1 GiB; an unmapped one has no entry.
//!
//! A mapped leaf is counted: it holds a use of each of its frames, taken by the caller before [`GpaSpace::map`]. An
//! edit may end uses; while processors may still hold the translation these wait in a [`Pending`], and
//! [`GpaSpace::finish`] gives them back once the caller has flushed.
//!
//! An overlay is a frame of the hypervisor over a page. It stays on top whatever the parent does to the page: that
//! changes what lies [`Below`], which the caller keeps and which shows again when the overlay goes.
//!
//! Every element of a call is done wholly or not at all. Nothing here locks: the caller holds the space exclusively
//! for an edit, and as long as it uses what [`GpaSpace::translate`] gave. See `docs/adr/0011-gpa-space.md`.
#![no_std]
#![forbid(unsafe_code)]

mod access;
mod edit;
mod overlay;
mod pending;

use addr::{Gpa, PAGE_SIZE, Spa};
use paging::walk::Access;
use paging::{Attributes, EditError, Format, Levels, Mapping, Marks, PageSize, Table, TableMemory};

pub use overlay::{Below, Overlays};
pub use pending::Pending;

/// Why an edit was refused. The element changed nothing and kept no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpaceError {
    /// Too few frames for tables: the child's pool lacks memory.
    OutOfFrames,
    /// A page is beyond the space, or not aligned to the size asked for, or the rights cannot be expressed.
    Invalid,
    /// [`Pending`] cannot hold what this may end. Flush, [`GpaSpace::finish`], and do it again: an empty one can.
    Full,
    /// The caller keeps no [`Below`] for the page.
    NoOverlay,
}

impl From<EditError> for SpaceError {
    fn from(error: EditError) -> Self {
        match error {
            EditError::OutOfFrames => Self::OutOfFrames,
            EditError::Misaligned | EditError::OutOfRange | EditError::BadAttributes => {
                Self::Invalid
            }
        }
    }
}

/// The state of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Never declared, or taken away.
    Unmapped,
    /// Declared, without access.
    NoAccess,
    /// To be used as its attributes say; an overlay's when one lies on top.
    Mapped(Mapping),
}

/// Why the hypervisor may not use a page for a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is unmapped: the intercept of an unmapped GPA.
    Unmapped,
    /// It is declared, and does not allow this: the intercept of a GPA.
    Denied,
}

/// The space of one child.
#[derive(Debug)]
pub struct GpaSpace {
    table: Table,
    has_marks: bool,
}

/// The rights of the flags of `HvCallMapGpaPages`, write-back, or `None` for a combination that is refused: write or
/// execute without read; and execution in one of kernel and user mode only, which takes mode-based execute control.
/// Linux' mshv driver always asks for both or none.
pub const fn rights(
    read: bool,
    write: bool,
    kernel_execute: bool,
    user_execute: bool,
) -> Option<Attributes> {
    if kernel_execute != user_execute || (!read && (write || kernel_execute)) {
        return None;
    }
    Some(Attributes {
        read,
        write,
        execute: kernel_execute,
        ..Attributes::NONE
    })
}

impl GpaSpace {
    /// The empty space whose top table is the zeroed frame `root`, with tables of `format`. No leaf is larger than `max_leaf`. `has_marks`: the
    /// processor sets accessed and dirty bits in these tables (NPT: always; EPT: where the EPT pointer says so, and then
    /// its walk of the guest's own tables needs the right to write them); without, every mapped page counts as both.
    pub const fn new(
        format: Format,
        root: Spa,
        levels: Levels,
        max_leaf: PageSize,
        has_marks: bool,
    ) -> Self {
        Self {
            table: Table::new(format, root, levels, max_leaf),
            has_marks,
        }
    }

    /// The top table.
    pub const fn root(&self) -> Spa {
        self.table.root()
    }

    /// The depth of the tables.
    pub const fn levels(&self) -> Levels {
        self.table.levels()
    }

    /// The state of the page at `gpa`. A mapping's address is that of `gpa` itself.
    pub fn state(&self, mem: &dyn TableMemory, gpa: Gpa) -> State {
        match self.table.lookup(mem, gpa.get()) {
            None => State::Unmapped,
            Some(mapping) if !mapping.attributes.read => State::NoAccess,
            Some(mapping) => State::Mapped(mapping),
        }
    }

    /// Where the hypervisor finds `gpa` for an access of the guest's kind. Good to the end of the 4 KiB page.
    /// No processor notes such a write: who makes it calls [`GpaSpace::note_write`] after it.
    ///
    /// # Errors
    /// [`Fault`]: the intercept to raise instead.
    pub fn translate(&self, mem: &dyn TableMemory, gpa: Gpa, access: Access) -> Result<Spa, Fault> {
        let mapping = self.table.lookup(mem, gpa.get()).ok_or(Fault::Unmapped)?;
        let Attributes {
            read,
            write,
            execute,
            ..
        } = mapping.attributes;
        let allowed = match access {
            Access::Read | Access::ImplicitRead => read,
            Access::Write | Access::ImplicitWrite => write,
            Access::Execute => execute,
        };
        if allowed {
            Ok(mapping.spa)
        } else {
            Err(Fault::Denied)
        }
    }

    /// Notes that the hypervisor wrote to the page at `gpa`, as a processor notes its own writes.
    pub fn note_write(&self, mem: &mut dyn TableMemory, gpa: Gpa) {
        if self.has_marks {
            let marks = Marks {
                accessed: true,
                dirty: true,
            };
            self.table.mark(mem, gpa.get(), marks);
        }
    }

    /// Gives back the tables and uses that `pending` holds and empties it, after every LP has flushed if
    /// [`Pending::flush_needed`]. `release` gets each run of frames once, as first frame and number.
    pub fn finish(
        &mut self,
        mem: &mut dyn TableMemory,
        pending: &mut Pending,
        release: &mut dyn FnMut(Spa, u64),
    ) {
        pending.release(release);
        self.table
            .finish_with(mem, pending.take_cleanup(), &mut |spa, bytes| {
                release(spa, bytes / PAGE_SIZE);
            });
    }

    /// Takes up to `budget` (not 0) leaves and tables away and gives back their frames; true when nothing is left but
    /// the top table. No VP runs in the space any more, no LP holds a translation of it, no [`Pending`] is open, and
    /// overlays were removed.
    pub fn release_all(
        &mut self,
        mem: &mut dyn TableMemory,
        budget: u32,
        release: &mut dyn FnMut(Spa, u64),
    ) -> bool {
        self.table.drain(mem, budget, &mut |spa, bytes| {
            release(spa, bytes / PAGE_SIZE)
        })
    }

    /// Frees the top table, after [`GpaSpace::release_all`] said true.
    pub fn destroy(self, mem: &mut dyn TableMemory) {
        self.table.destroy(mem);
    }
}
