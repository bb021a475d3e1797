//! What each logical processor has of its own, reached through GS, and what the others may touch of it.
#![expect(unsafe_code, reason = "the owner of the hypervisor's GS base")]

use core::arch::asm;
use core::mem::offset_of;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use addr::{ApicId, LpIndex};
use spin::{Mutex, Once};

use super::local_apic::LocalApic;
use super::msr;

/// The part of an LP that only its own code touches. GS base points here while the hypervisor runs.
#[repr(C)]
pub struct LpArea {
    this: AtomicU64,
    /// Vector that the last interrupt window took, [`NO_VECTOR`] if none. Written by the interrupt stubs.
    pub(super) taken_vector: AtomicU32,
    /// An NMI was taken by the hypervisor and not passed on yet.
    pub nmi_taken: AtomicBool,
    /// A machine check was taken by the hypervisor and not passed on yet.
    pub machine_check_taken: AtomicBool,
    /// Its index.
    pub index: LpIndex,
    /// Its physical APIC identifier.
    pub apic_id: ApicId,
    /// The part the others see.
    pub shared: &'static LpShared,
    /// Its local APIC.
    pub local: LocalApic,
    /// What its timer is armed for, in TSC ticks; [`NEVER`] for nothing, or when nobody knows.
    armed: AtomicU64,
    /// Parameters of the hypercall under way. Locked by this LP alone, so never waited for.
    pub scratch: Mutex<hypercall::Scratch>,
    /// What the edit of a child's memory under way has ended. Locked by this LP alone.
    pub pending: Mutex<gpa_space::Pending>,
}

/// A time, in TSC ticks, that never comes.
pub const NEVER: u64 = u64::MAX;

/// Value of the record when no interrupt was taken.
const NO_VECTOR: u32 = 0;

// The interrupt stub stores to this offset without the `this` pointer.
const _: () = assert!(offset_of!(LpArea, taken_vector) == 8);

/// The part of an LP that every LP may touch.
#[repr(C, align(64))]
pub struct LpShared {
    /// The LP runs its guest, or is about to and will look at `attention` once more first, or is halted.
    pub in_guest: AtomicBool,
    /// Somebody left work for this LP: an interrupt in the VP's inbox, a flush, a start-up event.
    pub attention: AtomicBool,
    /// Somebody with a better claim than the VP that runs here became runnable: choose again.
    pub reschedule: AtomicBool,
    /// Physical APIC identifier.
    pub apic_id: ApicId,
    launched: AtomicBool,
}

static SHARED: Once<&'static [LpShared]> = Once::new();

/// Makes the shared parts known. Called once, before any LP is launched.
pub fn publish(shared: &'static [LpShared]) {
    SHARED.call_once(|| shared);
}

/// All LPs that the loader named, by index. Empty before [`publish`].
pub fn all() -> &'static [LpShared] {
    SHARED.get().copied().unwrap_or(&[])
}

impl LpShared {
    /// The shared part of an LP that does not run yet.
    pub const fn new(apic_id: ApicId) -> Self {
        Self {
            in_guest: AtomicBool::new(false),
            attention: AtomicBool::new(false),
            reschedule: AtomicBool::new(false),
            apic_id,
            launched: AtomicBool::new(false),
        }
    }

    /// The LP runs the hypervisor.
    pub fn is_launched(&self) -> bool {
        self.launched.load(Ordering::Acquire)
    }
}

impl LpArea {
    /// The area of LP `index`.
    pub const fn new(index: LpIndex, shared: &'static LpShared, local: LocalApic) -> Self {
        Self {
            this: AtomicU64::new(0),
            taken_vector: AtomicU32::new(NO_VECTOR),
            nmi_taken: AtomicBool::new(false),
            machine_check_taken: AtomicBool::new(false),
            index,
            apic_id: shared.apic_id,
            shared,
            local,
            armed: AtomicU64::new(NEVER),
            scratch: Mutex::new(hypercall::Scratch::new()),
            pending: Mutex::new(gpa_space::Pending::new()),
        }
    }

