//! Counters in pages of statistics: each is the index of a u64 in its page.
//!
//! `HV_HYPERVISOR_COUNTER`, `HV_CPU_COUNTER`, `HV_PROCESS_COUNTER` and `HV_THREAD_COUNTER` for x64, as Linux' mshv driver
//! names them. Only those that are filled are listed; all others stay 0. Times are in units of 100 ns.

/// A counter's place in its page.
pub type Index = u16;

/// Of the hypervisor.
pub mod hypervisor {
    use super::Index;

    /// LPs.
    pub const LOGICAL_PROCESSORS: Index = 1;
    /// Partitions, the parent included.
    pub const PARTITIONS: Index = 2;
    /// Pages that the hypervisor uses for itself.
    pub const TOTAL_PAGES: Index = 3;
    /// VPs of all partitions.
    pub const VIRTUAL_PROCESSORS: Index = 4;
}

/// Of an LP.
pub mod lp {
    use super::Index;

    /// Time since the hypervisor was launched.
    pub const GLOBAL_TIME: Index = 1;
    /// Of that, time in which the LP was not halted by the hypervisor.
    pub const TOTAL_RUN_TIME: Index = 2;
    /// Interrupts of devices.
    pub const HARDWARE_INTERRUPTS: Index = 4;
    /// Changes of the VP that is loaded.
    pub const CONTEXT_SWITCHES: Index = 5;
    /// Interrupts that the hypervisor sent from another LP.
    pub const INTER_PROCESSOR_INTERRUPTS: Index = 6;
    /// Interrupts of the LP's timer.
    pub const TIMER_INTERRUPTS: Index = 8;
    /// Times that the hypervisor halted the LP.
    pub const PROCESSOR_HALTS: Index = 10;
    /// The VP of the parent that runs there.
    pub const ROOT_VP_INDEX: Index = 19;
}

/// Of a partition.
pub mod partition {
    use super::Index;

    /// VPs.
    pub const VIRTUAL_PROCESSORS: Index = 1;
    /// Frames in its pool, used or not.
    pub const DEPOSITED_PAGES: Index = 5;
    /// Pages of 4 KiB that are mapped.
    pub const GPA_PAGES: Index = 6;
    /// Leaves of 4 KiB in its second-level tables.
    pub const GPA_PAGES_4K: Index = 10;
    /// Leaves of 2 MiB.
    pub const GPA_PAGES_2M: Index = 11;
    /// Leaves of 1 GiB.
    pub const GPA_PAGES_1G: Index = 12;
    /// Its identifier.
    pub const PARTITION_ID: Index = 26;
    /// Its children.
    pub const ACTIVE_CHILD_PARTITIONS: Index = 46;
}

/// Of a VP.
pub mod vp {
    use super::Index;

    /// Time on an LP, answers to its exits included.
    pub const TOTAL_RUN_TIME: Index = 1;
    /// Hypercalls.
    pub const HYPERCALLS: Index = 7;
    /// Accesses to control registers.
    pub const CONTROL_REGISTER_ACCESSES: Index = 11;
    /// Accesses to ports.
    pub const IO_INSTRUCTIONS: Index = 13;
    /// HLT.
    pub const HLT_INSTRUCTIONS: Index = 15;
    /// MONITOR, MWAIT, and PAUSE where it exits.
    pub const MWAIT_INSTRUCTIONS: Index = 17;
    /// CPUID.
    pub const CPUID_INSTRUCTIONS: Index = 19;
    /// RDMSR and WRMSR.
    pub const MSR_ACCESSES: Index = 21;
    /// Exits with none of the other reasons.
    pub const OTHER_INTERCEPTS: Index = 23;
    /// Exits for what came to the LP from outside.
    pub const EXTERNAL_INTERRUPTS: Index = 25;
    /// Exits because the VP could take what waited for it.
    pub const PENDING_INTERRUPTS: Index = 27;
    /// Accesses to the APIC's page.
    pub const APIC_MMIO_ACCESSES: Index = 39;
    /// Messages to the parent about a port.
    pub const IO_INTERCEPT_MESSAGES: Index = 40;
    /// Messages to the parent about memory.
    pub const MEMORY_INTERCEPT_MESSAGES: Index = 41;
    /// Ends of interrupts that exited.
    pub const APIC_EOI_ACCESSES: Index = 42;
    /// Other messages to the parent.
    pub const OTHER_MESSAGES: Index = 43;
    /// Turns on another LP than the one before.
    pub const LOGICAL_PROCESSOR_MIGRATIONS: Index = 45;
    /// Interrupts that were delivered.
    pub const VIRTUAL_INTERRUPTS: Index = 59;
    /// IPIs sent through the APIC.
    pub const APIC_IPIS_SENT: Index = 60;
    /// Calls about guest physical memory.
    pub const GPA_SPACE_HYPERCALLS: Index = 62;
    /// HvCallNotifyLongSpinWait.
    pub const LONG_SPIN_WAIT_HYPERCALLS: Index = 64;
    /// Calls that none of the other counters of calls has.
    pub const OTHER_HYPERCALLS: Index = 65;
    /// Messages, events, ports and connections.
    pub const SYNTHETIC_INTERRUPT_HYPERCALLS: Index = 66;
    /// IPIs and interrupts by call.
    pub const VIRTUAL_INTERRUPT_HYPERCALLS: Index = 67;
    /// Flushes of translations.
    pub const VIRTUAL_MMU_HYPERCALLS: Index = 68;
    /// Calls about VPs and their registers.
    pub const VIRTUAL_PROCESSOR_HYPERCALLS: Index = 69;
    /// Interrupts of devices, for a VP of the parent.
    pub const HARDWARE_INTERRUPTS: Index = 70;
    /// Faults in the second-level tables.
    pub const NESTED_PAGE_FAULT_INTERCEPTS: Index = 71;
    /// Turns on an LP.
    pub const LOGICAL_PROCESSOR_DISPATCHES: Index = 74;
    /// Deposits and withdrawals.
    pub const DEPOSIT_HYPERCALLS: Index = 198;
}
