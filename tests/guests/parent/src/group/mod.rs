//! The tests, by subject.

pub mod apic;
pub mod bench;
pub mod cpuid;
pub mod exceptions;
pub mod hypercall;
pub mod msr;
