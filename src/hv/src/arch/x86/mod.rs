//! The x86-64 processor: one wrapper per instruction, descriptor tables, the physical local APIC, the per-LP
//! area, and the two virtualization extensions.
pub mod captured;
pub mod descriptors;
pub mod extended;
pub mod idt;
pub mod insn;
pub mod local_apic;
pub mod lp;
pub mod msr;
pub mod mtrr;
pub mod svm;
pub mod vmx;
