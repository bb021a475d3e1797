//! Child partitions: made by the parent's calls, in memory that the parent deposited.
//!
//! | object | frame of | freed by |
//! | --- | --- | --- |
//! | [`ChildPartition`] | the hypervisor's reserve | HvCallDeletePartition |
//! | its first table and overlay frames | the partition's pool | HvCallFinalizePartition |
//! | [`ChildVp`] and what it points to | the partition's pool | HvCallDeleteVp, HvCallFinalizePartition |
#![expect(unsafe_code, reason = "keeps objects in frames of pools")]

mod end;
mod freeze;
pub mod memory;
pub mod vp;

use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

use addr::{Gpa, Gpn, PartitionId, VpIndex};
use apic::Features;
use hypercall::{NoAccess, PartitionIdentity};
use paging::walk::Access;
use spin::Mutex;
use synic::{Overlay, PartitionConfig, PartitionMsrs, RefClock};
use tlfs::HvError;
use tlfs::call::CreateFlags;
use tlfs::property::SyntheticFeatures;

use super::{CHILD_VPS, Partition, PartitionCore, Seat, VpShared, VpTable, directory};
use crate::arch::x86::insn;
use crate::mm::frames::{self as allocator, FrameUse};
use crate::mm::phys::SharedFrame;
use crate::mm::pool::{self, Pool, PoolFrames};
use crate::partition::directory::ChildRef;
use crate::partition::ports::{FrameChunks, Links};
use crate::partition::statistics;
use crate::partition::vmbus::VmBus;

pub use memory::ChildMemory;
pub use vp::{ChildVp, Scheduled, shared_at};

/// Where a partition is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Created: properties can be set that decide what it is.
    Created,
    /// Initialized: it has memory and VPs.
    Active,
    /// Being taken apart, in pieces.
    Finalizing,
    /// Nothing is left but its pool.
    Finalized,
    /// Nothing is left.
    Deleted,
}

/// What the parent set, beside what lies in the parts.
pub struct Properties {
    /// Where it is in its life.
    pub state: State,
    /// Features of the interface that it is told of.
    pub synthetic: SyntheticFeatures,
    /// The parent answers MSRs that nobody has.
    pub msr_intercept: bool,
    /// What an MSR that nobody has does: 1 to read zeros and ignore writes, 0 to be the parent's to answer.
    pub unimplemented_msr_action: u64,
    /// Weight and cap of its VPs.
    pub share: sched::Share,
    /// Frames that its VMBus server may use; 0 for no server.
    pub vmbus_frames: u32,
}

/// A child.
pub struct ChildPartition {
    /// What both kinds of partition have.
    core: PartitionCore,
    /// Which slot it is in.
    pub slot: usize,
    /// What it was created with.
    pub flags: CreateFlags,
    /// Processor features that it is not shown: two banks, and those of XSAVE.
    pub disabled: [u64; 3],
    /// The frames deposited for it.
    pub pool: Mutex<Pool>,
    /// Its guest physical memory; none before it is initialized and after it is finalized.
    pub memory: Mutex<Option<ChildMemory>>,
    /// What the parent set.
    pub properties: Mutex<Properties>,
    /// Processors in a socket, for the topology leaves; 0 counts as 1.
    pub vps_per_socket: AtomicU32,
    /// Its time stands still.
    pub is_frozen: AtomicBool,
    /// A VP of it has run.
    pub has_run: AtomicBool,
    /// Pages of its statistics.
    pub statistics: statistics::Pages,
    /// A call changes what it is made of: its VPs, its pool, its end.
    is_busy: AtomicBool,
    /// VPs that were deleted, whose frames are freed when it is finalized.
    deleted: AtomicPtr<ChildVp>,
    /// Counts changes of [`ChildPartition::overrides`]: 0 for none ever. Asked by every CPUID.
    pub cpuid_epoch: AtomicU32,
    /// What CPUID answers by the parent's word.
    pub overrides: Mutex<crate::partition::cpuid::Overrides>,
    /// Leaves of CPUID that the parent intercepts.
    pub intercepted_leaves: Mutex<crate::partition::cpuid::Leaves>,
    /// Exceptions that the parent intercepts, as bits by vector. Changed inside [`ChildPartition::exclusively`].
    pub exceptions: AtomicU32,
    /// The parent.
    pub parent: &'static super::ParentPartition,
    vps: [AtomicPtr<ChildVp>; CHILD_VPS],
}

/// What [`ChildPartition::create`] takes from the parent and its call.
pub struct Creation {
    /// Flags of the call.
    pub flags: CreateFlags,
    /// Features not to be shown.
    pub disabled: [u64; 3],
    /// The parent, of whose machine the child gets a part.
    pub parent: &'static super::ParentPartition,
}

