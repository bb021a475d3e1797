//! Conversion between counts of the APIC timer and ticks of the TSC, without division.

/// A ratio as `multiplier / 2^shift`, at least the true ratio and above it by less than `2^-shift`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scale {
    multiplier: u64,
    shift: u32,
}

impl Scale {
    /// The ratio `numerator / denominator`; `None` when either is zero.
    fn new(numerator: u64, denominator: u64) -> Option<Self> {
        if numerator == 0 {
            return None;
        }
        let scaled = u128::from(numerator) << 64;
        let exact = scaled.checked_div(u128::from(denominator))?;
        // Keep 63 significant bits at most, so that rounding up cannot leave 64.
        let excess = 65_u32.saturating_sub(exact.leading_zeros());
        let shift = 64_u32.checked_sub(excess)?;
        let kept = exact >> excess;
        let rounded =
            (kept << excess) != exact || exact.wrapping_mul(u128::from(denominator)) != scaled;
        let multiplier = u64::try_from(kept).ok()?.checked_add(u64::from(rounded))?;
        Some(Self { multiplier, shift })
    }

    /// Fractional bits of what [`Scale::fixed`] returns, at most 64.
    pub(crate) const fn shift(self) -> u32 {
        self.shift
    }

    /// `value` times the ratio, with [`Scale::shift`] fractional bits.
    pub(crate) fn fixed(self, value: u64) -> u128 {
        u128::from(value) * u128::from(self.multiplier)
    }
}

/// The smallest integer not below `value`, which has `shift` (at most 127) fractional bits.
pub(crate) fn ceil(value: u128, shift: u32) -> u64 {
    let shift = shift & 127;
    let below = (1_u128 << shift).wrapping_sub(1);
    u64::try_from(value.saturating_add(below) >> shift).unwrap_or(u64::MAX)
}

/// The rates of the two clocks that an APIC timer needs, and the conversion between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// TSC ticks in one undivided count of the timer.
    pub(crate) tsc_per_count: Scale,
    /// Undivided counts of the timer in one TSC tick.
    pub(crate) counts_per_tsc: Scale,
}

impl Timing {
    /// Undivided counts in a duration with `tsc_per_count.shift()` fractional bits of a tick, rounded
    /// up, except that less than a sixteenth of a count is none.
    ///
    /// The exception makes the conversion the inverse of the one of [`Scale::fixed`]: a number of
    /// counts, made a duration, is that number again, though both ratios are rounded.
    pub(crate) fn counts(&self, duration: u128) -> u64 {
        // 63 significant bits are kept of the duration, and at least 44 are in the ratio: for 2^39 counts,
        // the most that a timer counts, the error is below the sixteenth.
        let excess = 65_u32.saturating_sub(duration.leading_zeros());
        let Ok(kept) = u64::try_from(duration >> (excess & 127)) else {
            return u64::MAX;
        };
        // At least 42 + 42 - 65, as no ratio is above 2^20; and at most 126, as only one is below 1.
        let fraction = self
            .counts_per_tsc
            .shift
            .saturating_add(self.tsc_per_count.shift)
            .saturating_sub(excess);
        let slack = 1_u128 << (fraction.saturating_sub(4) & 127);
        ceil(
            self.counts_per_tsc.fixed(kept).saturating_sub(slack),
            fraction,
        )
    }

    /// A TSC of `tsc_hz` and an APIC timer whose undivided input runs at `apic_hz`.
    ///
    /// `None` when a rate is zero, or when one is more than 2^20 times the other: such a pair comes
    /// from a failed calibration.
    pub fn new(tsc_hz: u64, apic_hz: u64) -> Option<Self> {
        if tsc_hz >> 20 > apic_hz || apic_hz >> 20 > tsc_hz {
            return None;
        }
        Some(Self {
            tsc_per_count: Scale::new(tsc_hz, apic_hz)?,
            counts_per_tsc: Scale::new(apic_hz, tsc_hz)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_calibration_is_refused() {
        assert_eq!(Timing::new(0, 1_000_000), None);
        assert_eq!(Timing::new(1_000_000, 0), None);
        assert_eq!(Timing::new(0, 0), None);
        assert_eq!(Timing::new(u64::MAX, 1000), None);
        assert!(Timing::new(u64::MAX, u64::MAX).is_some());
        assert!(Timing::new(1, 1).is_some());
    }

    #[test]
    fn counts_made_a_duration_are_counts_again() {
        for (tsc, apic) in [
            (1, 1),
            (1 << 20, 1),
            (1, 1 << 20),
            (2, 3),
            (3_000_000_000, 1_000_000_000),
            (2_494_140_017, 24_000_001),
            (4_000_003, 100_000_007),
            (u64::MAX, u64::MAX - 1),
            (u64::MAX >> 20, u64::MAX),
        ] {
            let timing = Timing::new(tsc, apic).unwrap();
            for count in [
                0,
                1,
                2,
                3,
                12345,
                0xFFFF_FFFF,
                (0xFFFF_FFFF << 7) - 1,
                0xFFFF_FFFF << 7,
            ] {
                assert_eq!(
                    timing.counts(timing.tsc_per_count.fixed(count)),
                    count,
                    "{tsc}/{apic}"
                );
            }
            assert!(timing.counts(u128::MAX) > 1 << 40);
        }
    }

    #[test]
    fn scaling_is_never_below_the_true_value_and_hardly_above() {
        for (tsc, apic) in [
            (3_000_000_000, 24_000_000),
            (2_494_140_000, 1_000_000_000),
            (4_000_000, 100_000_000),
        ] {
            let scale = Scale::new(tsc, apic).unwrap();
            assert!(scale.fixed(apic) >= u128::from(tsc) << scale.shift());
            for count in [1, 2, 1000, 0xFFFF_FFFF, 0xFFFF_FFFF << 7] {
                let exact = (u128::from(count) * u128::from(tsc)).div_ceil(u128::from(apic));
                let got = u128::from(ceil(scale.fixed(count), scale.shift()));
                assert!(
                    got >= exact && got <= exact + 1,
                    "{count} at {tsc}/{apic}: {got} for {exact}"
                );
            }
        }
    }
}
