//! Which ports and MSRs of a partition exit: two I/O bitmaps and the MSR bitmap.
//!
//! Source: SDM vol. 3C, "I/O-Bitmap Addresses", "MSR-Bitmap Address".
#![expect(unsafe_code, reason = "owner of the bitmap frames")]

use addr::Spa;
use bootinfo::Status;
use vpcore::seam::{FrameSource, InterceptBitmaps};

use crate::mm::phys;
use crate::virt::Bitmaps;

/// First of the high MSRs that the bitmap covers.
const HIGH_MSRS: u32 = 0xC000_0000;
/// MSRs in each of the two ranges.
const MSRS: u32 = 0x2000;
/// Byte offset, in the MSR bitmap, of the quarter for the high MSRs.
const HIGH: usize = 0x400;
/// Byte offset, in the MSR bitmap, of the half for writes.
const WRITES: usize = 0x800;
const FRAME: usize = 4096;

/// The bitmaps of one partition. The frames stay; processors read them while VPs run.
///
/// Two frames for ports, below and above 0x8000; one for MSRs.
#[derive(Debug)]
pub struct VmxBitmaps(pub(super) Bitmaps);

impl VmxBitmaps {
    /// Bitmaps of which every port passes and every MSR access exits.
    ///
    /// # Errors
    /// [`Status::NO_MEMORY`].
    pub fn new(frames: &mut dyn FrameSource) -> Result<Self, Status> {
        let io = frames.frames(2).ok_or(Status::NO_MEMORY)?;
        let msr = frames.frames(1).ok_or(Status::NO_MEMORY)?;
        // SAFETY: the frame is ours alone, and 4,096 bytes long.
        unsafe { phys::pointer(msr).write_bytes(0xFF, FRAME) };
        Ok(Self(Bitmaps { io, msr }))
    }

    /// Bitmap A, for ports below 0x8000; bitmap B is the next frame.
    pub(super) const fn io_a(&self) -> Spa {
        self.0.io
    }

    /// Bitmap B.
    pub(super) const fn io_b(&self) -> Spa {
        Spa::new(self.0.io.get() + FRAME as u64)
    }

    /// The MSR bitmap.
    pub(super) const fn msr(&self) -> Spa {
        self.0.msr
    }

    fn pass_msr(&mut self, msr: u32, half: usize) -> bool {
        let (quarter, index) = match msr {
            0..MSRS => (0, msr),
            HIGH_MSRS.. if msr - HIGH_MSRS < MSRS => (HIGH, msr - HIGH_MSRS),
            _ => return false,
        };
        // SAFETY: the offset is below 4,096: half <= 0x800, quarter <= 0x400, index / 8 < 0x400.
        let byte = unsafe { phys::pointer(self.0.msr).add(half + quarter + index as usize / 8) };
        // SAFETY: a byte of our own frame; volatile because processors read it too.
        let old = unsafe { byte.read_volatile() };
        // SAFETY: as above.
        unsafe { byte.write_volatile(old & !(1 << (index % 8))) };
        true
    }
}

impl InterceptBitmaps for VmxBitmaps {
    fn trap_port(&mut self, port: u16) {
        // SAFETY: a port number divided by 8 is below two frames.
        let byte = unsafe { phys::pointer(self.0.io).add(usize::from(port / 8)) };
        // SAFETY: a byte of our own frames; volatile because processors read it too.
        let old = unsafe { byte.read_volatile() };
        // SAFETY: as above.
        unsafe { byte.write_volatile(old | 1 << (port % 8)) };
    }

    fn trap_all_ports(&mut self) {
        // SAFETY: the two frames are ours; no VP uses them yet, or sees ports exit earlier or later.
        unsafe { phys::pointer(self.0.io).write_bytes(0xFF, 2 * FRAME) };
    }

    fn pass_msr_read(&mut self, msr: u32) -> bool {
        self.pass_msr(msr, 0)
    }

    fn pass_msr_write(&mut self, msr: u32) -> bool {
        self.pass_msr(msr, WRITES)
    }
}
