//! The test parent: an EFI application that the loader starts as the parent's image.
//!
//! It checks from inside the parent partition what a kernel cannot easily see, reports in TAP on COM1, and
//! leaves with an exit code. The groups that test the architecture alone also pass on the bare machine, which is
//! the proof that they test what they say.
//!
//! It gathers what it needs from the firmware, then takes the processor over (own page tables, GDT, IDT) and
//! calls no boot service again.
#![no_std]
#![no_main]

mod group;
mod options;

use machine::platform::Platform;
use machine::{clock, insn, tables, verdict};
use options::{Group, Options};
use uefi::Status;

#[uefi::entry]
fn main() -> Status {
    let start = insn::rdtsc();
    verdict::begin();
    // Ticks since the machine's reset, for `cargo xtask bench`.
    verdict::note(format_args!("bench start {start}"));
    let options = Options::of_this_image();
    let platform = Platform::discover();
    tables::take_over(platform.image_base, platform.top_of_memory);
    clock::set_up(platform.pm_timer_port, platform.pm_timer_wide);
    verdict::note(format_args!(
        "TSC {} Hz, {} processors",
        clock::tsc_hz(),
        platform.processors().len()
    ));
    run(&options, &platform);
    verdict::finish()
}

/// A group of tests, its name, and the function that runs it.
type Entry = (Group, &'static str, fn(&Options, &Platform));

/// The groups in their order. The other processors and the way out of x2APIC mode leave less behind than they
/// found, so they come last.
const GROUPS: [Entry; 15] = [
    (Group::CPUID, "cpuid", group::cpuid::run),
    (Group::MSR, "msr", group::msr::run),
    (Group::EXCEPTIONS, "exceptions", group::exceptions::run),
    (Group::HYPERCALL, "hypercall", group::hypercall::run),
    (Group::TIME, "time", group::time::run),
    (Group::APIC, "apic", group::apic::run),
    (Group::SYNIC, "synic", group::synic::run),
    (Group::STIMER, "stimer", group::stimer::run),
    (Group::ASSIST, "assist", group::assist::run),
    (Group::TIMER, "timer", group::accuracy::run),
    (Group::MEMORY, "memory", group::memory::run),
    (Group::FUZZ, "fuzz", group::fuzz::run),
    (Group::IPI, "ipi", group::ipi::run),
    (Group::X2APIC, "x2apic", group::apic::run_x2apic),
    (Group::BENCH, "bench", group::bench::run),
];

fn run(options: &Options, platform: &Platform) {
    for (group, name, run) in GROUPS {
        if options.has(group) {
            verdict::note(format_args!("group {name}"));
            run(options, platform);
        }
    }
}
