//! Whether a figure changed by more than noise.

use std::fmt;

use super::report::{median, range};

/// What two series of rounds of the same point say of each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Verdict {
    /// Every round was quicker than every round before, and the median by more than [`PROCESS`]; the time now as a share
    /// of the time then.
    Faster(f64),
    /// The same the other way round.
    Slower(f64),
    /// Anything less.
    Noise(f64),
    /// Too few rounds, or no such point, to know.
    Unknown,
}

/// Rounds from which a range says something of the noise.
const MIN_ROUNDS: usize = 3;

/// What two processes of the same program may differ by, which no round of either shows: where their memory lies.
const PROCESS: f64 = 0.02;

/// Times of the rounds `before` and `now`.
pub(super) fn compare(before: &[f64], now: &[f64]) -> Verdict {
    if before.len().min(now.len()) < MIN_ROUNDS {
        return Verdict::Unknown;
    }
    let ratio = median(now) / median(before);
    let ((old_low, old_high), (low, high)) = (range(before), range(now));
    if high < old_low && ratio < 1.0 - PROCESS {
        Verdict::Faster(ratio)
    } else if low > old_high && ratio > 1.0 + PROCESS {
        Verdict::Slower(ratio)
    } else {
        Verdict::Noise(ratio)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Faster(ratio) => write!(f, "faster: {ratio:.2} × the time"),
            Self::Slower(ratio) => write!(f, "slower: {ratio:.2} × the time"),
            Self::Noise(ratio) => write!(f, "within noise ({ratio:.2})"),
            Self::Unknown => f.write_str("–"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ranges_that_do_not_meet_are_a_change() {
        let check = |now: &[f64], expected| assert_eq!(compare(&[10.0, 12.0, 11.0], now), expected);
        check(&[8.0, 9.9, 8.8], Verdict::Faster(0.8));
        check(&[8.0, 10.0, 8.8], Verdict::Noise(0.8));
        check(&[13.0, 22.0, 12.1], Verdict::Slower(13.0 / 11.0));
        check(&[12.0, 22.0, 13.2], Verdict::Noise(1.2));
        check(&[11.0, 11.0, 11.0], Verdict::Noise(1.0));
        check(&[1.0, 1.0], Verdict::Unknown);
        // Ranges that do not meet, too near for two processes.
        assert_eq!(compare(&[100.0; 3], &[98.5, 99.0, 99.5]), Verdict::Noise(0.99));
        assert_eq!(compare(&[100.0; 3], &[101.0; 3]), Verdict::Noise(1.01));
        assert_eq!(compare(&[1.0], &[2.0, 2.0, 2.0]), Verdict::Unknown);
    }
}
