//! The CPUID leaves by which a partition learns what it runs on and what it may use
//! (TLFS, "Feature and Interface Discovery").

use bitflags::bitflags;

/// First leaf of the hypervisor's range.
pub const FIRST_LEAF: u32 = 0x4000_0000;
/// Last leaf of the range that the hypervisor answers.
pub const LAST_LEAF: u32 = 0x4000_FFFF;

/// Highest leaf and vendor.
pub const VENDOR_AND_MAX: u32 = 0x4000_0000;
/// Interface signature.
pub const INTERFACE: u32 = 0x4000_0001;
/// Version of the hypervisor.
pub const VERSION: u32 = 0x4000_0002;
/// Privileges of the partition and features.
pub const FEATURES: u32 = 0x4000_0003;
/// Recommendations to the guest.
pub const RECOMMENDATIONS: u32 = 0x4000_0004;
/// Limits.
pub const LIMITS: u32 = 0x4000_0005;
/// Hardware features in use.
pub const HARDWARE_FEATURES: u32 = 0x4000_0006;
/// Properties of the virtualization stack. Linux reads it whatever the highest leaf is.
pub const STACK_PROPERTIES: u32 = 0x4000_0082;

/// EBX, ECX and EDX of [`VENDOR_AND_MAX`]: "Microsoft Hv", by which a guest knows the interface.
pub const VENDOR: [u32; 3] = [
    u32::from_le_bytes(*b"Micr"),
    u32::from_le_bytes(*b"osof"),
    u32::from_le_bytes(*b"t Hv"),
];
/// EAX of [`INTERFACE`]: "Hv#1".
pub const INTERFACE_SIGNATURE: u32 = u32::from_le_bytes(*b"Hv#1");

bitflags! {
    /// What a partition may do (`HV_PARTITION_PRIVILEGE_MASK`): EAX of leaf 0x40000003 in bits 31:0, EBX in
    /// bits 63:32.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Privileges: u64 {
        /// VP_RUNTIME.
        const VP_RUNTIME = 1 << 0;
        /// TIME_REF_COUNT.
        const REFERENCE_COUNTER = 1 << 1;
        /// The SynIC registers.
        const SYNIC = 1 << 2;
        /// The synthetic timers.
        const SYNTHETIC_TIMERS = 1 << 3;
        /// EOI, ICR and TPR.
        const APIC_MSRS = 1 << 4;
        /// GUEST_OS_ID and HYPERCALL.
        const HYPERCALL_MSRS = 1 << 5;
        /// VP_INDEX.
        const VP_INDEX = 1 << 6;
        /// RESET.
        const RESET = 1 << 7;
        /// Statistics pages.
        const STATISTICS = 1 << 8;
        /// REFERENCE_TSC.
        const REFERENCE_TSC = 1 << 9;
        /// GUEST_IDLE.
        const GUEST_IDLE = 1 << 10;
        /// TSC_FREQUENCY and APIC_FREQUENCY.
        const FREQUENCY_MSRS = 1 << 11;
        /// Debug MSRs.
        const DEBUG_MSRS = 1 << 12;
        /// REENLIGHTENMENT_CONTROL and its companions.
        const REENLIGHTENMENT = 1 << 13;
        /// TSC_INVARIANT_CONTROL.
        const TSC_INVARIANT = 1 << 15;
        /// Create and control partitions.
        const CREATE_PARTITIONS = 1 << 32;
        /// HvCallGetPartitionId.
        const ACCESS_PARTITION_ID = 1 << 33;
        /// Deposit and withdraw memory.
        const ACCESS_MEMORY_POOL = 1 << 34;
        /// HvCallPostMessage.
        const POST_MESSAGES = 1 << 36;
        /// HvCallSignalEvent.
        const SIGNAL_EVENTS = 1 << 37;
        /// Create ports.
        const CREATE_PORT = 1 << 38;
        /// Connect to ports.
        const CONNECT_PORT = 1 << 39;
        /// Map statistics pages.
        const ACCESS_STATISTICS = 1 << 40;
        /// Debug other partitions.
        const DEBUGGING = 1 << 43;
        /// Manage logical processors.
        const CPU_MANAGEMENT = 1 << 44;
        /// Virtual trust levels.
        const ACCESS_VSM = 1 << 48;
        /// Read and write VP registers.
        const ACCESS_VP_REGISTERS = 1 << 49;
        /// Extended calls, 0x8001 and up.
        const EXTENDED_HYPERCALLS = 1 << 52;
        /// HvCallStartVirtualProcessor.
        const START_VP = 1 << 53;
        /// The partition is isolated from its host.
        const ISOLATION = 1 << 54;
    }
}

bitflags! {
    /// What is there: EDX of leaf 0x40000003.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Features: u32 {
        /// Hypercall input in XMM registers.
        const XMM_HYPERCALL_INPUT = 1 << 4;
        /// TSC_FREQUENCY and APIC_FREQUENCY exist.
        const FREQUENCY_MSRS = 1 << 8;
        /// The crash MSRs exist.
        const CRASH_MSRS = 1 << 10;
        /// Hypercall output in XMM registers.
        const XMM_HYPERCALL_OUTPUT = 1 << 15;
        /// The HYPERCALL MSR can be locked.
        const HYPERCALL_MSR_LOCK = 1 << 18;
        /// Synthetic timers have the direct mode.
        const DIRECT_TIMERS = 1 << 19;
    }
}

bitflags! {
    /// What the guest is recommended to do: EAX of leaf 0x40000004.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Hints: u32 {
        /// Flush the TLBs of other VPs by hypercall.
        const REMOTE_TLB_FLUSH = 1 << 2;
        /// Reach the local APIC through EOI, ICR and TPR.
        const APIC_MSRS = 1 << 3;
        /// Relax watchdogs.
        const RELAXED_TIMING = 1 << 5;
        /// Do not use AutoEOI.
        const DEPRECATE_AUTO_EOI = 1 << 9;
        /// Send IPIs by hypercall.
        const CLUSTER_IPI = 1 << 10;
        /// Use the calls with VP sets.
        const EXTENDED_PROCESSOR_MASKS = 1 << 11;
        /// The hypervisor itself is nested.
        const NESTED = 1 << 12;
        /// Reach vPCI configuration space by hypercall.
        const MMIO_HYPERCALLS = 1 << 21;
    }
}

/// EBX of [`RECOMMENDATIONS`]: never call HvCallNotifyLongSpinWait.
pub const SPIN_WAIT_NEVER: u32 = u32::MAX;

const _: () =
    assert!(VENDOR[0] == 0x7263_694D && VENDOR[1] == 0x666F_736F && VENDOR[2] == 0x7648_2074);
const _: () = assert!(INTERFACE_SIGNATURE == 0x3123_7648);
