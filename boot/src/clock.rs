//! Frequencies of the time-stamp counter and of the local APIC timer, against the ACPI power management timer.
//!
//! CPUID may give the crystal's frequency, and emulators may give that of another machine's crystal: what CPUID
//! says is believed only where the measurement agrees with it.
#![expect(unsafe_code, reason = "reads the ACPI timer")]

use acpi_patch::PmTimer;
use bootinfo::AcpiRegister;
use uefi::boot::{self, Tpl};
use x86_64::instructions::port::Port;

use crate::apic_timer::ApicTimer;
use crate::cpu;
use crate::say::say;

/// Length of one measurement in ticks of the power management timer: 50 ms.
const WINDOW: u32 = (PmTimer::HZ / 20) as u32;
/// Measurements taken; the one with the sharpest ends counts.
const WINDOWS: usize = 3;
/// Readings taken at each end; the quickest counts.
const READINGS: usize = 32;
/// Bound on readings while a window passes, for a timer that stands still.
const PATIENCE: u32 = 50_000_000;

/// What was measured, in Hz.
#[derive(Clone, Copy, Debug)]
pub struct Frequencies {
    /// Of the time-stamp counter.
    pub tsc: u64,
    /// Of the local APIC timer before its divider.
    pub apic: u64,
}

/// Measures. `timer` is the machine's power management timer; without one the firmware's own clock must do.
pub fn measure(timer: Option<PmTimer>) -> Frequencies {
    let apic = ApicTimer::stopped();
    // SAFETY: nothing below calls the firmware but `by_stall`, and Stall is allowed at every level. The level is
    // restored when the guard goes.
    let guard = unsafe { boot::raise_tpl(Tpl::HIGH_LEVEL) };
    let running = apic.run();
    let measured = timer.and_then(|timer| {
        (0..WINDOWS)
            .filter_map(|_| window(&timer, &running))
            .min_by_key(|window| window.blur)
            .map(|window| window.result)
    });
    let measured_well = measured.is_some();
    let measured = measured.unwrap_or_else(|| by_stall(&running));
    drop(running);
    drop(guard);
    if !measured_well {
        say!(
            "warning: no ACPI timer counts; the clock is only as good as the firmware's delay loop"
        );
    }
    refine(measured)
}

/// One measurement and the uncertainty of its ends in time-stamp ticks.
struct Window {
    result: Frequencies,
    blur: u64,
}

/// A reading of some counter and the moment it was taken.
#[derive(Clone, Copy)]
struct Reading {
    value: u32,
    tsc: u64,
    blur: u64,
}

/// The quickest of several readings of `counter`, between two of the time-stamp counter.
fn read(counter: impl Fn() -> u32) -> Reading {
    let once = || {
        let before = cpu::tsc();
        let value = counter();
        let blur = cpu::tsc().wrapping_sub(before);
        Reading {
            value,
            tsc: before.wrapping_add(blur / 2),
            blur,
        }
    };
    (1..READINGS).map(|_| once()).fold(
        once(),
        |best, next| if next.blur < best.blur { next } else { best },
    )
}

fn window(timer: &PmTimer, apic: &ApicTimer) -> Option<Window> {
    let pm_counter = || read_pm(timer.register) & timer.mask;
    let elapsed = |from: u32| pm_counter().wrapping_sub(from) & timer.mask;

    let (pm_start, apic_start) = (read(pm_counter), read(|| apic.count()));
    let mut patience = PATIENCE;
    while elapsed(pm_start.value) < WINDOW {
        patience = patience.checked_sub(1)?;
        core::hint::spin_loop();
    }
    let (pm_end, apic_end) = (read(pm_counter), read(|| apic.count()));

    let pm_ticks = u64::from(pm_end.value.wrapping_sub(pm_start.value) & timer.mask);
    let tsc = ratio(pm_end.tsc.wrapping_sub(pm_start.tsc), PmTimer::HZ, pm_ticks)?;
    // The APIC timer counts down.
    let apic_ticks = u64::from(apic_start.value.wrapping_sub(apic_end.value));
    let apic = ratio(apic_ticks, tsc, apic_end.tsc.wrapping_sub(apic_start.tsc))?;
    Some(Window {
        result: Frequencies { tsc, apic },
        blur: pm_start.blur.saturating_add(pm_end.blur),
    })
}

/// For a machine whose power management timer is missing or stands still: the firmware's Stall.
fn by_stall(apic: &ApicTimer) -> Frequencies {
    const STALL_US: u64 = 100_000;
    let (tsc_start, apic_start) = (cpu::tsc(), apic.count());
    boot::stall(core::time::Duration::from_micros(STALL_US));
    let (tsc_end, apic_end) = (cpu::tsc(), apic.count());
    let hz = |ticks: u64| ratio(ticks, 1_000_000, STALL_US).unwrap_or_default();
    Frequencies {
        tsc: hz(tsc_end.wrapping_sub(tsc_start)),
        apic: hz(apic_start.wrapping_sub(apic_end).into()),
    }
}

/// Takes the frequencies that CPUID gives where the measurement is within 0.5 % of them (Intel SDM vol. 3B,
/// "Determining the Processor Base Frequency"; vol. 3A, "APIC Timer").
fn refine(measured: Frequencies) -> Frequencies {
    let leaf = cpu::cpuid(0x15, 0);
    let (denominator, numerator, crystal) = (
        u64::from(leaf.eax),
        u64::from(leaf.ebx),
        u64::from(leaf.ecx),
    );
    let told_tsc = ratio(crystal, numerator, denominator).filter(|&hz| hz != 0);
    let agrees = |told: u64, found: u64| told.abs_diff(found) <= found / 200;
    Frequencies {
        tsc: told_tsc
            .filter(|&told| agrees(told, measured.tsc))
            .unwrap_or(measured.tsc),
        apic: if crystal != 0 && agrees(crystal, measured.apic) {
            crystal
        } else {
            measured.apic
        },
    }
}

/// `a * b / c`, `None` when `c` is 0 or the result has more than 64 bits.
fn ratio(a: u64, b: u64, c: u64) -> Option<u64> {
    u64::try_from((u128::from(a) * u128::from(b)).checked_div(u128::from(c))?).ok()
}

fn read_pm(register: AcpiRegister) -> u32 {
    if register.space == AcpiRegister::MEMORY {
        // SAFETY: the FADT names this address as a 32-bit register, and the firmware maps all addresses.
        return unsafe { (register.address as *const u32).read_volatile() };
    }
    // SAFETY: the FADT names this port as the timer's; reading it has no effect.
    unsafe { Port::<u32>::new(register.address as u16).read() }
}
