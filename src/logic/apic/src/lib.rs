//! The local APIC of one virtual processor, in xAPIC and x2APIC mode, and the parts around it that
//! other processors write.
//!
//! Pure: no hardware and no clock. Time is the host's TSC, passed in by the caller as a number of
//! ticks. What a guest's write asks of the rest of the machine is returned as an [`Effect`].
//!
//! - [`Apic`] belongs to the processor that runs the VP. Nobody else touches it.
//! - [`Inbox`] is shared: senders of IPIs write it, the owner reads it with [`Apic::absorb`] and
//!   [`Inbox::take_start`].
//! - [`EoiStack`] belongs to a logical processor and says how many physical EOIs are due.
//!
//! Sources: Intel SDM vol. 3A, "Advanced Programmable Interrupt Controller (APIC)", with its
//! section "Extended XAPIC (x2APIC)"; AMD APM vol. 2, "Advanced Programmable Interrupt Controller".
//! Sections are cited by title below.
//!
//! Knowingly absent: directed EOI and EOI-broadcast suppression (version register bit 24 is 0),
//! AMD's extended register space, a writable APIC ID, SMI delivery, and the masking of the performance
//! entry by its own interrupt.
#![no_std]
#![forbid(unsafe_code)]

mod base;
mod destination;
mod eoi_stack;
mod icr;
mod inbox;
mod interrupts;
mod lvt;
mod mmio;
mod msr;
mod registers;
mod saved;
mod scale;
mod snapshot;
mod state;
mod timer;
mod vectors;

pub use base::{BaseChange, Mode};
pub use destination::Destination;
pub use eoi_stack::EoiStack;
pub use icr::{Ipi, IpiKind};
pub use inbox::{Inbox, StartEvent};
pub use interrupts::{Acceptance, Trigger};
pub use lvt::{Delivery, Lvt};
pub use saved::SAVED_BYTES;
pub use scale::Timing;
pub use snapshot::Snapshot;
pub use state::{Apic, Effect, Features, GeneralProtection};
pub use vectors::VectorSet;
