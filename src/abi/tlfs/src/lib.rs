//! The hypervisor interface on the wire: numbers, layouts, and one record turned into a value and back.
//!
//! Follows Microsoft's Hypervisor Top-Level Functional Specification (TLFS). Nothing here holds state or
//! decides anything; the rules are in the crates `hypercall` and `synic`. Numbers that a partition may choose
//! freely are open: newtypes with constants, never Rust enumerations.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod call;
pub mod cpuid;
pub mod intercept;
pub mod message;
pub mod msr;
pub mod property;
pub mod reader;
pub mod register;
pub mod state;
pub mod statistics;
pub mod status;
pub mod time;
pub mod wire;

pub use call::{CallCode, Control, ResultWord};
pub use cpuid::{Features, Hints, Privileges};
pub use message::{Message, MessageType};
pub use property::{PropertyCode, SyntheticFeatures};
pub use reader::Reader;
pub use register::RegisterName;
pub use status::HvError;
pub use wire::Writer;
