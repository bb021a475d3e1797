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
        let exact = (u128::from(numerator) << 64).checked_div(u128::from(denominator))?;
        // Keep 63 significant bits at most, so that rounding up cannot leave 64.
        let excess = 65_u32.saturating_sub(exact.leading_zeros());
        let shift = 64_u32.checked_sub(excess)?;
        let multiplier = u64::try_from(exact >> excess).ok()?.checked_add(1)?;
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

    /// `value` times the ratio, rounded up.
    pub(crate) fn ceil(self, value: u64) -> u64 {
        ceil(self.fixed(value), self.shift)
    }
}

/// The smallest integer not below `value`, which has `shift` (at most 64) fractional bits.
pub(crate) fn ceil(value: u128, shift: u32) -> u64 {
    let below = (1_u128 << shift) - 1;
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
    fn scaling_is_never_below_the_true_value_and_hardly_above() {
        for (tsc, apic) in [
            (3_000_000_000, 24_000_000),
            (2_494_140_000, 1_000_000_000),
            (4_000_000, 100_000_000),
        ] {
            let scale = Scale::new(tsc, apic).unwrap();
            for count in [1, 2, 1000, 0xFFFF_FFFF, 0xFFFF_FFFF << 7] {
                let exact = (u128::from(count) * u128::from(tsc)).div_ceil(u128::from(apic));
                let got = u128::from(scale.ceil(count));
                assert!(
                    got >= exact && got <= exact + 1,
                    "{count} at {tsc}/{apic}: {got} for {exact}"
                );
            }
        }
    }
}
