//! acpi_patch
#![no_std]
#![forbid(unsafe_code)]
