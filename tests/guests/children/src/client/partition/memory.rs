//! The memory of a child.

use alloc::vec::Vec;

use addr::Gpn;
use tlfs::call::*;
use tlfs::{CallCode, HvError};

use super::Child;
use super::rep_of_pages;
use crate::arena::{self, FRAME};
use crate::client::call::{self, Reply};

/// Reads, writes, and instruction fetches in both modes.
pub const RWX: MapFlags = MapFlags::READ
    .union(MapFlags::WRITE)
    .union(MapFlags::KERNEL_EXECUTE)
    .union(MapFlags::USER_EXECUTE);

/// Reads and instruction fetches.
pub const RX: MapFlags = MapFlags::READ
    .union(MapFlags::KERNEL_EXECUTE)
    .union(MapFlags::USER_EXECUTE);

/// Elements of one map call at most.
const MAP_REPS: usize = 509;
impl Child {
    /// One map call: `frames` one by one at `gpa`, in units of 2 MiB when `flags` say so. No deposits.
    pub fn map_once(&self, gpa: u64, frames: &[u64], flags: MapFlags) -> Reply {
        let header = MapGpaPages {
            partition: self.id,
            base: Gpn::new(gpa / FRAME),
            flags,
            ..MapGpaPages::default()
        };
        rep_of_pages(CallCode::MAP_GPA_PAGES, &header.encode(), frames)
    }

    /// Maps `frames` from `gpa` on, with deposits and in as many calls as needed.
    pub fn map(&mut self, gpa: u64, frames: &[u64], flags: MapFlags) -> Result<(), HvError> {
        let unit = if flags.contains(MapFlags::LARGE) {
            arena::CHUNK
        } else {
            FRAME
        };
        let mut done = 0;
        for _ in 0..4096 {
            let Some(rest) = frames.get(done..).filter(|rest| !rest.is_empty()) else {
                return Ok(());
            };
            let piece = &rest[..rest.len().min(MAP_REPS)];
            let reply = self.map_once(gpa + done as u64 * unit, piece, flags);
            done += usize::from(reply.done).min(piece.len());
            match reply.status {
                Err(HvError::INSUFFICIENT_MEMORY) => self.deposit(1)?,
                status => status?,
            }
        }
        Err(HvError::TIMEOUT)
    }

    /// Maps the `count` frames that begin at `spa` to `gpa` and up.
    pub fn map_range(
        &mut self,
        gpa: u64,
        spa: u64,
        count: u64,
        flags: MapFlags,
    ) -> Result<(), HvError> {
        let frames: Vec<u64> = (0..count).map(|n| spa + n * FRAME).collect();
        self.map(gpa, &frames, flags)
    }

    /// Declares `count` pages at `gpa` without access.
    pub fn map_no_access(&mut self, gpa: u64, count: usize) -> Result<(), HvError> {
        let frames: Vec<u64> = (0..count).map(|_| 0).collect();
        self.map(gpa, &frames, MapFlags::NO_ACCESS)
    }

    /// One unmap call of `count` units at `gpa`.
    pub fn unmap_once(&self, gpa: u64, count: u16, flags: UnmapFlags) -> Reply {
        let header = UnmapGpaPages {
            partition: self.id,
            base: Gpn::new(gpa / FRAME),
            flags,
            ..UnmapGpaPages::default()
        };
        call::rep(
            CallCode::UNMAP_GPA_PAGES,
            &header.encode(),
            &[],
            count,
            &mut [],
        )
    }

    /// Unmaps `count` pages at `gpa`, with deposits where a large leaf is split.
    pub fn unmap(&mut self, gpa: u64, count: u16) -> Result<(), HvError> {
        self.feed(|child| child.unmap_once(gpa, count, UnmapFlags::empty()).status)
    }
}
