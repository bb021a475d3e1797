//! Events: into the guest, half-way delivered, and the windows that wait for one.
//!
//! Source: SDM vol. 3C, "VM-Entry Controls for Event Injection", "Information for VM Exits That Occur During Event
//! Delivery", "Guest Non-Register State".

use vpcore::seam::{Event, Exit, Register, SoftwareEvent, Window};
use x86::{rflags, vector};

use super::fields::{Field, interruptibility, primary};
use super::vmcs::Vmcs;
use super::{VmxVp, pending};

/// The event words of the VMCS: vector 7:0, type 10:8, error code 11, valid 31.
mod word {
    pub const VECTOR: u32 = 0xFF;
    pub const TYPE: u32 = 7 << 8;
    pub const INTERRUPT: u32 = 0 << 8;
    pub const NMI: u32 = 2 << 8;
    pub const EXCEPTION: u32 = 3 << 8;
    pub const SOFTWARE_INTERRUPT: u32 = 4 << 8;
    pub const PRIVILEGED_EXCEPTION: u32 = 5 << 8;
    pub const SOFTWARE_EXCEPTION: u32 = 6 << 8;
    pub const ERROR_CODE: u32 = 1 << 11;
    pub const IRET_UNBLOCKED_NMI: u32 = 1 << 12;
    pub const VALID: u32 = 1 << 31;
}

/// Error codes have 15 bits; the entry check refuses more.
const ERROR_CODE_BITS: u32 = 0x7FFF;

/// What an exit for an exception or NMI was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExitEventKind {
    Nmi,
    MachineCheck,
    /// A debug exception; true if INT1 raised it.
    Debug(bool),
    /// Another exception, with its error code.
    Other(u8, Option<u32>),
}

/// The exception or NMI that caused an exit.
#[derive(Clone, Copy, Debug)]
pub(super) struct ExitEvent {
    pub(super) kind: ExitEventKind,
    /// It hit an IRET that had ended the blocking of NMIs already.
    pub(super) iret_unblocked_nmi: bool,
}

/// The exception or NMI that caused the last exit.
pub(super) fn exit_event(vmcs: &Vmcs) -> ExitEvent {
    let event = vmcs.read32(Field::EXIT_EVENT);
    let kind = match (event & word::TYPE, event & word::VECTOR) {
        (word::NMI, _) => ExitEventKind::Nmi,
        (word::EXCEPTION, number) if number == u32::from(vector::MC) => ExitEventKind::MachineCheck,
        (kind, number) if number == u32::from(vector::DB) => {
            ExitEventKind::Debug(kind == word::PRIVILEGED_EXCEPTION)
        }
        (_, number) => {
            let code = || vmcs.read32(Field::EXIT_ERROR_CODE);
            ExitEventKind::Other(number as u8, (event & word::ERROR_CODE != 0).then(code))
        }
    };
    // The bit means nothing for an NMI, and for a double fault.
    let iret_unblocked_nmi = kind != ExitEventKind::Nmi
        && event & word::IRET_UNBLOCKED_NMI != 0
        && event & word::VECTOR != u32::from(vector::DF);
    ExitEvent {
        kind,
        iret_unblocked_nmi,
    }
}

/// The event that `interrupted`, a valid word, names.
fn interrupted_event(vmcs: &Vmcs, interrupted: u32) -> Option<Event> {
    let number = (interrupted & word::VECTOR) as u8;
    let software = |kind| Event::Software {
        vector: number,
        length: vmcs.read(Field::EXIT_INSTRUCTION_LENGTH) as u8,
        kind,
    };
    match interrupted & word::TYPE {
        word::INTERRUPT => Some(Event::Interrupt(number)),
        word::NMI => Some(Event::Nmi),
        word::EXCEPTION => Some(Event::Exception {
            vector: number,
            error_code: (interrupted & word::ERROR_CODE != 0)
                .then(|| vmcs.read32(Field::INTERRUPTED_ERROR_CODE)),
        }),
        word::SOFTWARE_INTERRUPT => Some(software(SoftwareEvent::Interrupt)),
        word::PRIVILEGED_EXCEPTION => Some(software(SoftwareEvent::Privileged)),
        word::SOFTWARE_EXCEPTION => Some(software(SoftwareEvent::Exception)),
        _ => None,
    }
}

impl VmxVp {
    /// Blocks NMIs again after an exit in the middle of an IRET that had unblocked them; the guest runs it again.
    ///
    /// Not when the exit interrupted an event: then the bit that reports it means nothing.
    #[cold]
    pub(super) fn restore_nmi_blocking(&mut self) {
        if self.vmcs.read32(Field::INTERRUPTED_EVENT) & word::VALID == 0 {
            let state = self.vmcs.read32(Field::INTERRUPTIBILITY);
            self.vmcs.write(
                Field::INTERRUPTIBILITY,
                u64::from(state | interruptibility::NMI),
            );
        }
    }

