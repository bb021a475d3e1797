//! The registers of a local APIC, and their values after reset and INIT.

use addr::ApicId;
use x86::msr::apic_base::{BSP, DEFAULT_ADDRESS, ENABLE};

use crate::base::Mode;
use crate::destination::Addressee;
use crate::icr::Ipi;
use crate::lvt::{self, Lvt};
use crate::registers::{DFR_ONES, SVR_ENABLE, SVR_RESET};
use crate::scale::Timing;
use crate::timer::{Timer, TimerMode};
use crate::vectors::VectorSet;

/// An access that the architecture answers with #GP(0). It changed nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GeneralProtection;

/// What a register write asks of the rest of the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Effect {
    /// Nothing. [`Apic::pending`] may still have changed.
    None,
    /// The guest finished `vector`, accepted as level or not.
    Eoi {
        /// The vector that left ISR.
        vector: u8,
        /// Its TMR bit.
        level: bool,
    },
    /// An EOI with nothing in service.
    EoiWithoutService,
    /// Send this.
    Ipi(Ipi),
    /// [`Apic::timer_deadline`] may be another now.
    Timer,
    /// An LVT entry other than the timer's has this value now.
    Lvt(Lvt, u32),
    /// LDR or DFR changed: publish.
    LogicalId,
    /// SVR disabled the APIC: all LVT entries are masked now, the timer's too. Publish.
    SoftwareDisabled,
    /// SVR enabled the APIC: publish.
    SoftwareEnabled,
}

/// What this APIC has; CPUID must tell the guest the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Features {
    /// x2APIC mode can be entered.
    pub x2apic: bool,
    /// The timer has TSC-deadline mode, and IA32_TSC_DEADLINE exists.
    pub tsc_deadline: bool,
    /// The LVT entry for corrected machine checks exists.
    pub cmci: bool,
    /// Width of a guest physical address in bits, at most 52.
    pub physical_bits: u8,
}

/// The local APIC of one VP.
#[derive(Clone, Debug)]
pub struct Apic {
    pub(crate) id: ApicId,
    pub(crate) features: Features,
    pub(crate) base: u64,
    pub(crate) mode: Mode,
    /// Enabled by IA32_APIC_BASE and SVR both; follows them by `update_enabled`.
    pub(crate) enabled: bool,
    pub(crate) tpr: u8,
    /// Follows `tpr` and `highest_isr` by `update_ppr`.
    pub(crate) ppr: u8,
    /// The highest vector of `irr`; 0 for none.
    pub(crate) highest_irr: u8,
    /// The highest vector of `isr`; 0 for none.
    pub(crate) highest_isr: u8,
    pub(crate) nmi: bool,
    pub(crate) irr: VectorSet,
    pub(crate) isr: VectorSet,
    pub(crate) tmr: VectorSet,
    /// Vectors that the 8259 answered and that were not injected yet.
    pub(crate) extint: VectorSet,
    /// LDR of xAPIC mode; that of x2APIC mode is derived.
    pub(crate) ldr: u32,
    pub(crate) dfr: u32,
    pub(crate) svr: u32,
    /// ESR as it reads.
    pub(crate) esr: u32,
    /// Errors since ESR was last written.
    pub(crate) errors: u32,
    /// ICR as the guest wrote it, in the layout of the current mode.
    pub(crate) icr: u64,
    pub(crate) lvt: [u32; lvt::ENTRIES],
    pub(crate) timer: Timer,
}

impl Apic {
    /// The state after power-up: xAPIC mode at the default address, disabled by SVR.
    pub fn new(id: ApicId, is_bsp: bool, features: Features, timing: Timing) -> Self {
        Self {
            id,
            features,
            base: DEFAULT_ADDRESS | ENABLE | if is_bsp { BSP } else { 0 },
            mode: Mode::XApic,
            enabled: false,
            tpr: 0,
            ppr: 0,
            highest_irr: 0,
            highest_isr: 0,
            nmi: false,
            irr: VectorSet::EMPTY,
            isr: VectorSet::EMPTY,
            tmr: VectorSet::EMPTY,
            extint: VectorSet::EMPTY,
            ldr: 0,
            dfr: u32::MAX,
            svr: SVR_RESET,
            esr: 0,
            errors: 0,
            icr: 0,
            lvt: [lvt::MASKED; lvt::ENTRIES],
            timer: Timer::new(timing),
        }
    }

