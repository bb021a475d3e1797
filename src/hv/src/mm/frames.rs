//! Frames of the hypervisor's block: who uses how many, and the free ones.
//!
//! Single frames that come back are kept in a list through their first words; runs are taken from the untouched end
//! of the block and never come back.
#![expect(unsafe_code, reason = "the owner of the hypervisor's frames")]

use addr::{PAGE_SIZE, Spa};
use bootinfo::SpaRange;
use spin::Mutex;
use vpcore::seam::FrameSource;

use super::{owners, phys};
use crate::diagnostics;

/// What frames are used for. The count of each is part of the launch report and stands in the diagnostics area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
#[allow(missing_docs, reason = "the names say it")]
pub enum FrameUse {
    HostTables,
    Slat,
    Lp,
    Vp,
    Overlay,
    Partition,
    Owners,
    Child,
}

/// Names of [`FrameUse`], in its order.
pub const USE_NAMES: [&str; 8] = [
    "host tables",
    "slat",
    "lp",
    "vp",
    "overlay",
    "partition",
    "frame owners",
    "children",
];

struct Frames {
    /// First frame of the list of single frames, 0 for none.
    free_list: Spa,
    /// First of the frames that the parent deposited for itself, 0 for none. Used when there is nothing else.
    donated: Spa,
    /// The part never handed out.
    untouched: SpaRange,
    used: [u64; USE_NAMES.len()],
}

static FRAMES: Mutex<Frames> = Mutex::new(Frames {
    free_list: Spa::new(0),
    donated: Spa::new(0),
    untouched: SpaRange {
        start: Spa::new(0),
        len: 0,
    },
    used: [0; USE_NAMES.len()],
});

/// Gives `range`, RAM of the block that nothing uses, to the allocator.
///
/// # Safety
/// Nothing else reads or writes the range from now on.
pub unsafe fn init(range: SpaRange) {
    FRAMES.lock().untouched = range;
}

/// A zeroed run of `count` frames for `purpose`.
pub fn alloc(purpose: FrameUse, count: usize) -> Option<Spa> {
    alloc_from(purpose, count, true)
}

/// A zeroed frame that the parent has not deposited.
pub fn alloc_own(purpose: FrameUse) -> Option<Spa> {
    alloc_from(purpose, 1, false)
}

fn alloc_from(purpose: FrameUse, count: usize, may_be_donated: bool) -> Option<Spa> {
    let mut frames = FRAMES.lock();
    let bytes = u64::try_from(count).ok()?.checked_mul(PAGE_SIZE)?;
    let spa = if count == 1 && frames.free_list.get() != 0 {
        let spa = frames.free_list;
        // SAFETY: a frame of the list is ours and holds the next one's address in its first word.
        frames.free_list = Spa::new(unsafe { phys::pointer(spa).cast::<u64>().read() });
        spa
    } else {
        let has_run = bytes != 0 && bytes <= frames.untouched.len;
        if !has_run && count == 1 && may_be_donated {
            frames.take_donated()?
        } else if has_run {
            let spa = frames.untouched.start;
            frames.untouched = SpaRange {
                start: spa.checked_add(bytes)?,
                len: frames.untouched.len - bytes,
            };
            spa
        } else {
            return None;
        }
    };
    frames.used[purpose as usize] += count as u64;
    frames.show(purpose as usize);
    drop(frames);
    // SAFETY: the run was just taken out of the free memory and belongs to the caller.
    unsafe { phys::pointer(spa).write_bytes(0, bytes as usize) };
    Some(spa)
}

/// Takes a single frame back.
///
/// # Safety
/// `spa` came from [`alloc`] with the same `purpose`, and nothing uses it any more.
pub unsafe fn free(purpose: FrameUse, spa: Spa) {
    let mut frames = FRAMES.lock();
    // What the parent deposited goes back to where it can take it from.
    let list = if owners::is_hypervisors(spa) {
        &mut frames.free_list
    } else {
        &mut frames.donated
    };
    let next = core::mem::replace(list, spa);
    // SAFETY: passed on to the caller.
    unsafe { phys::pointer(spa).cast::<u64>().write(next.get()) };
    frames.used[purpose as usize] -= 1;
    frames.show(purpose as usize);
}

/// Adds a frame that the parent deposited for itself.
pub fn donate(spa: Spa) {
    let mut frames = FRAMES.lock();
    // SAFETY: the parent's tables do not lead there any more, and it is marked as the parent's own deposit.
    unsafe { phys::pointer(spa).cast::<u64>().write(frames.donated.get()) };
    frames.donated = spa;
}

