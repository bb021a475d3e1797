//! Numbers of the VMCS fields that the hypervisor uses.
//!
//! Source: SDM vol. 3D, "Field Encoding in VMCS". The width of a field is part of its number; VMREAD and VMWRITE
//! of 16- and 32-bit fields use the low bits of a 64-bit register.

/// Number of one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Field(pub u32);

macro_rules! fields {
    ($($name:ident = $number:literal;)*) => {
        impl Field {
            $(pub const $name: Self = Self($number);)*
        }
    };
}

fields! {
    // 16-bit controls.
    VPID = 0x0000;
    // 16-bit guest state: selectors, one every two numbers from ES to TR.
    GUEST_ES_SELECTOR = 0x0800;
    GUEST_TR_SELECTOR = 0x080E;
    // 16-bit host state.
    HOST_ES_SELECTOR = 0x0C00;
    HOST_CS_SELECTOR = 0x0C02;
    HOST_SS_SELECTOR = 0x0C04;
    HOST_DS_SELECTOR = 0x0C06;
    HOST_FS_SELECTOR = 0x0C08;
    HOST_GS_SELECTOR = 0x0C0A;
    HOST_TR_SELECTOR = 0x0C0C;
    // 64-bit controls.
    IO_BITMAP_A = 0x2000;
    IO_BITMAP_B = 0x2002;
    MSR_BITMAP = 0x2004;
    TSC_OFFSET = 0x2010;
    EPT_POINTER = 0x201A;
    XSS_EXITING_BITMAP = 0x202C;
    ENCLS_EXITING_BITMAP = 0x202E;
    // 64-bit read-only data.
    GUEST_PHYSICAL_ADDRESS = 0x2400;
    // 64-bit guest state.
    LINK_POINTER = 0x2800;
    GUEST_DEBUGCTL = 0x2802;
    GUEST_PAT = 0x2804;
    GUEST_EFER = 0x2806;
    GUEST_PDPTE0 = 0x280A;
    GUEST_PDPTE1 = 0x280C;
    GUEST_PDPTE2 = 0x280E;
    GUEST_PDPTE3 = 0x2810;
    // 64-bit host state.
    HOST_PAT = 0x2C00;
    HOST_EFER = 0x2C02;
    // 32-bit controls.
    PIN_CONTROLS = 0x4000;
    PRIMARY_CONTROLS = 0x4002;
    EXCEPTION_BITMAP = 0x4004;
    PAGE_FAULT_MASK = 0x4006;
    PAGE_FAULT_MATCH = 0x4008;
    CR3_TARGET_COUNT = 0x400A;
    EXIT_CONTROLS = 0x400C;
    EXIT_MSR_STORE_COUNT = 0x400E;
    EXIT_MSR_LOAD_COUNT = 0x4010;
    ENTRY_CONTROLS = 0x4012;
    ENTRY_MSR_LOAD_COUNT = 0x4014;
    ENTRY_EVENT = 0x4016;
    ENTRY_ERROR_CODE = 0x4018;
    ENTRY_INSTRUCTION_LENGTH = 0x401A;
    SECONDARY_CONTROLS = 0x401E;
    PAUSE_GAP = 0x4020;
    PAUSE_WINDOW = 0x4022;
    // 32-bit read-only data.
    INSTRUCTION_ERROR = 0x4400;
    EXIT_REASON = 0x4402;
    EXIT_EVENT = 0x4404;
    EXIT_ERROR_CODE = 0x4406;
    INTERRUPTED_EVENT = 0x4408;
    INTERRUPTED_ERROR_CODE = 0x440A;
    EXIT_INSTRUCTION_LENGTH = 0x440C;
    // 32-bit guest state: limits and access rights, one every two numbers from ES to TR.
    GUEST_ES_LIMIT = 0x4800;
    GUEST_GDTR_LIMIT = 0x4810;
    GUEST_IDTR_LIMIT = 0x4812;
    GUEST_ES_RIGHTS = 0x4814;
    GUEST_SS_RIGHTS = 0x4818;
    GUEST_CS_RIGHTS = 0x4816;
    INTERRUPTIBILITY = 0x4824;
    ACTIVITY = 0x4826;
    GUEST_SYSENTER_CS = 0x482A;
    // 32-bit host state.
    HOST_SYSENTER_CS = 0x4C00;
    // Natural-width controls.
    CR0_MASK = 0x6000;
    CR4_MASK = 0x6002;
    CR0_SHADOW = 0x6004;
    CR4_SHADOW = 0x6006;
    // Natural-width read-only data.
    EXIT_QUALIFICATION = 0x6400;
    GUEST_LINEAR_ADDRESS = 0x640A;
    // Natural-width guest state: segment bases, one every two numbers from ES to TR.
    GUEST_CR0 = 0x6800;
    GUEST_CR3 = 0x6802;
    GUEST_CR4 = 0x6804;
    GUEST_ES_BASE = 0x6806;
    GUEST_FS_BASE = 0x680E;
    GUEST_GS_BASE = 0x6810;
    GUEST_GDTR_BASE = 0x6816;
    GUEST_IDTR_BASE = 0x6818;
    GUEST_DR7 = 0x681A;
    GUEST_RSP = 0x681C;
    GUEST_RIP = 0x681E;
    GUEST_RFLAGS = 0x6820;
    PENDING_DEBUG = 0x6822;
    GUEST_SYSENTER_ESP = 0x6824;
    GUEST_SYSENTER_EIP = 0x6826;
    GUEST_S_CET = 0x6828;
    GUEST_SSP = 0x682A;
    GUEST_INTERRUPT_SSP_TABLE = 0x682C;
    // Natural-width host state.
    HOST_CR0 = 0x6C00;
    HOST_CR3 = 0x6C02;
    HOST_CR4 = 0x6C04;
    HOST_FS_BASE = 0x6C06;
    HOST_GS_BASE = 0x6C08;
    HOST_TR_BASE = 0x6C0A;
    HOST_GDTR_BASE = 0x6C0C;
    HOST_IDTR_BASE = 0x6C0E;
    HOST_SYSENTER_ESP = 0x6C10;
    HOST_SYSENTER_EIP = 0x6C12;
    HOST_RSP = 0x6C14;
    HOST_RIP = 0x6C16;
}