impl ChildPartition {
    /// Makes a partition and puts it into the directory. `None`: another LP took the place meanwhile; try again.
    ///
    /// # Errors
    /// `INSUFFICIENT_MEMORY`: the parent's own reserve and pool are used up. `NO_RESOURCES`: there are as many
    /// partitions as can be.
    pub fn create(creation: &Creation) -> Result<Option<PartitionId>, HvError> {
        const { assert!(size_of::<Self>() <= 4096) };
        let (slot, id) = directory::reserve().ok_or(HvError::NO_RESOURCES)?;
        let parent = &creation.parent.core;
        let synthetic = SyntheticFeatures::ASSIGNABLE;
        let identity = Self::identity(creation.parent, synthetic);
        let clock = RefClock::new(parent.tsc_hz, insn::rdtsc());
        let clock = clock.ok_or(HvError::OPERATION_FAILED)?;
        let frame = allocator::alloc(FrameUse::Child, 1).ok_or(HvError::INSUFFICIENT_MEMORY)?;
        let partition = Self {
            core: PartitionCore {
                id,
                msrs: Mutex::new(PartitionMsrs::new(Self::config(parent, &identity))),
                clock,
                identity: Mutex::new(identity),
                vps: VpTable::Growing([const { AtomicPtr::new(core::ptr::null_mut()) }; CHILD_VPS]),
                timing: parent.timing,
                apic_features: Features {
                    x2apic: creation.flags.contains(CreateFlags::X2APIC),
                    ..parent.apic_features
                },
                tsc_hz: parent.tsc_hz,
                physical_bits: parent.physical_bits,
                has_gib_pages: parent.has_gib_pages,
                efer_mask: parent.efer_mask,
                users: AtomicU32::new(0),
                generation: 1.into(),
                links: Links::new(id, false),
                vmbus: VmBus::off(),
                slot: AtomicU32::new(0),
                tag: 0.into(),
            },
            slot,
            flags: creation.flags,
            disabled: creation.disabled,
            pool: Mutex::new(Pool::new()),
            memory: Mutex::new(None),
            properties: Mutex::new(Properties {
                state: State::Created,
                synthetic,
                msr_intercept: false,
                unimplemented_msr_action: 0,
                share: sched::Share::DEFAULT,
                vmbus_frames: 0,
            }),
            vps_per_socket: AtomicU32::new(0),
            is_frozen: AtomicBool::new(false),
            has_run: AtomicBool::new(false),
            statistics: statistics::Pages::new(),
            is_busy: AtomicBool::new(false),
            deleted: AtomicPtr::new(core::ptr::null_mut()),
            cpuid_epoch: AtomicU32::new(0),
            overrides: Mutex::new(crate::partition::cpuid::Overrides::new()),
            intercepted_leaves: Mutex::new(crate::partition::cpuid::Leaves::new()),
            exceptions: AtomicU32::new(0),
            parent: creation.parent,
            vps: [const { AtomicPtr::new(core::ptr::null_mut()) }; CHILD_VPS],
        };
        // SAFETY: the frame was just allocated, and is freed by `delete`, after the directory has let go.
        let partition = unsafe { pool::place(frame, partition) };
        // SAFETY: as above.
        if unsafe { directory::insert(slot, partition) } {
            Ok(Some(id))
        } else {
            // SAFETY: nobody has seen it.
            unsafe { Self::free(partition) };
            Ok(None)
        }
    }

    fn identity(
        parent: &super::ParentPartition,
        synthetic: SyntheticFeatures,
    ) -> PartitionIdentity {
        let lps = crate::arch::x86::lp::all().len() as u32;
        PartitionIdentity::child(
            synthetic,
            CHILD_VPS as u32,
            lps,
            parent.core.physical_bits,
            parent.has_invariant_tsc,
        )
    }

    pub(crate) fn config(parent: &PartitionCore, identity: &PartitionIdentity) -> PartitionConfig {
        PartitionConfig {
            privileges: identity.privileges,
            features: identity.features,
            tsc_hz: parent.tsc_hz,
            apic_hz: parent.msrs.lock().config().apic_hz,
        }
    }

