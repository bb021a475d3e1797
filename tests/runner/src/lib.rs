//! Drives the emulated test machines: starts QEMU or Bochs, captures the serial ports, and judges what they print.
//!
//! xtask finds or makes the programs ([`emulator::Emulators`]) and the disk images, and says what
//! [`machine::Machine`] is wanted; [`session::run`] runs it to its end, and [`verdict::complaints`] holds what it
//! printed against a row of `tests/cases.toml` ([`cases::Case`]).

pub mod bochs;
pub mod cases;
pub mod compare;
pub mod emulator;
pub mod files;
mod growing;
pub mod machine;
pub mod qemu;
pub mod session;
pub mod tap;
pub mod terminal;
pub mod tether;
pub mod verdict;
