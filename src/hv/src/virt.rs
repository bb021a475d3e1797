//! What the rest of the hypervisor asks of a virtualization extension beside [`VpBackend`].
//!
//! One `match` at start-up picks the implementor; every build holds both.

use addr::Spa;
use bootinfo::Status;
use paging::Format;
use vpcore::cpuid::Missing;
use vpcore::seam::{FrameSource, InterceptBitmaps, VpBackend};

use crate::arch::x86::{insn, svm, vmx};

/// A virtualization extension.
pub trait Virt: 'static {
    /// One VP.
    type Vp: VpBackend;
    /// Intercept bitmaps of a partition.
    type Bitmaps: InterceptBitmaps + Send + Sync;
    /// Entries of second-level tables.
    type Format: Format + Send;

    /// The instruction that makes a hypercall.
    const HYPERCALL: [u8; 3];
    /// Second-level entries decide the memory type, instead of the MTRRs.
    const SLAT_HOLDS_MEMORY_TYPES: bool;

    /// Whether this LP can run guests. Changes nothing.
    fn check() -> Result<(), Status>;
    /// Bitmaps with every port passing and every MSR access exiting.
    fn bitmaps(frames: &mut dyn FrameSource) -> Result<Self::Bitmaps, Status>;
    /// Switches the extension on for this LP and makes a VP. On an error the LP is as it was.
    fn vp(
        frames: &mut dyn FrameSource,
        bitmaps: &Self::Bitmaps,
        slat_root: Spa,
        slat_levels: u32,
        tag: u16,
    ) -> Result<Self::Vp, Status>;
    /// Features of this LP that a guest cannot have.
    fn missing() -> Missing;
    /// Whether second-level tables may have 1 GiB leaves.
    fn has_gib_leaves() -> bool;
}

/// AMD-V.
#[derive(Debug)]
pub enum Svm {}

/// VT-x.
#[derive(Debug)]
pub enum Vmx {}

impl Virt for Svm {
    type Vp = svm::SvmVp;
    type Bitmaps = svm::SvmBitmaps;
    type Format = paging::Npt;

    const HYPERCALL: [u8; 3] = [0x0F, 0x01, 0xD9];
    const SLAT_HOLDS_MEMORY_TYPES: bool = false;

    fn check() -> Result<(), Status> {
        svm::check().map(|_| ())
    }

    fn bitmaps(frames: &mut dyn FrameSource) -> Result<Self::Bitmaps, Status> {
        svm::SvmBitmaps::new(frames)
    }

    fn vp(
        frames: &mut dyn FrameSource,
        bitmaps: &Self::Bitmaps,
        slat_root: Spa,
        _slat_levels: u32,
        tag: u16,
    ) -> Result<Self::Vp, Status> {
        let enabled = svm::enable(frames)?;
        svm::SvmVp::new(
            enabled,
            frames,
            &svm::Shared {
                bitmaps,
                slat_root,
                tag,
            },
        )
    }

    fn missing() -> Missing {
        Missing::default()
    }

    fn has_gib_leaves() -> bool {
        // NPT has what the processor's own tables have.
        insn::cpuid(0x8000_0001, 0).edx & 1 << 26 != 0
    }
}

impl Virt for Vmx {
    type Vp = vmx::VmxVp;
    type Bitmaps = vmx::VmxBitmaps;
    type Format = paging::Ept;

    const HYPERCALL: [u8; 3] = [0x0F, 0x01, 0xC1];
    const SLAT_HOLDS_MEMORY_TYPES: bool = true;

    fn check() -> Result<(), Status> {
        vmx::check()
    }

    fn bitmaps(frames: &mut dyn FrameSource) -> Result<Self::Bitmaps, Status> {
        vmx::VmxBitmaps::new(frames)
    }

    fn vp(
        frames: &mut dyn FrameSource,
        bitmaps: &Self::Bitmaps,
        slat_root: Spa,
        slat_levels: u32,
        tag: u16,
    ) -> Result<Self::Vp, Status> {
        let enabled = vmx::enable(frames)?;
        vmx::VmxVp::new(
            enabled,
            frames,
            &vmx::Shared {
                bitmaps,
                slat_root,
                slat_levels,
                tag,
            },
        )
    }

    fn missing() -> Missing {
        vmx::capabilities().map_or(Missing::default(), |capabilities| capabilities.missing())
    }

    fn has_gib_leaves() -> bool {
        vmx::capabilities().is_ok_and(|capabilities| capabilities.has_1_gib_pages())
    }
}

/// The vendor by CPUID leaf 0.
pub fn is_intel() -> bool {
    insn::cpuid(0, 0).ebx == u32::from_le_bytes(*b"Genu")
}
