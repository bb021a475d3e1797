//! Where a child's RAM lies in its GPA space: what the daemon maps is what the worker loads a kernel into and tells the
//! child of.
//!
//! RAM begins at 0. Between [`GAP`]'s ends there is none: the IO-APIC and the local APICs have their pages there, and
//! devices may get windows. What does not fit below goes on above. All parts are whole pages of [`GRANULE`] bytes, so
//! that second-level tables need no smaller leaf. The legacy hole below 1 MiB is backed by RAM too; the child's memory map
//! calls it reserved.
#![forbid(unsafe_code)]

use std::fmt;
use std::ops::Range;

use addr::Gpa;

/// Size and alignment of everything here: a large page.
pub const GRANULE: u64 = 2 << 20;

/// Addresses below 4 GiB that hold no RAM.
pub const GAP: Range<u64> = 3 << 30..4 << 30;

/// The most memory of one child: what lies above the gap then still ends below 2^40, which every processor of interest
/// can address.
pub const MAX_BYTES: u64 = (1 << 40) - (1 << 30);

/// A part of a child's RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Where it begins for the child.
    pub gpa: Gpa,
    /// Its size in bytes.
    pub bytes: u64,
    /// Where it begins in the file that holds all of the child's RAM.
    pub offset: u64,
}

/// A size that no child can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeError {
    /// The size in bytes.
    pub bytes: u64,
}

impl fmt::Display for SizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes } = self;
        let max = MAX_BYTES >> 30;
        write!(
            f,
            "memory of {bytes} bytes: give a multiple of 2M, from 2M to {max}G"
        )
    }
}

impl std::error::Error for SizeError {}

/// The parts of a child's RAM of `memory_bytes`, one or two, by ascending address. Their offsets follow each other
/// without a gap.
///
/// # Errors
/// [`SizeError`] when the size is 0, no multiple of [`GRANULE`], or more than [`MAX_BYTES`].
pub fn layout(memory_bytes: u64) -> Result<Vec<Region>, SizeError> {
    if memory_bytes == 0 || !memory_bytes.is_multiple_of(GRANULE) || memory_bytes > MAX_BYTES {
        return Err(SizeError {
            bytes: memory_bytes,
        });
    }
    let low = memory_bytes.min(GAP.start);
    let parts = [(0, low, 0), (GAP.end, memory_bytes - low, low)];
    Ok(parts
        .into_iter()
        .filter(|&(_, bytes, _)| bytes != 0)
        .map(|(gpa, bytes, offset)| Region {
            gpa: Gpa::new(gpa),
            bytes,
            offset,
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_small_child_has_one_region() {
        let region = Region {
            gpa: Gpa::new(0),
            bytes: 512 << 20,
            offset: 0,
        };
        assert_eq!(layout(512 << 20), Ok(vec![region]));
        assert_eq!(layout(GAP.start).map(|regions| regions.len()), Ok(1));
    }

    #[test]
    fn sizes_that_cannot_be_are_named_with_their_cure() {
        for bytes in [0, 1, GRANULE + 4096, MAX_BYTES + GRANULE, u64::MAX] {
            let error = layout(bytes).unwrap_err();
            assert_eq!(error, SizeError { bytes });
            assert!(error.to_string().contains("multiple of 2M"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn all_memory_is_placed_once_and_outside_the_gap(granules in 1..=MAX_BYTES / GRANULE) {
            let bytes = granules * GRANULE;
            let (mut next_offset, mut next_gpa) = (0, 0);
            for region in layout(bytes).unwrap() {
                prop_assert_eq!(region.offset, next_offset);
                prop_assert!(region.gpa.get() >= next_gpa && region.bytes > 0);
                prop_assert!(region.gpa.is_aligned(GRANULE) && region.bytes.is_multiple_of(GRANULE));
                next_offset += region.bytes;
                next_gpa = region.gpa.get() + region.bytes;
                prop_assert!(next_gpa <= GAP.start || region.gpa.get() >= GAP.end);
            }
            prop_assert_eq!(next_offset, bytes);
            prop_assert!(next_gpa <= 1 << 40);
        }
    }
}
