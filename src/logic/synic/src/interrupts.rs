//! Interrupts to be raised, as a value.

/// One edge-triggered, fixed interrupt for the local APIC of the VP at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupt {
    /// 16 to 255.
    pub vector: u8,
    /// The interrupt is never left in service: the guest sends no EOI for it.
    pub auto_eoi: bool,
}

/// A set of interrupts. One vector is in it once, as it can be pending once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Interrupts {
    asserted: [u64; 4],
    auto_eoi: [u64; 4],
}

impl Interrupts {
    /// Nothing to raise.
    pub const NONE: Self = Self {
        asserted: [0; 4],
        auto_eoi: [0; 4],
    };

    /// Whether there is nothing to raise.
    pub fn is_empty(&self) -> bool {
        self.asserted == [0; 4]
    }

    /// Adds `interrupt`. A vector that is raised with and without automatic EOI is raised without.
    pub fn add(&mut self, interrupt: Interrupt) {
        let (word, bit) = (
            usize::from(interrupt.vector / 64),
            1u64 << (interrupt.vector % 64),
        );
        let (Some(asserted), Some(auto_eoi)) =
            (self.asserted.get_mut(word), self.auto_eoi.get_mut(word))
        else {
            return; // a vector has 8 bits, so the word is 0 to 3
        };
        if *asserted & bit == 0 {
            *asserted |= bit;
            *auto_eoi |= if interrupt.auto_eoi { bit } else { 0 };
        } else if !interrupt.auto_eoi {
            *auto_eoi &= !bit;
        }
    }
}

impl Iterator for Interrupts {
    type Item = Interrupt;

    /// Takes the interrupt with the lowest vector.
    fn next(&mut self) -> Option<Interrupt> {
        let word = self.asserted.iter().position(|word| *word != 0)?;
        let (asserted, auto_eoi) = (self.asserted.get_mut(word)?, self.auto_eoi.get(word)?);
        let bit = asserted.trailing_zeros();
        *asserted &= *asserted - 1;
        Some(Interrupt {
            vector: (word * 64) as u8 | bit as u8,
            auto_eoi: auto_eoi & 1 << bit != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    proptest! {
        #[test]
        fn what_goes_in_comes_out_once_in_order(mut vectors: Vec<(u8, bool)>) {
            let mut set = Interrupts::NONE;
            for &(vector, auto_eoi) in &vectors {
                set.add(Interrupt { vector, auto_eoi });
            }
            prop_assert_eq!(set.is_empty(), vectors.is_empty());
            // Sorting puts `false` first, which is the one that wins.
            vectors.sort();
            vectors.dedup_by_key(|v| v.0);
            let out: Vec<_> = set.map(|i| (i.vector, i.auto_eoi)).collect();
            prop_assert_eq!(out, vectors);
        }
    }
}
