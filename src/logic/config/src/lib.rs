//! The loader's configuration file: its keys, its defaults and what is said when it is wrong.
//!
//! [`parse`] is the only way in. What it returns has been checked: paths are absolute and use backslashes, the
//! console's divisor exists, the reserve is in range. Needs `alloc`, for strings.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod console;
mod error;
mod file;
mod path;

use alloc::string::String;

pub use console::Console;
pub use error::Error;
pub use file::parse;

/// Where the loader looks for its configuration, on the volume it was started from.
pub const CONFIG_PATH: &str = r"\EFI\verdigris\verdigris.toml";

/// Where the hypervisor image lies when the configuration names none.
pub const DEFAULT_HYPERVISOR: &str = r"\EFI\verdigris\hypervisor.elf";

/// Smallest and largest accepted `memory_reserve_mib`.
pub const RESERVE_MIB: core::ops::RangeInclusive<u64> = 4..=65_536;

/// A checked configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What is started after the launch.
    pub parent: Parent,
    /// How the hypervisor itself runs.
    pub hypervisor: Hypervisor,
}

/// The parent partition's EFI program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Path of the EFI image, absolute, with backslashes.
    pub image: String,
    /// Passed to the image as its load options. Empty when not given.
    pub command_line: String,
    /// Path of an initial RAM disk, offered to a Linux EFI stub.
    pub initrd: Option<String>,
    /// Which volumes are searched for the image and the initial RAM disk.
    pub volume: Volume,
}

/// Where the parent's files may lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Volume {
    /// The loader's own volume first, then every other one.
    #[default]
    Any,
    /// Only the volume the loader was started from.
    Loader,
}

/// The hypervisor and its surroundings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hypervisor {
    /// Path of the ELF image on the loader's volume.
    pub image: String,
    /// Serial port that the hypervisor takes for itself, if any.
    pub console: Option<Console>,
    /// Most verbose level that it writes.
    pub log_level: LogLevel,
    /// Size in MiB of its memory block; `None` lets the loader compute it.
    pub memory_reserve_mib: Option<u64>,
    /// What it does after a panic.
    pub on_panic: OnPanic,
    /// What the loader does when it cannot launch it.
    pub on_failure: OnFailure,
}

impl Default for Hypervisor {
    fn default() -> Self {
        Self {
            image: String::from(DEFAULT_HYPERVISOR),
            console: None,
            log_level: LogLevel::default(),
            memory_reserve_mib: None,
            on_panic: OnPanic::default(),
            on_failure: OnFailure::default(),
        }
    }
}

/// Most verbose level that is written. The numbers are those of the boot record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    Off = 0,
    Error = 1,
    Warn = 2,
    #[default]
    Info = 3,
    Debug = 4,
    Trace = 5,
}

/// What the hypervisor does after a panic record is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnPanic {
    /// All processors stay halted, so that the screen and the record can be read.
    #[default]
    Halt,
    /// The machine is reset.
    Reset,
}

/// What the loader does when the hypervisor cannot be launched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// It returns to the firmware with an error.
    #[default]
    Firmware,
    /// It starts the parent's image on the bare machine.
    Parent,
}
