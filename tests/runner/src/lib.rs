//! Drives the emulated test machines: starts QEMU or Bochs, captures the serial ports, and judges what they print.
//!
//! xtask finds or makes the programs ([`emulator::Emulators`]) and says what machine is wanted.

pub mod emulator;
