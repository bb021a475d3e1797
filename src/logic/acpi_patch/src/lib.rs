//! What the loader reads from the machine's ACPI tables, and what it adds to and takes from them.
//!
//! Byte work only: tables come as slices, new ones go out as vectors, and a change in place keeps the checksum
//! right. Follows the ACPI specification 6.5, "ACPI Software Programming Model" and "AML Specification". Needs
//! `alloc`, for the new tables.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod aml;
mod build;
mod fadt;
mod read;
mod remapping;
mod root;
mod table;
mod window;

pub use aml::{hide_s3, mentions_vmbus, processor_block, s5_types};
pub use build::{diagnostics_table, mcfg, vmbus_ssdt};
pub use fadt::{Fadt, PmTimer};
pub use remapping::{RemappingUnit, remapping_units};
pub use root::{Rsdp, longer_xsdt, set_xsdt, table_addresses};
pub use table::{HEADER_LEN, is_intact, rename, signature, table_len};
pub use window::vacant_window;
