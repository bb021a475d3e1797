//! Accesses to the virtual local APIC: by MSR, by its page, by CR8.

use addr::Gpa;
use apic::{BaseChange, Effect, EoiStack, Lvt, Mode};

use super::Vp;
use crate::arch::x86::insn;
use crate::arch::x86::local_apic::register;
use crate::diagnostics::Counter;
use crate::virt::Virt;

impl<V: Virt> Vp<V> {
    /// Whether `gpa` lies in the APIC's page, where one is.
    pub(super) fn is_apic_page(&self, gpa: Gpa) -> bool {
        gpa.page() == self.apic.page().page()
    }

    /// Reads four bytes of the APIC's page. Outside xAPIC mode there is nothing behind it.
    pub(super) fn read_apic_page(&mut self, offset: u16) -> u32 {
        if self.apic.mode() == Mode::XApic {
            self.apic.read(offset, insn::rdtsc())
        } else {
            u32::MAX
        }
    }

    /// Writes four bytes of the APIC's page.
    pub(super) fn write_apic_page(&mut self, offset: u16, value: u32) {
        if self.apic.mode() == Mode::XApic {
            let effect = self.apic.write(offset, value, insn::rdtsc());
            self.apply(effect);
        }
    }

    /// Carries out what a register write asks for.
    pub(super) fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::None | Effect::Timer => {}
            Effect::EoiWithoutService => self.counters.add(Counter::ApicEoi),
            Effect::Eoi { vector, .. } => {
                self.counters.add(Counter::ApicEoi);
                // Whatever the virtual TMR says: an IPI with the same vector may have cleared it.
                if self.open_levels.mark_ready(vector) {
                    self.retire_levels();
                }
                if self.synic_waits() {
                    self.serve_synic();
                }
            }
            Effect::Ipi(ipi) => self.send_ipi(&ipi),
            Effect::Lvt(Lvt::Lint0, value) => self.local.mirror(register::LVT_LINT0, value),
            Effect::Lvt(Lvt::Lint1, value) => self.local.mirror(register::LVT_LINT1, value),
            Effect::Lvt(..) => {}
            Effect::LogicalId => {
                self.apic.publish(&self.shared.inbox);
                self.mirror_apic();
            }
            Effect::SoftwareEnabled | Effect::SoftwareDisabled => {
                self.apic.publish(&self.shared.inbox);
                self.mirror_apic();
                // What arrived while it was off was dropped and is asked for anew; what was in service is not
                // going to be ended by a disabled APIC.
                self.open_levels.mark_all_ready();
                self.retire_levels();
            }
        }
    }

    /// WRMSR to IA32_APIC_BASE. The physical APIC follows the mode, but is never switched off or moved.
    pub(super) fn write_apic_base(&mut self, value: u64) -> bool {
        const ADDRESS: u64 = !0xFFF;
        if (value ^ self.apic.apic_base()) & ADDRESS != 0 {
            // All VPs share the hole in the second-level tables, and the physical APIC answers at the old address.
            self.note(format_args!(
                "moving the local APIC to {:#x} refused",
                value & ADDRESS
            ));
            return false;
        }
        let Ok(BaseChange { mode, .. }) = self.apic.write_apic_base(value) else {
            return false;
        };
        if let Some(mode) = mode {
            let enabled = mode == Mode::X2Apic;
            if mode != Mode::Disabled {
                if self.local.set_x2apic(enabled) {
                    // Passing through the disabled state emptied the physical APIC.
                    self.open_levels = EoiStack::new();
                }
                self.local.take();
                self.armed = None;
            } else {
                self.open_levels.mark_all_ready();
                self.retire_levels();
            }
            self.apic.publish(&self.shared.inbox);
            self.mirror_apic();
        }
        true
    }
}