    /// INIT: the ID and IA32_APIC_BASE are kept, everything else is reset, what was pending is gone
    /// (SDM vol. 3A, "Local APIC State After It Receives an INIT Reset"). The timer stands still,
    /// LINT0 and LINT1 are masked, and the logical destination is another: publish, and mark the EOI
    /// stack ready.
    pub fn init_reset(&mut self) {
        self.reset_registers();
        self.extint = VectorSet::EMPTY;
        self.nmi = false;
    }

    /// Resets every register but the ID and IA32_APIC_BASE. What is not the APIC's (NMI, 8259) stays.
    pub(crate) fn reset_registers(&mut self) {
        self.tpr = 0;
        self.highest_irr = 0;
        self.highest_isr = 0;
        self.irr = VectorSet::EMPTY;
        self.isr = VectorSet::EMPTY;
        self.tmr = VectorSet::EMPTY;
        self.ldr = 0;
        self.dfr = u32::MAX;
        self.svr = SVR_RESET;
        self.esr = 0;
        self.errors = 0;
        self.icr = 0;
        self.lvt = [lvt::MASKED; lvt::ENTRIES];
        self.timer.reset();
        self.update_ppr();
        self.update_enabled();
    }

    /// The APIC's ID.
    pub const fn id(&self) -> ApicId {
        self.id
    }

    /// What this APIC has.
    pub const fn features(&self) -> Features {
        self.features
    }

    /// Whether SVR enables the APIC.
    pub const fn is_software_enabled(&self) -> bool {
        self.svr & SVR_ENABLE != 0
    }

    /// The spurious vector.
    pub const fn spurious_vector(&self) -> u8 {
        self.svr as u8
    }

    pub(crate) const fn update_enabled(&mut self) {
        self.enabled = !matches!(self.mode, Mode::Disabled) && self.is_software_enabled();
    }

    pub(crate) const fn addressee(&self) -> Addressee {
        Addressee {
            id: self.id.get(),
            mode: self.mode,
            enabled: self.is_software_enabled(),
            model: (self.dfr >> 28) as u8,
            logical_id: (self.ldr >> 24) as u8,
        }
    }

    /// Writes DFR; the low 28 bits read as one.
    pub(crate) const fn write_dfr(&mut self, value: u32) {
        self.dfr = value | DFR_ONES;
    }

    /// When [`Apic::timer_tick`] is due next, in host TSC ticks; `None` while the timer stands still
    /// or is masked: a masked timer counts on, but nobody can tell before the next register access.
    pub fn timer_deadline(&self) -> Option<u64> {
        if self.lvt(Lvt::Timer) & lvt::MASKED != 0 {
            None
        } else {
            self.timer.due()
        }
    }

    /// Lets the timer fire if it is due at host TSC `now`, and delivers its interrupt by the LVT entry.
    /// True when it fired. However late the call, one interrupt is delivered, and a periodic timer
    /// keeps its phase.
    pub fn timer_tick(&mut self, now: u64) -> bool {
        let fired = self.timer.expire(now);
        if fired {
            self.lvt_event(Lvt::Timer);
        }
        fired
    }

    /// The guest's TSC is the host's plus `offset` (modulo 2^64) from `now` on. TSC deadlines are in
    /// the guest's time; [`Apic::timer_deadline`] may be another after this.
    pub fn set_tsc_offset(&mut self, offset: u64, now: u64) {
        self.timer_tick(now);
        self.timer.set_tsc_offset(offset, now);
    }

    /// Writes the timer's LVT entry. What was due before the write is delivered by the old entry.
    pub(crate) fn write_lvt_timer(&mut self, value: u32, now: u64) -> Effect {
        self.timer_tick(now);
        let _ = self.write_lvt(Lvt::Timer, value);
        self.timer.set_mode(TimerMode::from_lvt(
            value & Lvt::Timer.writable(self.features.tsc_deadline),
        ));
        Effect::Timer
    }
}
