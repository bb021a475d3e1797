//! What the entries on the way to a page allow, and whether an access may use it
//! (Intel SDM vol. 3A, "Determination of Access Rights").

use addr::Gpa;
use x86::{cr0, cr4, efer};

use super::{Access, Fault, NX, PagingState, Translation, pf};

/// The intersection of the entries' rights.
#[derive(Clone, Copy)]
pub(super) struct Rights {
    writable: bool,
    user: bool,
    executable: bool,
}

const W: u64 = 1 << 1;
const U: u64 = 1 << 2;

impl Rights {
    pub(super) const ALL: Self = Self {
        writable: true,
        user: true,
        executable: true,
    };

    pub(super) fn narrow(&mut self, entry: u64) {
        self.writable &= entry & W != 0;
        self.user &= entry & U != 0;
        self.executable &= entry & NX == 0;
    }

    pub(super) fn translation(self, gpa: Gpa, page_bytes: u64) -> Translation {
        let Self {
            writable,
            user,
            executable,
        } = self;
        Translation {
            gpa,
            page_bytes,
            user,
            writable,
            executable,
        }
    }

    /// Whether `access` may use the page. `key` is its protection key, where the paging mode has keys.
    pub(super) fn check(
        self,
        state: &PagingState,
        access: Access,
        key: Option<u32>,
    ) -> Result<(), Fault> {
        let is_user = state.is_user(access);
        let may_write = self.writable || (!is_user && state.cr0 & cr0::WP == 0);
        let allowed = match access {
            Access::Execute => {
                self.executable && !(self.user && !is_user && state.cr4 & cr4::SMEP != 0)
            }
            Access::Read => is_user || !self.user || state.allows_explicit_user_data(),
            Access::Write => {
                may_write && (is_user || !self.user || state.allows_explicit_user_data())
            }
            Access::ImplicitRead => !self.user || state.cr4 & cr4::SMAP == 0,
            Access::ImplicitWrite => may_write && (!self.user || state.cr4 & cr4::SMAP == 0),
        };
        if !allowed || (is_user && !self.user) {
            return Err(state.fault(access, pf::PRESENT));
        }
        match key {
            Some(key) if !self.key_allows(state, access, key) => {
                Err(state.fault(access, pf::PRESENT | pf::KEY))
            }
            _ => Ok(()),
        }
    }

    /// Protection keys restrict data accesses in the 64-bit modes: PKRU those to user pages, PKRS the others.
    fn key_allows(self, state: &PagingState, access: Access, key: u32) -> bool {
        if access == Access::Execute || state.efer & efer::LMA == 0 {
            return true;
        }
        let register = match self.user {
            true if state.cr4 & cr4::PKE != 0 => state.pkru,
            false if state.cr4 & cr4::PKS != 0 => state.pkrs,
            _ => return true,
        };
        let bits = register >> (2 * (key & 15));
        let (no_access, no_write) = (bits & 1 != 0, bits & 2 != 0);
        let writes = matches!(access, Access::Write | Access::ImplicitWrite);
        let protects_writes = state.is_user(access) || state.cr0 & cr0::WP != 0;
        !(no_access || (writes && no_write && protects_writes))
    }
}
