//! Memory of the parent whose frames the hypervisor is given: for a child's RAM, for pages that hypervisor and worker
//! share, for deposits.
//!
//! The kernel must neither free nor move such a frame, whatever anybody with a descriptor or a mapping of it does. A
//! [`Block`] is a sealed memory file of huge pages, all of them pinned by a dma-buf (`/dev/udmabuf`): a hole punched
//! into the file then frees nothing, truncation is refused, and migration fails. The frames' numbers are read after
//! that, from a mapping of this process itself.
//!
//! **Life.** Both files of a block go to a holder before the first frame is given away, so that the pin outlives this
//! process. They are closed when the hypervisor has let go of every frame: the dma-buf first. A block is never used for
//! two children, because a request of a killed worker may still write to it.

mod block;
mod hugepages;
mod pagemap;
mod udmabuf;

pub use block::{Block, RamError};

/// Bytes of a huge page; blocks are multiples of it.
pub const HUGE_PAGE: u64 = 2 << 20;
/// Frames of 4 KiB in a huge page.
pub const FRAMES: u64 = HUGE_PAGE / 4096;
