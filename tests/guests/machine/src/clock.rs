//! Time: the ACPI PM timer is the yardstick, the TSC is counted against it, and the hypervisor's reference
//! counter is what gets measured.

use core::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};

use super::{insn, probe};

/// Frequency of the PM timer in Hz (ACPI Specification, "Power Management Timer").
pub const PM_TIMER_HZ: u64 = 3_579_545;

const TIME_REF_COUNT: u32 = 0x4000_0020;

static PORT: AtomicU16 = AtomicU16::new(0);
static WIDE: AtomicBool = AtomicBool::new(false);
static TSC_HZ: AtomicU64 = AtomicU64::new(1_000_000_000);
static REFERENCE: AtomicBool = AtomicBool::new(false);

/// Learns the PM timer's port and whether it has 32 bits, and measures the TSC for 50 ms against it.
pub fn set_up(port: u16, wide: bool) {
    PORT.store(port, Ordering::SeqCst);
    WIDE.store(wide, Ordering::SeqCst);
    let (pm, tsc) = sample();
    while pm_since(pm) < PM_TIMER_HZ / 20 && port != 0 {
        insn::pause();
    }
    let (end, later) = sample();
    let elapsed = u64::from(end.wrapping_sub(pm) & mask());
    if elapsed != 0 {
        let hz = u128::from(later - tsc) * u128::from(PM_TIMER_HZ) / u128::from(elapsed);
        TSC_HZ.store(hz as u64, Ordering::SeqCst);
    }
    REFERENCE.store(
        probe::rdmsr(TIME_REF_COUNT).is_ok_and(|now| now != 0),
        Ordering::SeqCst,
    );
}

/// PM timer and TSC at the same moment: of some attempts the one with the least time around the reading, since the
/// host may stop an emulator in between.
fn sample() -> (u32, u64) {
    let (mut best, mut least) = ((0, 0), u64::MAX);
    for _ in 0..20 {
        let before = insn::rdtsc();
        let pm = pm_timer();
        let around = insn::rdtsc() - before;
        if around < least {
            best = (pm, before + around / 2);
            least = around;
        }
    }
    best
}

fn mask() -> u32 {
    if WIDE.load(Ordering::SeqCst) {
        u32::MAX
    } else {
        0xFF_FFFF
    }
}

/// Whether the machine has a PM timer.
pub fn has_pm_timer() -> bool {
    PORT.load(Ordering::SeqCst) != 0
}

/// The PM timer.
pub fn pm_timer() -> u32 {
    let port = PORT.load(Ordering::SeqCst);
    if port == 0 { 0 } else { insn::in32(port) }
}

/// PM timer ticks since it read `then`; right for up to 4 s.
pub fn pm_since(then: u32) -> u64 {
    u64::from(pm_timer().wrapping_sub(then) & mask())
}

/// Frequency of the TSC in Hz, as measured.
pub fn tsc_hz() -> u64 {
    TSC_HZ.load(Ordering::SeqCst)
}

/// TSC ticks in `us` microseconds.
pub fn ticks(us: u64) -> u64 {
    (u128::from(us) * u128::from(tsc_hz()) / 1_000_000) as u64
}

/// Microseconds in `ticks` TSC ticks.
pub fn micros(ticks: u64) -> u64 {
    (u128::from(ticks) * 1_000_000 / u128::from(tsc_hz())) as u64
}

/// Whether a hypervisor's reference counter answers.
pub fn has_reference() -> bool {
    REFERENCE.load(Ordering::SeqCst)
}

/// Units of 100 ns: the hypervisor's reference counter, or the TSC on the bare machine.
pub fn reference() -> u64 {
    if has_reference() {
        insn::rdmsr(TIME_REF_COUNT)
    } else {
        (u128::from(insn::rdtsc()) * 10_000_000 / u128::from(tsc_hz())) as u64
    }
}

/// Spins for `us` microseconds, interrupts as they are.
pub fn spin(us: u64) {
    wait_for(us, || false);
}

/// Spins until `done` or for `us` microseconds; says whether it was `done`.
pub fn wait_for(us: u64, mut done: impl FnMut() -> bool) -> bool {
    let start = insn::rdtsc();
    let limit = ticks(us);
    loop {
        if done() {
            return true;
        }
        if insn::rdtsc().wrapping_sub(start) >= limit {
            return false;
        }
        insn::pause();
    }
}
