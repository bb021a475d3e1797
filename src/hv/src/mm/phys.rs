//! The physical map: all memory at one virtual address, read and write, never executable.
#![expect(
    unsafe_code,
    reason = "the one place where physical memory becomes a pointer"
)]

use core::sync::atomic::{AtomicU64, Ordering};

use addr::Spa;
use bootinfo::PHYS_MAP_BASE;

/// The address at which `spa` is mapped. Only frames of RAM are mapped, and the hypervisor's image is not.
#[inline]
pub fn pointer(spa: Spa) -> *mut u8 {
    // The map is shorter than the space above its base, so the sum does not wrap for any SPA below 2^52.
    PHYS_MAP_BASE.wrapping_add(spa.get()) as *mut u8
}

/// The address of what lies at `pointer` in the map.
pub fn spa_of(pointer: *const u8) -> Spa {
    Spa::new((pointer as u64).wrapping_sub(PHYS_MAP_BASE))
}

/// Reads eight bytes of RAM that a guest may be writing. `None` where `spa` is not RAM that guests may hold, or
/// the eight bytes leave their page.
pub fn read_guest_u64(spa: Spa) -> Option<u64> {
    let mut bytes = [0; 8];
    read_guest(spa, &mut bytes).then(|| u64::from_le_bytes(bytes))
}

/// RAM by its own addresses, for walks of the page tables of firmware.
pub struct Ram;

impl paging::walk::GuestPhysical for Ram {
    fn read_u64(&self, gpa: addr::Gpa) -> Option<u64> {
        read_guest_u64(Spa::new(gpa.get()))
    }

    fn read_u32(&self, gpa: addr::Gpa) -> Option<u32> {
        let mut bytes = [0; 4];
        read_guest(Spa::new(gpa.get()), &mut bytes).then(|| u32::from_le_bytes(bytes))
    }
}

/// Copies RAM at `spa` that a guest may be writing. False, and nothing read, where it is not RAM that guests may
/// hold, or the range leaves its page.
pub fn read_guest(spa: Spa, buffer: &mut [u8]) -> bool {
    if !is_guest_ram(spa, buffer.len()) {
        return false;
    }
    // SAFETY: checked above to be mapped RAM of the parent.
    unsafe { read_frame(spa, buffer) };
    true
}

/// Copies `bytes` to RAM at `spa`. False, and nothing written, under the conditions of [`read_guest`].
pub fn write_guest(spa: Spa, bytes: &[u8]) -> bool {
    if !is_guest_ram(spa, bytes.len()) {
        return false;
    }
    // SAFETY: checked above to be mapped RAM of the parent.
    unsafe { write_frame(spa, bytes) };
    true
}

fn is_guest_ram(spa: Spa, len: usize) -> bool {
    len <= 4096 - spa.page_offset() && super::owners::is_parents(spa)
}

/// Copies from RAM at `spa`, within one frame, that a guest may be writing.
///
/// # Safety
/// It is a frame of RAM in the physical map, and not one whose contents are the hypervisor's own.
pub unsafe fn read_frame(spa: Spa, buffer: &mut [u8]) {
    let base = pointer(spa);
    // By words where the address allows it, so that a page-table entry is never seen half-written.
    let words = if spa.is_aligned(8) {
        buffer.len() & !7
    } else {
        0
    };
    let (whole, rest) = buffer.split_at_mut(words);
    for (index, word) in whole.chunks_exact_mut(8).enumerate() {
        // SAFETY: passed on to the caller; volatile, because the guest may write meanwhile.
        let value = unsafe { base.wrapping_add(index * 8).cast::<u64>().read_volatile() };
        word.copy_from_slice(&value.to_le_bytes());
    }
    for (index, byte) in rest.iter_mut().enumerate() {
        // SAFETY: as above.
        *byte = unsafe { base.wrapping_add(words + index).read_volatile() };
    }
}

/// Copies to RAM at `spa`, within one frame.
///
/// # Safety
/// As for [`read_frame`].
pub unsafe fn write_frame(spa: Spa, bytes: &[u8]) {
    let base = pointer(spa);
    let words = if spa.is_aligned(8) {
        bytes.len() & !7
    } else {
        0
    };
    let (whole, rest) = bytes.split_at(words);
    for (index, word) in whole.as_chunks().0.iter().enumerate() {
        let place = base.wrapping_add(index * 8).cast::<u64>();
        // SAFETY: passed on to the caller.
        unsafe { place.write_volatile(u64::from_le_bytes(*word)) };
    }
    for (index, byte) in rest.iter().enumerate() {
        // SAFETY: as above.
        unsafe { base.wrapping_add(words + index).write_volatile(*byte) };
    }
}

/// A frame of the hypervisor's block that a guest sees too: an overlay page.
///
/// All access is atomic or volatile; the guest may write at any time.
#[derive(Clone, Copy, Debug)]
pub struct SharedFrame(Spa);

impl SharedFrame {
    /// The frame at `spa`.
    ///
    /// # Safety
    /// It belongs to the hypervisor, is used as an overlay only, and is never freed while this value lives.
    pub const unsafe fn new(spa: Spa) -> Self {
        Self(spa)
    }

    /// Its address.
    pub const fn spa(self) -> Spa {
        self.0
    }

    /// The 64-bit word at `offset`, which is rounded down to a multiple of eight below 4096.
    pub fn word(self, offset: usize) -> &'static AtomicU64 {
        // SAFETY: the offset lies in the frame and is aligned; the frame stays, see `new`.
        unsafe {
            &*pointer(self.0)
                .wrapping_add(offset & 0xFF8)
                .cast::<AtomicU64>()
        }
    }

    /// The 32-bit word at `offset`, which is rounded down to a multiple of four below 4096.
    pub fn half(self, offset: usize) -> &'static core::sync::atomic::AtomicU32 {
        // SAFETY: as above.
        unsafe { &*pointer(self.0).wrapping_add(offset & 0xFFC).cast() }
    }

    /// The byte at `offset` modulo 4096.
    pub fn byte(self, offset: usize) -> &'static core::sync::atomic::AtomicU8 {
        // SAFETY: as above.
        unsafe { &*pointer(self.0).wrapping_add(offset & 0xFFF).cast() }
    }

    /// Fills the frame with `value`.
    pub fn fill(self, value: u8) {
        for offset in (0..4096).step_by(8) {
            self.word(offset)
                .store(u64::from_ne_bytes([value; 8]), Ordering::Relaxed);
        }
    }

    /// Copies from the frame at `offset`; stops at the end of the frame.
    pub fn read(self, offset: usize, buffer: &mut [u8]) {
        for (index, byte) in buffer.iter_mut().enumerate().take(4096 - (offset & 0xFFF)) {
            *byte = self.byte(offset + index).load(Ordering::Relaxed);
        }
    }

    /// Copies into the frame at `offset`; stops at the end of the frame.
    pub fn write(self, offset: usize, bytes: &[u8]) {
        for (index, byte) in bytes.iter().enumerate().take(4096 - (offset & 0xFFF)) {
            self.byte(offset + index).store(*byte, Ordering::Relaxed);
        }
    }
}
