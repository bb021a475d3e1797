//! Which ports and MSRs of a partition exit: the I/O and MSR permission maps.
//!
//! Source: AMD APM vol. 2 rev. 3.42, "IOIO Intercepts", "MSR Intercepts".
#![expect(unsafe_code, reason = "owner of the maps' frames")]

use bootinfo::Status;
use vpcore::seam::{FrameSource, InterceptBitmaps};

use crate::mm::phys;
use crate::virt::Bitmaps;

/// Frames of the I/O permission map, of which the last bits catch accesses that wrap.
const IO_FRAMES: usize = 3;
/// Frames of the MSR permission map.
const MSR_FRAMES: usize = 2;

/// The I/O and MSR permission maps of a partition.
#[derive(Debug)]
pub struct SvmBitmaps(pub(super) Bitmaps);

impl SvmBitmaps {
    /// Every port passes, every MSR access exits.
    pub fn new(frames: &mut dyn FrameSource) -> Result<Self, Status> {
        let io = frames.frames(IO_FRAMES).ok_or(Status::NO_MEMORY)?;
        let msr = frames.frames(MSR_FRAMES).ok_or(Status::NO_MEMORY)?;
        // SAFETY: the frames were just given to us alone.
        unsafe { phys::pointer(msr).write_bytes(0xFF, MSR_FRAMES * 4096) };
        Ok(Self(Bitmaps { io, msr }))
    }

    /// Clears bit `bit` of the MSR map: 0 for reads, 1 for writes. False where the map does not cover `msr`.
    fn pass(&mut self, msr: u32, bit: usize) -> bool {
        let base = match msr {
            0..=0x1FFF => 0,
            0xC000_0000..=0xC000_1FFF => 0x800,
            0xC001_0000..=0xC001_1FFF => 0x1000,
            _ => return false,
        };
        let index = (msr & 0x1FFF) as usize * 2 + bit;
        // SAFETY: `index / 8` is below 0x800, so the byte lies in our two frames.
        let byte = unsafe { phys::pointer(self.0.msr).add(base + index / 8) };
        // SAFETY: as above; the map is written before any VP uses it, or by the partition's owner alone.
        unsafe { *byte &= !(1 << (index % 8)) };
        true
    }
}

impl InterceptBitmaps for SvmBitmaps {
    fn trap_port(&mut self, port: u16) {
        // SAFETY: at most byte 8191 of three frames.
        let byte = unsafe { phys::pointer(self.0.io).add(usize::from(port) / 8) };
        // SAFETY: as above.
        unsafe { *byte |= 1 << (port % 8) };
    }

    fn trap_all_ports(&mut self) {
        // SAFETY: the three frames are ours.
        unsafe { phys::pointer(self.0.io).write_bytes(0xFF, IO_FRAMES * 4096) };
    }

    fn pass_msr_read(&mut self, msr: u32) -> bool {
        self.pass(msr, 0)
    }

    fn pass_msr_write(&mut self, msr: u32) -> bool {
        self.pass(msr, 1)
    }
}
