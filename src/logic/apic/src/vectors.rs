//! A set of interrupt vectors.

/// A set of the 256 interrupt vectors, as IRR, ISR and TMR hold them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct VectorSet([u64; 4]);

/// The word of a vector, 0 to 3, and its bit. A `u8` shifted right by six is always below four, so
/// the compiler drops the bounds check of the index.
const fn place(vector: u8) -> (usize, u64) {
    ((vector >> 6) as usize, 1 << (vector & 63))
}

impl VectorSet {
    /// The empty set.
    pub const EMPTY: Self = Self([0; 4]);

    /// The set held by eight registers of 32 vectors each, lowest vectors first.
    pub const fn from_registers(registers: [u32; 8]) -> Self {
        let [a, b, c, d, e, f, g, h] = registers;
        Self([pair(a, b), pair(c, d), pair(e, f), pair(g, h)])
    }

    /// The set as eight registers of 32 vectors each, lowest vectors first.
    pub const fn registers(&self) -> [u32; 8] {
        let [a, b, c, d] = self.0;
        [
            a as u32,
            (a >> 32) as u32,
            b as u32,
            (b >> 32) as u32,
            c as u32,
            (c >> 32) as u32,
            d as u32,
            (d >> 32) as u32,
        ]
    }

    /// The 32 vectors from `32 * (index % 8)` on, as a register.
    pub const fn register(&self, index: u8) -> u32 {
        let word = self.0[((index >> 1) & 3) as usize];
        (word >> ((index & 1) * 32)) as u32
    }

    /// Whether `vector` is in the set.
    pub const fn contains(&self, vector: u8) -> bool {
        let (word, bit) = place(vector);
        self.0[word] & bit != 0
    }

    /// Adds `vector`; true when it was not there.
    pub const fn insert(&mut self, vector: u8) -> bool {
        let (word, bit) = place(vector);
        let new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        new
    }

    /// Removes `vector`; true when it was there.
    pub const fn remove(&mut self, vector: u8) -> bool {
        let (word, bit) = place(vector);
        let there = self.0[word] & bit != 0;
        self.0[word] &= !bit;
        there
    }

    /// The highest vector of the set.
    pub const fn highest(&self) -> Option<u8> {
        let [a, b, c, d] = self.0;
        if d != 0 {
            Some(192 + top(d))
        } else if c != 0 {
            Some(128 + top(c))
        } else if b != 0 {
            Some(64 + top(b))
        } else if a != 0 {
            Some(top(a))
        } else {
            None
        }
    }

    /// The lowest vector of the set.
    pub const fn lowest(&self) -> Option<u8> {
        let [a, b, c, d] = self.0;
        if a != 0 {
            Some(a.trailing_zeros() as u8)
        } else if b != 0 {
            Some(64 + b.trailing_zeros() as u8)
        } else if c != 0 {
            Some(128 + c.trailing_zeros() as u8)
        } else if d != 0 {
            Some(192 + d.trailing_zeros() as u8)
        } else {
            None
        }
    }

    /// Whether no vector is in the set.
    pub const fn is_empty(&self) -> bool {
        let [a, b, c, d] = self.0;
        a | b | c | d == 0
    }

    /// Adds the vectors `64 * (index % 4) ..` whose bits are set in `word`.
    pub(crate) const fn insert_word(&mut self, index: usize, word: u64) {
        self.0[index & 3] |= word;
    }

    /// Removes the vectors `64 * (index % 4) ..` whose bits are set in `word`.
    pub(crate) const fn remove_word(&mut self, index: usize, word: u64) {
        self.0[index & 3] &= !word;
    }

    /// The set without vectors 0 to 15, which an APIC neither accepts nor delivers.
    pub(crate) const fn without_reserved(mut self) -> Self {
        self.0[0] &= !0xFFFF;
        self
    }
}

const fn pair(low: u32, high: u32) -> u64 {
    (low as u64) | ((high as u64) << 32)
}

/// The number of the highest bit set in `word`, which is not zero.
const fn top(word: u64) -> u8 {
    (63 - (word.leading_zeros() & 63)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn highest_and_lowest_are_found_in_every_word() {
        for vector in 0..=255u8 {
            let mut set = VectorSet::EMPTY;
            assert!(set.insert(vector));
            assert!(!set.insert(vector));
            assert_eq!((set.highest(), set.lowest()), (Some(vector), Some(vector)));
            set.insert(0);
            set.insert(255);
            assert_eq!((set.highest(), set.lowest()), (Some(255), Some(0)));
            set.remove(vector);
            assert!(!set.contains(vector));
        }
        assert_eq!(
            (VectorSet::EMPTY.highest(), VectorSet::EMPTY.lowest()),
            (None, None)
        );
    }

    #[test]
    fn registers_hold_thirty_two_vectors_each() {
        let mut set = VectorSet::EMPTY;
        set.insert(0x31);
        set.insert(0xFF);
        let registers = set.registers();
        assert_eq!(registers, [0, 1 << 0x11, 0, 0, 0, 0, 0, 1 << 31]);
        assert_eq!(VectorSet::from_registers(registers), set);
        for (index, register) in registers.into_iter().enumerate() {
            assert_eq!(set.register(index as u8), register);
        }
    }
}
