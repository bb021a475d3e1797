//! Accesses to the virtual local APIC: by MSR, by its page, by CR8.

use addr::Gpa;
use apic::Effect;

use super::role::ApicChange;
use super::{AnyVp, Role};
use crate::diagnostics::Counter;

impl<R: Role> AnyVp<R> {
    /// Whether `gpa` lies in the APIC's page, where one is.
    pub(super) fn is_apic_page(&self, gpa: Gpa) -> bool {
        gpa.page() == self.apic.page().page()
    }

    /// Carries out what a register write asks for.
    pub(super) fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::None | Effect::Timer => {}
            Effect::EoiWithoutService => self.counters.add(Counter::ApicEoi),
            Effect::Eoi { vector, level } => {
                self.counters.add(Counter::ApicEoi);
                R::after_eoi(self, Some(vector), level);
                if self.synic_waits() {
                    self.serve_synic();
                }
            }
            Effect::Ipi(ipi) => self.send_ipi(&ipi),
            Effect::Lvt(entry, value) => R::apic_changed(self, ApicChange::Lvt(entry, value)),
            Effect::LogicalId => {
                self.apic.publish(&self.shared.inbox);
                R::apic_changed(self, ApicChange::Addressing);
            }
            Effect::SoftwareEnabled | Effect::SoftwareDisabled => {
                self.apic.publish(&self.shared.inbox);
                R::apic_changed(self, ApicChange::Addressing);
                // What arrived while it was off was dropped and is asked for anew; what was in service is not
                // going to be ended by a disabled APIC.
                R::after_eoi(self, None, true);
            }
        }
    }
}
