//! Partition properties (TLFS, `HV_PARTITION_PROPERTY_CODE`) and what some of them hold.

use bitflags::bitflags;

use crate::cpuid::{Features, Hints, Privileges};
use crate::wire::{Zero, blocks, open_fields};

/// Code of a property.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct PropertyCode(pub u32);

open_fields! { PropertyCode: u32; }

macro_rules! codes {
    ($($name:ident = $value:literal: $doc:literal,)*) => {
        impl PropertyCode { $(#[doc = $doc] pub const $name: Self = Self($value);)* }
    };
}

codes! {
    PRIVILEGE_FLAGS = 0x1_0000: "[`Privileges`] of the partition. Before it is initialized.",
    SYNTHETIC_FEATURES = 0x1_0001: "[`SyntheticFeatures`] of the partition. Before it is initialized.",
    SUSPEND = 0x2_0000: "1: none of its VPs runs.",
    CPU_RESERVE = 0x2_0001: "Reserved processor time.",
    CPU_CAP = 0x2_0002: "Most processor time of a VP, 65,536 for all of an LP.",
    CPU_WEIGHT = 0x2_0003: "Share of the processors where they do not suffice.",
    CPU_GROUP = 0x2_0004: "Group of LPs that its VPs run on.",
    INTEGRATED_SCHEDULER = 0x2_0005: "1: the parent schedules the VPs.",
    TIME_FREEZE = 0x3_0003: "1: its clocks stand still.",
    REFERENCE_TIME = 0x3_0005: "Its reference time in units of 100 ns.",
    PROCESSORS_PER_SOCKET = 0x5_0003: "For CPUID's topology.",
    GPA_ACCESS_TRACKING = 0x5_0005: "1: access states of its pages are kept.",
    IMPLEMENTED_PHYSICAL_BITS = 0x5_0010: "Physical address bits of the machine.",
    UNIMPLEMENTED_MSR_ACTION = 0x5_0017: "0: #GP; 1: writes are dropped and reads answer 0.",
    PROCESSOR_VENDOR = 0x6_0000: "0: AMD; 1: Intel; 2: Hygon.",
    PROCESSOR_FEATURES = 0x6_0001: "Bank 0, by its old number.",
    XSAVE_FEATURES = 0x6_0002: "Features that come with XSAVE.",
    CL_FLUSH_SIZE = 0x6_0003: "Cache line, as a power of two.",
    COMPATIBILITY_VERSION = 0x6_0005: "Interface level.",
    PHYSICAL_ADDRESS_WIDTH = 0x6_0006: "Physical address bits of the partition.",
    XSAVE_STATES = 0x6_0007: "Components that can be enabled: XCR0 and XSS together.",
    MAX_XSAVE_DATA_SIZE = 0x6_0008: "Bytes of the largest compacted area.",
    PROCESSOR_CLOCK_FREQUENCY = 0x6_0009: "In Hz.",
    PROCESSOR_FEATURES_0 = 0x6_000A: "Bank 0.",
    PROCESSOR_FEATURES_1 = 0x6_000B: "Bank 1.",
    GUEST_OS_ID = 0x7_0000: "What the guest announced itself as.",
    VMM_CAPABILITIES = 0x9_0007: "[`Bank`] of [`VmmCapabilities`]. By the Ex call.",
    ASSIGNABLE_SYNTHETIC_FEATURES = 0x9_0009: "[`Bank`] of [`SyntheticFeatures::ASSIGNABLE`]. By the Ex call.",
    VMBUS = 0x8000_0001: "Ours: frames of its pool that the hypervisor's VMBus server for it may use; 0, as at first, for no server. Before it is initialized.",
}

blocks! {
    /// A property that is a list of 64-bit banks, of which we have one.
    Bank[16] {
        /// 1.
        count: u16,
        reserved: Zero<6>, value: u64,
    }
}

bitflags! {
    /// What the parent's drivers may rely on.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct VmmCapabilities: u64 {
        /// Mapping keeps what was adjusted.
        const MAP_PRESERVES_ADJUSTABLE = 1 << 0;
        /// The parent chooses the places of state and statistics pages.
        const OVERLAYS_PLACED_BY_PARENT = 1 << 1;
        /// VPs can be bound to LPs.
        const VP_AFFINITY = 1 << 2;
        /// [`PropertyCode::ASSIGNABLE_SYNTHETIC_FEATURES`] exists.
        const ASSIGNABLE_SYNTHETIC_FEATURES = 1 << 4;
        /// The parent may schedule the VPs.
        const INTEGRATED_SCHEDULER = 1 << 6;
    }
}

bitflags! {
    /// `HV_PARTITION_SYNTHETIC_PROCESSOR_FEATURES`: what a child sees of the interface. VMMs ask for more bits than
    /// these; they are kept and count for nothing.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct SyntheticFeatures: u64 {
        /// CPUID tells that there is a hypervisor.
        const HYPERVISOR_PRESENT = 1 << 0;
        /// The leaves of this interface are there.
        const HV1 = 1 << 1;
        /// VP_RUNTIME.
        const VP_RUNTIME = 1 << 2;
        /// TIME_REF_COUNT.
        const REFERENCE_COUNTER = 1 << 3;
        /// The SynIC registers.
        const SYNIC = 1 << 4;
        /// The synthetic timers.
        const SYNTHETIC_TIMERS = 1 << 5;
        /// EOI, ICR, TPR and the VP assist page.
        const APIC_MSRS = 1 << 6;
        /// GUEST_OS_ID and HYPERCALL.
        const HYPERCALL_MSRS = 1 << 7;
        /// VP_INDEX.
        const VP_INDEX = 1 << 8;
        /// REFERENCE_TSC.
        const REFERENCE_TSC = 1 << 9;
        /// GUEST_IDLE.
        const GUEST_IDLE = 1 << 10;
        /// TSC_FREQUENCY and APIC_FREQUENCY.
        const FREQUENCY_MSRS = 1 << 11;
        /// HvCallStartVirtualProcessor.
        const START_VP = 1 << 20;
        /// Synthetic timers have the direct mode.
        const DIRECT_TIMERS = 1 << 22;
        /// Calls with VP sets.
        const EXTENDED_PROCESSOR_MASKS = 1 << 24;
        /// Flush calls.
        const FLUSH_CALLS = 1 << 25;
        /// HvCallSendSyntheticClusterIpi.
        const CLUSTER_IPI = 1 << 26;
        /// HvCallNotifyLongSpinWait.
        const LONG_SPIN_WAIT = 1 << 27;
        /// HvCallSignalEvent, and with us HvCallPostMessage.
        const SIGNAL_EVENTS = 1 << 29;
    }
}

