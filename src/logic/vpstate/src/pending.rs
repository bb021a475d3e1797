//! Events on their way into a guest, as registers (TLFS, "Virtual Processor Register Formats").

use vpcore::seam::{Event, SoftwareEvent};
use x86::vector;

/// Interruption types of the pending interruption register.
mod kind {
    pub(super) const INTERRUPT: u64 = 0;
    pub(super) const NMI: u64 = 2;
    pub(super) const EXCEPTION: u64 = 3;
    pub(super) const SOFTWARE_INTERRUPT: u64 = 4;
    pub(super) const PRIVILEGED: u64 = 5;
    pub(super) const SOFTWARE_EXCEPTION: u64 = 6;
}

/// Vectors that push an error code: #DF, #TS, #NP, #SS, #GP, #PF, #AC, #CP.
const WITH_CODE: u32 = 1 << 8 | 0x1F << 10 | 1 << 17 | 1 << 21;

/// An exception that the hardware delivers: a code exactly where the vector has one, except in real mode, where none
/// has.
fn exception(number: u64, code: Option<u32>, is_protected: bool) -> Option<Event> {
    let vector = u8::try_from(number)
        .ok()
        .filter(|&v| v < 32 && v != vector::NMI)?;
    let has_code = is_protected && WITH_CODE >> vector & 1 != 0;
    (has_code == code.is_some() && code.unwrap_or(0) >> 16 == 0).then_some(Event::Exception {
        vector,
        error_code: code,
    })
}

/// The pending interruption register (0x10002) of an event whose delivery was interrupted.
pub fn interruption(event: Option<Event>) -> u64 {
    let Some(event) = event else { return 0 };
    let (kind, vector, code, length) = match event {
        Event::Interrupt(vector) => (kind::INTERRUPT, vector, None, 0),
        Event::Nmi => (kind::NMI, vector::NMI, None, 0),
        Event::Exception { vector, error_code } => (kind::EXCEPTION, vector, error_code, 0),
        Event::Software {
            vector,
            length,
            kind,
        } => {
            let kind = match kind {
                SoftwareEvent::Interrupt => kind::SOFTWARE_INTERRUPT,
                SoftwareEvent::Exception => kind::SOFTWARE_EXCEPTION,
                SoftwareEvent::Privileged => kind::PRIVILEGED,
            };
            (kind, vector, None, length)
        }
    };
    1 | kind << 1
        | u64::from(code.is_some()) << 4
        | u64::from(length & 0xF) << 5
        | u64::from(vector) << 16
        | u64::from(code.unwrap_or(0)) << 32
}

/// The event of a pending interruption register. The outer `None` says that the hardware could not deliver it;
/// `is_protected` is CR0.PE.
pub fn parse_interruption(value: u64, is_protected: bool) -> Option<Option<Event>> {
    const RESERVED: u64 = 0xFC00;
    if value & 1 == 0 {
        return Some(None);
    }
    if value & RESERVED != 0 {
        return None;
    }
    let vector = u8::try_from(value >> 16 & 0xFFFF).ok()?;
    let code = (value & 1 << 4 != 0).then_some((value >> 32) as u32);
    let length = (value >> 5 & 0xF) as u8;
    let software = |kind| {
        (code.is_none() && length != 0).then_some(Event::Software {
            vector,
            length,
            kind,
        })
    };
    let event = match value >> 1 & 7 {
        kind::INTERRUPT => code.is_none().then_some(Event::Interrupt(vector)),
        kind::NMI => (vector == vector::NMI && code.is_none()).then_some(Event::Nmi),
        kind::EXCEPTION => exception(vector.into(), code, is_protected),
        kind::SOFTWARE_INTERRUPT => software(SoftwareEvent::Interrupt),
        kind::SOFTWARE_EXCEPTION if matches!(vector, 3 | 4) => software(SoftwareEvent::Exception),
        kind::PRIVILEGED if vector == vector::DB => software(SoftwareEvent::Privileged),
        _ => None,
    };
    event.map(Some)
}

/// What pending event register 0 (0x10004) asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// Nothing is pending.
    Nothing,
    /// An exception, and what CR2 (#PF) or DR6 (#DB) is to hold.
    Exception(Event, u64),
    /// An interrupt that the 8259 answered.
    ExtInt(u8),
}

/// Pending event register 0 of an exception that was raised and is not delivered; `parameter` is what CR2 or DR6 holds
/// for it.
pub fn event(raised: Option<Event>, parameter: u64) -> u128 {
    match raised {
        Some(Event::Exception { vector, error_code }) => {
            1 | u128::from(error_code.is_some()) << 8
                | u128::from(vector) << 16
                | u128::from(error_code.unwrap_or(0)) << 32
                | u128::from(parameter) << 64
        }
        _ => 0,
    }
}

/// Reads a value of pending event register 0; `None` for what cannot be delivered.
pub fn parse_event(value: u128, is_protected: bool) -> Option<Asked> {
    const RESERVED: u64 = 0xFEF0;
    let (low, parameter) = (value as u64, (value >> 64) as u64);
    match (low & 1, low >> 1 & 7) {
        (0, _) => Some(Asked::Nothing),
        (_, 0) if low & RESERVED == 0 => {
            let code = (low & 1 << 8 != 0).then_some((low >> 32) as u32);
            exception(low >> 16 & 0xFFFF, code, is_protected)
                .map(|event| Asked::Exception(event, parameter))
        }
        (_, 5) if low & !0xFF0F == 0 && parameter == 0 => Some(Asked::ExtInt((low >> 8) as u8)),
        _ => None,
    }
}
