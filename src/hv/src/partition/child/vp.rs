//! A VP of a child, as it lies in frames of its partition's pool.
#![expect(unsafe_code, reason = "keeps VPs in frames of pools")]

use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

use addr::{PAGE_SIZE, Spa, VpIndex};
use apic::{Apic, Inbox};
use sched::{Entity, EntityId};
use spin::{Mutex, MutexGuard};
use synic::{QueueEntry, VpSynic};
use tlfs::{HvError, Message};
use vpcore::seam::{Role, VpBackend};
use vpstate::{Reasons, Suspend};

use super::memory::{OverlayEntry, VP_OVERLAYS};
use super::{ChildPartition, Seat, VpShared, directory};
use crate::arch::x86::extended::Extended;
use crate::arch::x86::local_apic::own_vector;
use crate::arch::x86::lp::{self, LpArea};
use crate::mm::{phys, pool};
use crate::partition::state_page::StatePages;
use crate::partition::statistics;
use crate::virt::{Virt, on_this_machine};
use crate::vp::child::{Child, ChildCore, NewCore};
use crate::vp::{Vp, VpParts};

/// What the scheduler and other LPs need of a VP that has no LP of its own.
pub struct Scheduled {
    /// Its place in run queues.
    pub entity: Entity,
    /// The name of that place.
    pub id: EntityId,
    /// Why it does not run.
    pub suspend: Suspend,
    /// LPs that wait for its core: the one that has it loaded lets go.
    pub wanted: AtomicU32,
    /// VP of the parent that let it run last, and is told of its intercepts.
    pub told: AtomicU32,
    /// The next in that VP's list of those with something to tell, see `partition::notices`.
    pub next_notice: AtomicU32,
    /// Whose list it is in.
    pub listed_at: AtomicU32,
}

impl Scheduled {
    /// Why the VP may not run, as far as others decide: the rest is the VP's own state.
    pub fn is_stopped(&self) -> bool {
        const OTHERS: Reasons = Reasons::EXPLICIT
            .with(Reasons::INTERCEPT)
            .with(Reasons::DISPATCH)
            .with(Reasons::PARTITION)
            .with(Reasons::ENDING);
        self.suspend.reasons().has(OTHERS)
    }
}

/// A VP of a child.
pub struct ChildVp {
    /// What all VPs have.
    pub shared: VpShared,
    core: &'static Mutex<ChildCore>,
    /// Its overlay pages, used with the partition's memory locked.
    pub overlays: Mutex<[OverlayEntry; VP_OVERLAYS]>,
    /// The last intercept.
    pub message: Mutex<Message>,
    /// Pages that the parent and the hypervisor share about it.
    pub pages: Mutex<StatePages>,
    /// Pages of its statistics.
    pub statistics: statistics::Pages,
    /// It is being deleted: nothing of another VP is kept in its overlay entries any more.
    pub is_ending: AtomicBool,
    /// Deleted before its partition was: where the next such is.
    pub next_deleted: AtomicPtr<ChildVp>,
    queue: Spa,
}

/// Frames of a VP: itself, its core, control structure, vector state, message queue, and the overlays.
const FRAMES: usize = 5 + VP_OVERLAYS;
/// Messages that can wait for the VP.
const QUEUE_ENTRIES: usize = PAGE_SIZE as usize / size_of::<QueueEntry>();

