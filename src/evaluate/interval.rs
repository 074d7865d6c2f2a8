//! How far a share of a sample may be from the truth.

use serde::{Deserialize, Serialize};

/// Φ⁻¹(0.975): 95 % of a normal distribution lie within this many standard deviations.
const Z: f64 = 1.959_963_984_540_054;

/// A 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

impl Interval {
    /// Wilson's score interval of `hits` among `n`, without continuity correction (Wilson, "Probable Inference, the Law
    /// of Succession, and Statistical Inference", 1927). Of n = 0, which tells nothing: 0 to 1.
    pub fn wilson(hits: usize, n: usize) -> Self {
        if n == 0 {
            return Self { low: 0.0, high: 1.0 };
        }
        let (hits, n) = (hits as f64, n as f64);
        let centre = (hits + Z * Z / 2.0) / (n + Z * Z);
        let half = Z / (n + Z * Z) * (hits * (n - hits) / n + Z * Z / 4.0).sqrt();
        // The ends of 0 and n hits are exactly 0 and 1; rounding may step over them.
        Self {
            low: (centre - half).max(0.0),
            high: (centre + half).min(1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn intervals_are_those_of_scipy() {
        // scipy.stats.binomtest(hits, n).proportion_ci(method="wilson")
        let check = |hits, n, low: f64, high: f64| {
            let interval = Interval::wilson(hits, n);
            let close = (interval.low - low).abs() < 1e-12 && (interval.high - high).abs() < 1e-12;
            assert!(close, "{hits} of {n}: {interval:?}");
        };
        check(0, 0, 0.0, 1.0);
        check(0, 10, 0.0, 0.27753279986288926);
        check(10, 10, 0.7224672001371109, 1.0);
        check(1, 1, 0.20654931437723745, 1.0);
        check(9904, 10000, 0.9882916724127057, 0.9921317019853347);
        check(3, 7, 0.1582198552514697, 0.7495416354723428);
    }

    proptest! {
        #[test]
        fn the_share_lies_inside_and_more_images_narrow_it(hits in 0usize..500, misses in 0usize..500) {
            let n = hits + misses;
            prop_assume!(n > 0);
            let (one, ten) = (Interval::wilson(hits, n), Interval::wilson(10 * hits, 10 * n));
            let share = hits as f64 / n as f64;
            prop_assert!(0.0 <= one.low && one.low <= share + 1e-12 && share <= one.high + 1e-12 && one.high <= 1.0);
            prop_assert!(ten.high - ten.low < one.high - one.low);
        }
    }
}
