//! Events into the guest: EVENTINJ and the virtual interrupt, and what EXITINTINFO says of an event that an exit interrupted.
//!
//! Interrupts go by V_IRQ, not by EVENTINJ, wherever the guest takes them at once. QEMU's VMRUN remembers the vector of an
//! injected interrupt until the next exit, and delivers it a second time, whatever IF says, if another of its threads calls
//! the processor in between, as for each change of a PCI device's addresses. A kernel then waits for its own spinlock: row
//! `jolted` of the tests.
//!
//! Source: AMD APM vol. 2 rev. 3.42, "Event Injection", "Virtual Interrupts" and "Basic Operation", EXITINTINFO.

use vpcore::seam::Event;
use x86::rflags;

use super::control::{SvmVp, V_IGNORE_TPR, V_IRQ};
use super::vmcb::{Vmcb, field, intercept_1};

/// The field holds an event.
pub const VALID: u64 = 1 << 31;
const ERROR_CODE_VALID: u64 = 1 << 11;
const KIND_INTERRUPT: u64 = 0;
const KIND_NMI: u64 = 2;
const KIND_EXCEPTION: u64 = 3;

/// Puts `event` into the VMCB.
///
/// Software interrupts never come here: [`interrupted`] drops them, because RIP still points at the instruction
/// and running it again delivers them.
pub fn inject(vp: &mut SvmVp, event: Event) {
    let word = match event {
        Event::Interrupt(vector) => {
            vp.interrupt = Some(vector);
            return;
        }
        Event::Nmi => {
            // Without virtual NMIs the end of the handler shows as an IRET.
            vp.nmi_blocked = true;
            vp.iret_at = None;
            vp.vmcb
                .set_bits(field::INTERCEPT_1, intercept_1::IRET, true);
            KIND_NMI << 8 | 2
        }
        Event::Exception { vector, error_code } => {
            let code = error_code.map_or(0, |code| ERROR_CODE_VALID | u64::from(code) << 32);
            KIND_EXCEPTION << 8 | u64::from(vector) | code
        }
        Event::Software { .. } => return,
    };
    vp.vmcb.write_u64(field::EVENT_INJECTION, word | VALID);
}

/// Makes `vector` the interrupt that the next entry delivers before the guest's first instruction.
///
/// By EVENTINJ where V_IRQ stands for a window, or where the guest would not take the interrupt by itself.
#[inline]
pub fn place_interrupt(vmcb: &mut Vmcb, vector: u8) {
    let has_window = vmcb.read_u32(field::INTERCEPT_1) & intercept_1::VINTR != 0;
    let is_open = vmcb.read_u64(field::RFLAGS) & rflags::IF != 0
        && vmcb.read_u64(field::INTERRUPT_SHADOW) & 1 == 0;
    if has_window || !is_open {
        let word = KIND_INTERRUPT << 8 | u64::from(vector) | VALID;
        vmcb.write_u64(field::EVENT_INJECTION, word);
    } else {
        vmcb.write_u8(field::VIRTUAL_VECTOR, vector);
        vmcb.set_bits(field::VIRTUAL_INTERRUPT, V_IRQ | V_IGNORE_TPR, true);
    }
}

/// Takes out what [`place_interrupt`] placed. True when the processor had not begun to deliver it, because an exit came
/// first, of a physical interrupt for instance.
#[inline]
pub fn withdraw_interrupt(vmcb: &mut Vmcb) -> bool {
    let has_window = vmcb.read_u32(field::INTERCEPT_1) & intercept_1::VINTR != 0;
    if has_window {
        return false;
    }
    let is_there = vmcb.read_u32(field::VIRTUAL_INTERRUPT) & V_IRQ != 0;
    vmcb.set_bits(field::VIRTUAL_INTERRUPT, V_IRQ | V_IGNORE_TPR, false);
    // QEMU takes V_IRQ back after the delivery only: where that exited, the event is in EXITINTINFO too.
    is_there && vmcb.read_u64(field::EXIT_INT_INFO) & VALID == 0
}

/// The event whose delivery the last exit interrupted, once. Only the valid bit of EXITINTINFO is trusted to be fresh.
#[inline]
pub fn interrupted(vp: &mut SvmVp) -> Option<Event> {
    let word = vp.vmcb.read_u64(field::EXIT_INT_INFO);
    if word & VALID == 0 {
        return None;
    }
    vp.vmcb.write_u64(field::EXIT_INT_INFO, 0);
    event(word)
}

#[cold]
fn event(word: u64) -> Option<Event> {
    /// No exception has this number or a higher one. QEMU calls an interrupt that came by V_IRQ an exception.
    const FIRST_INTERRUPT: u8 = 32;
    let vector = word as u8;
    match word >> 8 & 7 {
        KIND_INTERRUPT => Some(Event::Interrupt(vector)),
        KIND_EXCEPTION if vector >= FIRST_INTERRUPT => Some(Event::Interrupt(vector)),
        KIND_NMI => Some(Event::Nmi),
        KIND_EXCEPTION => {
            let error_code = (word & ERROR_CODE_VALID != 0).then_some((word >> 32) as u32);
            // INT3 and INTO are reported as exceptions with RIP at the instruction: it runs again.
            (vector != 3 && vector != 4).then_some(Event::Exception { vector, error_code })
        }
        _ => None,
    }
}
