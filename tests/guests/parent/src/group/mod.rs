//! The tests, by subject.

pub mod accuracy;
pub mod apic;
pub mod assist;
pub mod bench;
pub mod cpuid;
pub mod exceptions;
pub mod fuzz;
pub mod hypercall;
pub mod ipi;
pub mod memory;
pub mod msr;
pub mod stimer;
pub mod synic;
pub mod time;
