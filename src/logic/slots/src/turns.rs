//! Which of several channels with work has its turn.

/// Numbers below `64 * N` that wait, and whose turn is next. All have theirs before one has it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turns<const N: usize> {
    waiting: [u64; N],
    /// Turns go on from here.
    next: usize,
}

impl<const N: usize> Turns<N> {
    /// Nobody waits.
    pub const NONE: Self = Self {
        waiting: [0; N],
        next: 0,
    };

    /// `number` waits. Numbers past the end do nothing.
    pub fn add(&mut self, number: usize) {
        if let Some(word) = self.waiting.get_mut(number / 64) {
            *word |= 1 << (number % 64);
        }
    }

    /// `number` does not wait any more.
    pub fn remove(&mut self, number: usize) {
        if let Some(word) = self.waiting.get_mut(number / 64) {
            *word &= !(1 << (number % 64));
        }
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting == [0; N]
    }

    /// How many wait.
    pub fn count(&self) -> u32 {
        self.waiting.iter().map(|word| word.count_ones()).sum()
    }

    /// Whose turn it is: the first who waits from the one after the last on, which goes on waiting.
    pub fn turn(&mut self) -> Option<usize> {
        let found = self.first_from(self.next).or_else(|| self.first_from(0))?;
        self.next = found.saturating_add(1);
        Some(found)
    }

    fn first_from(&self, start: usize) -> Option<usize> {
        let (first, bit) = (start / 64, start % 64);
        let words = self.waiting.iter().enumerate().skip(first);
        words
            .map(|(at, word)| match at == first {
                true => (at, word & (u64::MAX << bit)),
                false => (at, *word),
            })
            .find(|(_, word)| *word != 0)
            .map(|(at, word)| at * 64 + word.trailing_zeros() as usize)
    }
}
