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
use vpcore::seam::{FrameSource, InterceptBitmaps, Lp, Role};

use super::insn;
use crate::virt::{Bitmaps, Facts, SecondLevel, Virt};

use bitmaps::SvmBitmaps;
pub use control::SvmVp;

/// AMD-V.
#[derive(Debug)]
pub enum Svm {}

impl Virt for Svm {
    type Vp = SvmVp;
    type On = caps::On;

    fn facts() -> Result<Facts, Status> {
        caps::check()?;
        // NPT has what the processor's own tables have.
        let has_gib_leaves = insn::cpuid(0x8000_0001, 0).edx & 1 << 26 != 0;
        Ok(Facts {
            hypercall: [0x0F, 0x01, 0xD9],
            missing: Missing::default(),
            second_level: SecondLevel {
                format: Format::Npt,
                max_leaf: if has_gib_leaves {
                    PageSize::Size1G
                } else {
                    PageSize::Size2M
                },
                has_marks: true,
            },
        })
    }

    fn enable(frames: &mut dyn FrameSource) -> Result<(Lp, caps::On), Status> {
        caps::enable(frames)
    }

    fn bitmaps(
        frames: &mut dyn FrameSource,
        choose: &mut dyn FnMut(&mut dyn InterceptBitmaps),
    ) -> Result<Bitmaps, Status> {
        let mut bitmaps = SvmBitmaps::new(frames)?;
        choose(&mut bitmaps);
        Ok(bitmaps.0)
    }

    fn vp(
        frame: Spa,
        role: Role,
        bitmaps: Bitmaps,
        slat_root: Spa,
        _slat_levels: u32,
    ) -> Result<SvmVp, Status> {
        Ok(SvmVp::new(caps::check()?, frame, role, bitmaps, slat_root))
    }
}
