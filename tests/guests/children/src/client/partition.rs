//! A child partition: its life, its pool, its memory. Every frame that goes in is remembered, to be compared with what
//! comes out.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use addr::{Gpn, PartitionId, VpIndex};
use machine::insn;
use tlfs::call::*;
use tlfs::property::PropertyCode;
use tlfs::{CallCode, HvError};

use super::call::{self, Reply};
use crate::arena::{self, FRAME};

/// Everything that VMMs ask for: the parent handles what the hypervisor does not, local APICs with x2APIC mode,
/// intercepts in a page.
pub const USUAL: CreateFlags = CreateFlags::EXO
    .union(CreateFlags::LAPIC)
    .union(CreateFlags::SUPER_PAGES)
    .union(CreateFlags::INTERCEPT_PAGE)
    .union(CreateFlags::X2APIC);

/// Reads, writes, and instruction fetches in both modes.
pub const RWX: MapFlags = MapFlags::READ
    .union(MapFlags::WRITE)
    .union(MapFlags::KERNEL_EXECUTE)
    .union(MapFlags::USER_EXECUTE);

/// Reads and instruction fetches.
pub const RX: MapFlags = MapFlags::READ
    .union(MapFlags::KERNEL_EXECUTE)
    .union(MapFlags::USER_EXECUTE);

/// Elements of one map call at most.
const MAP_REPS: usize = 509;
/// Elements of one deposit at most.
const DEPOSIT_REPS: usize = 511;

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

/// The parts of a destruction that can go wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gone {
    /// Status of the finalization.
    pub finalize: u64,
    /// Status with which withdrawing ended.
    pub withdraw: u64,
    /// Frames that came back and had not been deposited, or had come back before.
    pub foreign: u64,
    /// Frames that did not come back.
    pub missing: u64,
    /// Frames that came back with content.
    pub dirty: u64,
    /// Status of the deletion.
    pub delete: u64,
}

