//! What the rest of the hypervisor asks of a virtualization extension beside [`VpBackend`].
//!
//! One `match` at start-up picks the implementor; every build holds both. They implement the trait where they live.

use addr::Spa;
use bootinfo::Status;
use paging::{Format, PageSize};
use vpcore::cpuid::Missing;
use vpcore::seam::{FrameSource, InterceptBitmaps, Role, VpBackend};
use x86::vector;

use crate::arch::x86::insn;

pub use crate::arch::x86::svm::Svm;
pub use crate::arch::x86::vmx::Vmx;

/// A virtualization extension.
pub trait Virt: 'static {
    /// The extension, switched on for one LP. Dropping it switches it off: no VP may be used on the LP after that.
    type Lp;
    /// One VP.
    type Vp: VpBackend<Lp = Self::Lp> + Send;
    /// Intercept bitmaps: one set for the parent, one for all children.
    type Bitmaps: InterceptBitmaps + Send + Sync;

    /// The instruction that makes a hypercall.
    const HYPERCALL: [u8; 3];

    /// Whether this LP can run guests. Changes nothing.
    fn check() -> Result<(), Status>;
    /// Switches the extension on for the calling LP, whose descriptor tables and GS base are the hypervisor's and stay.
    /// On an error the LP is as it was.
    fn enable(frames: &mut dyn FrameSource) -> Result<Self::Lp, Status>;
    /// Bitmaps with every port passing and every MSR access exiting.
    fn bitmaps(frames: &mut dyn FrameSource) -> Result<Self::Bitmaps, Status>;
    /// Makes a VP, loaded nowhere, as after reset. `frame` is a zeroed frame of
    /// the hypervisor's for its control structure, which [`VpBackend::into_frame`] gives back; after an error it is the
    /// caller's still. The root of the second-level tables and the bitmaps stay as long as the VP.
    ///
    /// # Errors
    /// [`Status::MISSING_FEATURE`]; [`Status::ENABLE_FAILED`] when the processor refuses the frame. Not on an LP where
    /// another VP could be made with the same levels.
    fn vp(
        lp: &Self::Lp,
        frame: Spa,
        role: Role,
        bitmaps: &Self::Bitmaps,
        slat_root: Spa,
        slat_levels: u32,
    ) -> Result<Self::Vp, Status>;
    /// Features of this LP that a guest cannot have.
    fn missing() -> Missing;
    /// What second-level tables are like.
    fn second_level() -> SecondLevel;
}

/// What second-level tables are like on this machine.
#[derive(Clone, Copy, Debug)]
pub struct SecondLevel {
    /// Their entries.
    pub format: Format,
    /// The largest leaf that processors take.
    pub max_leaf: PageSize,
    /// Processors set accessed and dirty bits in those of children.
    pub has_marks: bool,
}

/// Exceptions that exit whatever is asked for, as bits by vector. Machine checks belong to the hypervisor; every other
/// exception of the parent is its own. Of a child, without an exit, an endless chain of #AC or #DB would hold the LP
/// (CVE-2015-5307, CVE-2015-8104).
pub const fn always_trapped(role: Role) -> u32 {
    match role {
        Role::Parent => 1 << vector::MC,
        Role::Child => 1 << vector::MC | 1 << vector::AC | 1 << vector::DB,
    }
}

/// The vendor by CPUID leaf 0.
pub fn is_intel() -> bool {
    insn::cpuid(0, 0).ebx == u32::from_le_bytes(*b"Genu")
}
