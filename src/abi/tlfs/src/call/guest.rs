//! Calls that guests make for speed: flushes and IPIs (TLFS, "Virtual MMU and Caching", "Virtual Interrupt
//! Controller").

use bitflags::bitflags;

use crate::wire::{Field, Vtl, Writer, Zero, blocks, flag_fields};
use crate::{HvError, Reader};

bitflags! {
    /// `HV_FLUSH_FLAGS`. The extended form of the ranges is not offered, so its bit is refused.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct FlushFlags: u64 {
        /// All VPs of the partition, whatever the set says.
        const ALL_PROCESSORS = 1 << 0;
        /// All address spaces, whatever the call names.
        const ALL_SPACES = 1 << 1;
        /// Global translations may stay.
        const NON_GLOBAL_ONLY = 1 << 2;
    }
}

flag_fields! { FlushFlags: u64; }

blocks! {
    /// Head of a VP set (`HV_VP_SET`); banks of 64 VPs (u64 each) follow it as variable header.
    VpSetHeader[16] {
        /// 0: banks; 1: all VPs.
        format: u64,
        /// Bit n: bank n is there.
        valid_banks: u64,
    }

    /// `HvCallFlushVirtualAddressSpace`, and header of `HvCallFlushVirtualAddressList` (list:
    /// [`GvaRange`](super::GvaRange)).
    Flush[24] {
        /// CR3 without PCID.
        address_space: u64,
        flags: FlushFlags,
        /// Bit n: VP n.
        vps: u64,
    }

    /// `HvCallFlushVirtualAddressSpaceEx`, and header of `HvCallFlushVirtualAddressListEx` (list:
    /// [`GvaRange`](super::GvaRange)).
    FlushEx[32] {
        /// CR3 without PCID.
        address_space: u64,
        flags: FlushFlags, vps: VpSetHeader,
    }

    /// `HvCallSendSyntheticClusterIpi`.
    ClusterIpi[16] {
        vector: IpiVector, vtl: Vtl, padding: Zero<3>,
        /// Bit n: VP n.
        vps: u64,
    }

    /// `HvCallSendSyntheticClusterIpiEx`.
    ClusterIpiEx[24] {
        vector: IpiVector, vtl: Vtl, padding: Zero<3>, vps: VpSetHeader,
    }
}

/// Vector of an IPI, 0x10 to 0xFF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpiVector(u8);

impl IpiVector {
    /// `vector`, or `None` below 0x10.
    pub const fn new(vector: u8) -> Option<Self> {
        if vector < 0x10 {
            None
        } else {
            Some(Self(vector))
        }
    }

    /// The vector.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl Default for IpiVector {
    fn default() -> Self {
        Self(0x10)
    }
}

impl Field for IpiVector {
    const BYTES: usize = 4;
    fn read(r: &mut Reader<'_>) -> Result<Self, HvError> {
        u8::try_from(r.u32()?)
            .ok()
            .and_then(Self::new)
            .ok_or(HvError::INVALID_PARAMETER)
    }
    fn write(self, w: &mut Writer<'_>) {
        u32::from(self.0).write(w);
    }
}
