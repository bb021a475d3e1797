//! Page tables: those that the hypervisor edits and those of a guest that it only reads.
//!
//! - [`Table`] edits a tree of 4 or 5 levels in one of three [`Format`]s: the hypervisor's own address
//!   space, and AMD's and Intel's second-level translation (SLAT). The formats know bits; the core knows splitting,
//!   merging and the order of stores.
//! - [`walk`] reads a guest's own tables, in every paging mode, to turn a guest virtual address into a guest
//!   physical one.
//! - [`mtrr`] tells the memory type that the MTRRs give to a physical range.
//!
//! Processors walk these tables while they are being edited. At each moment a walk from the root finds, for
//! every page, the old mapping or the new one, never a third thing; an edit that fails has changed nothing.
//! Tables taken out of the tree stay readable until the caller has flushed and calls [`Table::finish`].
//!
//! Sources: Intel SDM vol. 3A, "Paging", vol. 3C, "The Extended Page Table Mechanism (EPT)";
//! AMD APM vol. 2, "Page Translation and Protection", "Nested Paging".
#![no_std]
#![forbid(unsafe_code)]

mod attributes;
mod change;
mod cleanup;
mod edit;
mod format;
mod identity;
mod leaves;
mod levels;
mod memory;
pub mod mtrr;
mod release;
mod table;
pub mod walk;

pub use attributes::{Attributes, Backing, MemoryType, PageSize};
pub use change::{Change, Event, MarkChange, Marks, OverOverlays};
pub use cleanup::Cleanup;
pub use format::{Entry, Format, HOST_PAT};
pub use identity::map_identity;
pub use levels::Levels;
pub use memory::{OutOfFrames, TableMemory};
pub use table::{EditError, Mapping, Table};
