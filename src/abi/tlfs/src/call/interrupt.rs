//! Interrupts and intercepts (TLFS, "Virtual Interrupt Controller", "Intercepts").

use addr::{PartitionId, VpIndex};
use bitflags::bitflags;

use crate::wire::{Pad, Vtl, Zero, blocks, choices, flag_fields};

choices! {
    /// What is delivered (`HV_INTERRUPT_TYPE`).
    InterruptType: u32 {
        /// The vector, to every APIC of the destination.
        Fixed = 0,
        /// The vector, to one APIC of the destination.
        LowestPriority = 1,
        /// System management interrupt.
        Smi = 2,
        /// Non-maskable interrupt.
        Nmi = 4,
        /// INIT.
        Init = 5,
        /// Start-up IPI; the vector is its page.
        Sipi = 6,
        /// The vector, past the APIC.
        ExtInt = 7,
        /// Pin LINT0.
        LocalInt0 = 8,
        /// Pin LINT1.
        LocalInt1 = 9,
    }

    /// What can be intercepted (`HV_INTERCEPT_TYPE`).
    InterceptType: u32 {
        /// A port: the parameter.
        IoPort = 0,
        /// All MSRs that the hypervisor does not answer.
        Msr = 1,
        /// CPUID: the parameter is the leaf.
        Cpuid = 2,
        /// An exception: the parameter is its vector.
        Exception = 3,
        /// Calls with a code that nobody has.
        Hypercall = 8,
        /// A post or signal to a connection that nobody has.
        UnknownSynicConnection = 0xD,
        /// The end of an interrupt.
        ApicEoi = 0xE,
        /// Ports: the first in bits 15:0 of the parameter, the last in bits 31:16.
        IoPortRange = 0x11,
    }

    /// The one result that can be registered: CPUID.
    ResultType: u32 {
        /// Override of a leaf.
        Cpuid = 2,
    }
}

bitflags! {
    /// Accesses (`HV_INTERCEPT_ACCESS_MASK`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct AccessMask: u32 {
        /// Reads.
        const READ = 1;
        /// Writes.
        const WRITE = 2;
        /// Instruction fetches, or the instruction as such.
        const EXECUTE = 4;
    }
}

bitflags! {
    /// How an interrupt is delivered.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct InterruptFlags: u32 {
        /// Level triggered.
        const LEVEL = 1 << 0;
        /// The destination is logical.
        const LOGICAL = 1 << 1;
    }
}

flag_fields! { AccessMask: u32; InterruptFlags: u32; }

blocks! {
    /// `HvCallAssertVirtualInterrupt`.
    AssertInterrupt[32] {
        partition: PartitionId, kind: InterruptType, flags: InterruptFlags,
        /// APIC id, physical or logical.
        destination: u64,
        vector: u32, vtl: Vtl, reserved: Zero<3>,
    }

    /// `HvCallInstallIntercept`.
    InstallIntercept[24] {
        partition: PartitionId, access: AccessMask, kind: InterceptType, parameter: u64,
    }

    /// `HvCallRegisterInterceptResult`: what CPUID answers.
    RegisterCpuidResult[60] {
        partition: PartitionId,
        /// A VP, or any.
        vp: VpIndex,
        kind: ResultType, leaf: u32, subleaf: u32,
        /// Only for this subleaf; otherwise for all.
        is_subleaf_specific: bool,
        /// Also where the hypervisor computes the leaf anew for each read.
        is_always_override: bool,
        padding: Pad<2>,
        /// EAX, EBX, ECX and EDX: value and mask of each. The answer is the default outside the mask.
        registers: [[u32; 2]; 4],
    }
}
