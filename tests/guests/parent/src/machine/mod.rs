//! What the tests run on: the bare processor, taken over from the firmware, and the little that can be
//! asked of the platform.

pub mod acpi;
pub mod apic;
pub mod clock;
pub mod console;
pub mod cpu;
pub mod insn;
pub mod paging;
pub mod probe;
pub mod smp;
pub mod tables;
pub mod trampoline;
pub mod trap;
