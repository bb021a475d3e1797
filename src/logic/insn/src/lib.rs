//! Instructions: how long they are, and what those do that touch a device's registers.
//!
//! - [`length`] measures any instruction of the 16, 32 and 64-bit modes.
//! - [`mov_to_cr`] and [`mov_from_cr`] recognise accesses of control registers.
//! - [`decode_mmio`] and [`execute`] carry out an integer instruction whose memory operand is a device.
//!
//! The bytes come from a guest. Nothing here panics or loops without bound, whatever they are.
//!
//! There are good decoder crates, and the tests compare this one with one of them. The hypervisor does not
//! link it: three modes of it are 440 KiB of code and tables against 27 of this crate, and a decoder of
//! everything would put its unsafe code in front of every guest byte.
//!
//! Sources: Intel SDM vol. 2A, "Instruction Format", vol. 2D, "Opcode Map"; AMD APM vol. 3, "Instruction
//! Encoding", "Opcode and Operand Encodings".
#![no_std]
#![forbid(unsafe_code)]

mod alu;
mod execute;
mod length;
mod mmio;
mod opcode;
mod operand;
mod raw;
mod string;

pub use execute::{MmioBus, Progress, Unsupported, execute};
pub use length::{MovCr, length, mov_from_cr, mov_to_cr};
pub use mmio::{MmioInsn, decode_mmio};
pub use operand::Width;
pub use raw::{DecodeError, LENGTH_MAX, Mode};
pub use string::{SegmentName, StringKind, StringOp};
