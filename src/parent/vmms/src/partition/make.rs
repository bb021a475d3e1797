//! Making one.

use addr::PartitionId;
use child_layout::{GRANULE, SizeError, layout};
use slot_proto::Generation;
use tlfs::HvError;
use tlfs::call::{PARTITION_SELF, StatePageType};
use tlfs::property::{PropertyCode, SyntheticFeatures};
use worker_link::{pages, stop_point};

use super::address;
use crate::control::{Calls, ControlError};

/// How often memory is given before something must be wrong.
const FEEDS_MAX: usize = 64;

/// What a partition is made of.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// The daemon's number for it.
    pub tag: u64,
    /// VPs.
    pub vps: u32,
    /// RAM in bytes.
    pub memory_bytes: u64,
    /// First frame of each large page of its RAM.
    pub ram: &'a [u64],
    /// First frame of the pages that hypervisor and worker share; those after it follow.
    pub pages: u64,
    /// The slot that it gets.
    pub slot: u32,
}

/// Where frames for a pool come from. They are pinned, and known to the holder, before they are handed out.
pub trait Supply {
    /// Some more frames.
    ///
    /// # Errors
    /// Why there are none, and what helps.
    fn more(&mut self) -> Result<Vec<u64>, String>;
}

/// Why a partition was not made. What was made of it is still there.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// The hypervisor refused something.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// There is no memory for the hypervisor's own needs.
    #[error("memory for the hypervisor's tables: {0}")]
    Supply(String),
    /// It asks for more and more.
    #[error("{0}: the hypervisor asks for more memory than that can need")]
    Hungry(&'static str),
    /// The size of the memory.
    #[error(transparent)]
    Size(#[from] SizeError),
}

impl Plan<'_> {
    /// Frames of the pool that the VMBus server may use: its own, a queue of messages, and what the rings of one SCSI
    /// controller with a channel for each VP take.
    pub const fn vmbus_quota(&self) -> u64 {
        32 + 2 * self.vps as u64
    }

    /// Frames that the hypervisor will want, about.
    pub const fn pool_frames(&self) -> u64 {
        64 + self.vmbus_quota() + 16 * self.vps as u64 + self.memory_bytes.div_ceil(1 << 30)
    }
}

/// Makes the partition of `plan` and attaches its slot, all VPs suspended. `own` is for the parent's pool, `pool` for the
/// child's. A partition that was not made completely is found by its tag, or by having none.
///
/// # Errors
/// [`MakeError`].
pub fn make(
    calls: &Calls,
    plan: &Plan<'_>,
    own: &mut dyn Supply,
    pool: &mut dyn Supply,
) -> Result<(PartitionId, Generation), MakeError> {
    let regions = layout(plan.memory_bytes)?;
    let partition = feed("creating a partition", calls, PARTITION_SELF, own, || {
        calls.create()
    })?;
    stop_point("vmms:created");
    if let Err(error) = calls.tag(partition, plan.tag) {
        // Nobody would find it before the daemon's next start.
        let _ = super::unmake(calls, partition);
        return Err(error.into());
    }
    let mut given = 0;
    while given < plan.pool_frames() {
        given += deposit_more(calls, partition, pool)?;
    }
    let mut feed_child =
        |what: &'static str, call: &mut dyn FnMut() -> Result<(), ControlError>| {
            feed(what, calls, partition, pool, call)
        };
    calls.set_property(
        partition,
        PropertyCode::SYNTHETIC_FEATURES,
        SyntheticFeatures::ASSIGNABLE.bits(),
    )?;
    calls.set_property(partition, PropertyCode::VMBUS, plan.vmbus_quota())?;
    feed_child("initializing the partition", &mut || {
        calls.initialize(partition)
    })?;
    // A kernel that tries an MSR we do not have goes on, as with other VMMs.
    calls.set_property(partition, PropertyCode::UNIMPLEMENTED_MSR_ACTION, 1)?;
    for region in &regions {
        let frames = part(plan.ram, region.offset, region.bytes);
        let mut done = 0;
        feed_child("mapping the child's memory", &mut || {
            while done < frames.len() {
                let gpa = addr::Gpa::new(region.gpa.get() + done as u64 * GRANULE);
                let rest = frames.get(done..).unwrap_or_default();
                let (mapped, result) = calls.map_ram(partition, gpa, rest)?;
                done += mapped;
                stop_point("vmms:mapped");
                result?;
            }
            Ok(())
        })?;
    }
    for vp in 0..plan.vps {
        feed_child("creating a VP", &mut || calls.create_vp(partition, vp))?;
        for (kind, offset) in [
            (StatePageType::Intercept, pages::intercept_page(vp)),
            (StatePageType::Registers, pages::register_page(vp)),
        ] {
            let page = page(plan, offset.unwrap_or_default());
            feed_child("mapping a VP's state page", &mut || {
                calls.map_state_page(partition, vp, kind, page)
            })?;
        }
    }
    let (events, signals) = (
        page(plan, pages::EVENT_AREA),
        page(plan, pages::SIGNAL_PAGE),
    );
    let generation = calls.attach(partition, plan.slot, events, signals)?;
    stop_point("vmms:attached");
    Ok((partition, generation))
}

/// Makes `call` until it does not ask for memory.
fn feed<T>(
    what: &'static str,
    calls: &Calls,
    pool_of: PartitionId,
    supply: &mut dyn Supply,
    mut call: impl FnMut() -> Result<T, ControlError>,
) -> Result<T, MakeError> {
    for _ in 0..FEEDS_MAX {
        match call() {
            Err(error) if error.status() == Some(HvError::INSUFFICIENT_MEMORY) => {
                deposit_more(calls, pool_of, supply)?;
            }
            other => return Ok(other?),
        }
    }
    Err(MakeError::Hungry(what))
}

/// Gives the pool of a partition what its supply has at a time: how many frames.
///
/// # Errors
/// [`MakeError`].
pub fn deposit_more(
    calls: &Calls,
    partition: PartitionId,
    supply: &mut dyn Supply,
) -> Result<u64, MakeError> {
    let frames = supply.more().map_err(MakeError::Supply)?;
    calls.deposit(partition, &frames)?;
    Ok(frames.len() as u64)
}

/// The large pages of `frames` that lie at `offset` in the memory file.
fn part(frames: &[u64], offset: u64, bytes: u64) -> &[u64] {
    let first = (offset / GRANULE) as usize;
    frames
        .get(first..first + (bytes / GRANULE) as usize)
        .unwrap_or_default()
}

fn page(plan: &Plan<'_>, offset: usize) -> addr::Gpa {
    address(plan.pages + offset as u64 / 4096)
}
