//! Partitions: what the VPs of one share.
//!
//! Lock order: a VP's SynIC, then the partition's registers, then its memory; for ports see [`ports`]. None is held across
//! an entry.

pub mod child;
pub mod cpuid;
pub mod directory;
pub mod messages;
pub mod notices;
mod overlay;
pub mod parent;
pub mod ports;
mod slat;
pub mod slots;
pub mod state_page;
pub mod statistics;
pub mod vmbus;

use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};

use addr::{Gpa, Gpn, PartitionId, VpIndex};
use apic::{Features, Inbox, Timing};
use hypercall::{NoAccess, PartitionIdentity};
use paging::walk::GuestPhysical;
use spin::Mutex;
use synic::{Interrupt, Overlay, PartitionMsrs, RefClock, VpSynic};

use crate::arch::x86::lp::{LpArea, LpShared};
use crate::mm::phys::SharedFrame;
use crate::{scheduler, shootdown};

pub use parent::ParentPartition;
pub use slat::{FaultOutcome, Slat};

/// VPs that a child can have.
pub const CHILD_VPS: usize = 64;

/// The part of a VP that all LPs may touch.
pub struct VpShared {
    /// Its number.
    pub index: VpIndex,
    /// Interrupts and start-up events from others.
    pub inbox: Inbox,
    /// Synthetic interrupt controller and timers.
    pub synic: Mutex<VpSynic<'static>>,
    /// Somebody left something for this VP: in the inbox, or one of the notes below.
    pub attention: AtomicBool,
    /// Somebody made room for this VP's messages, or has one for it: its LP tries to deliver again.
    pub rescan: AtomicBool,
    /// All translations of the guest's own tables go before the next entry.
    pub flush_guest: AtomicBool,
    /// Generation of the partition's second-level tables that this VP has flushed up to, where it was loaded last.
    pub flushed: AtomicU64,
    /// LP on which it is loaded, as its index plus one; 0 for none.
    loaded: AtomicU32,
    /// How it comes onto an LP.
    pub seat: Seat,
}

/// How a VP comes onto an LP.
pub enum Seat {
    /// A VP of the parent has its own.
    Fixed(&'static LpShared),
    /// A VP of a child is scheduled.
    Scheduled(child::Scheduled),
}

impl VpShared {
    /// A VP that is loaded nowhere.
    pub const fn new(index: VpIndex, inbox: Inbox, synic: VpSynic<'static>, seat: Seat) -> Self {
        Self {
            index,
            inbox,
            synic: Mutex::new(synic),
            attention: AtomicBool::new(false),
            rescan: AtomicBool::new(false),
            flush_guest: AtomicBool::new(false),
            flushed: AtomicU64::new(0),
            loaded: AtomicU32::new(0),
            seat,
        }
    }

    /// The LP on which it is loaded.
    pub fn loaded_on(&self) -> Option<&'static LpShared> {
        shootdown::lp(self.loaded.load(Ordering::SeqCst).checked_sub(1)?)
    }

    /// Whether it is loaded on `lp`.
    pub fn is_loaded_on(&self, lp: &LpArea) -> bool {
        self.loaded.load(Ordering::SeqCst) == lp.index.get() + 1
    }

    /// Says on which LP it is loaded. By that LP alone.
    pub fn set_loaded(&self, lp: Option<&LpArea>) {
        self.loaded
            .store(lp.map_or(0, |lp| lp.index.get() + 1), Ordering::SeqCst);
    }

    /// Makes it look at what was left for it before it runs again, and run if it waits.
    pub fn call(&self, me: &LpArea) {
        self.attention.store(true, Ordering::SeqCst);
        match &self.seat {
            Seat::Fixed(lp) => shootdown::nudge(me, lp),
            Seat::Scheduled(_) => scheduler::wake(me, self),
        }
    }

    /// Makes it deliver its messages.
    pub fn call_to_synic(&self, me: &LpArea) {
        self.rescan.store(true, Ordering::SeqCst);
        self.call(me);
    }

    /// Raises an interrupt of its SynIC.
    pub fn raise(&self, me: &LpArea, interrupt: Interrupt) {
        let is_new = if interrupt.auto_eoi {
            // Never in service, as an interrupt of the 8259.
            self.inbox.post_extint(interrupt.vector);
            true
        } else {
            self.inbox.post(interrupt.vector)
        };
        if is_new {
            self.call(me);
        }
    }
}

