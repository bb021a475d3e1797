//! PCI configuration space for a parent whose machine has only the two legacy ports.
//!
//! Linux under a hypervisor wants the memory-mapped form (ECAM). [`EcamWindow`] turns an access to a
//! window of unbacked guest physical memory into accesses of ports 0xCF8 and 0xCFC. Firmware, boot
//! loaders and Linux' early code use the ports themselves at the same time, so these are trapped, and
//! [`ConfigAddress`] keeps the parent's own value of 0xCF8.
//!
//! Pure: the ports are behind [`ConfigPorts`]. Whoever implements it holds the machine-wide lock for
//! as long as it is borrowed, since each data access needs its own address write just before.
//!
//! Sources: PCI Local Bus Specification 3.0, "Configuration Mechanism"; PCI Express Base
//! Specification, "PCI Express Enhanced Configuration Access Mechanism (ECAM)".
#![no_std]
#![forbid(unsafe_code)]

mod ecam;
mod ports;

pub use ecam::{ConfigRegister, EcamWindow};
pub use ports::{ADDRESS_PORT, ConfigAddress, ConfigPorts, DATA_PORT, PortOutcome, Width};
