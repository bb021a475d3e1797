//! The memory that the hypervisor and the worker share, in a memory file of its own: by byte offsets in that file.
//!
//! The event area lies first, as ATTACH wants 17 contiguous pages, then the signal page, then two state pages for each VP.
//! GPAs of these pages are known to `vmms` alone.

/// Bytes of a page.
pub const PAGE: usize = 4096;
/// The event area.
pub const EVENT_AREA: usize = 0;
/// Bytes of the event area.
pub const EVENT_AREA_BYTES: usize = 17 * PAGE;
/// The signal page.
pub const SIGNAL_PAGE: usize = EVENT_AREA + EVENT_AREA_BYTES;
/// VPs of one child: the event area has a bit for each.
pub const VPS_MAX: u32 = 64;

const VP_PAGES: usize = SIGNAL_PAGE + PAGE;
const HUGE_PAGE: usize = 2 << 20;

/// The page of VP `vp`'s intercept message (`HvVpStatePageInterceptMessage`), `None` for a VP that cannot be.
pub fn intercept_page(vp: u32) -> Option<usize> {
    (vp < VPS_MAX).then(|| VP_PAGES + vp as usize * 2 * PAGE)
}

/// The register page of VP `vp` (`HvVpStatePageRegisters`), `None` for a VP that cannot be.
pub fn register_page(vp: u32) -> Option<usize> {
    intercept_page(vp).map(|page| page + PAGE)
}

/// Bytes of the file for a child of `vps` VPs, whole 2 MiB pages. `None` without VPs, or with more than [`VPS_MAX`].
pub fn file_bytes(vps: u32) -> Option<usize> {
    let last = register_page(vps.checked_sub(1)?)?;
    Some((last + PAGE).next_multiple_of(HUGE_PAGE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_and_fit() {
        assert_eq!(SIGNAL_PAGE, 17 * 4096);
        assert_eq!(intercept_page(0), Some(18 * 4096));
        assert_eq!(register_page(0), Some(19 * 4096));
        assert_eq!(intercept_page(1), Some(20 * 4096));
        assert_eq!(intercept_page(64), None);
        assert_eq!(file_bytes(1), Some(2 << 20));
        assert_eq!(file_bytes(64), Some(2 << 20));
        assert_eq!(file_bytes(0), None);
        assert_eq!(file_bytes(65), None);
    }
}
