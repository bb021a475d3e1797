//! Pages that are shared with the hypervisor.

use core::sync::atomic::{AtomicU64, Ordering};

const WORDS: usize = 512;

/// A page of this program's memory, as the hypervisor's interface wants them.
#[repr(C, align(4096))]
pub struct Page([AtomicU64; WORDS]);

impl Page {
    /// A page of zeros.
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; WORDS])
    }

    /// Its address: physical too, since memory is identity mapped.
    pub fn address(&self) -> u64 {
        core::ptr::from_ref(self) as u64
    }

    /// Writes `value` to each word.
    pub fn fill(&self, value: u64) {
        for word in &self.0 {
            word.store(value, Ordering::SeqCst);
        }
    }

    /// Whether each word is `value`.
    pub fn is_filled_with(&self, value: u64) -> bool {
        self.0
            .iter()
            .all(|word| word.load(Ordering::SeqCst) == value)
    }

    /// The word at byte offset `offset`, a multiple of 8 below 4096.
    pub fn word(&self, offset: usize) -> u64 {
        self.0[offset / 8].load(Ordering::SeqCst)
    }

    /// Sets the word at byte offset `offset`, a multiple of 8 below 4096.
    pub fn set(&self, offset: usize, value: u64) {
        self.0[offset / 8].store(value, Ordering::SeqCst);
    }

    /// Clears bit `bit` of the first word, as one operation. Whether it was set.
    pub fn clear_bit(&self, bit: u32) -> bool {
        self.0[0].fetch_and(!(1 << bit), Ordering::SeqCst) >> bit & 1 != 0
    }

    /// The byte at `offset`, below 4096.
    pub fn byte(&self, offset: usize) -> u8 {
        self.word(offset & !7).to_le_bytes()[offset % 8]
    }
}

impl Default for Page {
    fn default() -> Self {
        Self::new()
    }
}
