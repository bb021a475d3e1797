//! Making every LP forget second-level translations.
//!
//! The one that edits raises the generation, leaves a note for every LP and interrupts those that run a guest. An LP
//! looks at its note after it has announced itself in the guest, so either it sees the note, or the editor sees
//! it there and sends the interrupt. An LP that is in the hypervisor is not waited for: it flushes before it enters.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::arch::x86::local_apic::{LocalApic, own_vector};
use crate::arch::x86::lp::{self, LpArea};

static GENERATION: AtomicU64 = AtomicU64::new(0);

/// Returns when no LP can use a translation that was in the tables before the call. The LP that calls must flush
/// its own VP itself.
///
/// Waits only for LPs that run guest code, and each of those has an interrupt pending that makes it stop.
pub fn all_others(me: &LpArea, apic: &LocalApic) {
    let generation = GENERATION.fetch_add(1, Ordering::SeqCst) + 1;
    let others = || lp::all().iter().filter(|lp| lp.apic_id != me.apic_id);
    for other in others() {
        other.attention.store(true, Ordering::SeqCst);
        if other.in_guest.load(Ordering::SeqCst) {
            apic.send(other.apic_id, own_vector::KICK);
        }
    }
    for other in others() {
        while other.in_guest.load(Ordering::SeqCst)
            && other.flushed.load(Ordering::SeqCst) < generation
        {
            crate::panic::stop_if_asked();
            core::hint::spin_loop();
        }
    }
    me.shared.flushed.fetch_max(generation, Ordering::SeqCst);
}

/// On the LP's own way into the guest: whether its VP must flush now.
pub fn is_due(me: &LpArea) -> bool {
    let generation = GENERATION.load(Ordering::SeqCst);
    if me.shared.flushed.load(Ordering::Relaxed) >= generation {
        return false;
    }
    me.shared.flushed.store(generation, Ordering::SeqCst);
    true
}
