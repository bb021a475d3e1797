//! The parent that makes children: an EFI application that the loader starts as the parent's image.
//!
//! It makes the host-side calls of the TLFS as a virtual machine monitor makes them, runs tiny programs in the
//! children, answers their intercepts, and takes everything back. Reports in TAP on COM1 like the test parent.
//!
//! Each wait has an end: what hangs is a failed test with a line of its own.
#![no_std]
#![no_main]

extern crate alloc;

mod arena;
mod child;
mod client;
mod group;
mod heap;
mod options;

use machine::platform::Platform;
use machine::{clock, tables, verdict};
use options::Options;
use uefi::Status;

/// Chunks of 2 MiB for children.
const CHUNKS: usize = 96;

#[uefi::entry]
fn main() -> Status {
    verdict::begin();
    let options = Options::of_this_image();
    let platform = Platform::discover();
    let has_heap = heap::obtain();
    let chunks = if has_heap { arena::obtain(CHUNKS) } else { 0 };
    child::image::set_base(platform.image_base);
    tables::take_over(platform.image_base, platform.top_of_memory);
    clock::set_up(platform.pm_timer_port, platform.pm_timer_wide);
    verdict::note(format_args!(
        "TSC {} Hz, {} processors, {chunks} chunks of 2 MiB",
        clock::tsc_hz(),
        platform.processors().len()
    ));
    if verdict::check("there is memory for children", chunks != 0)
        && verdict::check("the hypercall page can be enabled", client::call::enable())
    {
        client::synic::set_up();
        run(&options, &platform);
        client::synic::take_down();
        client::call::disable();
    }
    verdict::finish()
}

fn run(options: &Options, platform: &Platform) {
    for entry in &group::GROUPS {
        if options.has(entry.name, entry.is_usual) {
            verdict::note(format_args!("group {}", entry.name));
            (entry.run)(options, platform);
            let left = client::partition::children();
            verdict::equal(
                format_args!("{}: no child is left", entry.name),
                left.len() as u64,
                0,
            );
        }
    }
}
