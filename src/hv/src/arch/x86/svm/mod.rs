//! AMD-V: nested paging and ASIDs. Needs neither next-RIP save nor decode assists, uses the first where it is.
//!
//! Source: AMD APM vol. 2 rev. 3.42, "Secure Virtual Machine".
pub mod caps;
pub mod control;
mod entry;
mod exit;
mod inject;
mod vmcb;

pub use caps::{check, enable};
pub use control::{Shared, SvmBitmaps, SvmVp};
