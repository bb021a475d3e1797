//! The registers of an APIC as one record: taking over a physical APIC, and saving a virtual one.

use addr::ApicId;

use crate::base::Mode;
use crate::lvt::{self, Lvt};
use crate::registers::{SVR_WRITABLE, esr, icr};
use crate::scale::Timing;
use crate::state::{Apic, Features};
use crate::timer::TimerMode;
use crate::vectors::VectorSet;

/// Every register of an APIC, as a guest would read it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// APIC ID; in xAPIC mode bits 31:24 of the register, moved down.
    pub id: ApicId,
    /// IA32_APIC_BASE, which also holds the mode.
    pub apic_base: u64,
    /// Task priority.
    pub tpr: u8,
    /// LDR of xAPIC mode; ignored in x2APIC mode, where it follows from the ID.
    pub ldr: u32,
    /// DFR; not readable in x2APIC mode, where all ones should stand here.
    pub dfr: u32,
    /// Spurious-interrupt vector register.
    pub svr: u32,
    /// ESR as it reads without being written first.
    pub esr: u32,
    /// ICR: the high half is ICR bits 63:32 of the mode's own layout.
    pub icr: u64,
    /// LVT, corrected machine check; ignored when there is none.
    pub lvt_cmci: u32,
    /// LVT, timer.
    pub lvt_timer: u32,
    /// LVT, thermal monitor.
    pub lvt_thermal: u32,
    /// LVT, performance counters.
    pub lvt_perf: u32,
    /// LVT, LINT0.
    pub lvt_lint0: u32,
    /// LVT, LINT1.
    pub lvt_lint1: u32,
    /// LVT, error.
    pub lvt_error: u32,
    /// Divide configuration.
    pub divide: u32,
    /// Initial count of the timer.
    pub initial_count: u32,
    /// Current count of the timer.
    pub current_count: u32,
    /// IA32_TSC_DEADLINE, or 0.
    pub tsc_deadline: u64,
    /// Interrupts pending. Leave out those that the physical APIC still holds and will deliver itself.
    pub irr: [u32; 8],
    /// Interrupts in service: the guest will EOI them.
    pub isr: [u32; 8],
    /// Trigger modes.
    pub tmr: [u32; 8],
}

impl Apic {
    /// An APIC that goes on from `snapshot`, taken at host TSC `now`.
    ///
    /// Bits that this APIC has not are dropped. `None` when IA32_APIC_BASE names no mode, or x2APIC
    /// mode without the feature.
    pub fn from_snapshot(
        snapshot: &Snapshot,
        features: Features,
        timing: Timing,
        now: u64,
    ) -> Option<Self> {
        let mut apic = Self::new(snapshot.id, false, features, timing);
        let mode = Mode::from_base(snapshot.apic_base)?;
        if mode == Mode::X2Apic && !features.x2apic {
            return None;
        }
        apic.base = snapshot.apic_base;
        apic.mode = mode;
        apic.svr = snapshot.svr & SVR_WRITABLE;
        apic.update_enabled();
        if mode != Mode::X2Apic {
            apic.ldr = snapshot.ldr & 0xFF00_0000;
            apic.write_dfr(snapshot.dfr);
        }
        apic.esr = snapshot.esr & esr::DEFINED;
        let high = if mode == Mode::X2Apic {
            !0xFFFF_FFFF
        } else {
            icr::XAPIC_DESTINATION
        };
        apic.icr = snapshot.icr & (high | icr::WRITABLE_LOW);

        for entry in Lvt::ALL {
            if entry == Lvt::Cmci && !features.cmci {
                continue;
            }
            let _ = apic.write_lvt(entry, snapshot.lvt(entry));
        }
        apic.timer.set_divide(snapshot.divide);
        apic.timer
            .set_mode(TimerMode::from_lvt(apic.lvt(Lvt::Timer)));
        apic.timer
            .resume(snapshot.initial_count, snapshot.current_count, now);
        apic.timer.write_deadline(snapshot.tsc_deadline, now);

        apic.irr = VectorSet::from_registers(snapshot.irr).without_reserved();
        apic.isr = VectorSet::from_registers(snapshot.isr).without_reserved();
        apic.tmr = VectorSet::from_registers(snapshot.tmr).without_reserved();
        apic.highest_irr = apic.irr.highest().unwrap_or(0);
        apic.highest_isr = apic.isr.highest().unwrap_or(0);
        apic.set_tpr(snapshot.tpr);
        Some(apic)
    }

    /// The registers at host TSC `now`. NMI and 8259 interrupts that wait are not among them.
    pub fn snapshot(&mut self, now: u64) -> Snapshot {
        self.timer_tick(now);
        Snapshot {
            id: self.id,
            apic_base: self.base,
            tpr: self.tpr,
            ldr: self.logical_destination(),
            dfr: self.dfr,
            svr: self.svr,
            esr: self.esr,
            icr: self.icr,
            lvt_cmci: self.lvt(Lvt::Cmci),
            lvt_timer: self.lvt(Lvt::Timer),
            lvt_thermal: self.lvt(Lvt::Thermal),
            lvt_perf: self.lvt(Lvt::Perf),
            lvt_lint0: self.lvt(Lvt::Lint0),
            lvt_lint1: self.lvt(Lvt::Lint1),
            lvt_error: self.lvt(Lvt::Error),
            divide: self.timer.divide(),
            initial_count: self.timer.initial(),
            current_count: self.timer.current(now),
            tsc_deadline: self.timer.guest_deadline(),
            irr: self.irr.registers(),
            isr: self.isr.registers(),
            tmr: self.tmr.registers(),
        }
    }
}

impl Snapshot {
    const fn lvt(&self, entry: Lvt) -> u32 {
        match entry {
            Lvt::Cmci => self.lvt_cmci,
            Lvt::Timer => self.lvt_timer,
            Lvt::Thermal => self.lvt_thermal,
            Lvt::Perf => self.lvt_perf,
            Lvt::Lint0 => self.lvt_lint0,
            Lvt::Lint1 => self.lvt_lint1,
            Lvt::Error => self.lvt_error,
        }
    }

    /// A record of the reset state has masked LVT entries; all zeros would be unmasked ones.
    pub const fn reset(id: ApicId) -> Self {
        Self {
            id,
            apic_base: x86::msr::apic_base::DEFAULT_ADDRESS | x86::msr::apic_base::ENABLE,
            tpr: 0,
            ldr: 0,
            dfr: u32::MAX,
            svr: crate::registers::SVR_RESET,
            esr: 0,
            icr: 0,
            lvt_cmci: lvt::MASKED,
            lvt_timer: lvt::MASKED,
            lvt_thermal: lvt::MASKED,
            lvt_perf: lvt::MASKED,
            lvt_lint0: lvt::MASKED,
            lvt_lint1: lvt::MASKED,
            lvt_error: lvt::MASKED,
            divide: 0,
            initial_count: 0,
            current_count: 0,
            tsc_deadline: 0,
            irr: [0; 8],
            isr: [0; 8],
            tmr: [0; 8],
        }
    }
}