/// The VPs of a partition by index.
#[expect(
    clippy::large_enum_variant,
    reason = "the larger one is there as often as there are children, in a frame of its own"
)]
pub enum VpTable {
    /// All there from the beginning.
    Fixed(&'static [VpShared]),
    /// They come one by one.
    Growing([AtomicPtr<VpShared>; CHILD_VPS]),
}

impl VpTable {
    /// VP `index`.
    pub fn get(&self, index: VpIndex) -> Option<&'static VpShared> {
        match self {
            Self::Fixed(vps) => vps.get(index.get() as usize),
            Self::Growing(vps) => child::shared_at(vps.get(index.get() as usize)?),
        }
    }

    /// Numbers of VPs end here.
    pub fn limit(&self) -> u32 {
        match self {
            Self::Fixed(vps) => vps.len() as u32,
            Self::Growing(vps) => vps.len() as u32,
        }
    }

    /// All VPs that there are.
    pub fn iter(&self) -> impl Iterator<Item = &'static VpShared> + Clone + '_ {
        (0..self.limit()).filter_map(|index| self.get(VpIndex::new(index)))
    }
}

/// What partitions of both kinds have.
pub struct PartitionCore {
    /// Its identifier.
    pub id: PartitionId,
    /// Partition-wide synthetic registers.
    pub msrs: Mutex<PartitionMsrs>,
    /// Reference time.
    pub clock: RefClock,
    /// What its hypervisor leaves say. Fixed before the first VP is made, which takes a copy.
    pub identity: Mutex<PartitionIdentity>,
    /// Its VPs.
    pub vps: VpTable,
    /// Rates of its APIC timers.
    pub timing: Timing,
    /// What its APICs can do.
    pub apic_features: Features,
    /// Ticks of the time-stamp counter per second.
    pub tsc_hz: u64,
    /// Physical address bits.
    pub physical_bits: u8,
    /// Processors have 1 GiB pages.
    pub has_gib_pages: bool,
    /// Bits that EFER may have.
    pub efer_mask: u64,
    /// Pieces of calls that refer to it now.
    pub users: AtomicU32,
    /// Raised by every edit of the second-level tables that takes something away.
    pub generation: AtomicU64,
    /// What it receives and sends through.
    pub links: ports::Links,
    /// Its VMBus server.
    pub vmbus: vmbus::VmBus,
    /// Number plus one of the slot that it is attached to, see [`slots`].
    pub slot: AtomicU32,
    /// What the parent's daemon knows it by.
    pub tag: AtomicU64,
}

impl PartitionCore {
    /// Whether messages may wait for its VPs at its ports or from its VMBus server. Takes no lock: who leaves one after this
    /// calls the VP.
    pub fn may_have_messages(&self) -> bool {
        self.links.may_have_messages() || self.vmbus.may_have_messages()
    }
}

/// A partition of either kind.
pub trait Partition: 'static {
    /// What both kinds have.
    fn core(&self) -> &PartitionCore;
    /// The parent.
    fn parent(&self) -> &dyn Partition;
    /// Frames for its ports and connections.
    fn chunks(&self) -> ports::FrameChunks<'_>;
    /// Frames for its VMBus server.
    fn server_frames(&self) -> ports::FrameChunks<'_> {
        self.chunks()
    }
    /// Whether `page` is RAM that the guest can write to.
    fn is_ram(&self, page: Gpn) -> bool;
    /// The frame of an overlay of VP `vp` or of the whole partition, wherever it is placed.
    fn overlay_frame(&self, kind: Overlay, vp: VpIndex) -> Option<SharedFrame>;
    /// Whether `page` lies in the address space and may carry an overlay.
    fn is_page(&self, page: Gpn) -> bool;
    /// Copies guest memory at `gpa`, within one page, as the guest's processors would read it.
    fn read(&self, gpa: Gpa, buffer: &mut [u8]) -> Result<(), NoAccess>;
    /// Copies to guest memory at `gpa`, within one page. With no bytes: whether it could be written.
    fn write(&self, gpa: Gpa, bytes: &[u8]) -> Result<(), NoAccess>;
    /// Reads an entry of the guest's own page tables, 4 or 8 bytes, aligned.
    fn read_entry(&self, gpa: Gpa, buffer: &mut [u8]) -> Result<(), NoAccess>;
}

/// A partition's memory for walks of its page tables.
pub struct TableMemory<'a, P>(pub &'a P);

impl<P: Partition> GuestPhysical for TableMemory<'_, P> {
    fn read_u64(&self, gpa: Gpa) -> Option<u64> {
        let mut bytes = [0; 8];
        self.0.read_entry(gpa, &mut bytes).ok()?;
        Some(u64::from_le_bytes(bytes))
    }

    fn read_u32(&self, gpa: Gpa) -> Option<u32> {
        let mut bytes = [0; 4];
        self.0.read_entry(gpa, &mut bytes).ok()?;
        Some(u32::from_le_bytes(bytes))
    }
}
