//! A child partition: its life, its pool, its memory. Every frame that goes in is remembered, to be compared with what
//! comes out.

mod memory;
mod pool;

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use addr::{Gpn, PartitionId, VpIndex};
use tlfs::call::*;
use tlfs::property::PropertyCode;
use tlfs::{CallCode, HvError};

use super::call;
use crate::arena::{self, FRAME};

pub use memory::{RWX, RX};
pub use pool::{Gone, deposit_frames, own_frames, rep_of_pages, with_own_pool, withdraw_frames};

/// Everything that VMMs ask for: the parent handles what the hypervisor does not, local APICs with x2APIC mode,
/// intercepts in a page.
pub const USUAL: CreateFlags = CreateFlags::EXO
    .union(CreateFlags::LAPIC)
    .union(CreateFlags::SUPER_PAGES)
    .union(CreateFlags::INTERCEPT_PAGE)
    .union(CreateFlags::X2APIC);

/// A child.
#[derive(Debug)]
pub struct Child {
    /// Its id.
    pub id: PartitionId,
    /// Frames of its pool.
    pub deposited: BTreeSet<u64>,
    /// Whether it was initialized, and so is to be finalized.
    pub is_initialized: bool,
    /// VPs with the pages that their state is shown in.
    pub vps: Vec<StatePages>,
}

/// Where the parent sees a VP's state.
#[derive(Clone, Copy, Debug)]
pub struct StatePages {
    /// The register page.
    pub registers: u64,
    /// The intercept page.
    pub intercept: u64,
}

/// The input of a plain create call.
pub fn create_input(flags: CreateFlags) -> CreatePartition {
    CreatePartition {
        flags,
        compatibility: 0x609,
        ..CreatePartition::default()
    }
}

/// Makes one create call.
pub fn create(input: &CreatePartition) -> Result<PartitionId, HvError> {
    let id = call::ask::<8>(CallCode::CREATE_PARTITION, &input.encode())?;
    Ok(PartitionId::new(u64::from_le_bytes(id)))
}

/// The child after `previous` (none for the first).
pub fn next_child(previous: PartitionId) -> Result<PartitionId, HvError> {
    let input = GetNextChild {
        parent: PARTITION_SELF,
        previous,
    };
    let id = call::ask::<8>(CallCode::GET_NEXT_CHILD_PARTITION, &input.encode())?;
    Ok(PartitionId::new(u64::from_le_bytes(id)))
}

/// All children, at most 2000.
pub fn children() -> Vec<PartitionId> {
    let mut list = Vec::new();
    let mut at = PARTITION_NONE;
    while let Ok(next) = next_child(at) {
        if next == PARTITION_NONE || list.len() > 2000 {
            break;
        }
        list.push(next);
        at = next;
    }
    list
}

impl Child {
    /// Creates a partition, and nothing else.
    ///
    /// # Errors
    /// The status of the call, but for a lack of memory, which is met by deposits to the parent.
    pub fn create(flags: CreateFlags) -> Result<Self, HvError> {
        let input = create_input(flags);
        let id = with_own_pool(|| create(&input))?;
        Ok(Self {
            id,
            deposited: BTreeSet::new(),
            is_initialized: false,
            vps: Vec::new(),
        })
    }

    /// Creates and initializes a partition.
    ///
    /// # Errors
    /// The status of the first call that failed for another reason than memory.
    pub fn initialized(flags: CreateFlags) -> Result<Self, HvError> {
        let mut child = Self::create(flags)?;
        child.initialize()?;
        Ok(child)
    }

    /// Initializes it, with deposits.
    pub fn initialize(&mut self) -> Result<(), HvError> {
        let id = self.id.get();
        self.feed(|_| call::fast(CallCode::INITIALIZE_PARTITION, id, 0))?;
        self.is_initialized = true;
        Ok(())
    }

    /// Creates VP `index` and maps its state pages.
    pub fn create_vp(&mut self, index: u32) -> Result<(), HvError> {
        let input = CreateVp {
            partition: self.id,
            vp: VpIndex::new(index),
            ..CreateVp::default()
        };
        self.feed(|_| call::simple(CallCode::CREATE_VP, &input.encode()))?;
        let pages = StatePages {
            registers: arena::frame(),
            intercept: arena::frame(),
        };
        for (kind, frame) in [
            (StatePageType::Intercept, pages.intercept),
            (StatePageType::Registers, pages.registers),
        ] {
            let input = self.state_page(index, kind, frame);
            self.feed(|_| call::ask::<8>(CallCode::MAP_VP_STATE_PAGE, &input.encode()))?;
        }
        self.vps.push(pages);
        Ok(())
    }

    /// The block that maps a state page.
    pub fn state_page(&self, vp: u32, kind: StatePageType, frame: u64) -> MapStatePage {
        MapStatePage {
            partition: self.id,
            vp: VpIndex::new(vp),
            kind,
            is_placed: true,
            page: Gpn::new(frame / FRAME),
            ..MapStatePage::default()
        }
    }

    /// Reads a property.
    pub fn property(&self, code: PropertyCode) -> Result<u64, HvError> {
        property_of(self.id, code)
    }

    /// Sets a property.
    pub fn set_property(&self, code: PropertyCode, value: u64) -> Result<(), HvError> {
        let input = SetProperty {
            partition: self.id,
            code,
            value,
            ..SetProperty::default()
        };
        call::simple(CallCode::SET_PARTITION_PROPERTY, &input.encode())
    }

    /// Finalizes, withdraws, deletes.
    pub fn destroy(mut self) -> Gone {
        let id = self.id.get();
        let mut gone = Gone::default();
        if self.is_initialized {
            gone.finalize = call::code(call::fast(CallCode::FINALIZE_PARTITION, id, 0));
        }
        self.withdraw_all(&mut gone);
        gone.delete = call::code(call::fast(CallCode::DELETE_PARTITION, id, 0));
        if gone.delete == 0 {
            for pages in self.vps.drain(..) {
                arena::free(pages.registers);
                arena::free(pages.intercept);
            }
        }
        gone
    }
}

/// Reads a property of partition `id`.
pub fn property_of(id: PartitionId, code: PropertyCode) -> Result<u64, HvError> {
    let input = GetProperty {
        partition: id,
        code,
        ..GetProperty::default()
    };
    call::ask::<8>(CallCode::GET_PARTITION_PROPERTY, &input.encode()).map(u64::from_le_bytes)
}
