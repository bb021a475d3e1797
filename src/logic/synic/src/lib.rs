//! The synthetic MSRs of a partition and its VPs, with what lies behind them: reference time, synthetic
//! interrupt controller, message queues and synthetic timers.
//!
//! [`PartitionMsrs`] holds the registers that a partition has once, [`VpSynic`] those that each VP has;
//! [`scope`] tells which of them a number belongs to. Nothing here touches memory, a clock or an interrupt
//! controller: time comes in as a parameter, pages through [`SynicPage`], and what is to be done goes out as
//! [`MsrEffect`] and [`Interrupts`]. The owner of the state holds its own lock around every call.
//!
//! Interrupts and messages come from [`VpSynic::service`], which the owner calls when a write asks for it and when a
//! message has come to where it looks for them. When [`VpSynic::deadline`] has passed, [`VpSynic::expire`] is enough
//! for timers that send no message.
//!
//! Follows the TLFS, "Virtual Interrupts", "Inter-Partition Communication", "Timers".
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod clock;
mod delivery;
mod interrupts;
mod lazy_eoi;
mod msr;
mod page;
mod partition;
mod queue;
mod ring;
mod timer;
mod vp;

#[cfg(test)]
mod tests;

pub use clock::{RefClock, RefTime};
pub use delivery::{EventError, MessageSource, Signalled};
pub use interrupts::{Interrupt, Interrupts};
pub use lazy_eoi::LazyEoi;
pub use msr::{CrashReport, GpFault, MsrEffect, Overlay, Scope, WriteContext, scope};
pub use page::SynicPage;
pub use partition::{PartitionConfig, PartitionMsrs};
pub use queue::{QueueEntry, QueueFull};
pub use ring::RingError;
pub use vp::VpSynic;
