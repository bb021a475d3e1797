//! What the rest of the hypervisor asks of a virtualization extension beside [`VpBackend`].
//!
//! Every build holds both. The vendor is a type in three places, each under [`on_this_machine`]: where the machine is
//! prepared, where an LP is launched, and where a VP of a child is made. From there on a VP is a [`VpBackend`] whose type
//! nobody knows but the loop from an exit to the next entry, and the rest are values: [`Facts`], [`Bitmaps`].

use addr::Spa;
use bootinfo::Status;
use paging::{Format, PageSize};
use vpcore::cpuid::Missing;
use vpcore::seam::{FrameSource, InterceptBitmaps, Lp, Role, VpBackend};
use x86::vector;

use crate::arch::x86::insn;

pub use crate::arch::x86::svm::Svm;
pub use crate::arch::x86::vmx::Vmx;

/// A virtualization extension.
pub trait Virt: 'static {
    /// One VP.
    type Vp: VpBackend;
    /// Keeps the extension switched on for one LP. Dropping it switches it off: no VP may be used on the LP after that.
    type On;

    /// What is told of the extension on this LP, if it can run guests. Changes nothing.
    fn facts() -> Result<Facts, Status>;
    /// Switches the extension on for the calling LP, whose descriptor tables and GS base are the hypervisor's and stay.
    /// On an error the LP is as it was.
    fn enable(frames: &mut dyn FrameSource) -> Result<(Lp, Self::On), Status>;
    /// Bitmaps with every port passing and every MSR access exiting, but for what `choose` changes in them.
    fn bitmaps(
        frames: &mut dyn FrameSource,
        choose: &mut dyn FnMut(&mut dyn InterceptBitmaps),
    ) -> Result<Bitmaps, Status>;
    /// Makes a VP, loaded nowhere, as after reset. The extension is on. `frame` is a zeroed frame of
    /// the hypervisor's for its control structure, which [`VpBackend::frame`] names; after an error it is the
    /// caller's still. The root of the second-level tables and the bitmaps stay as long as the VP.
    ///
    /// # Errors
    /// [`Status::MISSING_FEATURE`]; [`Status::ENABLE_FAILED`] when the processor refuses the frame. Not on an LP where
    /// another VP could be made with the same levels.
    fn vp(
        frame: Spa,
        role: Role,
        bitmaps: Bitmaps,
        slat_root: Spa,
        slat_levels: u32,
    ) -> Result<Self::Vp, Status>;
}

/// What the extension is like on this machine.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// The instruction that makes a hypercall.
    pub hypercall: [u8; 3],
    /// Features that a guest cannot have.
    pub missing: Missing,
    /// What second-level tables are like.
    pub second_level: SecondLevel,
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

/// Frames of intercept bitmaps, as processors read them: one set for the parent, one for all children.
#[derive(Clone, Copy, Debug)]
pub struct Bitmaps {
    /// For ports.
    pub io: Spa,
    /// For MSRs.
    pub msr: Spa,
}

/// The vendor by CPUID leaf 0.
pub fn is_intel() -> bool {
    insn::cpuid(0, 0).ebx == u32::from_le_bytes(*b"Genu")
}

/// Evaluates an expression with `$extension` as this machine's [`Virt`].
macro_rules! on_this_machine {
    ($extension:ident => $what:expr) => {
        if $crate::virt::is_intel() {
            type $extension = $crate::virt::Vmx;
            $what
        } else {
            type $extension = $crate::virt::Svm;
            $what
        }
    };
}

pub(crate) use on_this_machine;
