//! Physical interrupts: to the hypervisor, or on to the parent with the vector they came with.

use core::sync::atomic::Ordering;

use apic::{Acceptance, Lvt, Mode, Trigger};
use vpcore::seam::Event;
use x86::vector;

use super::ParentVp;
use crate::arch::x86::local_apic::{own_vector, register};
use crate::diagnostics::Counter;

impl ParentVp {
    /// An interrupt with `vector` was accepted by this LP's APIC, or came from the 8259. True when the parent has to see
    /// it. The VP need not be loaded.
    pub fn physical_interrupt(&mut self, vector: u8) -> bool {
        let is_own = vector >= own_vector::FIRST;
        match vector {
            own_vector::SPURIOUS => {}
            own_vector::TIMER => {
                self.lp.local.end(vector);
                // It may have come early, where the count could not reach the deadline: arm again.
                self.lp.forget_timer();
                self.counters.add(Counter::Timer);
            }
            own_vector::KICK => {
                self.lp.local.end(vector);
                self.counters.add(Counter::Kick);
            }
            own_vector::THERMAL => self.local_source(vector, Lvt::Thermal),
            own_vector::PERFORMANCE => self.local_source(vector, Lvt::Perf),
            own_vector::CMCI => self.local_source(vector, Lvt::Cmci),
            own_vector::ERROR => {
                self.lp.local.write(register::ESR, 0);
                let errors = self.lp.local.read(register::ESR);
                self.lp.local.end(vector);
                self.counters.add(Counter::Unexpected);
                // Not of the guest's doing, and maybe while another VP is loaded.
                if let Some(last) = self.take_line() {
                    let lp = self.lp.index.get();
                    log::warn!("lp{lp}: local APIC error {errors:#x}{last}");
                }
            }
            _ if vector >= own_vector::FIRST => {
                self.lp.local.end(vector);
                self.counters.add(Counter::Unexpected);
            }
            _ => self.device_interrupt(vector),
        }
        !is_own
            || matches!(
                vector,
                own_vector::THERMAL | own_vector::PERFORMANCE | own_vector::CMCI
            )
    }

    fn local_source(&mut self, vector: u8, entry: Lvt) {
        self.lp.local.end(vector);
        self.apic.lvt_event(entry);
    }

    /// An interrupt of a device of the parent. Without an in-service bit it came from the 8259, which keeps its own
    /// books; with one, the physical trigger mode says whether the line waits for the parent's EOI.
    fn device_interrupt(&mut self, vector: u8) {
        if !self.lp.local.bit(register::ISR, vector) {
            self.counters.add(Counter::DeviceExtint);
            self.apic.accept_extint(vector);
        } else if self.lp.local.bit(register::TMR, vector) {
            self.counters.add(Counter::DeviceLevel);
            self.role.open_levels.push(vector);
            // Where the virtual APIC is off the interrupt stays in service, until INIT or enabling retires it.
            if self.apic.accept(vector, Trigger::Level) == Acceptance::Merged {
                // Cannot happen while it is in service here; harmless if it does.
                self.counters.add(Counter::Unexpected);
            }
        } else {
            self.counters.add(Counter::DeviceEdge);
            self.lp.local.eoi();
            // Lost where the virtual APIC is off, as on hardware.
            let _ = self.apic.accept(vector, Trigger::Edge);
        }
    }

    /// Ends in the physical APIC what may be ended now.
    pub(super) fn retire_levels(&mut self) {
        for _ in 0..self.role.open_levels.retire() {
            self.lp.local.eoi();
        }
    }

    /// NMIs and machine checks that reached the hypervisor between two runs are the parent's.
    pub(super) fn pass_on_what_the_host_took(&mut self) {
        if self.lp.nmi_taken.load(Ordering::Relaxed) {
            self.lp.nmi_taken.store(false, Ordering::Relaxed);
            self.apic.accept_nmi();
        }
        if self.lp.machine_check_taken.load(Ordering::Relaxed) {
            self.lp.machine_check_taken.store(false, Ordering::Relaxed);
            self.raised = Some(Event::Exception {
                vector: vector::MC,
                error_code: None,
            });
        }
    }

    /// Copies to the physical APIC what steers the interrupts of the parent's devices.
    pub(super) fn mirror_apic(&mut self) {
        if self.apic.mode() == Mode::Disabled {
            // The pins are then INTR and NMI of the processor.
            self.lp.local.mirror(register::LVT_LINT0, 0b111 << 8);
            self.lp.local.mirror(register::LVT_LINT1, 0b100 << 8);
            return;
        }
        for (offset, entry) in [
            (register::LVT_LINT0, Lvt::Lint0),
            (register::LVT_LINT1, Lvt::Lint1),
        ] {
            self.lp.local.mirror(offset, self.apic.lvt(entry));
        }
        self.lp
            .local
            .mirror(register::DFR, self.apic.destination_format());
        self.lp
            .local
            .mirror(register::LDR, self.apic.logical_destination());
    }
}