/// Bits of the pin-based controls.
pub mod pin {
    pub const INTERRUPT_EXITING: u32 = 1 << 0;
    pub const NMI_EXITING: u32 = 1 << 3;
    pub const VIRTUAL_NMIS: u32 = 1 << 5;
}

/// Bits of the primary processor-based controls.
pub mod primary {
    pub const INTERRUPT_WINDOW: u32 = 1 << 2;
    pub const TSC_OFFSETTING: u32 = 1 << 3;
    pub const HLT_EXITING: u32 = 1 << 7;
    pub const MWAIT_EXITING: u32 = 1 << 10;
    pub const RDPMC_EXITING: u32 = 1 << 11;
    pub const CR3_LOAD_EXITING: u32 = 1 << 15;
    pub const CR3_STORE_EXITING: u32 = 1 << 16;
    pub const CR8_LOAD_EXITING: u32 = 1 << 19;
    pub const CR8_STORE_EXITING: u32 = 1 << 20;
    pub const NMI_WINDOW: u32 = 1 << 22;
    pub const IO_BITMAPS: u32 = 1 << 25;
    pub const MSR_BITMAPS: u32 = 1 << 28;
    pub const MONITOR_EXITING: u32 = 1 << 29;
    pub const SECONDARY: u32 = 1 << 31;
}

/// Bits of the secondary processor-based controls.
pub mod secondary {
    pub const EPT: u32 = 1 << 1;
    pub const RDTSCP: u32 = 1 << 3;
    pub const VPID: u32 = 1 << 5;
    pub const WBINVD_EXITING: u32 = 1 << 6;
    pub const UNRESTRICTED_GUEST: u32 = 1 << 7;
    pub const PAUSE_LOOP_EXITING: u32 = 1 << 10;
    pub const INVPCID: u32 = 1 << 12;
    pub const ENCLS_EXITING: u32 = 1 << 15;
    pub const XSAVES: u32 = 1 << 20;
}

/// Bits of the exit controls.
pub mod exit {
    pub const SAVE_DEBUG: u32 = 1 << 2;
    pub const HOST_64_BIT: u32 = 1 << 9;
    pub const SAVE_PAT: u32 = 1 << 18;
    pub const LOAD_PAT: u32 = 1 << 19;
    pub const SAVE_EFER: u32 = 1 << 20;
    pub const LOAD_EFER: u32 = 1 << 21;
}

/// Bits of the entry controls.
pub mod entry {
    pub const LOAD_DEBUG: u32 = 1 << 2;
    pub const LONG_MODE_GUEST: u32 = 1 << 9;
    pub const LOAD_PAT: u32 = 1 << 14;
    pub const LOAD_EFER: u32 = 1 << 15;
    pub const LOAD_CET: u32 = 1 << 20;
}

/// Bits of the interruptibility state.
pub mod interruptibility {
    pub const STI: u32 = 1 << 0;
    pub const MOV_SS: u32 = 1 << 1;
    pub const NMI: u32 = 1 << 3;
    /// Both one-instruction shadows.
    pub const SHADOW: u32 = STI | MOV_SS;
}
