//! Interrupts from one processor of a partition to another. None of them is sent by hardware: the sender moves the target's
//! state, then interrupts its LP.

use apic::{Destination, Ipi, IpiKind};

use super::{AnyVp, Role};
use crate::diagnostics::Counter;
use crate::partition::{Partition, VpShared};

impl<R: Role> AnyVp<R> {
    /// Delivers `ipi` to every VP it names.
    pub(super) fn send_ipi(&mut self, ipi: &Ipi) {
        self.counters.add(Counter::ApicIpi);
        if let IpiKind::LowestPriority(vector) = ipi.kind {
            // Any of them is right; one that accepts interrupts is needed.
            let mut targets = self
                .partition
                .core()
                .vps
                .iter()
                .filter(|vp| vp.inbox.matches(ipi));
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
        for vp in self
            .partition
            .core()
            .vps
            .iter()
            .filter(|vp| vp.inbox.matches(ipi))
        {
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

    /// Makes `vp` look at what was left for it before it runs again, and run if it waits.
    pub(super) fn call(&self, vp: &'static VpShared) {
        vp.call(self.lp);
    }
}
