//! The parent's own SynIC: messages of SINT 0, and a tick that ends every wait.

use alloc::collections::VecDeque;
use core::sync::atomic::{AtomicU64, Ordering};

use machine::cpu::{self, MAX_CPUS};
use machine::{apic, clock, insn};
use spin::Mutex;
use tlfs::msr;

use super::intercept::Intercept;
use crate::arena;

/// Vector of SINT 0.
pub const VECTOR: u8 = 0xC8;
/// Vector of the tick.
pub const TICK: u8 = 0xC9;
/// Vector that only wakes.
pub const WAKE: u8 = 0xCA;
/// Vector of SINT 5, the doorbells'.
pub const DOORBELL_VECTOR: u8 = 0xCB;

/// The tick's period in units of 100 ns.
const PERIOD: u64 = 10_000;

static MESSAGES: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];
static QUEUE: Mutex<VecDeque<Intercept>> = Mutex::new(VecDeque::new());

fn index() -> usize {
    cpu::this().index.load(Ordering::Relaxed) as usize
}

/// Sets the calling processor's SynIC and tick up.
pub fn set_up() {
    apic::notice_mode();
    apic::quiet();
    cpu::this().forget();
    let slot = &MESSAGES[index()];
    if slot.load(Ordering::SeqCst) == 0 {
        slot.store(arena::frame(), Ordering::SeqCst);
    }
    let page = slot.load(Ordering::SeqCst);
    insn::wrmsr(msr::SIMP, page | 1);
    insn::wrmsr(msr::SINT0, u64::from(VECTOR));
    insn::wrmsr(msr::SCONTROL, 1);
    // Enabled with the count, periodic, direct mode.
    insn::wrmsr(msr::STIMER0_CONFIG, 0b1011 | u64::from(TICK) << 4 | 1 << 12);
    insn::wrmsr(msr::STIMER0_COUNT, PERIOD);
}

/// Makes the calling processor's tick come every `us` microseconds from now on, until the next [`set_up`].
pub fn tick_every(us: u64) {
    insn::wrmsr(msr::STIMER0_COUNT, us * 10);
}

/// Takes it down.
pub fn take_down() {
    insn::wrmsr(msr::STIMER0_CONFIG, 0);
    insn::wrmsr(msr::SINT0, 1 << 16);
    insn::wrmsr(msr::SIMP, 0);
    insn::wrmsr(msr::SCONTROL, 0);
}

/// The calling processor's message page.
pub fn page() -> u64 {
    MESSAGES[index()].load(Ordering::SeqCst)
}

/// Ticks that the calling processor took.
pub fn ticks() -> u32 {
    cpu::this().count(TICK)
}

/// Moves what lies in slot 0 to the queue; whether there was something.
fn pump() -> bool {
    let page = MESSAGES[index()].load(Ordering::Relaxed);
    if page == 0 || insn::read_mmio32(page) == 0 {
        return false;
    }
    let mut words = [0; 32];
    for (at, word) in words.iter_mut().enumerate() {
        *word = insn::read_phys64(page + at as u64 * 8);
    }
    insn::write_mmio32(page, 0);
    // The flag may be set until the type is cleared, so it is read after that.
    if insn::read_mmio32(page + 4) & 0x100 != 0 {
        insn::wrmsr(msr::EOM, 0);
    }
    QUEUE.lock().push_back(Intercept::of(words));
    true
}

/// The first message that `wanted` accepts, or `None` when `us` microseconds were not enough. Halts between interrupts,
/// so that children get the processor.
pub fn wait(us: u64, mut wanted: impl FnMut(&Intercept) -> bool) -> Option<Intercept> {
    let start = insn::rdtsc();
    let limit = clock::ticks(us);
    loop {
        while pump() {}
        {
            let mut queue = QUEUE.lock();
            if let Some(at) = queue.iter().position(&mut wanted) {
                return queue.remove(at);
            }
        }
        if insn::rdtsc().wrapping_sub(start) >= limit {
            return None;
        }
        insn::halt_once();
    }
}

/// Halts until `done` or for `us` microseconds; says whether it was `done`.
pub fn sleep_until(us: u64, mut done: impl FnMut() -> bool) -> bool {
    let start = insn::rdtsc();
    let limit = clock::ticks(us);
    loop {
        if done() {
            return true;
        }
        if insn::rdtsc().wrapping_sub(start) >= limit {
            return false;
        }
        insn::halt_once();
    }
}

/// Halts for `us` microseconds, about.
pub fn sleep(us: u64) {
    sleep_until(us, || false);
}

/// Messages that nobody waited for; they are forgotten.
pub fn drain() -> usize {
    while pump() {}
    let mut queue = QUEUE.lock();
    let len = queue.len();
    queue.clear();
    len
}
