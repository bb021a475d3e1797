//! The division of the hypervisor's block.

use addr::Spa;
use bootinfo::{BLOCK_ALIGN, SpaRange};

use crate::PAGE;

/// Bytes of the diagnostics area.
pub const DIAGNOSTICS_LEN: u64 = 1 << 20;

/// Where the parts of the block lie.
///
/// The diagnostics area comes first, which puts it on a 2 MiB boundary; the image follows, and the rest holds
/// tables, the boot record, stacks and then free memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// What the parent may read.
    pub diagnostics: SpaRange,
    /// The image.
    pub image: SpaRange,
    /// Everything after it.
    pub rest: SpaRange,
}

/// Why a block cannot be divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutError {
    /// It does not begin on a 2 MiB boundary.
    Misaligned,
    /// Diagnostics area and image leave nothing of it.
    TooSmall,
}

impl Layout {
    /// Divides `block` for an image of `image_len` bytes.
    ///
    /// # Errors
    /// [`LayoutError`].
    pub fn new(block: SpaRange, image_len: u64) -> Result<Self, LayoutError> {
        if !block.start.is_aligned(BLOCK_ALIGN) {
            return Err(LayoutError::Misaligned);
        }
        let used = image_len
            .checked_next_multiple_of(PAGE)
            .and_then(|image| image.checked_add(DIAGNOSTICS_LEN))
            .filter(|&used| used < block.len)
            .ok_or(LayoutError::TooSmall)?;
        let at = |offset: u64, len: u64| SpaRange {
            start: Spa::new(block.start.get() + offset),
            len,
        };
        Ok(Self {
            diagnostics: at(0, DIAGNOSTICS_LEN),
            image: at(DIAGNOSTICS_LEN, used - DIAGNOSTICS_LEN),
            rest: at(used, block.len - used),
        })
    }
}

/// Bytes of the block when the configuration names no size, for `ram` bytes of memory that end at `ram_end` and
/// `lps` processors, in whole 2 MiB:
///
/// - 18 MiB, and 1 MiB for each processor;
/// - the leaves of the physical map and of the parent's second-level tables: 8 bytes per 2 MiB of RAM each;
/// - a table per GiB of RAM for when the parent's large leaves are split around deposited frames. Of the 18 MiB,
///   2 MiB are for the tables of 4 KiB leaves below those: 512 pieces of 2 MiB with deposits in them;
/// - the frame table: 2 bytes for each 4 KiB below `ram_end`.
pub const fn default_reserve(ram: u64, ram_end: u64, lps: u64) -> u64 {
    let leaves = ram / (2 << 20) * 8 * 2;
    let split = ram.div_ceil(1 << 30) * PAGE;
    let frames = ram_end.div_ceil(PAGE) * 2;
    ((18 << 20) + (lps << 20) + leaves + split + frames).next_multiple_of(BLOCK_ALIGN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(start: u64, len: u64) -> SpaRange {
        SpaRange {
            start: Spa::new(start),
            len,
        }
    }

    #[test]
    fn the_parts_fill_the_block_in_order() {
        let whole = block(0x4000_0000, 16 << 20);
        let layout = Layout::new(whole, 0x12345).unwrap();
        assert_eq!(layout.diagnostics, block(0x4000_0000, 1 << 20));
        assert_eq!(layout.image, block(0x4010_0000, 0x13000));
        assert_eq!(layout.rest.start, layout.image.end());
        assert_eq!(layout.rest.end(), whole.end());
    }

    #[test]
    fn a_block_without_room_is_refused() {
        assert_eq!(
            Layout::new(block(0x20_0000, 2 << 20), 1 << 20),
            Err(LayoutError::TooSmall)
        );
        assert_eq!(
            Layout::new(block(0x20_0000, 2 << 20), u64::MAX),
            Err(LayoutError::TooSmall)
        );
        assert_eq!(
            Layout::new(block(0x10_0000, 8 << 20), 1 << 20),
            Err(LayoutError::Misaligned)
        );
    }

    #[test]
    fn the_reserve_grows_with_memory_and_processors() {
        const MIB: u64 = 1 << 20;
        const GIB: u64 = 1 << 30;
        assert_eq!(default_reserve(0, 0, 0), 18 * MIB);
        // 16 KiB of leaves, 8 KiB of tables, 1.5 MiB of frame states for 3 GiB of addresses.
        assert_eq!(default_reserve(2 * GIB, 3 * GIB, 2), (18 + 2 + 2) * MIB);
        // 8 MiB of leaves, 4 MiB of tables, 512 MiB of frame states.
        assert_eq!(
            default_reserve(1024 * GIB, 1024 * GIB, 64),
            (18 + 64 + 8 + 4 + 512) * MIB
        );
    }

    /// RAM far up costs frame states for the hole below it.
    #[test]
    fn the_frame_table_reaches_to_the_end_of_ram() {
        let states = |end| default_reserve(1 << 30, end, 1) - default_reserve(1 << 30, 0, 1);
        assert_eq!(states(1 << 40), 512 << 20);
        assert_eq!(states((1 << 40) + (2 << 30)), 514 << 20);
    }
}
