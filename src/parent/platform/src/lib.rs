//! What a child finds around its processors: memory with a kernel in it, ACPI tables, devices.
//!
//! - [`load`] puts a kernel, its initrd and what they need into a child's memory and says which registers its boot VP starts
//!   with.
//! - [`Devices`] answers the child's port and memory accesses: interrupt controller, serial port, power, clock.
//! - [`port::carry_out`] and [`mmio::carry_out`] do what an intercepted instruction would have done to a device.
//!
//! No threads, no files, no time of its own: what goes out leaves through the writer and the interrupt sink that
//! [`Devices`] is given. Everything here is reached by a child: nothing panics, whatever it does.
//!
//! The platform is the shape of a Hyper-V generation 2 machine: an IO-APIC and no 8259, no PIT, no PCI; power management
//! and reset by ACPI; the VMBus device in the DSDT. Its parts agree through [`map`].
#![forbid(unsafe_code)]

mod acpi;
mod boot;
mod devices;
pub mod map;
pub mod mmio;
pub mod port;

pub use boot::{BootState, LoadError, Options, load};
pub use devices::{Devices, Interrupt, InterruptSink, Outcome, WallClock};
