//! The seam between VT-x and AMD-V, and what every exit means whichever of the two reported it.
//!
//! [`seam`] is what the two implementors in the hypervisor offer; the other modules are the policy of the
//! parent partition as plain functions: what it sees of CPUID, which registers it may write, how an event
//! that was being delivered combines with the next, what INIT and SIPI make of a VP.
#![no_std]
#![forbid(unsafe_code)]

pub mod child_cpuid;
pub mod cpuid;
pub mod event;
pub mod msr;
pub mod seam;
pub mod startup;
pub mod tags;
