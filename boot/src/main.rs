//! The loader: a UEFI application that puts the hypervisor under the running firmware and then starts the
//! parent partition's EFI program.
//!
//! The order: read the configuration, load the parent's program, check every processor, place the hypervisor,
//! let it prepare, launch it, start the program. Up to the launch nothing of the machine is changed, so that
//! every fault found on the way leads back to the firmware or, if the configuration says so, to the parent's
//! program on the bare machine. After the launch this program runs inside the parent partition, and nothing of
//! it is needed by the hypervisor.
#![no_std]
#![no_main]

extern crate alloc;

mod acpi;
mod address_space;
mod apic_timer;
mod block;
mod clock;
mod cpu;
mod ecam;
mod failure;
mod initrd;
mod launch;
mod memory;
mod parent;
mod place;
mod processors;
mod say;
mod trampoline;
mod virtualization;
mod volume;

use config::{Config, OnFailure};
use uefi::prelude::*;

use crate::failure::Failure;
use crate::say::say;
use crate::volume::Volume;

#[entry]
fn main() -> Status {
    say!("loader {}", env!("CARGO_PKG_VERSION"));
    match run() {
        Ok(()) => Status::SUCCESS,
        Err(failure) => {
            say!("{}", failure.message);
            failure.status
        }
    }
}

fn run() -> Result<(), Failure> {
    let own = Volume::of_loader()?;
    let config = read_config(&own)?;
    if let Some(console) = config.hypervisor.console
        && !acpi::is_hypervisor_there()
    {
        say::take_serial_line(console);
    }
    // The parent's files come first: a machine on which a hypervisor runs without a parent helps nobody.
    let parent = parent::Program::load(&config.parent, &own)?;
    match launch::bring_up(&config.hypervisor, &own) {
        Ok(()) => {}
        Err(failure) if config.hypervisor.on_failure == OnFailure::Parent => {
            say!("{}", failure.message);
            say!("starting the parent without the hypervisor");
        }
        Err(failure) => return Err(failure),
    }
    parent.start()
}

fn read_config(own: &Volume) -> Result<Config, Failure> {
    let path = config::CONFIG_PATH;
    let bytes = own.read(path)?.ok_or_else(|| {
        Failure::new(
            Status::NOT_FOUND,
            format_args!("configuration {path} not found on the loader's volume; create it"),
        )
    })?;
    let fault = |what: &dyn core::fmt::Display| {
        Failure::new(
            Status::INVALID_PARAMETER,
            format_args!("configuration {path}: {what}"),
        )
    };
    let text = core::str::from_utf8(&bytes).map_err(|_| fault(&"is not UTF-8 text"))?;
    config::parse(text).map_err(|error| fault(&error))
}

/// A panic here is a defect of the loader. Before the launch the firmware's watchdog or the person resets the
/// machine; there is nothing that could be undone.
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    say!("internal error: {info}");
    loop {
        x86_64::instructions::hlt();
    }
}
