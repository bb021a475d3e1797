//! Pages that both sides reach.

use core::sync::atomic::{AtomicU64, Ordering, fence};

/// Shared pages as words of 64 bits. The other side may change each of them at any time.
///
/// Past the end, reads answer 0 and writes do nothing.
pub trait SharedWords {
    /// Loads word `index`; no later access passes before it (acquire).
    fn load(&self, index: usize) -> u64;

    /// Stores word `index`; no earlier access passes behind it (release).
    fn store(&self, index: usize, value: u64);

    /// Sets bits of word `index` in one step; no earlier access passes behind it (release).
    fn set_bits(&self, index: usize, bits: u64);

    /// Exchanges word `index` with 0; no access passes it either way.
    fn take(&self, index: usize) -> u64;

    /// A full barrier.
    fn fence(&self) {
        fence(Ordering::SeqCst);
    }
}

impl SharedWords for [AtomicU64] {
    fn load(&self, index: usize) -> u64 {
        self.get(index)
            .map_or(0, |word| word.load(Ordering::Acquire))
    }
    fn store(&self, index: usize, value: u64) {
        if let Some(word) = self.get(index) {
            word.store(value, Ordering::Release);
        }
    }
    fn set_bits(&self, index: usize, bits: u64) {
        if let Some(word) = self.get(index) {
            word.fetch_or(bits, Ordering::AcqRel);
        }
    }
    fn take(&self, index: usize) -> u64 {
        self.get(index)
            .map_or(0, |word| word.swap(0, Ordering::AcqRel))
    }
}

impl<W: SharedWords + ?Sized> SharedWords for &W {
    fn load(&self, index: usize) -> u64 {
        (**self).load(index)
    }
    fn store(&self, index: usize, value: u64) {
        (**self).store(index, value);
    }
    fn set_bits(&self, index: usize, bits: u64) {
        (**self).set_bits(index, bits);
    }
    fn take(&self, index: usize) -> u64 {
        (**self).take(index)
    }
    fn fence(&self) {
        (**self).fence();
    }
}

/// The numbers of the bits that are set, from the lowest on.
pub(crate) fn bits(mut word: u64) -> impl Iterator<Item = u32> {
    core::iter::from_fn(move || {
        if word == 0 {
            return None;
        }
        let bit = word.trailing_zeros();
        word &= !(1 << bit);
        Some(bit)
    })
}

/// Takes every bit of the `words` words from `first` on that `summary` names, and hands out their numbers.
pub(crate) fn take_bits(
    words: &impl SharedWords,
    summary: usize,
    first: usize,
    count: usize,
    mut each: impl FnMut(u32),
) {
    for index in bits(words.take(summary)) {
        if (index as usize) < count {
            let word = words.take(first + index as usize);
            bits(word).for_each(|bit| each(index * 64 + bit));
        }
    }
}

/// Sets bit `number` of the `count` words from `first` on, then the bit of its word in `summary`. Numbers past the end do
/// nothing.
pub(crate) fn leave_bit(
    words: &impl SharedWords,
    summary: usize,
    first: usize,
    count: usize,
    number: u32,
) {
    let index = number as usize / 64;
    if index < count {
        words.set_bits(first + index, 1 << (number % 64));
        // After the bit: whoever takes the summary finds it.
        words.set_bits(summary, 1 << index);
    }
}
