//! Virtual processors (TLFS, "Virtual Processors", "Virtual Processor Register").

use addr::{Gpn, PartitionId, VpIndex};
use bitflags::bitflags;
use x86::{Segment, TableRegister};

use crate::register::RegisterName;
use crate::wire::{Pad, Vtl, Zero, blocks, choices, flag_fields};

/// The caller's own VP, wherever a call takes a VP.
pub const VP_SELF: VpIndex = VpIndex::new(0xFFFF_FFFE);
/// Any VP, or every VP.
pub const VP_ANY: VpIndex = VpIndex::new(0xFFFF_FFFF);

choices! {
    /// A page that the hypervisor and the parent share about a VP (`HV_VP_STATE_PAGE_TYPE`).
    StatePageType: u16 {
        /// [`register_page`](crate::state::register_page).
        Registers = 0,
        /// One message: the last intercept.
        Intercept = 1,
    }

    /// State that is moved as a whole (`HV_GET_SET_VP_STATE_TYPE`).
    StateType: u32 {
        /// Synthetic timers, inline: [`TimersState`](crate::state::TimersState).
        Timers = 4,
        /// Local APIC, in one page: [`lapic`](crate::state::lapic).
        Lapic = 0x8000_0000,
        /// XSAVE area in the compacted form, in pages.
        Xsave = 0x8000_0001,
        /// Message page.
        MessagePage = 0x8000_0002,
        /// Event flags page.
        EventFlagsPage = 0x8000_0003,
    }
}

impl StateType {
    /// The state lies in pages whose numbers are the variable header; otherwise it is in the block itself.
    pub const fn is_in_pages(self) -> bool {
        self as u32 & 1 << 31 != 0
    }
}

bitflags! {
    /// Flags of `HvCallGetVpCpuidValues`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct CpuidValuesFlags: u32 {
        /// XCR0 and XSS are the VP's, not the element's.
        const USE_VP_XFEM_XSS = 1 << 0;
        /// With what `HvCallRegisterInterceptResult` overrides.
        const APPLY_REGISTERED = 1 << 1;
    }
}

flag_fields! { CpuidValuesFlags: u32; }

blocks! {
    /// `HvCallCreateVp`.
    CreateVp[40] {
        partition: PartitionId, vp: VpIndex,
        /// Padding, subnode and proximity: hints without use here, which Linux leaves partly as they were.
        hints: Pad<20>,
        flags: u64,
    }

    /// `HvCallDeleteVp`.
    DeleteVp[16] {
        partition: PartitionId, vp: VpIndex, reserved: Zero<4>,
    }

    /// Header of `HvCallGetVpRegisters` (list: names, u32 each; output list: values, u128 each) and of
    /// `HvCallSetVpRegisters` (list: [`RegisterValue`]).
    VpRegisters[16] {
        partition: PartitionId, vp: VpIndex, vtl: Vtl, reserved: Zero<3>,
    }

    /// One register and its value (`HV_REGISTER_ASSOC`).
    RegisterValue[32] {
        name: RegisterName, padding: Pad<12>, value: u128,
    }

    /// `HvCallMapVpStatePage`; output: the page number (u64).
    MapStatePage[24] {
        partition: PartitionId, vp: VpIndex, kind: StatePageType, vtl: Vtl,
        /// `page` counts; otherwise the hypervisor would choose a place.
        is_placed: bool,
        page: Gpn,
    }

    /// `HvCallUnmapVpStatePage`.
    UnmapStatePage[16] {
        partition: PartitionId, vp: VpIndex, kind: StatePageType, vtl: Vtl, reserved: Zero<1>,
    }

    /// Header of `HvCallGetVpState` (output: inline state) and `HvCallSetVpState`. The variable header is page
    /// numbers of the caller (u64 each), or for `HvCallSetVpState` the inline state.
    VpState[40] {
        partition: PartitionId, vp: VpIndex, vtl: Vtl, reserved: Zero<3>, kind: StateType, reserved2: Zero<4>,
        xsave_flags: u64, xsave_states: u64,
    }

    /// Header of `HvCallGetVpCpuidValues`; list: [`CpuidLeaf`]; output list: EAX to EDX, u32 each.
    GetCpuidValues[24] {
        partition: PartitionId, vp: VpIndex, flags: CpuidValuesFlags, reserved: Zero<8>,
    }

    /// One leaf asked for.
    CpuidLeaf[24] {
        leaf: u32, subleaf: u32, xfem: u64, xss: u64,
    }

    /// `HvCallStartVirtualProcessor`.
    StartVp[240] {
        partition: PartitionId, vp: VpIndex, vtl: Vtl, reserved: Zero<3>, context: InitialContext,
    }

    /// Registers of a VP to be started (`HV_INITIAL_VP_CONTEXT`).
    InitialContext[224] {
        rip: u64, rsp: u64, rflags: u64, cs: Segment, ds: Segment, es: Segment, fs: Segment, gs: Segment, ss: Segment,
        tr: Segment, ldtr: Segment, idtr: TableRegister, gdtr: TableRegister, efer: u64, cr0: u64, cr3: u64, cr4: u64,
        pat: u64,
    }

    /// Header of `HvCallGetVpIndexFromApicId`; list: APIC ids (u32 each); output list: VP indexes (u32 each).
    VpIndexFromApicId[16] {
        partition: PartitionId, vtl: Vtl, reserved: Zero<7>,
    }
}
