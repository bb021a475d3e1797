//! Which event enters the guest next.

use vpcore::event::{Combined, combine};
use vpcore::seam::{Event, Register, VpBackend, Window};
use x86::vector;

use super::{Activity, AnyVp, Role, Vp};
use crate::diagnostics::Counter;

impl<B: VpBackend, R: Role> Vp<B, R> {
    /// Chooses the event of this entry, and asks for a window where something has to wait.
    ///
    /// Order: what an exit interrupted and what we raise, NMI, 8259, local APIC.
    pub(super) fn deliver(&mut self) {
        let mut is_taken = self.deliver_exception();
        is_taken = self.deliver_deferred(is_taken);
        if self.apic.nmi_pending() {
            if !is_taken && self.backend.can_take_nmi() && self.apic.take_nmi() {
                self.backend.inject(Event::Nmi);
                is_taken = true;
            } else {
                self.backend.request_window(Window::Nmi, true);
            }
        }
        let mut is_waiting = matches!(self.deferred, Some(Event::Interrupt(_)));
        if self.deferred == Some(Event::Nmi) {
            self.backend.request_window(Window::Nmi, true);
        }
        if self.has_interrupt() {
            if !is_taken && self.backend.can_take_interrupt() {
                self.deliver_interrupt();
                is_waiting |= self.has_interrupt();
            } else {
                is_waiting = true;
            }
        }
        let cr8 = self.apic.cr8();
        if cr8 != self.shown_cr8 {
            self.backend.show_cr8(cr8);
            self.shown_cr8 = cr8;
        }
        if is_waiting != self.window_open {
            self.backend.request_window(Window::Interrupt, is_waiting);
            self.window_open = is_waiting;
        }
        // An interrupt that waits has its window; AMD-V has none for the first moment in which an NMI could come.
        self.is_settled = self.deferred != Some(Event::Nmi) && !self.apic.nmi_pending();
    }

    fn deliver_exception(&mut self) -> bool {
        let Some(event) = self.interrupted.take().or_else(|| self.raised.take()) else {
            return false;
        };
        if let Event::Interrupt(_) = event
            && !self.backend.can_take_interrupt()
        {
            self.deferred = Some(event);
            return false;
        }
        self.backend.inject(self.in_this_mode(event));
        true
    }

    /// In real mode no exception has an error code, and VT-x refuses the entry with one.
    fn in_this_mode(&self, event: Event) -> Event {
        match event {
            Event::Exception {
                vector,
                error_code: Some(_),
            } if self.backend.get(Register::Cr0) & x86::cr0::PE == 0 => Event::Exception {
                vector,
                error_code: None,
            },
            event => event,
        }
    }

    /// Delivers what an exception went ahead of, once the guest can take it.
    fn deliver_deferred(&mut self, is_taken: bool) -> bool {
        let Some(event) = self.deferred else {
            return is_taken;
        };
        let is_possible = match event {
            Event::Nmi => self.backend.can_take_nmi(),
            _ => self.backend.can_take_interrupt(),
        };
        if is_taken || !is_possible {
            return is_taken;
        }
        self.deferred = None;
        self.backend.inject(event);
        true
    }

    fn deliver_interrupt(&mut self) {
        let extint = self.apic.pending_extint();
        self.is_extint = extint.is_some();
        let vector = match extint {
            Some(vector) => {
                self.apic.take_extint(vector);
                vector
            }
            None => {
                let Some(vector) = self.apic.pending() else {
                    return;
                };
                self.apic.take(vector);
                let is_edge = !self.apic.tmr().contains(vector);
                let is_only = self.is_quiet && self.apic.is_alone();
                self.lazy_eoi.offer(self.assist.as_ref(), is_edge, is_only);
                vector
            }
        };
        self.counters.add(Counter::Delivered);
        self.backend.inject(Event::Interrupt(vector));
    }
}

impl<R: Role> AnyVp<R> {
    /// Interrupt `vector` waits again: an exit came before the processor took it. What the exit brings may go ahead of it.
    pub(super) fn put_back(&mut self, vector: u8) {
        self.is_settled = false;
        if self.is_extint {
            self.apic.accept_extint(vector);
            return;
        }
        self.settle_eoi(true);
        self.apic.give_back(vector);
    }

    /// Raises an exception in the guest at the next entry, RIP at the instruction that caused it.
    pub(super) fn raise(&mut self, vector: u8, error_code: Option<u32>) {
        self.is_settled = false;
        if !R::intercepts_exception(self, vector, error_code) {
            self.raised = Some(Event::Exception { vector, error_code });
        }
    }

    /// #GP(0).
    pub(super) fn raise_gp(&mut self) {
        self.raise(vector::GP, Some(0));
    }

    /// #UD.
    pub(super) fn raise_ud(&mut self) {
        self.raise(vector::UD, None);
    }

    /// Makes one of an interrupted event and an exception that we raise. False when the guest has shut down.
    pub(super) fn merge_exceptions(&mut self) -> bool {
        let (Some(first), Some(second)) = (self.interrupted, self.raised) else {
            return true;
        };
        self.interrupted = None;
        match combine(first, second) {
            Combined::Deliver(event) => {
                // An interrupt or NMI was acknowledged already: it comes after the exception. An INT n is not
                // kept: RIP is at it, and it runs again.
                if matches!(first, Event::Interrupt(_) | Event::Nmi) {
                    self.deferred = Some(first);
                }
                self.raised = Some(event);
                true
            }
            Combined::Shutdown => {
                self.shut_down();
                false
            }
        }
    }

    /// Ends the interrupt in service where the guest has done so by itself. The bit that lets it is taken back when
    /// something waits for the end, or with `withdraw`.
    pub(super) fn settle_eoi(&mut self, withdraw: bool) {
        let withdraw = withdraw || !self.apic.irr().is_empty();
        if self.lazy_eoi.settle(self.assist.as_ref(), withdraw) {
            // Nothing waited for it: there is no level interrupt, and no message.
            let effect = self.apic.eoi();
            self.apply(effect);
        }
    }

    /// The processor has shut down.
    pub(super) fn shut_down(&mut self) {
        self.activity = Activity::ShutDown;
        // What led here is over: whoever sets new registers begins anew.
        (self.interrupted, self.raised, self.deferred) = (None, None, None);
        R::triple_fault(self);
    }
}