    /// Does what a debug exception that was intercepted would have done before its delivery: causes into DR6, general
    /// detection off, and past INT1, which is a trap.
    ///
    /// Source: SDM vol. 3C, "Basic VM-Exit Information"; "Checks on Guest Non-Register State" for the pending single step.
    #[cold]
    pub(super) fn debug_exception(&mut self, is_instruction: bool) -> Exit {
        const BREAKPOINTS: u64 = 0xF;
        /// BD of DR6, GD of DR7.
        const DETECT: u64 = 1 << 13;
        const SINGLE_STEP: u64 = 1 << 14;
        let causes = self.vmcs.read(Field::EXIT_QUALIFICATION);
        let causes = causes & (BREAKPOINTS | DETECT | SINGLE_STEP);
        let dr6 = self.get_register(Register::Dr6) & !BREAKPOINTS;
        self.set_register(Register::Dr6, dr6 | causes);
        let dr7 = self.get_register(Register::Dr7);
        self.set_register(Register::Dr7, dr7 & !DETECT);
        if is_instruction {
            let length = self.vmcs.read(Field::EXIT_INSTRUCTION_LENGTH);
            self.retire_to(self.get_register(Register::Rip).wrapping_add(length));
        } else if self.vmcs.read(Field::GUEST_RFLAGS) & rflags::TF != 0
            && self.vmcs.read32(Field::INTERRUPTIBILITY) & interruptibility::SHADOW != 0
        {
            let pending = self.vmcs.read(Field::PENDING_DEBUG) | SINGLE_STEP;
            self.vmcs.write(Field::PENDING_DEBUG, pending);
        }
        Exit::exception(vector::DB, None)
    }

    /// The event whose delivery the last exit interrupted, once.
    #[inline]
    pub(super) fn take_interrupted(&mut self) -> Option<Event> {
        let interrupted = self.vmcs.read32(Field::INTERRUPTED_EVENT);
        if interrupted & word::VALID == 0 || !self.has_interrupted {
            return None;
        }
        self.has_interrupted = false;
        interrupted_event(&self.vmcs, interrupted)
    }

    pub(super) fn inject_event(&mut self, event: Event) {
        let (event, length) = match event {
            Event::Interrupt(number) => (word::INTERRUPT | u32::from(number), None),
            Event::Nmi => {
                // The delivery of an NMI that exited has blocked NMIs already; the entry check wants them open.
                let state = self.vmcs.read32(Field::INTERRUPTIBILITY);
                self.vmcs.write(
                    Field::INTERRUPTIBILITY,
                    u64::from(state & !interruptibility::NMI),
                );
                (word::NMI | u32::from(vector::NMI), None)
            }
            Event::Exception {
                vector: number,
                error_code: None,
            } => (word::EXCEPTION | u32::from(number), None),
            Event::Exception {
                vector: number,
                error_code: Some(code),
            } => {
                self.vmcs
                    .write(Field::ENTRY_ERROR_CODE, u64::from(code & ERROR_CODE_BITS));
                (word::EXCEPTION | word::ERROR_CODE | u32::from(number), None)
            }
            Event::Software {
                vector: number,
                length,
                kind,
            } => {
                let kind = match kind {
                    SoftwareEvent::Interrupt => word::SOFTWARE_INTERRUPT,
                    SoftwareEvent::Exception => word::SOFTWARE_EXCEPTION,
                    SoftwareEvent::Privileged => word::PRIVILEGED_EXCEPTION,
                };
                (kind | u32::from(number), Some(length))
            }
        };
        if let Some(length) = length {
            self.vmcs
                .write(Field::ENTRY_INSTRUCTION_LENGTH, u64::from(length));
        }
        self.vmcs
            .write(Field::ENTRY_EVENT, u64::from(event | word::VALID));
        self.pending |= pending::EVENT;
    }

    /// Takes back the event of an entry that failed; the hardware leaves it in place.
    pub(super) fn drop_event(&mut self) {
        self.vmcs.write(Field::ENTRY_EVENT, 0);
    }

    #[inline]
    pub(super) fn is_open_for_interrupts(&self) -> bool {
        // An event stays where it is when its entry did not come about.
        self.pending & pending::EVENT == 0
            && self.vmcs.read(Field::GUEST_RFLAGS) & rflags::IF != 0
            && self.vmcs.read32(Field::INTERRUPTIBILITY) & interruptibility::SHADOW == 0
    }

    #[inline]
    pub(super) fn is_open_for_nmis(&self) -> bool {
        // Some processors refuse an NMI in the shadow of STI too (SDM, "Checks on Guest Non-Register State").
        self.pending & pending::EVENT == 0
            && self.vmcs.read32(Field::INTERRUPTIBILITY)
                & (interruptibility::SHADOW | interruptibility::NMI)
                == 0
    }

    pub(super) fn set_window(&mut self, window: Window, wanted: bool) {
        let control = match window {
            Window::Interrupt => primary::INTERRUPT_WINDOW,
            Window::Nmi => primary::NMI_WINDOW,
        };
        let controls = if wanted {
            self.primary | control
        } else {
            self.primary & !control
        };
        if controls != self.primary {
            self.primary = controls;
            self.vmcs
                .write(Field::PRIMARY_CONTROLS, u64::from(controls));
        }
    }
}
