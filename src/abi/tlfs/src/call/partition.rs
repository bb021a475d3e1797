//! Partitions, their properties, pools and statistics (TLFS, "Partition Management"; `HV_INPUT_*` of the calls).

use addr::{Gpn, LpIndex, PartitionId, VpIndex};
use bitflags::bitflags;

use crate::property::PropertyCode;
use crate::wire::{Field, Pad, Writer, Zero, blocks, choices, flag_fields};
use crate::{HvError, Reader};

/// The caller's own partition, wherever a call takes a partition.
pub const PARTITION_SELF: PartitionId = PartitionId::new(u64::MAX);
/// No partition.
pub const PARTITION_NONE: PartitionId = PartitionId::new(0);

bitflags! {
    /// Flags of a partition, fixed when it is created.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct CreateFlags: u64 {
        /// VPs are SMT siblings. No effect.
        const SMT = 1 << 0;
        /// Nested virtualization.
        const NESTED = 1 << 1;
        /// Large pages in the guest physical address space.
        const SUPER_PAGES = 1 << 4;
        /// The parent handles what the hypervisor does not.
        const EXO = 1 << 8;
        /// The hypervisor provides the local APICs.
        const LAPIC = 1 << 13;
        /// Intercepts are told by an opaque message; the real one lies in the VP's intercept page.
        const INTERCEPT_PAGE = 1 << 19;
        /// Local APICs have x2APIC mode.
        const X2APIC = 1 << 22;
    }
}

choices! {
    /// Whose object a statistics page describes.
    StatsArea: u8 {
        /// What the object knows of itself.
        Own = 0,
        /// What the parent may know of it.
        Parent = 1,
    }
}

flag_fields! { CreateFlags: u64; }

blocks! {
    /// `HvCallCreatePartition`.
    CreatePartition[56] {
        flags: CreateFlags,
        /// Domain and flags: hints without use here.
        proximity: Pad<8>,
        /// Interface level, 0x609 from Linux.
        compatibility: u32,
        padding: Zero<4>,
        /// Processor features not to be shown, two banks.
        disabled_features: [u64; 2],
        /// XSAVE features not to be shown.
        disabled_xsave: u64,
        /// Isolation, which we have none of.
        isolation: Zero<8>,
    }

    /// Calls that name a partition and nothing else: initialize, finalize, delete, clear virtual interrupt. Also
    /// the header of a deposit, whose list is page numbers of the caller (u64 each).
    PartitionOnly[8] {
        partition: PartitionId,
    }

    /// `HvCallGetPartitionProperty`; output u64.
    GetProperty[16] {
        partition: PartitionId, code: PropertyCode, padding: Zero<4>,
    }

    /// `HvCallSetPartitionProperty`.
    SetProperty[24] {
        partition: PartitionId, code: PropertyCode, padding: Zero<4>, value: u64,
    }

    /// `HvCallGetPartitionPropertyEx`; output up to a page.
    GetPropertyEx[24] {
        partition: PartitionId, code: PropertyCode, padding: Zero<4>, argument: u64,
    }

    /// `HvCallGetNextChildPartition`; output: the partition, or none after the last.
    GetNextChild[16] {
        parent: PartitionId,
        /// The answer of the call before, [`PARTITION_NONE`] for the first.
        previous: PartitionId,
    }

    /// Header of `HvCallWithdrawMemory`; output list: page numbers of the caller (u64 each).
    Withdraw[16] {
        partition: PartitionId,
        /// Domain and flags: hints without use here.
        proximity: Pad<8>,
    }

    /// `HvCallMapStatsPage` with output u64, a page number; also `HvCallUnmapStatsPage`.
    StatsPage[24] {
        object: StatsObject,
    }

    /// `HvCallMapStatsPage2`.
    MapStatsPage2[32] {
        object: StatsObject,
        /// Page of the caller that will show the statistics.
        page: Gpn,
    }
}

/// Whose statistics (`HV_STATS_OBJECT_TYPE`, `HV_STATS_OBJECT_IDENTITY`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatsOf {
    /// The hypervisor.
    Hypervisor,
    /// A logical processor.
    Lp(LpIndex),
    /// A partition.
    Partition(PartitionId),
    /// A virtual processor.
    Vp(PartitionId, VpIndex),
}

/// A statistics page: of what, and which of its areas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatsObject {
    /// Of what.
    pub of: StatsOf,
    /// Which area.
    pub area: StatsArea,
}

impl Default for StatsObject {
    fn default() -> Self {
        Self {
            of: StatsOf::Hypervisor,
            area: StatsArea::Own,
        }
    }
}

impl Field for StatsObject {
    const BYTES: usize = 24;

    fn read(r: &mut Reader<'_>) -> Result<Self, HvError> {
        let kind = r.u32()?;
        Zero::<4>::read(r)?;
        let of = match kind {
            1 => Zero::<15>::read(r).map(|_| StatsOf::Hypervisor)?,
            2 => StatsOf::Lp(LpIndex::read(r)?),
            0x1_0001 => StatsOf::Partition(PartitionId::read(r)?),
            0x1_0002 => StatsOf::Vp(PartitionId::read(r)?, VpIndex::read(r)?),
            _ => return Err(HvError::INVALID_PARAMETER),
        };
        match of {
            StatsOf::Hypervisor => {}
            StatsOf::Lp(_) => Zero::<11>::read(r).map(|_| ())?,
            StatsOf::Partition(_) => Zero::<7>::read(r).map(|_| ())?,
            StatsOf::Vp(..) => Zero::<3>::read(r).map(|_| ())?,
        }
        Ok(Self {
            of,
            area: StatsArea::read(r)?,
        })
    }

    fn write(self, w: &mut Writer<'_>) {
        let (kind, identity): (u32, u128) = match self.of {
            StatsOf::Hypervisor => (1, 0),
            StatsOf::Lp(lp) => (2, lp.get().into()),
            StatsOf::Partition(id) => (0x1_0001, id.get().into()),
            StatsOf::Vp(id, vp) => (0x1_0002, u128::from(id.get()) | u128::from(vp.get()) << 64),
        };
        u64::from(kind).write(w);
        (identity | (self.area as u128) << 120).write(w);
    }
}