    /// Gives the partition what makes it run: an address space, and frames for the overlays of the whole partition.
    ///
    /// # Errors
    /// `INVALID_PARTITION_STATE`; `INSUFFICIENT_MEMORY`: its pool has too few frames. Nothing changed.
    pub fn initialize(&self, parent: &super::ParentPartition) -> Result<(), HvError> {
        let mut properties = self.properties.lock();
        if properties.state != State::Created {
            return Err(HvError::INVALID_PARTITION_STATE);
        }
        if properties.vmbus_frames != 0 {
            let rule = vmbus::ResetRule::WhenInUse;
            let frames = self.chunks();
            self.core
                .vmbus
                .start(frames, properties.vmbus_frames, rule)?;
        }
        let memory = ChildMemory::new(&self.pool, &parent.facts.second_level, parent.levels)
            .inspect_err(|_| {
                // Its own frame only; and the pool may be withdrawn in this state.
                self.core.vmbus.release(self.chunks(), 1);
            })?;
        *self.memory.lock() = Some(memory);
        let identity = Self::identity(parent, properties.synthetic);
        *self.core.msrs.lock() = PartitionMsrs::new(Self::config(&parent.core, &identity));
        *self.core.identity.lock() = identity;
        self.core.links.open();
        properties.state = State::Active;
        Ok(())
    }

    /// Fails unless the partition is initialized and not being taken apart.
    ///
    /// # Errors
    /// `INVALID_PARTITION_STATE`.
    pub fn check_active(&self) -> Result<(), HvError> {
        match self.properties.lock().state {
            State::Active => Ok(()),
            _ => Err(HvError::INVALID_PARTITION_STATE),
        }
    }

    /// Makes VP `index`; see [`ChildVp::create`].
    ///
    /// # Errors
    /// As there.
    pub fn create_vp(
        this: &ChildRef,
        index: VpIndex,
        lp: &'static crate::arch::x86::lp::LpArea,
    ) -> Result<(), HvError> {
        // The VP is destroyed before its partition is finalized, and that before it is deleted.
        ChildVp::create(this.forever(), index, lp)
    }

    /// Calls `change` while no other call changes what the partition is made of. `None`, and nothing is called, while
    /// another does: the caller is to try again.
    pub fn exclusively<T>(&self, change: impl FnOnce() -> T) -> Option<T> {
        if self.is_busy.swap(true, Ordering::Acquire) {
            return None;
        }
        let done = change();
        self.is_busy.store(false, Ordering::Release);
        Some(done)
    }

    /// What CPUID answers has changed: VPs forget what they have kept of it.
    pub fn change_cpuid(&self) {
        // Never 0 again, and of a VP's stamp it has 24 bits.
        let epoch = self.cpuid_epoch.load(Ordering::Relaxed);
        self.cpuid_epoch
            .store(epoch % 0xFF_FFFF + 1, Ordering::Release);
    }

    /// Writes its page of statistics, where there is one.
    pub fn show_statistics(&self) {
        use tlfs::statistics::partition as n;
        if !self.statistics.is_on() {
            return;
        }
        let (_, deposited) = self.pool.lock().usage();
        let memory = self.memory.lock();
        let mapped = memory.as_ref().map_or(0, |memory| memory.mapped);
        drop(memory);
        self.statistics.show(&[
            (n::VIRTUAL_PROCESSORS, self.core.vps.iter().count() as u64),
            (n::DEPOSITED_PAGES, deposited),
            (n::GPA_PAGES, mapped),
            (n::PARTITION_ID, self.core.id.get()),
        ]);
    }

    /// Adds a frame that was just deposited to the pool.
    pub fn take_deposit(&self, spa: addr::Spa) {
        // SAFETY: the caller has marked it as this pool's, and no LP reaches it through the parent's tables.
        unsafe { self.pool.lock().add(spa) };
    }