/// A frame that the parent deposited for itself and that nothing uses, scrubbed.
pub fn reclaim() -> Option<Spa> {
    let spa = FRAMES.lock().take_donated()?;
    // SAFETY: just taken out of the list, so the caller's.
    unsafe { phys::pointer(spa).write_bytes(0, PAGE_SIZE as usize) };
    Some(spa)
}

impl Frames {
    fn take_donated(&mut self) -> Option<Spa> {
        let spa = self.donated;
        if spa.get() == 0 {
            return None;
        }
        // SAFETY: a frame of the list is ours and holds the next one's address in its first word.
        self.donated = Spa::new(unsafe { phys::pointer(spa).cast::<u64>().read() });
        Some(spa)
    }

    /// Shows the parent one of the sums, while nobody changes it.
    fn show(&self, purpose: usize) {
        if let Some(count) = self.used.get(purpose) {
            diagnostics::show_use(purpose, *count);
        }
    }
}

/// Shows in the diagnostics area, which was just laid out, what was used before.
pub fn show_uses() {
    let frames = FRAMES.lock();
    (0..USE_NAMES.len()).for_each(|purpose| frames.show(purpose));
}

/// Frames in use by purpose, and bytes of the part never handed out.
pub fn usage() -> ([u64; USE_NAMES.len()], u64) {
    let frames = FRAMES.lock();
    (frames.used, frames.untouched.len)
}

/// Puts `value` into frames of its own, for ever. `None` when the reserve is empty.
pub fn place<T>(purpose: FrameUse, value: T) -> Option<&'static mut T> {
    const { assert!(align_of::<T>() <= PAGE_SIZE as usize) };
    let spa = alloc(purpose, size_of::<T>().div_ceil(PAGE_SIZE as usize).max(1))?;
    let target = phys::pointer(spa).cast::<T>();
    // SAFETY: the frames are ours alone, large enough and aligned to a page.
    unsafe { target.write(value) };
    // SAFETY: written above; never freed.
    Some(unsafe { &mut *target })
}

/// Puts what `make` gives into a frame of its own, for ever. `None`, and no frame is lost, when the block is empty or `make`
/// gives nothing.
pub fn place_if<T>(purpose: FrameUse, make: impl FnOnce() -> Option<T>) -> Option<&'static T> {
    const { assert!(size_of::<T>() <= PAGE_SIZE as usize && align_of::<T>() <= PAGE_SIZE as usize) };
    let spa = alloc_own(purpose)?;
    let Some(value) = make() else {
        // SAFETY: just allocated for this, and not used.
        unsafe { free(purpose, spa) };
        return None;
    };
    let target = phys::pointer(spa).cast::<T>();
    // SAFETY: the frame is ours alone, large enough and aligned to a page.
    unsafe { target.write(value) };
    // SAFETY: written above; never freed.
    Some(unsafe { &*target })
}

/// Puts `count` values made by `make` side by side, for ever. `None` when the reserve is empty.
pub fn place_slice<T>(
    purpose: FrameUse,
    count: usize,
    mut make: impl FnMut(usize) -> T,
) -> Option<&'static mut [T]> {
    place_with(purpose, count, |index| Some(make(index)))
}

/// The same, where `make` may fail: then `None`, and the frames are lost, so only for the launch.
pub fn place_with<T>(
    purpose: FrameUse,
    count: usize,
    mut make: impl FnMut(usize) -> Option<T>,
) -> Option<&'static mut [T]> {
    const { assert!(align_of::<T>() <= PAGE_SIZE as usize) };
    let bytes = size_of::<T>().checked_mul(count)?;
    let spa = alloc(purpose, bytes.div_ceil(PAGE_SIZE as usize).max(1))?;
    let target = phys::pointer(spa).cast::<T>();
    for index in 0..count {
        let value = make(index)?;
        // SAFETY: the frames hold `count` values.
        unsafe { target.wrapping_add(index).write(value) };
    }
    // SAFETY: all of them are written; never freed.
    Some(unsafe { core::slice::from_raw_parts_mut(target, count) })
}

/// Frames for the control structures of VPs.
#[derive(Debug)]
pub struct VpFrames;

impl FrameSource for VpFrames {
    fn frames(&mut self, count: usize) -> Option<Spa> {
        alloc(FrameUse::Vp, count)
    }
}
