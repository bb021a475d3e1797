//! The reference TSC page (TLFS, "Partition Reference Time Enlightenment").

/// Contents of the page from its first byte; the rest of the page is zero.
///
/// A reader computes `(TSC * scale >> 64) + offset` in units of 100 ns, unless `sequence` is 0, which sends it
/// to the MSR. Whoever rewrites a page that is in use stores 0 to `sequence` first and the new one last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ReferenceTscPage {
    /// Changes with every change of the other fields; 0 while the page is not valid.
    pub sequence: u32,
    /// Zero.
    pub reserved: u32,
    /// Units of 100 ns per TSC tick, as a fraction of 2^64.
    pub scale: u64,
    /// Added to the scaled TSC, in units of 100 ns.
    pub offset: i64,
}

const _: () = assert!(core::mem::size_of::<ReferenceTscPage>() == 24);
const _: () = assert!(core::mem::offset_of!(ReferenceTscPage, scale) == 8);
const _: () = assert!(core::mem::offset_of!(ReferenceTscPage, offset) == 16);

impl ReferenceTscPage {
    /// The reference time at `tsc`, as a guest computes it.
    pub const fn time_100ns(&self, tsc: u64) -> u64 {
        let scaled = ((tsc as u128 * self.scale as u128) >> 64) as u64;
        scaled.wrapping_add_signed(self.offset)
    }
}