    /// VP `index`.
    pub fn vp(&self, index: VpIndex) -> Option<&'static ChildVp> {
        let entry = self.vps.get(index.get() as usize)?;
        // SAFETY: what is in the table lies in its frame until `forget_vp` took it out, which waits for its users.
        unsafe { entry.load(Ordering::Acquire).as_ref() }
    }

    /// All its VPs.
    pub fn vps(&self) -> impl Iterator<Item = &'static ChildVp> + '_ {
        (0..CHILD_VPS as u32).filter_map(|index| self.vp(VpIndex::new(index)))
    }

    /// Puts a VP into the tables. False where one of its index is.
    pub fn keep_vp(&self, vp: &'static ChildVp) -> bool {
        let at = vp.shared.index.get() as usize;
        let (Some(entry), VpTable::Growing(shared)) = (self.vps.get(at), &self.core.vps) else {
            return false;
        };
        let Some(shared) = shared.get(at) else {
            return false;
        };
        let none = core::ptr::null_mut();
        let new = (&raw const *vp).cast_mut();
        if entry
            .compare_exchange(none, new, Ordering::AcqRel, Ordering::Relaxed)
            .is_err()
        {
            return false;
        }
        shared.store((&raw const vp.shared).cast_mut(), Ordering::Release);
        true
    }

    /// Takes VP `index` out of the tables; the caller destroys it.
    pub fn forget_vp(&self, index: VpIndex) {
        let at = index.get() as usize;
        if let VpTable::Growing(shared) = &self.core.vps
            && let Some(entry) = shared.get(at)
        {
            entry.store(core::ptr::null_mut(), Ordering::Release);
        }
        if let Some(entry) = self.vps.get(at) {
            entry.store(core::ptr::null_mut(), Ordering::Release);
        }
    }

    /// Gives the partition's own frame back.
    ///
    /// # Safety
    /// It is out of the directory, without users, VPs, memory and deposited frames.
    pub unsafe fn free(this: &'static Self) {
        // SAFETY: passed on to the caller.
        let (frame, partition) = unsafe { pool::take(this) };
        drop(partition);
        // SAFETY: `create` allocated it so, and nothing refers to it any more.
        unsafe { allocator::free(FrameUse::Child, frame) };
    }

    /// Where the hypervisor finds `gpa` for an access of the guest's kind, with the memory locked meanwhile.
    fn access<R>(
        &self,
        gpa: Gpa,
        access: Access,
        then: impl FnOnce(addr::Spa) -> R,
    ) -> Result<R, gpa_space::Fault> {
        let memory = self.memory.lock();
        let Some(memory) = memory.as_ref() else {
            return Err(gpa_space::Fault::Unmapped);
        };
        let spa = memory
            .space
            .translate(&PoolFrames(&self.pool), gpa, access)?;
        Ok(then(spa))
    }

    /// Whether the guest could access `gpa` so.
    ///
    /// # Errors
    /// The intercept that the access would raise; so it is for the two that follow.
    pub fn check_gpa(&self, gpa: Gpa, access: Access) -> Result<(), gpa_space::Fault> {
        self.access(gpa, access, |_| ())
    }

    /// Copies guest memory, within one page, and says which intercept is due where that is not possible.
    pub fn read_gpa(&self, gpa: Gpa, buffer: &mut [u8]) -> Result<(), gpa_space::Fault> {
        self.access(gpa, Access::Read, |spa| {
            // SAFETY: the translation leads to a frame of RAM or of the pool, and stays while the memory is locked.
            unsafe { crate::mm::phys::read_frame(spa, buffer) };
        })
    }

    /// The same for writing; with no bytes it only asks.
    pub fn write_gpa(&self, gpa: Gpa, bytes: &[u8]) -> Result<(), gpa_space::Fault> {
        let memory = self.memory.lock();
        let space = &memory.as_ref().ok_or(gpa_space::Fault::Unmapped)?.space;
        let mut frames = PoolFrames(&self.pool);
        let spa = space.translate(&frames, gpa, Access::Write)?;
        if !bytes.is_empty() {
            // SAFETY: as above, and the guest itself could write there.
            unsafe { crate::mm::phys::write_frame(spa, bytes) };
            space.note_write(&mut frames, gpa);
        }
        Ok(())
    }
}

impl Partition for ChildPartition {
    fn core(&self) -> &PartitionCore {
        &self.core
    }

    fn parent(&self) -> &dyn Partition {
        self.parent
    }

    fn chunks(&self) -> FrameChunks<'_> {
        FrameChunks::Pool(&self.pool)
    }

    fn overlay_frame(&self, kind: Overlay, vp: VpIndex) -> Option<SharedFrame> {
        self.overlay_frame(kind, vp)
    }

    fn is_ram(&self, page: Gpn) -> bool {
        page.start()
            .is_some_and(|gpa| self.check_gpa(gpa, Access::Write).is_ok())
    }

    fn is_page(&self, page: Gpn) -> bool {
        page.start()
            .is_some_and(|gpa| gpa.get() >> self.core.physical_bits == 0)
    }

    fn read(&self, gpa: Gpa, buffer: &mut [u8]) -> Result<(), NoAccess> {
        self.read_gpa(gpa, buffer).map_err(|_| NoAccess)
    }

    fn write(&self, gpa: Gpa, bytes: &[u8]) -> Result<(), NoAccess> {
        self.write_gpa(gpa, bytes).map_err(|_| NoAccess)
    }

    fn read_entry(&self, gpa: Gpa, buffer: &mut [u8]) -> Result<(), NoAccess> {
        self.read_gpa(gpa, buffer).map_err(|_| NoAccess)
    }
}
