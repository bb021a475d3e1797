//! Pools: the parent's own and those of children.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use addr::PartitionId;
use machine::insn;
use tlfs::call::*;
use tlfs::{CallCode, HvError};

use super::Child;
use crate::arena::{self, FRAME};
use crate::client::call::{self, Reply};

/// Elements of one deposit at most.
const DEPOSIT_REPS: usize = 511;

/// The parts of a destruction that can go wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gone {
    /// Status of the finalization.
    pub finalize: u64,
    /// Status with which withdrawing ended.
    pub withdraw: u64,
    /// Frames that came back and had not been deposited, or had come back before.
    pub foreign: u64,
    /// Frames that did not come back.
    pub missing: u64,
    /// Frames that came back with content.
    pub dirty: u64,
    /// Status of the deletion.
    pub delete: u64,
}

impl Gone {
    /// What it should be.
    pub const CLEAN: Self = Self {
        finalize: 0,
        withdraw: HvError::NO_RESOURCES.0 as u64,
        foreign: 0,
        missing: 0,
        dirty: 0,
        delete: 0,
    };
}

static OWN: AtomicU64 = AtomicU64::new(0);

/// Frames that this program gave to its own pool.
pub fn own_frames() -> u64 {
    OWN.load(Ordering::SeqCst)
}

/// Makes `call` until it does not ask for memory, giving one frame at a time to the pool of the caller itself. Those
/// stay with the hypervisor for good.
pub fn with_own_pool<T>(mut call: impl FnMut() -> Result<T, HvError>) -> Result<T, HvError> {
    for _ in 0..1024 {
        match call() {
            Err(HvError::INSUFFICIENT_MEMORY) => {
                deposit_frames(PARTITION_SELF, &[arena::frame()]).status?;
                OWN.fetch_add(1, Ordering::SeqCst);
            }
            result => return result,
        }
    }
    Err(HvError::TIMEOUT)
}

/// One deposit of `frames` (addresses) to the pool of `id`.
pub fn deposit_frames(id: PartitionId, frames: &[u64]) -> Reply {
    let header = PartitionOnly { partition: id }.encode();
    rep_of_pages(CallCode::DEPOSIT_MEMORY, &header, frames)
}

/// A rep call whose list is page numbers of the caller.
pub fn rep_of_pages(code: CallCode, header: &[u8], frames: &[u64]) -> Reply {
    let list: Vec<u8> = frames
        .iter()
        .flat_map(|frame| (frame / FRAME).to_le_bytes())
        .collect();
    call::rep(code, header, &list, frames.len() as u16, &mut [])
}

/// One withdrawal of up to `count` frames from the pool of `id`: what came out.
pub fn withdraw_frames(id: PartitionId, count: u16) -> (Reply, Vec<u64>) {
    let header = Withdraw {
        partition: id,
        ..Withdraw::default()
    };
    let mut out = [0; 4096];
    let out = &mut out[..usize::from(count) * 8];
    let reply = call::rep(CallCode::WITHDRAW_MEMORY, &header.encode(), &[], count, out);
    let frames = out
        .chunks_exact(8)
        .take(usize::from(reply.done))
        .map(|page| u64::from_le_bytes(page.try_into().unwrap_or_default()) * FRAME)
        .collect();
    (reply, frames)
}

impl Child {
    /// Puts `count` new frames into the pool.
    pub fn deposit(&mut self, count: usize) -> Result<(), HvError> {
        let mut left = count;
        while left > 0 {
            let frames = arena::frames(left.min(DEPOSIT_REPS));
            let reply = deposit_frames(self.id, &frames);
            let (taken, rest) = frames.split_at(usize::from(reply.done).min(frames.len()));
            self.deposited.extend(taken);
            rest.iter().for_each(|frame| arena::free(*frame));
            reply.status?;
            left -= taken.len().max(1).min(left);
        }
        Ok(())
    }

    /// Makes `call` until it does not ask for memory, with one frame for the pool each time.
    pub fn feed<T>(
        &mut self,
        mut call: impl FnMut(&Self) -> Result<T, HvError>,
    ) -> Result<T, HvError> {
        for _ in 0..4096 {
            match call(self) {
                Err(HvError::INSUFFICIENT_MEMORY) => self.deposit(1)?,
                result => return result,
            }
        }
        Err(HvError::TIMEOUT)
    }

    /// Withdraws everything there is. Frames that are known come off the list and go back to the arena.
    pub fn withdraw_all(&mut self, gone: &mut Gone) {
        for _ in 0..4096 {
            let (reply, frames) = withdraw_frames(self.id, 512);
            for frame in &frames {
                if !self.deposited.remove(frame) {
                    gone.foreign += 1;
                    continue;
                }
                gone.dirty += u64::from(!looks_clean(*frame));
                arena::free(*frame);
            }
            gone.withdraw = reply.code();
            if reply.status.is_err() {
                break;
            }
        }
        gone.missing = self.deposited.len() as u64;
    }
}

/// A look at sixteen words of a frame, which is what every cycle can afford.
fn looks_clean(frame: u64) -> bool {
    (0..FRAME)
        .step_by(256)
        .all(|at| insn::read_phys64(frame + at) == 0)
}
