//! Names and layouts of VP registers (TLFS, "Virtual Processor Register", `HV_REGISTER_NAME`).

use crate::wire::open_fields;

/// Name of a register (`HV_REGISTER_NAME`).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct RegisterName(pub u32);

open_fields! { RegisterName: u32; }

impl RegisterName {
    /// The place of this register behind `first`, when it is one of the `count` that begin there.
    pub const fn index_from(self, first: Self, count: u32) -> Option<usize> {
        let index = self.0.wrapping_sub(first.0);
        if index < count {
            Some(index as usize)
        } else {
            None
        }
    }

    /// The register `index` places behind this one.
    pub const fn nth(self, index: u32) -> Self {
        Self(self.0.wrapping_add(index))
    }
}

macro_rules! names {
    ($($name:ident = $value:literal $(: $doc:literal)?,)*) => {
        #[allow(missing_docs, reason = "the registers of the architecture have its names")]
        impl RegisterName {
            $($(#[doc = $doc])? pub const $name: Self = Self($value);)*
        }

        impl core::fmt::Debug for RegisterName {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match self.0 {
                    $($value => f.write_str(stringify!($name)),)*
                    other => write!(f, "RegisterName({other:#x})"),
                }
            }
        }
    };
}

names! {
    EXPLICIT_SUSPEND = 0x0: "Bit 0: suspended by the parent.",
    INTERCEPT_SUSPEND = 0x1: "Bit 0: suspended because of an intercept. The parent can only clear it.",
    INSTRUCTION_EMULATION_HINTS = 0x2: "What an emulator of instructions must know. Zero with us.",
    DISPATCH_SUSPEND = 0x3: "Bit 0: suspended by the scheduler of the parent.",
    INTERNAL_ACTIVITY_STATE = 0x4: "See [`activity`].",
    HYPERVISOR_VERSION = 0x100: "CPUID leaf 0x40000002.",
    PRIVILEGES_AND_FEATURES = 0x200: "CPUID leaf 0x40000003; those up to 0x40000006 follow.",
    CRASH_P0 = 0x210: "First of five parameters.",
    CRASH_CTL = 0x215,
    PENDING_INTERRUPTION = 0x1_0002: "See [`pending_interruption`].",
    INTERRUPT_STATE = 0x1_0003: "See [`interrupt_state`].",
    PENDING_EVENT_0 = 0x1_0004: "See [`pending_event`].",
    PENDING_EVENT_1 = 0x1_0005: "Second half of a pending event, for kinds that need it.",
    DELIVERABILITY_NOTIFICATIONS = 0x1_0006: "See [`deliverability`].",
    RAX = 0x2_0000: "First of sixteen, in the order in which instructions encode them.",
    RCX = 0x2_0001, RDX = 0x2_0002, RBX = 0x2_0003, RSP = 0x2_0004, RBP = 0x2_0005, RSI = 0x2_0006, RDI = 0x2_0007,
    R8 = 0x2_0008, R15 = 0x2_000F, RIP = 0x2_0010, RFLAGS = 0x2_0011,
    XMM0 = 0x3_0000: "First of sixteen.",
    FP_MMX0 = 0x3_0010: "First of eight.",
    FP_CONTROL_STATUS = 0x3_0018: "FCW, FSW, FTW (abridged), reserved byte, FOP, then the last instruction's RIP.",
    XMM_CONTROL_STATUS = 0x3_0019: "The last operand's address, then MXCSR and its mask.",
    CR0 = 0x4_0000, CR2 = 0x4_0001, CR3 = 0x4_0002, CR4 = 0x4_0003, CR8 = 0x4_0004,
    XFEM = 0x4_0005: "XCR0.",
    INTERMEDIATE_CR0 = 0x4_1000: "CR0, checked with the others only when the VP runs; CR3 and CR4 likewise.",
    INTERMEDIATE_CR3 = 0x4_1002, INTERMEDIATE_CR4 = 0x4_1003, INTERMEDIATE_CR8 = 0x4_1004,
    DR0 = 0x5_0000, DR1 = 0x5_0001, DR2 = 0x5_0002, DR3 = 0x5_0003, DR6 = 0x5_0004, DR7 = 0x5_0005,
    ES = 0x6_0000: "First of eight segment registers.",
    CS = 0x6_0001, SS = 0x6_0002, DS = 0x6_0003, FS = 0x6_0004, GS = 0x6_0005, LDTR = 0x6_0006, TR = 0x6_0007,
    IDTR = 0x7_0000, GDTR = 0x7_0001,
    TSC = 0x8_0000, EFER = 0x8_0001, KERNEL_GS_BASE = 0x8_0002, APIC_BASE = 0x8_0003, PAT = 0x8_0004,
    SYSENTER_CS = 0x8_0005, SYSENTER_EIP = 0x8_0006, SYSENTER_ESP = 0x8_0007,
    STAR = 0x8_0008, LSTAR = 0x8_0009, CSTAR = 0x8_000A, SFMASK = 0x8_000B, INITIAL_APIC_ID = 0x8_000C,
    MTRR_CAP = 0x8_000D, MTRR_DEF_TYPE = 0x8_000E,
    MTRR_PHYS_BASE0 = 0x8_0010: "First of sixteen.",
    MTRR_PHYS_MASK0 = 0x8_0040: "First of sixteen.",
    MTRR_FIX_64K_00000 = 0x8_0070: "First of eleven, in the order of the addresses.",
    TSC_AUX = 0x8_007B, BNDCFGS = 0x8_007C, DEBUG_CTL = 0x8_007D, MCOUNT = 0x8_007E, ACOUNT = 0x8_007F,
    SPEC_CTRL = 0x8_0084, PRED_CMD = 0x8_0085, VIRT_SPEC_CTRL = 0x8_0086, TSC_OFFSET = 0x8_0087, TSX_CTRL = 0x8_0088,
    MICROCODE = 0x8_0089, XSS = 0x8_008B, U_CET = 0x8_008C, S_CET = 0x8_008D, SSP = 0x8_008E,
    PL0_SSP = 0x8_008F, PL1_SSP = 0x8_0090, PL2_SSP = 0x8_0091, PL3_SSP = 0x8_0092, SSP_TABLE = 0x8_0093,
    TSC_DEADLINE = 0x8_0095, TSC_ADJUST = 0x8_0096, UMWAIT_CONTROL = 0x8_0098, XFD = 0x8_0099, XFD_ERR = 0x8_009A,
    MISC_ENABLE = 0x8_00A0,
    VP_RUNTIME = 0x9_0000, HYPERCALL = 0x9_0001, GUEST_OS_ID = 0x9_0002, VP_INDEX = 0x9_0003, TIME_REF_COUNT = 0x9_0004,
    VP_ASSIST_PAGE = 0x9_0013,
    ROOT_SIGNAL_COUNT = 0x9_0014: "Signals sent to the scheduler of the parent.",
    REFERENCE_TSC = 0x9_0017,
    SINT0 = 0xA_0000: "First of sixteen.",
    SCONTROL = 0xA_0010, SVERSION = 0xA_0011, SIEFP = 0xA_0012, SIMP = 0xA_0013, EOM = 0xA_0014, SIRBP = 0xA_0015,
    STIMER0_CONFIG = 0xB_0000: "Configuration and count of the four timers in turn.",
    STIMER0_COUNT = 0xB_0001, STIMER3_COUNT = 0xB_0007,
}

/// Bits of [`RegisterName::INTERNAL_ACTIVITY_STATE`].
pub mod activity {
    /// Waits for a start-up IPI.
    pub const STARTUP_SUSPEND: u64 = 1 << 0;
    /// Halted.
    pub const HALT_SUSPEND: u64 = 1 << 1;
    /// Idle by its own wish.
    pub const IDLE_SUSPEND: u64 = 1 << 2;
}

/// Bits of [`RegisterName::PENDING_INTERRUPTION`]: an event whose delivery was begun.
pub mod pending_interruption {
    /// There is one.
    pub const PENDING: u64 = 1 << 0;
    /// Its kind: interrupt 0, NMI 2, exception 3, software interrupt 4, privileged software exception 5, software
    /// exception 6.
    pub const KIND: u64 = 7 << 1;
    /// It has an error code.
    pub const HAS_ERROR_CODE: u64 = 1 << 4;
    /// Length of its instruction.
    pub const INSTRUCTION_LENGTH: u64 = 0xF << 5;
    /// Part of a nested event.
    pub const NESTED: u64 = 1 << 9;
    /// Shift of the vector, 16 bits.
    pub const VECTOR_SHIFT: u32 = 16;
    /// Shift of the error code, 32 bits.
    pub const ERROR_CODE_SHIFT: u32 = 32;
}

/// Bits of [`RegisterName::INTERRUPT_STATE`].
pub mod interrupt_state {
    /// No interrupts for one instruction.
    pub const SHADOW: u64 = 1 << 0;
    /// No NMI until IRET.
    pub const NMI_MASKED: u64 = 1 << 1;
}

/// Bits of [`RegisterName::PENDING_EVENT_0`]: an event to be delivered at the next run. Bits 63:32 are the error
/// code, and bits 127:64 the parameter (CR2, or the bits of DR6).
pub mod pending_event {
    /// There is one.
    pub const PENDING: u128 = 1 << 0;
    /// Its kind: exception 0, external interrupt past the APIC 5.
    pub const KIND: u128 = 7 << 1;
    /// An exception.
    pub const EXCEPTION: u128 = 0 << 1;
    /// An external interrupt, whose vector is in bits 15:8.
    pub const EXT_INT: u128 = 5 << 1;
    /// The exception has an error code.
    pub const HAS_ERROR_CODE: u128 = 1 << 8;
    /// Shift of an exception's vector, 16 bits.
    pub const VECTOR_SHIFT: u32 = 16;
    /// Shift of the error code, 32 bits.
    pub const ERROR_CODE_SHIFT: u32 = 32;
    /// Shift of the parameter, 64 bits.
    pub const PARAMETER_SHIFT: u32 = 64;
}

/// Bits of [`RegisterName::DELIVERABILITY_NOTIFICATIONS`]: tell the parent once when it can deliver.
pub mod deliverability {
    /// An NMI.
    pub const NMI: u64 = 1 << 0;
    /// An interrupt of at least the priority in [`PRIORITY`].
    pub const INTERRUPT: u64 = 1 << 1;
    /// That priority, or 0 for any.
    pub const PRIORITY: u64 = 0xF << 2;
    /// Shift of a mask of SINTs that got room for a message, 16 bits.
    pub const SINTS_SHIFT: u32 = 48;
}