    /// Makes this the area of the LP that calls.
    pub fn install(&'static self) {
        let this = &raw const *self as u64;
        self.this.store(this, Ordering::Relaxed);
        // SAFETY: from here on GS base is the address of a live area of this LP.
        unsafe { msr::write(::x86::msr::GS_BASE, this) };
        self.shared.launched.store(true, Ordering::Release);
    }

    /// The LP goes back to firmware: its launch failed.
    pub fn leave(&self) {
        self.shared.launched.store(false, Ordering::Release);
    }

    /// Makes this LP look at what it has taken before its guest runs on: an NMI may come after the last look and
    /// before the entry or the halt.
    pub fn look_again(&self) {
        self.shared.attention.store(true, Ordering::SeqCst);
        super::local_apic::kick_self();
    }

    /// Arms the timer for `due`, if that is another than before; never for less than `soonest`, a guest whose timer is
    /// due again before its first instruction would otherwise run none.
    #[inline]
    pub fn arm(&self, due: u64, soonest: u64, now: u64) {
        if due != self.armed.load(Ordering::Relaxed) {
            self.local
                .arm((due != NEVER).then_some(due.max(soonest)), now);
            self.armed.store(due, Ordering::Relaxed);
        }
    }

    /// The timer has fired, or was set otherwise: the next [`LpArea::arm`] sets it.
    #[inline]
    pub fn forget_timer(&self) {
        // A deadline of this value never comes, so it stands for nothing armed as well; disarming once more is harmless.
        self.armed.store(NEVER - 1, Ordering::Relaxed);
    }

    /// Whether the hypervisor took an NMI or a machine check that is the parent's.
    #[inline]
    pub fn has_taken(&self) -> bool {
        self.nmi_taken.load(Ordering::Relaxed) | self.machine_check_taken.load(Ordering::Relaxed)
    }

    /// Whether an interrupt window took a vector that nobody has looked at.
    #[inline]
    pub fn has_vector(&self) -> bool {
        self.taken_vector.load(Ordering::Relaxed) != NO_VECTOR
    }

    /// The vector that the last interrupt window took, if any; the record is cleared.
    #[inline]
    pub fn take_vector(&self) -> Option<u8> {
        let vector = self.taken_vector.load(Ordering::Relaxed);
        self.taken_vector.store(NO_VECTOR, Ordering::Relaxed);
        (vector != NO_VECTOR).then_some(vector as u8)
    }
}

/// The area of the LP that calls. Valid from [`LpArea::install`] on.
#[inline]
pub fn current() -> &'static LpArea {
    let area: *const LpArea;
    // SAFETY: reads the first field of the area that GS base points to.
    unsafe { asm!("mov {}, gs:[0]", out(reg) area, options(nostack, preserves_flags, readonly)) }
    // SAFETY: areas live for ever; every field that is written after `install` is atomic.
    unsafe { &*area }
}

/// Number of launched LPs.
pub fn launched() -> u64 {
    all().iter().filter(|lp| lp.is_launched()).count() as u64
}

/// The area of the LP that calls, or `None` before any LP of the machine has one.
///
/// An LP in its launch may still run on the firmware's GS: the area is believed only if GS base lies where the
/// hypervisor's memory is and the area points back at itself.
pub fn try_current() -> Option<&'static LpArea> {
    if launched() == 0 {
        return None;
    }
    let base = msr::read(::x86::msr::GS_BASE);
    if base < bootinfo::PHYS_MAP_BASE {
        return None;
    }
    let area = current();
    (area.this.load(Ordering::Relaxed) == base).then_some(area)
}

/// Index of the LP that calls, for the log; 0 before it is launched.
pub fn index_or_boot() -> u32 {
    try_current().map_or(0, |area| area.index.get())
}
