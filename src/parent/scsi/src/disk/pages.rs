//! What a disk says about itself: vital product data and mode pages.

use super::Disk;
use super::provisioning::{MAX_UNMAP_BYTES, MAX_UNMAP_DESCRIPTORS, MAX_WRITE_SAME_BYTES};
use crate::mode::Page;

impl Disk {
    /// Block limits, block device characteristics and logical block provisioning (SBC-3, "Vital product data").
    pub(super) fn vital_pages(&self) -> Vec<(u8, Vec<u8>)> {
        let traits = self.image.traits();
        let block = traits.logical_block.max(1);
        let blocks = |bytes: u64| u32::try_from(bytes / u64::from(block)).unwrap_or(u32::MAX);
        let mut limits = vec![0; 60];
        let mut put = |at: usize, value: &[u8]| {
            // Offsets of the specification count from the start of the page, 4 bytes before its content.
            for (place, byte) in limits.iter_mut().skip(at - 4).zip(value) {
                *place = *byte;
            }
        };
        // WSNZ: WRITE SAME for "all the rest" is refused.
        put(4, &[1]);
        let granule = u16::try_from(traits.physical_block / block).unwrap_or(1);
        put(6, &granule.to_be_bytes());
        put(36, &u64::from(blocks(MAX_WRITE_SAME_BYTES)).to_be_bytes());
        if let Some(discard) = traits.discard {
            put(20, &blocks(MAX_UNMAP_BYTES).to_be_bytes());
            put(24, &MAX_UNMAP_DESCRIPTORS.to_be_bytes());
            let granularity = (discard.granularity / block).max(1);
            put(28, &granularity.to_be_bytes());
            // Alignment 0, and it is valid.
            put(32, &0x8000_0000u32.to_be_bytes());
        }
        // Non-rotating: the child's elevator would help nobody.
        let mut characteristics = vec![0, 1];
        characteristics.resize(60, 0);
        let mut pages = vec![(0xB0, limits), (0xB1, characteristics)];
        if self.can_discard() {
            // LBPU, LBPWS, LBPWS10, LBPRZ; thin.
            pages.push((0xB2, vec![0, 0xE4, 0x02, 0]));
        }
        pages
    }

    /// Write protection, and whether FUA is honoured.
    pub(super) fn device_specific(&self) -> u8 {
        const DPOFUA: u8 = 0x10;
        u8::from(self.is_read_only()) << 7 | DPOFUA
    }

    /// Number and size of the blocks, in short form.
    pub(super) fn block_descriptor(&self) -> [u8; 8] {
        let blocks = u32::try_from(self.blocks()).unwrap_or(u32::MAX);
        let [b0, b1, b2, b3] = blocks.to_be_bytes();
        let [_, s1, s2, s3] = self.block().to_be_bytes();
        [b0, b1, b2, b3, 0, s1, s2, s3]
    }

    /// Caching and control.
    pub(super) fn mode_pages(&self) -> Vec<Page> {
        let has_cache = self.options.has_write_cache && !self.is_read_only();
        let mut caching = vec![0; 18];
        if let Some(flags) = caching.first_mut() {
            // WCE.
            *flags = u8::from(has_cache) << 2;
        }
        // Queue algorithm 1: commands may change places. Sense data is in fixed format.
        let control = vec![0x00, 0x10, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0];
        vec![
            Page {
                number: 0x08,
                content: caching,
            },
            Page {
                number: 0x0A,
                content: control,
            },
        ]
    }
}
