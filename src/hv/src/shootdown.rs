//! Making every LP forget translations of a partition.
//!
//! The one that edits raises the partition's generation, leaves a note for each VP and interrupts those that run. A VP
//! looks at its note after it has been loaded and before its LP announces itself in the guest, so either it sees the
//! note, or the editor sees it there and sends the interrupt. A VP that is not in the guest is not waited for: it
//! flushes before it enters.

use core::sync::atomic::Ordering;

use crate::arch::x86::local_apic::own_vector;
use crate::arch::x86::lp::{self, LpArea, LpShared};
use crate::partition::{PartitionCore, VpShared};

/// Returns when no LP can use a second-level translation that was in the partition's tables before the call. A VP that
/// is loaded on the LP that calls must be flushed by the caller.
///
/// Waits only for LPs that run guest code, and each of those has an interrupt pending that makes it stop.
pub fn all_others(me: &LpArea, partition: &PartitionCore) {
    let generation = partition.generation.fetch_add(1, Ordering::SeqCst) + 1;
    let others = || {
        partition
            .vps
            .iter()
            .filter(|vp| !vp.is_loaded_on(me))
            .filter_map(|vp| Some((vp, vp.loaded_on()?)))
    };
    for vp in partition.vps.iter() {
        vp.attention.store(true, Ordering::SeqCst);
    }
    for (_, lp) in others() {
        nudge(me, lp);
    }
    for (vp, lp) in others() {
        while lp.in_guest.load(Ordering::SeqCst)
            && vp.loaded_on().is_some_and(|now| now.apic_id == lp.apic_id)
            && vp.flushed.load(Ordering::SeqCst) < generation
        {
            crate::panic::stop_if_asked();
            core::hint::spin_loop();
        }
    }
    for vp in partition.vps.iter().filter(|vp| vp.is_loaded_on(me)) {
        vp.flushed.fetch_max(generation, Ordering::SeqCst);
    }
}

/// On a VP's own way into the guest: whether it must flush now.
pub fn is_due(partition: &PartitionCore, vp: &VpShared) -> bool {
    let generation = partition.generation.load(Ordering::SeqCst);
    if vp.flushed.load(Ordering::Relaxed) >= generation {
        return false;
    }
    vp.flushed.store(generation, Ordering::SeqCst);
    true
}

/// Makes `target` look at what was left for it before it enters a guest again.
pub fn nudge(me: &LpArea, target: &LpShared) {
    target.attention.store(true, Ordering::SeqCst);
    if target.apic_id != me.apic_id && target.in_guest.load(Ordering::SeqCst) {
        me.local.send(target.apic_id, own_vector::KICK);
    }
}

/// The LP with index `index`.
pub fn lp(index: u32) -> Option<&'static LpShared> {
    lp::all().get(index as usize)
}
