//! Taking one apart.

use std::thread;
use std::time::Duration;

use addr::PartitionId;
use tlfs::HvError;
use worker_link::stop_point;

use crate::control::{Calls, ControlError};

/// How often, and after which time, a partition that is still in use is deleted again.
const DELETES: usize = 50;
const BETWEEN: Duration = Duration::from_millis(20);

/// Takes a partition apart, whatever state it is in, and answers the frames that came out of its pool. Its worker is
/// gone; its slot is detached here. Nothing of the parent's memory is in use by it afterwards.
///
/// # Errors
/// [`ControlError`]; it can be tried again.
pub fn unmake(calls: &Calls, partition: PartitionId) -> Result<Vec<u64>, ControlError> {
    let held = calls.list()?;
    let Some(held) = held.iter().find(|held| held.partition == partition) else {
        return Ok(Vec::new());
    };
    if let Some((slot, generation)) = held.slot {
        match calls.detach(slot, generation) {
            // Its session ended by itself in the meantime.
            Err(error) if error.status() == Some(HvError::INVALID_PARTITION_STATE) => {}
            other => other?,
        }
    }
    stop_point("vmms:detached");
    calls.finalize(partition)?;
    stop_point("vmms:finalized");
    let frames = withdraw_all(calls, partition)?;
    for _ in 1..DELETES {
        match calls.delete(partition) {
            Err(error) if error.status() == Some(HvError::OPERATION_DENIED) => {
                thread::sleep(BETWEEN);
            }
            other => return other.map(|()| frames),
        }
    }
    calls.delete(partition).map(|()| frames)
}

/// Takes all frames of a pool back.
///
/// # Errors
/// [`ControlError`].
pub fn withdraw_all(calls: &Calls, partition: PartitionId) -> Result<Vec<u64>, ControlError> {
    let mut frames = Vec::new();
    loop {
        let some = calls.withdraw(partition)?;
        if some.is_empty() {
            return Ok(frames);
        }
        stop_point("vmms:withdrawn");
        frames.extend(some);
    }
}
