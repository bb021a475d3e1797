//! What lies where when the hypervisor is placed into memory: the checks of its ELF image, the division of its
//! block, its first page tables and the map of the machine's RAM.
//!
//! Pure: table memory is a trait ([`TableMemory`]), the image is a byte slice. Nothing here allocates.
#![no_std]
#![forbid(unsafe_code)]

mod digest;
mod image;
mod layout;
mod ranges;
mod tables;

pub use digest::{DigestError, check_digest};
pub use image::{Image, ImageError, MAX_IMAGE, MAX_SEGMENTS, Segment};
pub use layout::{DIAGNOSTICS_LEN, Layout, LayoutError, default_reserve};
pub use ranges::{align_out, merge, subtract};
pub use tables::{Access, LeafLimit, MapError, TableMemory, Tables};

/// Bytes of a page.
pub const PAGE: u64 = addr::PAGE_SIZE;
