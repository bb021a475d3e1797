//! What went wrong, in one line for the person at the screen, and the status for the firmware.

use alloc::string::{String, ToString};
use core::fmt;

use uefi::Status;

/// Why the loader cannot go on.
#[derive(Debug)]
pub struct Failure {
    /// What the firmware gets.
    pub status: Status,
    /// One line: what is wrong and, where there is one, the cure.
    pub message: String,
}

impl Failure {
    /// A failure with its line.
    pub fn new(status: Status, message: fmt::Arguments<'_>) -> Self {
        Self {
            status,
            message: message.to_string(),
        }
    }

    /// The hypervisor or a check refused this machine.
    pub fn refused(status: bootinfo::Status) -> Self {
        Self::new(Status::UNSUPPORTED, format_args!("{}", status.message()))
    }
}

/// For `map_err` on firmware calls: "`what`: `status`".
pub fn firmware<D: fmt::Debug>(what: &'static str) -> impl FnOnce(uefi::Error<D>) -> Failure {
    move |error| {
        Failure::new(
            error.status(),
            format_args!("{what}: firmware reports {}", error.status()),
        )
    }
}