impl SyntheticFeatures {
    /// Without these two a partition sees nothing of the interface.
    pub const INTERFACE: Self = Self::HYPERVISOR_PRESENT.union(Self::HV1);

    /// The features that a child can have.
    pub const ASSIGNABLE: Self = Self::HYPERVISOR_PRESENT
        .union(Self::HV1)
        .union(Self::REFERENCE_COUNTER)
        .union(Self::SYNIC)
        .union(Self::SYNTHETIC_TIMERS)
        .union(Self::APIC_MSRS)
        .union(Self::HYPERCALL_MSRS)
        .union(Self::VP_INDEX)
        .union(Self::REFERENCE_TSC)
        .union(Self::FREQUENCY_MSRS)
        .union(Self::START_VP)
        .union(Self::DIRECT_TIMERS)
        .union(Self::EXTENDED_PROCESSOR_MASKS)
        .union(Self::FLUSH_CALLS)
        .union(Self::CLUSTER_IPI)
        .union(Self::LONG_SPIN_WAIT)
        .union(Self::SIGNAL_EVENTS);

    /// The privileges, features and hints that go with each feature.
    const MEANING: [(Self, Privileges, Features, Hints); 15] = {
        const P: Privileges = Privileges::empty();
        const F: Features = Features::empty();
        const H: Hints = Hints::empty();
        [
            (
                Self::HV1,
                P,
                Features::CRASH_MSRS,
                Hints::RELAXED_TIMING.union(Hints::DEPRECATE_AUTO_EOI),
            ),
            (Self::REFERENCE_COUNTER, Privileges::REFERENCE_COUNTER, F, H),
            (Self::SYNIC, Privileges::SYNIC, F, H),
            (Self::SYNTHETIC_TIMERS, Privileges::SYNTHETIC_TIMERS, F, H),
            (Self::APIC_MSRS, Privileges::APIC_MSRS, F, Hints::APIC_MSRS),
            (Self::HYPERCALL_MSRS, Privileges::HYPERCALL_MSRS, F, H),
            (Self::VP_INDEX, Privileges::VP_INDEX, F, H),
            (Self::REFERENCE_TSC, Privileges::REFERENCE_TSC, F, H),
            (
                Self::FREQUENCY_MSRS,
                Privileges::FREQUENCY_MSRS,
                Features::FREQUENCY_MSRS,
                H,
            ),
            (Self::START_VP, Privileges::START_VP, F, H),
            (Self::DIRECT_TIMERS, P, Features::DIRECT_TIMERS, H),
            (
                Self::EXTENDED_PROCESSOR_MASKS,
                P,
                F,
                Hints::EXTENDED_PROCESSOR_MASKS,
            ),
            (Self::FLUSH_CALLS, P, F, Hints::REMOTE_TLB_FLUSH),
            (Self::CLUSTER_IPI, P, F, Hints::CLUSTER_IPI),
            (
                Self::SIGNAL_EVENTS,
                Privileges::SIGNAL_EVENTS.union(Privileges::POST_MESSAGES),
                F,
                H,
            ),
        ]
    };

    /// What a partition with these features may do, has, and had better do. Features that no child can have count
    /// for nothing, and without [`SyntheticFeatures::INTERFACE`] there is nothing.
    pub fn meaning(self) -> (Privileges, Features, Hints) {
        let mut sum = (Privileges::empty(), Features::empty(), Hints::empty());
        for (feature, privileges, features, hints) in Self::MEANING {
            if self.contains(Self::INTERFACE.union(feature)) {
                sum = (sum.0 | privileges, sum.1 | features, sum.2 | hints);
            }
        }
        sum
    }
}