impl ChildVp {
    /// Makes VP `index` of `partition`, suspended by the parent, with the registers of reset.
    ///
    /// # Errors
    /// `INVALID_PARTITION_STATE`; `INVALID_VP_INDEX`: there is one, or none can be; `INSUFFICIENT_MEMORY`. Nothing
    /// changed.
    pub fn create(
        partition: &'static ChildPartition,
        index: VpIndex,
        lp: &'static LpArea,
    ) -> Result<(), HvError> {
        const { assert!(size_of::<Self>() <= PAGE_SIZE as usize) };
        if index.get() as usize >= super::CHILD_VPS || partition.vp(index).is_some() {
            return Err(HvError::INVALID_VP_INDEX);
        }
        let pool = &partition.pool;
        let (root, levels) = {
            let memory = partition.memory.lock();
            let memory = memory.as_ref().ok_or(HvError::INVALID_PARTITION_STATE)?;
            (memory.space.root(), memory.space.levels().count())
        };
        let frames = pool.lock().alloc_all();
        let [own, core_frame, control, vectors, queue, overlays @ ..]: [Spa; FRAMES] =
            frames.ok_or(HvError::INSUFFICIENT_MEMORY)?;
        let overlays: [Spa; VP_OVERLAYS] = overlays;
        // SAFETY: the frames are these overlays' alone until the VP is destroyed.
        let overlays = overlays.map(|spa| unsafe { OverlayEntry::new(spa) });
        // SAFETY: the frame is this VP's alone until it is destroyed, zeroed, and large enough.
        let entries = unsafe {
            core::slice::from_raw_parts_mut(
                phys::pointer(queue).cast::<QueueEntry>(),
                QUEUE_ENTRIES,
            )
        };
        entries.fill(QueueEntry::EMPTY);
        let core = super::Partition::core(partition);
        let identity = *core.identity.lock();
        let config = ChildPartition::config(core, &identity);
        let reasons = if partition.is_frozen.load(Ordering::SeqCst) {
            Reasons::PARTITION
        } else {
            Reasons::NONE
        };
        let is_bsp = index.get() == 0;
        let share = partition.properties.lock().share;
        let home = index.get() % lp::all().len().max(1) as u32;
        let seat = Seat::Scheduled(Scheduled {
            entity: Entity::new(share, home, false),
            id: directory::entity_id(partition.slot, index),
            suspend: Suspend::created(is_bsp, reasons),
            wanted: AtomicU32::new(0),
            told: AtomicU32::new(lp.index.get()),
            next_notice: AtomicU32::new(0),
            listed_at: AtomicU32::new(0),
        });
        let inbox = if is_bsp {
            Inbox::new()
        } else {
            Inbox::waiting()
        };
        let synic = VpSynic::new(&config, index, entries);
        let apic = Apic::new(
            addr::ApicId::new(index.get()),
            is_bsp,
            core.apic_features,
            core.timing,
        );
        let extended = Extended::child(vectors, vpcore::child_cpuid::STATE_COMPONENTS);
        let new = New {
            own,
            queue,
            shared: VpShared::new(index, inbox, synic, seat),
            overlays,
            core: NewCore {
                partition,
                extended,
                apic,
                lp,
                identity,
            },
        };
        let bitmaps = partition.parent.child_bitmaps;
        let made = on_this_machine!(V => {
            V::vp(control, Role::Child, bitmaps, root, levels).map(|backend| {
                // SAFETY: both frames were just allocated and are freed by `destroy`.
                unsafe { new.place(core_frame, backend) }
            })
        });
        let Ok(vp) = made else {
            for frame in frames.into_iter().flatten() {
                // SAFETY: nothing has kept any of them.
                unsafe { pool.lock().free(frame) };
            }
            return Err(HvError::OPERATION_FAILED);
        };
        if partition.keep_vp(vp) {
            Ok(())
        } else {
            // SAFETY: nobody has seen it.
            unsafe { Self::destroy(vp, pool) };
            Err(HvError::INVALID_VP_INDEX)
        }
    }

    /// Gives its frames back.
    ///
    /// # Safety
    /// Nobody refers to it: it is in no table, list or queue, and loaded nowhere.
    pub unsafe fn destroy(this: &'static Self, frames: &Mutex<pool::Pool>) {
        // SAFETY: passed on to the caller.
        let (own, vp) = unsafe { pool::take(this) };
        // Nothing in the core is to be dropped.
        let (control, vectors) = vp.core.lock().end();
        let core_frame = phys::spa_of((&raw const *vp.core).cast());
        let overlays = vp.overlays.lock().map(|entry| entry.frame.spa());
        let mut frames = frames.lock();
        for frame in [own, core_frame, control, vectors, vp.queue]
            .into_iter()
            .chain(overlays)
        {
            // SAFETY: they came from this pool, and nothing uses them any more.
            unsafe { frames.free(frame) };
        }
    }

