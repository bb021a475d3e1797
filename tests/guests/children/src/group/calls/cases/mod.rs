//! The calls, each with a block that is good and what makes it bad.

mod memory;
mod partitions;
mod ports;
mod state;
mod vps;

use alloc::vec::Vec;

use tlfs::HvError;

use super::case::Case;
use crate::child::guest::Guest;

const PARAMETER: HvError = HvError::INVALID_PARAMETER;

/// All cases, about `guest`; `frames` are free for what they map.
pub fn cases(guest: &Guest, frames: &[u64]) -> Vec<Case> {
    let mut cases = partitions::cases(guest);
    cases.extend(memory::cases(guest, frames));
    cases.extend(vps::cases(guest));
    cases.extend(state::cases(guest, frames));
    cases.extend(ports::cases(guest));
    cases
}
