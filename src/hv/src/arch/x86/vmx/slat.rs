//! The EPT pointer, and dropping translations.
//!
//! Source: SDM vol. 3C, "Extended-Page-Table Pointer", "Invalidating Cached Translation Information". The tables
//! themselves are edited elsewhere; this file is about what VMX makes of them.
#![expect(unsafe_code, reason = "drops translations")]

use addr::{Gpa, PAGE_SIZE, Spa};
use bootinfo::Status;
use paging::{Entry, Format, PageSize, TableMemory};
use vpcore::seam::Role;

use super::caps::Capabilities;
use super::insn::{self, Scope};
use crate::mm::frames::FrameUse;
use crate::mm::tables::Tables;

/// Memory type of accesses to the tables: write-back.
const WRITE_BACK: u64 = 6;
/// The processor sets accessed and dirty bits.
const MARKS: u64 = 1 << 6;

/// The translations that a VMCS uses, as their tags.
#[derive(Clone, Copy, Debug)]
pub(super) struct Translations {
    /// EPT pointer.
    pub(super) eptp: u64,
    levels: u32,
    /// Virtual-processor identifier; 0 where the processor has none and each entry and exit flushes, and before the VP
    /// is loaded.
    pub(super) vpid: u16,
    /// The processor has virtual-processor identifiers.
    pub(super) has_vpid: bool,
    single_invept: bool,
    single_invvpid: bool,
}

impl Translations {
    /// Those of tables at `root` of `levels` levels, a child's or the parent's.
    ///
    /// # Errors
    /// [`Status::MISSING_FEATURE`]: the processor does not walk tables of this depth.
    pub(super) fn new(
        caps: &Capabilities,
        role: Role,
        root: Spa,
        levels: u32,
    ) -> Result<Self, Status> {
        if !caps.has_levels(levels) {
            return Err(Status::MISSING_FEATURE);
        }
        // Nobody asks for marks of the parent's memory.
        let marks = match role {
            Role::Child if caps.has_marks() => MARKS,
            _ => 0,
        };
        let root = root.align_down(PAGE_SIZE).get();
        Ok(Self {
            // Bits 5:3 are the walk length minus one.
            eptp: root | marks | u64::from(levels - 1) << 3 | WRITE_BACK,
            levels,
            vpid: 0,
            has_vpid: caps.has_vpid(),
            single_invept: caps.has_single_invept(),
            single_invvpid: caps.has_single_invvpid(),
        })
    }

    /// Drops what was cached of the guest's own tables.
    pub(super) fn flush_guest(&self) {
        if self.vpid == 0 {
            return;
        }
        let scope = if self.single_invvpid {
            Scope::Single
        } else {
            Scope::All
        };
        // SAFETY: this LP is in VMX operation, as a VMCS exists, and has INVVPID, as a VPID is in use.
        let flushed = unsafe { insn::invvpid(scope, self.vpid) };
        debug_assert!(flushed.is_ok(), "INVVPID failed");
    }

    /// Drops what was cached of the guest's own tables and of the second-level tables. The latter is shared by all VPs
    /// of the partition that run on this LP.
    pub(super) fn flush_all(&self) {
        self.flush_guest();
        let scope = if self.single_invept {
            Scope::Single
        } else {
            Scope::All
        };
        // SAFETY: this LP is in VMX operation, as a VMCS exists; INVEPT was checked for.
        let flushed = unsafe { insn::invept(scope, self.eptp) };
        debug_assert!(flushed.is_ok(), "INVEPT failed");
    }

    /// Where a read of `gpa` goes by the tables; `None` where they do not let it pass. Like the processor's own walk only
    /// to be used by an LP that has announced itself in the guest, so that no table on the way is taken away.
    pub(super) fn translate(&self, gpa: Gpa) -> Option<Spa> {
        let mut table = Spa::new(self.eptp).align_down(PAGE_SIZE);
        for level in (0..self.levels).rev() {
            let index = gpa.get() >> (12 + 9 * level) & 511;
            let size = match level {
                0 => Some(PageSize::Size4K),
                1 => Some(PageSize::Size2M),
                2 => Some(PageSize::Size1G),
                _ => None,
            };
            let entry = Tables(FrameUse::Slat).load(table.checked_add(index * 8)?);
            match (Format::Ept.decode(entry, size), size) {
                (Entry::Table(next), _) => table = next,
                (Entry::Leaf(spa, attributes), Some(size)) if attributes.read => {
                    return spa.checked_add(gpa.get() & (size.bytes() - 1));
                }
                _ => return None,
            }
        }
        None
    }
}
