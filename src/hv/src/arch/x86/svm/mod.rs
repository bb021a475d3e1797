//! AMD-V: nested paging and ASIDs. Needs neither next-RIP save nor decode assists, uses the first where it is.
//!
//! Source: AMD APM vol. 2 rev. 3.42, "Secure Virtual Machine".
mod bitmaps;
mod caps;
mod control;
mod entry;
mod exit;
mod inject;
mod vmcb;

use addr::Spa;
use bootinfo::Status;
use paging::{Format, PageSize};
use vpcore::cpuid::Missing;
use vpcore::seam::{FrameSource, Role};

use super::insn;
use crate::virt::{SecondLevel, Virt};

pub use bitmaps::SvmBitmaps;
pub use caps::SvmLp;
pub use control::SvmVp;

/// AMD-V.
#[derive(Debug)]
pub enum Svm {}

impl Virt for Svm {
    type Lp = SvmLp;
    type Vp = SvmVp;
    type Bitmaps = SvmBitmaps;

    const HYPERCALL: [u8; 3] = [0x0F, 0x01, 0xD9];

    fn check() -> Result<(), Status> {
        caps::check().map(|_| ())
    }

    fn enable(frames: &mut dyn FrameSource) -> Result<SvmLp, Status> {
        SvmLp::enable(frames)
    }

    fn bitmaps(frames: &mut dyn FrameSource) -> Result<SvmBitmaps, Status> {
        SvmBitmaps::new(frames)
    }

    fn vp(
        lp: &SvmLp,
        frame: Spa,
        role: Role,
        bitmaps: &SvmBitmaps,
        slat_root: Spa,
        _slat_levels: u32,
    ) -> Result<SvmVp, Status> {
        Ok(SvmVp::new(lp, frame, role, bitmaps, slat_root))
    }

    fn missing() -> Missing {
        Missing::default()
    }

    fn second_level() -> SecondLevel {
        // NPT has what the processor's own tables have.
        let has_gib_leaves = insn::cpuid(0x8000_0001, 0).edx & 1 << 26 != 0;
        SecondLevel {
            format: Format::Npt,
            max_leaf: if has_gib_leaves {
                PageSize::Size1G
            } else {
                PageSize::Size2M
            },
            has_marks: true,
        }
    }
}
