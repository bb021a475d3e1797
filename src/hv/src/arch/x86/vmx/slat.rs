//! The EPT pointer, and dropping translations.
//!
//! Source: SDM vol. 3C, "Extended-Page-Table Pointer", "Invalidating Cached Translation Information". The tables
//! themselves are edited elsewhere; this file is about what VMX makes of them.
#![expect(unsafe_code, reason = "drops translations")]

use addr::Spa;
use bootinfo::Status;

use super::caps::Capabilities;
use super::insn::{self, Scope};

/// Memory type of accesses to the tables: write-back.
const WRITE_BACK: u64 = 6;

/// The translations that a VMCS uses, as their tags.
#[derive(Clone, Copy, Debug)]
pub(super) struct Translations {
    /// EPT pointer.
    pub(super) eptp: u64,
    /// Virtual-processor identifier, `None` where the processor has none and each entry and exit flushes.
    pub(super) vpid: Option<u16>,
    single_invept: bool,
    single_invvpid: bool,
}

impl Translations {
    /// Those of tables at `root` of `levels` levels, tagged with `tag`.
    ///
    /// # Errors
    /// [`Status::MISSING_FEATURE`]: the processor does not walk tables of this depth, or `tag` is 0.
    pub(super) fn new(
        caps: &Capabilities,
        root: Spa,
        levels: u32,
        tag: u16,
    ) -> Result<Self, Status> {
        if !caps.has_levels(levels) || tag == 0 {
            return Err(Status::MISSING_FEATURE);
        }
        Ok(Self {
            // Bits 5:3 are the walk length minus one. Accessed and dirty bits stay off: nobody reads them yet.
            eptp: root.align_down(addr::PAGE_SIZE).get() | u64::from(levels - 1) << 3 | WRITE_BACK,
            vpid: caps.has_vpid().then_some(tag),
            single_invept: caps.has_single_invept(),
            single_invvpid: caps.has_single_invvpid(),
        })
    }

    /// Drops what was cached of the guest's own tables.
    pub(super) fn flush_guest(&self) {
        let Some(vpid) = self.vpid else { return };
        let scope = if self.single_invvpid {
            Scope::Single
        } else {
            Scope::All
        };
        // SAFETY: this LP is in VMX operation, as a VMCS exists, and has INVVPID, as a VPID is in use.
        let flushed = unsafe { insn::invvpid(scope, vpid) };
        debug_assert!(flushed.is_ok(), "INVVPID failed");
    }

    /// Drops what was cached of the guest's own tables and of the second-level tables.
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
}
