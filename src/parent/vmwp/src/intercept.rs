//! What a VP stopped for, and what it goes on with.

use platform::mmio::{self, Registers};
use platform::{Devices, Outcome, port};
use slots::SharedWords;
use tlfs::MessageType;
use tlfs::intercept::{ApicEoi, InterceptHeader, IoPortIntercept, MemoryIntercept};
use tlfs::message::{MESSAGE_BYTES, PAYLOAD_BYTES};
use tlfs::register::{RegisterName, pending_event};
use tlfs::state::register_page;
use uio::Words;
use worker_link::StopReason;
use x86::GpRegs;

/// Words of an intercept message.
const MESSAGE_WORDS: usize = MESSAGE_BYTES / 8;
/// Words of it before the payload.
const HEAD_WORDS: usize = (MESSAGE_BYTES - PAYLOAD_BYTES) / 8;
/// General protection: what an access that nobody can carry out gets.
const GENERAL_PROTECTION: u128 = 13;

/// A copy of an intercept message.
#[derive(Clone, Copy, Debug)]
pub struct Intercept {
    /// What happened.
    pub kind: MessageType,
    /// More about it.
    pub payload: [u8; PAYLOAD_BYTES],
}

impl Intercept {
    /// Copies the message out of a VP's intercept page.
    pub fn read(page: &Words) -> Self {
        let mut payload = [0; PAYLOAD_BYTES];
        for (bytes, index) in payload
            .as_chunks_mut()
            .0
            .iter_mut()
            .zip(HEAD_WORDS..MESSAGE_WORDS)
        {
            *bytes = page.load(index).to_le_bytes();
        }
        Self {
            kind: MessageType(page.load(0) as u32),
            payload,
        }
    }
}

/// How a VP goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// With these registers changed.
    Go(Vec<(RegisterName, u128)>),
    /// With a fault, because of what the text says.
    Fault(String),
    /// Not at all: the child is over.
    Stop(StopReason),
}

impl Answer {
    /// The registers of [`Answer::Fault`].
    pub fn fault() -> Vec<(RegisterName, u128)> {
        let event = pending_event::PENDING
            | pending_event::EXCEPTION
            | pending_event::HAS_ERROR_CODE
            | GENERAL_PROTECTION << pending_event::VECTOR_SHIFT;
        vec![(RegisterName::PENDING_EVENT_0, event)]
    }

    fn failed(text: impl Into<String>) -> Self {
        Self::Stop(StopReason::Failed { text: text.into() })
    }
}

/// Answers an intercept of VP `vp`. `registers` reads the VP's registers, where the message does not have them.
///
/// # Errors
/// That of `registers`.
pub fn answer<E>(
    vp: u32,
    intercept: &Intercept,
    devices: &mut Devices,
    registers: impl FnOnce() -> Result<Registers, E>,
) -> Result<Answer, E> {
    let payload = &intercept.payload;
    Ok(match intercept.kind {
        MessageType::IO_PORT_INTERCEPT => match IoPortIntercept::decode(payload) {
            Ok(access) => port_access(vp, &access, devices),
            Err(_) => malformed(vp, intercept.kind),
        },
        MessageType::UNMAPPED_GPA => match MemoryIntercept::decode(payload) {
            Ok(access) => memory_access(vp, &access, devices, registers()?),
            Err(_) => malformed(vp, intercept.kind),
        },
        MessageType::APIC_EOI => match ApicEoi::decode(payload) {
            Ok(eoi) => {
                devices.eoi(eoi.vector as u8);
                Answer::Go(Vec::new())
            }
            Err(_) => malformed(vp, intercept.kind),
        },
        MessageType::MSR_INTERCEPT => Answer::Fault(format!("VP {vp} uses an unknown MSR")),
        MessageType::UNRECOVERABLE_EXCEPTION => Answer::Stop(StopReason::TripleFault {
            vp,
            rip: InterceptHeader::decode(payload).map_or(0, |header| header.rip),
        }),
        MessageType::GPA_INTERCEPT => {
            let gpa = MemoryIntercept::decode(payload).map_or(0, |access| access.gpa.get());
            Answer::failed(format!(
                "VP {vp} met memory at {gpa:#x} that was taken away, perhaps because it is broken: start the child anew"
            ))
        }
        MessageType::INVALID_VP_REGISTER => Answer::failed(format!(
            "VP {vp} cannot run with its registers: is the kernel one for this processor?"
        )),
        MessageType::UNSUPPORTED_FEATURE => Answer::failed(format!(
            "VP {vp} used what this processor or the hypervisor does not have"
        )),
        kind => Answer::failed(format!(
            "VP {vp} stopped for an unknown reason: {:#x}",
            kind.0
        )),
    })
}

fn malformed(vp: u32, kind: MessageType) -> Answer {
    Answer::failed(format!(
        "an intercept of VP {vp} is malformed: type {:#x}",
        kind.0
    ))
}

fn port_access(vp: u32, access: &IoPortIntercept, devices: &mut Devices) -> Answer {
    match port::carry_out(access, devices) {
        Ok(done) => match done.outcome {
            Outcome::Nothing => {
                let mut changed = vec![(RegisterName::RIP, done.rip.into())];
                if done.rax != access.rax {
                    changed.push((RegisterName::RAX, done.rax.into()));
                }
                Answer::Go(changed)
            }
            Outcome::PowerOff => Answer::Stop(StopReason::PowerOff),
            Outcome::Reset => Answer::Stop(StopReason::Reset),
        },
        Err(error) => {
            let (port, rip) = (access.port, access.header.rip);
            Answer::Fault(format!("VP {vp} at {rip:#x}, port {port:#x}: {error}"))
        }
    }
}

fn memory_access(
    vp: u32,
    access: &MemoryIntercept,
    devices: &mut Devices,
    before: Registers,
) -> Answer {
    let mut after = before;
    match mmio::carry_out(access, &mut after, devices) {
        Ok(()) => Answer::Go(changes(&before, &after)),
        Err(error) => {
            let (gpa, rip) = (access.gpa.get(), access.header.rip);
            Answer::Fault(format!("VP {vp} at {rip:#x}, address {gpa:#x}: {error}"))
        }
    }
}

/// The registers that differ.
fn changes(before: &Registers, after: &Registers) -> Vec<(RegisterName, u128)> {
    let mut changed = Vec::new();
    for (number, (before, after)) in (0..).zip(before.gp.0.iter().zip(after.gp.0)) {
        if *before != after {
            changed.push((RegisterName::RAX.nth(number), after.into()));
        }
    }
    for (name, before, after) in [
        (RegisterName::RIP, before.rip, after.rip),
        (RegisterName::RFLAGS, before.rflags, after.rflags),
    ] {
        if before != after {
            changed.push((name, after.into()));
        }
    }
    changed
}

/// The registers in a VP's register page, `None` while the page does not have them.
pub fn page_registers(page: &Words) -> Option<Registers> {
    let head = page.load(0);
    let is_valid = head as u16 == register_page::VERSION_1
        && (head >> (register_page::IS_VALID * 8)) as u8 == 1;
    let word = |offset: usize| page.load(offset / 8);
    is_valid.then(|| Registers {
        gp: GpRegs(std::array::from_fn(|number| {
            word(register_page::GENERAL + number * 8)
        })),
        rip: word(register_page::RIP),
        rflags: word(register_page::RFLAGS),
    })
}

#[cfg(test)]
mod tests;