    /// What the scheduler has of it.
    pub fn scheduled(&self) -> Option<&Scheduled> {
        match &self.shared.seat {
            Seat::Scheduled(scheduled) => Some(scheduled),
            Seat::Fixed(_) => None,
        }
    }

    /// Its core, if nobody has it.
    pub fn try_core(&self) -> Option<MutexGuard<'static, ChildCore>> {
        self.core.try_lock()
    }

    /// Its core: the LP that runs the VP, if one does, leaves it at its next exit, which comes at once.
    pub fn core(&self, me: &LpArea) -> MutexGuard<'static, ChildCore> {
        if let Some(core) = self.core.try_lock() {
            return core;
        }
        let wanted = self.scheduled().map(|scheduled| &scheduled.wanted);
        if let Some(wanted) = wanted {
            wanted.fetch_add(1, Ordering::SeqCst);
        }
        let core = loop {
            if let Some(core) = self.core.try_lock() {
                break core;
            }
            if let Some(lp) = self.shared.loaded_on() {
                lp.attention.store(true, Ordering::SeqCst);
                if lp.in_guest.load(Ordering::SeqCst) {
                    me.local.send(lp.apic_id, own_vector::KICK);
                }
            }
            crate::panic::stop_if_asked();
            for _ in 0..64 {
                core::hint::spin_loop();
            }
        };
        if let Some(wanted) = wanted {
            wanted.fetch_sub(1, Ordering::SeqCst);
        }
        core
    }
}

/// What a VP is made of.
struct New {
    own: Spa,
    queue: Spa,
    shared: VpShared,
    overlays: [OverlayEntry; VP_OVERLAYS],
    core: NewCore,
}

impl New {
    /// Puts the VP and its core into their frames.
    ///
    /// # Safety
    /// The frames are the caller's, and stay until [`ChildVp::destroy`].
    unsafe fn place<B: VpBackend>(self, core_frame: Spa, backend: B) -> &'static ChildVp {
        const { assert!(size_of::<Mutex<Vp<B, Child>>>() <= PAGE_SIZE as usize) };
        // The two refer to each other: the core's place is known before it is filled.
        let core = phys::pointer(core_frame).cast::<Mutex<Vp<B, Child>>>();
        // SAFETY: filled below, before anybody else sees it.
        let place = unsafe { &*core };
        // SAFETY: passed on to the caller.
        let (vp, parts) = unsafe { self.begin(place) };
        let mut made = Vp::new(parts, backend);
        ChildCore::init(&mut made);
        // SAFETY: passed on to the caller; the size was checked above.
        unsafe { core.write(Mutex::new(made)) };
        vp
    }

    /// Puts the VP into its frame, and tells what its core begins with.
    ///
    /// # Safety
    /// As for [`New::place`].
    #[inline(never)]
    unsafe fn begin(self, core: &'static Mutex<ChildCore>) -> (&'static ChildVp, VpParts<Child>) {
        let vp = ChildVp {
            shared: self.shared,
            core,
            overlays: Mutex::new(self.overlays),
            message: Mutex::new(Message::EMPTY),
            pages: Mutex::new(StatePages::new()),
            statistics: statistics::Pages::new(),
            is_ending: AtomicBool::new(false),
            next_deleted: AtomicPtr::new(core::ptr::null_mut()),
            queue: self.queue,
        };
        // SAFETY: passed on to the caller.
        let vp: &'static ChildVp = unsafe { pool::place(self.own, vp) };
        let Seat::Scheduled(scheduled) = &vp.shared.seat else {
            unreachable!("made by `create`, which says so")
        };
        (vp, Child::parts(self.core, vp, scheduled))
    }
}

/// A VP in a partition's table, if there is one.
pub fn shared_at(entry: &AtomicPtr<VpShared>) -> Option<&'static VpShared> {
    // SAFETY: what is in the table lies in its frame until it was taken out and all users of the partition have gone.
    unsafe { entry.load(Ordering::Acquire).as_ref() }
}
