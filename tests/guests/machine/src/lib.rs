//! What the test programs run on: the bare processor, taken over from the firmware, the little that can be asked of
//! the platform, and the report in TAP.
#![no_std]

pub mod acpi;
pub mod apic;
pub mod clock;
pub mod console;
pub mod cpu;
pub mod insn;
pub mod mark;
pub mod options;
pub mod page;
pub mod paging;
pub mod platform;
pub mod probe;
pub mod smp;
pub mod tables;
pub mod trampoline;
pub mod trap;
pub mod verdict;
