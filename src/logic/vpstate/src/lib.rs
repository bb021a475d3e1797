//! The state of a child's virtual processor as its parent and the child itself reach it.
//!
//! - [`registers`]: every register by its TLFS name, checked; [`msr`]: the child's own RDMSR and WRMSR, by the same names.
//! - [`xsave`]: single registers in an XSAVE image, and the image as a whole.
//! - [`intercept`] and [`register_page`]: what the parent is told of an exit, and what it changes before the VP goes on.
//! - [`assert`]: interrupts from the parent. [`suspend`]: why a VP does not run.
//!
//! Pure: the hardware is a [`VpBackend`](vpcore::seam::VpBackend), time is a number of TSC ticks.
#![no_std]
#![forbid(unsafe_code)]

pub mod assert;
mod bytes;
pub mod check;
pub mod intercept;
pub mod msr;
mod names;
pub mod pending;
pub mod register_page;
pub mod registers;
pub mod stored;
pub mod suspend;
pub mod xsave;

pub use check::Limits;
pub use registers::{Effect, Registers};
pub use stored::Stored;
pub use suspend::{Change, Reasons, Suspend};
