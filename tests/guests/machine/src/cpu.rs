//! What each processor keeps for itself, reached through GS.
#![expect(
    unsafe_code,
    reason = "GS points at this structure, and trap code writes into it"
)]

use core::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};

use x86::msr::GS_BASE;

use super::insn;

/// Processors that the tests can start.
pub const MAX_CPUS: usize = 16;

/// Interrupts whose order is remembered.
const ORDER: usize = 64;

/// A handler for maskable interrupts: gets the vector, and ends the interrupt itself.
pub type Hook = fn(&'static Cpu, u8);

/// One processor's own data. The first five fields are named by assembly in `trap`.
#[repr(C)]
pub struct Cpu {
    /// Stack pointer to return to when a probed snippet faults; 0 when no probe runs.
    pub recover_rsp: AtomicU64,
    /// Code that the running probe calls.
    pub target: AtomicU64,
    /// One register's value while a probe saves the others.
    pub scratch: AtomicU64,
    /// Number of this processor, 0 on the boot processor.
    pub index: AtomicU64,
    /// The function behind the gates.
    pub handler: AtomicU64,
    /// The last fault under a probe.
    pub fault_vector: AtomicU64,
    /// Its error code.
    pub fault_error: AtomicU64,
    /// Its RIP.
    pub fault_rip: AtomicU64,
    /// CR2 at that time.
    pub fault_cr2: AtomicU64,
    /// Interrupts taken, by vector.
    pub counts: [AtomicU32; 256],
    /// TSC at the last interrupt of each vector.
    pub stamps: [AtomicU64; 256],
    order: [AtomicU8; ORDER],
    order_len: AtomicUsize,
    hook: AtomicPtr<()>,
    /// Whether handlers write EOI by themselves.
    pub auto_eoi: AtomicBool,
    /// Whether the local APIC is in x2APIC mode.
    pub x2apic: AtomicBool,
}

impl Cpu {
    const fn new() -> Self {
        Self {
            recover_rsp: AtomicU64::new(0),
            target: AtomicU64::new(0),
            scratch: AtomicU64::new(0),
            index: AtomicU64::new(0),
            handler: AtomicU64::new(0),
            fault_vector: AtomicU64::new(0),
            fault_error: AtomicU64::new(0),
            fault_rip: AtomicU64::new(0),
            fault_cr2: AtomicU64::new(0),
            counts: [const { AtomicU32::new(0) }; 256],
            stamps: [const { AtomicU64::new(0) }; 256],
            order: [const { AtomicU8::new(0) }; ORDER],
            order_len: AtomicUsize::new(0),
            hook: AtomicPtr::new(core::ptr::null_mut()),
            auto_eoi: AtomicBool::new(true),
            x2apic: AtomicBool::new(false),
        }
    }

    /// How often `vector` was taken since [`Cpu::forget`].
    pub fn count(&self, vector: u8) -> u32 {
        self.counts[usize::from(vector)].load(Ordering::SeqCst)
    }

    /// TSC when `vector` was last taken.
    pub fn stamp(&self, vector: u8) -> u64 {
        self.stamps[usize::from(vector)].load(Ordering::SeqCst)
    }

    /// All interrupts taken since [`Cpu::forget`].
    pub fn total(&self) -> u32 {
        self.counts
            .iter()
            .map(|count| count.load(Ordering::SeqCst))
            .sum()
    }

    /// Notes that `vector` was taken now.
    pub fn record(&self, vector: u8) {
        self.stamps[usize::from(vector)].store(insn::rdtsc(), Ordering::SeqCst);
        self.counts[usize::from(vector)].fetch_add(1, Ordering::SeqCst);
        self.note(vector);
    }

    /// Appends `mark` to the order of events. What does not fit is dropped.
    pub fn note(&self, mark: u8) {
        let at = self.order_len.fetch_add(1, Ordering::SeqCst);
        if let Some(slot) = self.order.get(at) {
            slot.store(mark, Ordering::SeqCst);
        }
    }

    /// Whether the events since [`Cpu::forget`] were exactly `marks`, in this order.
    pub fn order_is(&self, marks: &[u8]) -> bool {
        self.order_len.load(Ordering::SeqCst) == marks.len()
            && self
                .order
                .iter()
                .zip(marks)
                .all(|(slot, mark)| slot.load(Ordering::SeqCst) == *mark)
    }

    /// The first eight events, the first in the most significant byte.
    pub fn order_digits(&self) -> u64 {
        self.order.iter().take(8).fold(0, |word, slot| {
            (word << 8) | u64::from(slot.load(Ordering::SeqCst))
        })
    }

    /// Clears counts and order, and takes the hook away.
    pub fn forget(&self) {
        for count in &self.counts {
            count.store(0, Ordering::SeqCst);
        }
        for slot in &self.order {
            slot.store(0, Ordering::SeqCst);
        }
        self.order_len.store(0, Ordering::SeqCst);
        self.hook.store(core::ptr::null_mut(), Ordering::SeqCst);
        self.auto_eoi.store(true, Ordering::SeqCst);
    }

    /// From now on `hook` handles maskable interrupts in place of the EOI.
    pub fn set_hook(&self, hook: Hook) {
        self.hook.store(hook as *mut (), Ordering::SeqCst);
    }

    /// The hook, if one is set.
    pub fn hook(&self) -> Option<Hook> {
        let pointer = self.hook.load(Ordering::SeqCst);
        if pointer.is_null() {
            return None;
        }
        // SAFETY: `set_hook` is the only writer of a non-null value, and stored a `Hook`.
        Some(unsafe { core::mem::transmute::<*mut (), Hook>(pointer) })
    }
}

const _: () = assert!(core::mem::offset_of!(Cpu, recover_rsp) == 0);
const _: () = assert!(core::mem::offset_of!(Cpu, target) == 8);
const _: () = assert!(core::mem::offset_of!(Cpu, scratch) == 16);
const _: () = assert!(core::mem::offset_of!(Cpu, index) == 24);
const _: () = assert!(core::mem::offset_of!(Cpu, handler) == 32);

static CPUS: [Cpu; MAX_CPUS] = [const { Cpu::new() }; MAX_CPUS];

/// The data of processor `index`, which is below [`MAX_CPUS`].
pub fn by_index(index: usize) -> &'static Cpu {
    &CPUS[index]
}

/// Makes the calling processor number `index`.
pub fn install(index: usize) {
    let cpu = by_index(index);
    cpu.index.store(index as u64, Ordering::SeqCst);
    cpu.handler
        .store(super::trap::handle as *const () as u64, Ordering::SeqCst);
    insn::wrmsr(GS_BASE, core::ptr::from_ref(cpu) as u64);
}

/// The calling processor's data.
pub fn this() -> &'static Cpu {
    let index: u64;
    // SAFETY: `install` ran on this processor before anything else here, and reads stay inside `Cpu`.
    unsafe {
        core::arch::asm!("mov {}, gs:[24]", out(reg) index, options(nostack, preserves_flags, readonly))
    };
    by_index(index as usize)
}
