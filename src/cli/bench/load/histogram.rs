//! Latencies counted in buckets of equal relative width.

use std::time::Duration;

/// Each power of two is cut into this many buckets, so a latency is off by less than a thousandth.
const BUCKETS_PER_OCTAVE: u64 = 1024;

/// Durations by their nanoseconds; needs at most half a megabyte for any number of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Histogram {
    /// How many fell into each bucket; as long as the longest duration needs.
    counts: Vec<u64>,
    count: u64,
    /// Nanoseconds of all together.
    sum_ns: u128,
    min: Option<Duration>,
    max: Duration,
}

impl Histogram {
    pub(super) fn add(&mut self, duration: Duration) {
        let bucket = bucket_of(nanoseconds(duration));
        if bucket >= self.counts.len() {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.count += 1;
        self.sum_ns += duration.as_nanos();
        self.min = Some(self.min.map_or(duration, |min| min.min(duration)));
        self.max = self.max.max(duration);
    }

    /// Adds all that `other` has counted.
    pub(super) fn merge(&mut self, other: &Self) {
        if other.counts.len() > self.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.count += other.count;
        self.sum_ns += other.sum_ns;
        self.min = self.min.into_iter().chain(other.min).min();
        self.max = self.max.max(other.max);
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The shortest, exactly.
    pub(super) fn min(&self) -> Option<Duration> {
        self.min
    }

    /// The longest, exactly.
    pub(super) fn max(&self) -> Option<Duration> {
        self.min.map(|_| self.max)
    }

    /// The arithmetic mean, exact to the nanosecond.
    pub(super) fn mean(&self) -> Option<Duration> {
        let mean = self.sum_ns.checked_div(u128::from(self.count))?;
        Some(Duration::from_nanos(u64::try_from(mean).unwrap_or(u64::MAX)))
    }

    /// The shortest duration that a share `q` in 0..=1 of all do not exceed (nearest rank), less than a thousandth too
    /// long.
    pub(super) fn quantile(&self, q: f64) -> Option<Duration> {
        let (min, max) = (self.min()?, self.max()?);
        let rank = ((q * self.count as f64).ceil() as u64).clamp(1, self.count);
        let mut seen = 0;
        let bucket = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        Some(Duration::from_nanos(last_of(bucket)).clamp(min, max))
    }
}

/// Durations of centuries count as the longest that fits.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// By how many bits the values of an octave are cut to leave 1024..2048; the values below are their own buckets.
fn bucket_of(value: u64) -> usize {
    let shift = value
        .checked_ilog2()
        .unwrap_or(0)
        .saturating_sub(BUCKETS_PER_OCTAVE.ilog2());
    (u64::from(shift) * BUCKETS_PER_OCTAVE + (value >> shift)) as usize
}

/// The greatest value of a bucket.
fn last_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let shift = (bucket / BUCKETS_PER_OCTAVE).saturating_sub(1);
    let first = (bucket - shift * BUCKETS_PER_OCTAVE) << shift;
    first + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        values
            .iter()
            .for_each(|&value| histogram.add(Duration::from_nanos(value)));
        histogram
    }

    #[test]
    fn nothing_has_no_figures() {
        let empty = of(&[]);
        assert_eq!(
            (empty.count(), empty.min(), empty.max(), empty.mean()),
            (0, None, None, None)
        );
        assert_eq!(empty.quantile(0.5), None);
    }

    #[test]
    fn ranks_are_the_nearest() {
        let check = |values: &[u64], q: f64, expected: u64| {
            assert_eq!(
                of(values).quantile(q),
                Some(Duration::from_nanos(expected)),
                "{values:?} {q}"
            );
        };
        check(&[7], 0.0, 7);
        check(&[7], 1.0, 7);
        check(&[1, 2, 3, 4], 0.5, 2);
        check(&[1, 2, 3, 4], 0.51, 3);
        check(&[1, 2, 3, 4], 0.99, 4);
        check(&[u64::MAX], 0.5, u64::MAX);
    }

    proptest! {
        #[test]
        fn a_value_is_in_its_bucket(value: u64) {
            let bucket = bucket_of(value);
            prop_assert!(value <= last_of(bucket));
            prop_assert!(bucket == 0 || last_of(bucket - 1) < value);
            prop_assert!(last_of(bucket) - value <= value / BUCKETS_PER_OCTAVE);
        }

        #[test]
        fn figures_are_those_of_the_sorted_values(
            mut values in vec(0..10_u64.pow(11), 1..200),
            cut in 0..200_usize,
            q in 0.0..=1.0_f64,
        ) {
            let (left, right) = values.split_at(cut.min(values.len()));
            let mut histogram = of(left);
            histogram.merge(&of(right));
            values.sort_unstable();
            let rank = ((q * values.len() as f64).ceil() as usize).max(1);
            let exact = values[rank - 1];
            let found = histogram.quantile(q).unwrap().as_nanos() as u64;
            prop_assert!(found >= exact && found - exact <= exact / BUCKETS_PER_OCTAVE, "{found} {exact}");
            prop_assert_eq!(histogram.count(), values.len() as u64);
            prop_assert_eq!(histogram.min(), values.first().map(|&v| Duration::from_nanos(v)));
            prop_assert_eq!(histogram.max(), values.last().map(|&v| Duration::from_nanos(v)));
            let mean = values.iter().sum::<u64>() / values.len() as u64;
            prop_assert_eq!(histogram.mean(), Some(Duration::from_nanos(mean)));
        }
    }
}
