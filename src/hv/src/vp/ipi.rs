//! Messages between the parent's processors. None of them is sent by hardware: the sender moves the target's
//! state, then interrupts its LP.

use core::sync::atomic::Ordering;

use apic::{Destination, Ipi, IpiKind};

use super::Vp;
use crate::arch::x86::local_apic::own_vector;
use crate::diagnostics::Counter;
use crate::partition::VpShared;
use crate::virt::Virt;

impl<V: Virt> Vp<V> {
    /// Delivers `ipi` to every VP it names.
    pub(super) fn send_ipi(&mut self, ipi: &Ipi) {
        self.counters.add(Counter::ApicIpi);
        if let IpiKind::LowestPriority(vector) = ipi.kind {
            // Any of them is right; one that accepts interrupts is needed.
            let mut targets = self.partition.vps.iter().filter(|vp| vp.inbox.matches(ipi));
            let target = targets
                .clone()
                .find(|vp| vp.inbox.is_accepting())
                .or_else(|| targets.next());
            if let Some(vp) = target
                && vp.inbox.post(vector)
            {
                self.call(vp);
            }
            return;
        }
        if ipi.destination == Destination::SelfOnly {
            self.post(self.shared, ipi.kind);
            return;
        }
        let mut is_found = false;
        for vp in self.partition.vps.iter().filter(|vp| vp.inbox.matches(ipi)) {
            is_found = true;
            self.post(vp, ipi.kind);
        }
        if !is_found && matches!(ipi.kind, IpiKind::Init | IpiKind::Sipi(_)) {
            self.note(format_args!(
                "INIT or SIPI to a processor that is not there: {:?}",
                ipi.destination
            ));
        }
    }

    fn post(&mut self, vp: &'static VpShared, kind: IpiKind) {
        let is_new = match kind {
            IpiKind::Fixed(vector) | IpiKind::LowestPriority(vector) => vp.inbox.post(vector),
            IpiKind::Nmi => vp.inbox.post_nmi(),
            IpiKind::Init => vp.inbox.post_init(),
            IpiKind::Sipi(vector) => vp.inbox.post_sipi(vector),
            // There is no SMM in a partition; the 8259 cannot be addressed so.
            IpiKind::InitDeassert | IpiKind::Smi | IpiKind::ExtInt => false,
        };
        if is_new {
            self.call(vp);
        }
    }

    /// Makes the LP of `vp` look at its inbox before it runs the VP again.
    pub(super) fn call(&mut self, vp: &VpShared) {
        vp.lp.attention.store(true, Ordering::SeqCst);
        if vp.lp.apic_id != self.lp.apic_id && vp.lp.in_guest.load(Ordering::SeqCst) {
            self.local.send(vp.lp.apic_id, own_vector::KICK);
        }
    }
}