impl Gone {
    /// What it should be.
    pub const CLEAN: Self = Self {
        finalize: 0,
        withdraw: HvError::NO_RESOURCES.0 as u64,
        foreign: 0,
        missing: 0,
        dirty: 0,
        delete: 0,
    };
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

static OWN: AtomicU64 = AtomicU64::new(0);

/// Frames that this program gave to its own pool.
pub fn own_frames() -> u64 {
    OWN.load(Ordering::SeqCst)
}

/// Makes `call` until it does not ask for memory, giving one frame at a time to the pool of the caller itself. Those
/// stay with the hypervisor for good.
pub fn with_own_pool<T>(mut call: impl FnMut() -> Result<T, HvError>) -> Result<T, HvError> {
    for _ in 0..1024 {
        match call() {
            Err(HvError::INSUFFICIENT_MEMORY) => {
                deposit_frames(PARTITION_SELF, &[arena::frame()]).status?;
                OWN.fetch_add(1, Ordering::SeqCst);
            }
            result => return result,
        }
    }
    Err(HvError::TIMEOUT)
}

/// One deposit of `frames` (addresses) to the pool of `id`.
pub fn deposit_frames(id: PartitionId, frames: &[u64]) -> Reply {
    let header = PartitionOnly { partition: id }.encode();
    rep_of_pages(CallCode::DEPOSIT_MEMORY, &header, frames)
}

/// A rep call whose list is page numbers of the caller.
pub fn rep_of_pages(code: CallCode, header: &[u8], frames: &[u64]) -> Reply {
    let list: Vec<u8> = frames
        .iter()
        .flat_map(|frame| (frame / FRAME).to_le_bytes())
        .collect();
    call::rep(code, header, &list, frames.len() as u16, &mut [])
}

/// One withdrawal of up to `count` frames from the pool of `id`: what came out.
pub fn withdraw_frames(id: PartitionId, count: u16) -> (Reply, Vec<u64>) {
    let header = Withdraw {
        partition: id,
        ..Withdraw::default()
    };
    let mut out = [0; 4096];
    let out = &mut out[..usize::from(count) * 8];
    let reply = call::rep(CallCode::WITHDRAW_MEMORY, &header.encode(), &[], count, out);
    let frames = out
        .chunks_exact(8)
        .take(usize::from(reply.done))
        .map(|page| u64::from_le_bytes(page.try_into().unwrap_or_default()) * FRAME)
        .collect();
    (reply, frames)
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

    /// Puts `count` new frames into the pool.
    pub fn deposit(&mut self, count: usize) -> Result<(), HvError> {
        let mut left = count;
        while left > 0 {
            let frames = arena::frames(left.min(DEPOSIT_REPS));
            let reply = deposit_frames(self.id, &frames);
            let (taken, rest) = frames.split_at(usize::from(reply.done).min(frames.len()));
            self.deposited.extend(taken);
            rest.iter().for_each(|frame| arena::free(*frame));
            reply.status?;
            left -= taken.len().max(1).min(left);
        }
        Ok(())
    }

    /// Makes `call` until it does not ask for memory, with one frame for the pool each time.
    pub fn feed<T>(
        &mut self,
        mut call: impl FnMut(&Self) -> Result<T, HvError>,
    ) -> Result<T, HvError> {
        for _ in 0..4096 {
            match call(self) {
                Err(HvError::INSUFFICIENT_MEMORY) => self.deposit(1)?,
                result => return result,
            }
        }
        Err(HvError::TIMEOUT)
    }

    /// One map call: `frames` one by one at `gpa`, in units of 2 MiB when `flags` say so. No deposits.
    pub fn map_once(&self, gpa: u64, frames: &[u64], flags: MapFlags) -> Reply {
        let header = MapGpaPages {
            partition: self.id,
            base: Gpn::new(gpa / FRAME),
            flags,
            ..MapGpaPages::default()
        };
        rep_of_pages(CallCode::MAP_GPA_PAGES, &header.encode(), frames)
    }

    /// Maps `frames` from `gpa` on, with deposits and in as many calls as needed.
    pub fn map(&mut self, gpa: u64, frames: &[u64], flags: MapFlags) -> Result<(), HvError> {
        let unit = if flags.contains(MapFlags::LARGE) {
            arena::CHUNK
        } else {
            FRAME
        };
        let mut done = 0;
        for _ in 0..4096 {
            let Some(rest) = frames.get(done..).filter(|rest| !rest.is_empty()) else {
                return Ok(());
            };
            let piece = &rest[..rest.len().min(MAP_REPS)];
            let reply = self.map_once(gpa + done as u64 * unit, piece, flags);
            done += usize::from(reply.done).min(piece.len());
            match reply.status {
                Err(HvError::INSUFFICIENT_MEMORY) => self.deposit(1)?,
                status => status?,
            }
        }
        Err(HvError::TIMEOUT)
    }

    /// Maps the `count` frames that begin at `spa` to `gpa` and up.
    pub fn map_range(
        &mut self,
        gpa: u64,
        spa: u64,
        count: u64,
        flags: MapFlags,
    ) -> Result<(), HvError> {
        let frames: Vec<u64> = (0..count).map(|n| spa + n * FRAME).collect();
        self.map(gpa, &frames, flags)
    }

    /// Declares `count` pages at `gpa` without access.
    pub fn map_no_access(&mut self, gpa: u64, count: usize) -> Result<(), HvError> {
        let frames: Vec<u64> = (0..count).map(|_| 0).collect();
        self.map(gpa, &frames, MapFlags::NO_ACCESS)
    }

    /// One unmap call of `count` units at `gpa`.
    pub fn unmap_once(&self, gpa: u64, count: u16, flags: UnmapFlags) -> Reply {
        let header = UnmapGpaPages {
            partition: self.id,
            base: Gpn::new(gpa / FRAME),
            flags,
            ..UnmapGpaPages::default()
        };
        call::rep(
            CallCode::UNMAP_GPA_PAGES,
            &header.encode(),
            &[],
            count,
            &mut [],
        )
    }

    /// Unmaps `count` pages at `gpa`, with deposits where a large leaf is split.
    pub fn unmap(&mut self, gpa: u64, count: u16) -> Result<(), HvError> {
        self.feed(|child| child.unmap_once(gpa, count, UnmapFlags::empty()).status)
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

    /// Withdraws everything there is. Frames that are known come off the list and go back to the arena.
    pub fn withdraw_all(&mut self, gone: &mut Gone) {
        for _ in 0..4096 {
            let (reply, frames) = withdraw_frames(self.id, 512);
            for frame in &frames {
                if !self.deposited.remove(frame) {
                    gone.foreign += 1;
                    continue;
                }
                gone.dirty += u64::from(!looks_clean(*frame));
                arena::free(*frame);
            }
            gone.withdraw = reply.code();
            if reply.status.is_err() {
                break;
            }
        }
        gone.missing = self.deposited.len() as u64;
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

/// A look at sixteen words of a frame, which is what every cycle can afford.
fn looks_clean(frame: u64) -> bool {
    (0..FRAME)
        .step_by(256)
        .all(|at| insn::read_phys64(frame + at) == 0)
}
