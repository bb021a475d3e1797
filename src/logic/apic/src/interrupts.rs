//! The interrupt side: acceptance, priorities, service and end of interrupt.

use crate::inbox::Inbox;
use crate::registers::esr;
use crate::state::{Apic, Effect};
use crate::vectors::VectorSet;

/// How an interrupt was signalled: the TMR bit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trigger {
    /// Edge.
    Edge,
    /// Level: its EOI is of interest to an I/O APIC.
    Level,
}

/// What became of an interrupt offered to the APIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Acceptance {
    /// Pending in IRR.
    Queued,
    /// It was pending already: the two are one.
    Merged,
    /// Lost: the APIC is disabled, or the vector is below 16.
    ///
    /// A physical level interrupt dropped here is still in service in the physical APIC. To retire it
    /// at once would bring it again at once, for ever; leave it open until the guest enables its APIC.
    Dropped,
}

impl Apic {
    /// Whether interrupts of the fixed kinds are accepted: enabled by IA32_APIC_BASE and by SVR.
    pub const fn is_accepting(&self) -> bool {
        self.enabled
    }

    /// An interrupt message arrived with `vector`.
    #[inline]
    pub fn accept(&mut self, vector: u8, trigger: Trigger) -> Acceptance {
        if !self.enabled {
            return Acceptance::Dropped;
        }
        if vector < 16 {
            self.raise_error(esr::RECEIVE_ILLEGAL_VECTOR);
            return Acceptance::Dropped;
        }
        match trigger {
            Trigger::Edge => self.tmr.remove(vector),
            Trigger::Level => self.tmr.insert(vector),
        };
        if !self.irr.insert(vector) {
            return Acceptance::Merged;
        }
        self.highest_irr = self.highest_irr.max(vector);
        Acceptance::Queued
    }

    /// The vector to inject now, if the guest can take interrupts at all: the highest of IRR, when its
    /// class is above that of PPR. RFLAGS.IF and the interrupt shadow are the caller's to judge.
    #[inline]
    pub const fn pending(&self) -> Option<u8> {
        if self.enabled && self.highest_irr >> 4 > self.ppr >> 4 {
            Some(self.highest_irr)
        } else {
            None
        }
    }

    /// `vector` was injected: moves it from IRR to ISR. False, and no effect, when it is not in IRR.
    #[inline]
    pub fn take(&mut self, vector: u8) -> bool {
        if !self.irr.remove(vector) {
            return false;
        }
        self.isr.insert(vector);
        self.highest_irr = self.irr.highest().unwrap_or(0);
        self.highest_isr = self.highest_isr.max(vector);
        self.update_ppr();
        true
    }

    /// `vector` was injected and did not reach the guest: moves it back from ISR to IRR. False, and no effect, when it is not
    /// in ISR.
    #[inline]
    pub fn give_back(&mut self, vector: u8) -> bool {
        if !self.isr.remove(vector) {
            return false;
        }
        self.irr.insert(vector);
        self.highest_irr = self.highest_irr.max(vector);
        self.highest_isr = self.isr.highest().unwrap_or(0);
        self.update_ppr();
        true
    }

    /// End of interrupt: by register, MSR, or the TLFS EOI MSR.
    #[inline]
    pub fn eoi(&mut self) -> Effect {
        // Vectors below 16 are never in service, so 0 stands for none.
        let vector = self.highest_isr;
        if !self.isr.remove(vector) {
            return Effect::EoiWithoutService;
        }
        self.highest_isr = self.isr.highest().unwrap_or(0);
        self.update_ppr();
        Effect::Eoi {
            vector,
            level: self.tmr.contains(vector),
        }
    }

    /// SDM vol. 3A, "Task and Processor Priorities".
    #[inline]
    pub(crate) const fn update_ppr(&mut self) {
        self.ppr = if self.tpr >> 4 >= self.highest_isr >> 4 {
            self.tpr
        } else {
            self.highest_isr & 0xF0
        };
    }

    /// The processor priority register.
    pub const fn ppr(&self) -> u8 {
        self.ppr
    }

    /// The task priority register.
    pub const fn tpr(&self) -> u8 {
        self.tpr
    }

    /// Sets the task priority register.
    #[inline]
    pub const fn set_tpr(&mut self, value: u8) {
        self.tpr = value;
        self.update_ppr();
    }

    /// CR8, 0 to 15.
    pub const fn cr8(&self) -> u8 {
        self.tpr >> 4
    }

    /// Sets CR8: bits 3:0 of `value` become bits 7:4 of TPR, the others of TPR zero. The caller has
    /// refused values above 15 with #GP.
    pub const fn set_cr8(&mut self, value: u8) {
        self.set_tpr((value & 0xF) << 4);
    }

    /// Interrupts pending in IRR.
    pub const fn irr(&self) -> VectorSet {
        self.irr
    }

    /// Interrupts in service.
    pub const fn isr(&self) -> VectorSet {
        self.isr
    }

    /// Whether one interrupt is in service and none waits.
    pub fn is_alone(&self) -> bool {
        let mut others = self.isr;
        let has_one = others.highest().is_some_and(|vector| others.remove(vector));
        has_one && others.is_empty() && self.irr.is_empty()
    }

    /// Trigger modes of the interrupts last accepted: set for level.
    pub const fn tmr(&self) -> VectorSet {
        self.tmr
    }

    /// The 8259 answered an acknowledge cycle with `vector`. Kept whatever the state of the APIC: the
    /// 8259 will not give it again.
    pub const fn accept_extint(&mut self, vector: u8) {
        self.extint.insert(vector);
    }

    /// The ExtINT vector to inject now. Neither TPR nor the APIC's state holds it back. With more than
    /// one, the lowest comes first, as in the 8259.
    pub const fn pending_extint(&self) -> Option<u8> {
        self.extint.lowest()
    }

    /// ExtINT `vector` was injected. False when it was not pending.
    pub const fn take_extint(&mut self, vector: u8) -> bool {
        self.extint.remove(vector)
    }

    /// An NMI arrived.
    pub const fn accept_nmi(&mut self) {
        self.nmi = true;
    }

    /// Whether an NMI waits to be injected. NMI blocking is the caller's to judge.
    pub const fn nmi_pending(&self) -> bool {
        self.nmi
    }

    /// The pending NMI is injected. False when there was none.
    pub const fn take_nmi(&mut self) -> bool {
        core::mem::replace(&mut self.nmi, false)
    }

    /// Takes over what other processors posted. Interrupts posted to a disabled APIC are lost, as they
    /// are on the hardware.
    #[inline]
    pub fn absorb(&mut self, inbox: &Inbox) {
        if inbox.is_empty() {
            return;
        }
        self.nmi |= inbox.take_nmi();
        if let Some(said) = inbox.take_extint() {
            self.extint = VectorSet::EMPTY;
            if let Some(vector) = said {
                self.accept_extint(vector);
            }
        }
        for (index, mut word) in inbox.take_vectors().into_iter().enumerate() {
            if index == 0 && word & 0xFFFF != 0 {
                // Senders check their vectors; a mistake of theirs must not reach IRR.
                word &= !0xFFFF;
                if self.enabled {
                    self.raise_error(esr::RECEIVE_ILLEGAL_VECTOR);
                }
            }
            if word != 0 && self.enabled {
                self.irr.insert_word(index, word);
                self.tmr.remove_word(index, word);
                self.tmr.insert_word(index, word & inbox.levels(index));
            }
        }
        self.highest_irr = self.irr.highest().unwrap_or(0);
    }
}
