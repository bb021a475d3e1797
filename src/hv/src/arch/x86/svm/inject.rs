//! Events into the guest: EVENTINJ, and what EXITINTINFO says of an event that an exit interrupted.
//!
//! Source: AMD APM vol. 2 rev. 3.42, "Event Injection" and "Basic Operation", EXITINTINFO.

use vpcore::seam::Event;

use super::control::SvmVp;
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
        Event::Interrupt(vector) => KIND_INTERRUPT << 8 | u64::from(vector),
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

/// The event whose delivery the last exit interrupted, once. Only the valid bit is trusted to be fresh.
#[inline]
pub fn interrupted(vmcb: &mut Vmcb) -> Option<Event> {
    let word = vmcb.read_u64(field::EXIT_INT_INFO);
    if word & VALID == 0 {
        return None;
    }
    vmcb.write_u64(field::EXIT_INT_INFO, 0);
    event(word)
}

#[cold]
fn event(word: u64) -> Option<Event> {
    let vector = word as u8;
    match word >> 8 & 7 {
        KIND_INTERRUPT => Some(Event::Interrupt(vector)),
        KIND_NMI => Some(Event::Nmi),
        KIND_EXCEPTION => {
            let error_code = (word & ERROR_CODE_VALID != 0).then_some((word >> 32) as u32);
            // INT3 and INTO are reported as exceptions with RIP at the instruction: it runs again.
            (vector != 3 && vector != 4).then_some(Event::Exception { vector, error_code })
        }
        _ => None,
    }
}
