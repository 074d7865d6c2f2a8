//! How long work takes: a line over its size, fitted to what is measured while it goes on.

/// About so many of the latest measurements count.
const MEMORY: f64 = 32.0;
/// About so many of the latest tell how far off a measurement usually is.
const ERROR_MEMORY: f64 = 8.0;
/// A measurement that is longer than expected by more than so many times the usual error counts as no longer: a thread that
/// lost its core for a while says nothing of the work. Each one that goes on so makes the usual error larger, so that work
/// which did become slow is believed after a few.
const OUTLIER: f64 = 4.0;
/// The usual error is not under this share of what is expected.
const LEAST_ERROR: f64 = 0.25;
/// Sizes that differ by less than this share of their mean say little of what each unit takes.
const SPREAD: f64 = 0.05;

/// Seconds as `fixed + each · size`: weighted least squares in which older measurements count ever less. Where sizes do not
/// differ, the line keeps its shape and takes the measured height; before they ever did, it goes through the origin.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fit {
    /// Measurements, at most [`MEMORY`].
    count: f64,
    /// Means.
    size: f64,
    seconds: f64,
    /// Of the sizes, and of sizes with seconds.
    variance: f64,
    covariance: f64,
    /// Mean absolute error of what was expected.
    error: f64,
    each: f64,
}

impl Fit {
    /// Takes in a measurement; one that is no positive finite number of seconds for a positive size is passed over.
    pub fn observe(&mut self, size: f64, seconds: f64) {
        if !(size > 0.0 && size.is_finite() && seconds > 0.0 && seconds.is_finite()) {
            return;
        }
        let seconds = self.tempered(size, seconds);
        let before = *self;
        self.count = (self.count + 1.0).min(MEMORY);
        let weight = 1.0 / self.count;
        let (off_size, off_seconds) = (size - self.size, seconds - self.seconds);
        self.size += weight * off_size;
        self.seconds += weight * off_seconds;
        let rest = 1.0 - weight;
        self.variance = rest * (self.variance + weight * off_size * off_size);
        self.covariance = rest * (self.covariance + weight * off_size * off_seconds);
        let kept = before.each_at(self.size, self.seconds);
        // Of a spread that is no more than the rest of old measurements, nothing is believed.
        let least = (SPREAD * self.size).powi(2);
        let each = if self.variance > least {
            kept + (1.0 - least / self.variance) * (self.covariance / self.variance - kept)
        } else {
            kept
        };
        self.each = each.clamp(0.0, self.seconds / self.size);
    }

    /// Whether nothing was measured yet; then every time is 0.
    pub fn is_empty(&self) -> bool {
        self.count == 0.0
    }

    /// Seconds for work of this size.
    pub fn at(&self, size: f64) -> f64 {
        self.fixed() + self.each * size
    }

    /// Seconds that do not depend on the size.
    pub fn fixed(&self) -> f64 {
        (self.seconds - self.each * self.size).max(0.0)
    }

    /// Seconds for each unit of size.
    pub fn each(&self) -> f64 {
        self.each
    }

    /// What each unit takes on a line of this shape that goes through the point.
    fn each_at(&self, size: f64, seconds: f64) -> f64 {
        if self.is_empty() {
            return seconds / size;
        }
        self.each * seconds / self.at(size)
    }

    /// The measurement, or what is believed of it where it is far too long. A time that is short needs no doubt: no
    /// accident makes work quick.
    fn tempered(&mut self, size: f64, seconds: f64) -> f64 {
        if self.is_empty() {
            return seconds;
        }
        let expected = self.at(size);
        let usual = self.error.max(LEAST_ERROR * expected);
        let most = OUTLIER * usual;
        let off = (seconds - expected).min(most);
        self.error = usual + (off.abs().min(most) - usual) / ERROR_MEMORY;
        expected + off
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn near(found: f64, expected: f64, share: f64) -> bool {
        (found - expected).abs() <= share * expected
    }

    #[test]
    fn nothing_measured_takes_no_time() {
        let mut fit = Fit::default();
        for (size, seconds) in [
            (0.0, 1.0),
            (1.0, 0.0),
            (1.0, f64::NAN),
            (f64::INFINITY, 1.0),
            (1.0, -1.0),
        ] {
            fit.observe(size, seconds);
        }
        assert!(fit.is_empty());
        assert_eq!((fit.at(9.0), fit.fixed(), fit.each()), (0.0, 0.0, 0.0));
    }

    #[test]
    fn one_size_alone_is_a_line_through_the_origin() {
        let mut fit = Fit::default();
        (0..100).for_each(|_| fit.observe(4.0, 0.008));
        assert!(near(fit.each(), 0.002, 1e-9) && fit.fixed() < 1e-12, "{fit:?}");
    }

    #[test]
    fn one_size_alone_keeps_the_shape_it_finds() {
        let mut fit = Fit::default();
        (0..200).for_each(|index| {
            fit.observe(f64::from(index % 8 + 1), 0.010 + 0.001 * f64::from(index % 8 + 1));
        });
        (0..200).for_each(|_| fit.observe(8.0, 0.018));
        let share = fit.fixed() / fit.at(8.0);
        assert!(near(share, 10.0 / 18.0, 0.01), "{fit:?}");
        (0..200).for_each(|_| fit.observe(8.0, 0.036));
        assert!(near(fit.at(8.0), 0.036, 0.01), "{fit:?}");
        assert!(near(fit.fixed() / fit.at(8.0), share, 0.05), "{fit:?}");
    }

    #[test]
    fn a_thread_that_lost_its_core_once_changes_little() {
        let mut fit = Fit::default();
        (0..100).for_each(|_| fit.observe(1.0, 0.001));
        fit.observe(1.0, 1.0);
        assert!(fit.at(1.0) < 0.0011, "{fit:?}");
    }

    #[test]
    fn work_that_became_slow_is_believed_and_quick_work_at_once() {
        let mut fit = Fit::default();
        (0..100).for_each(|_| fit.observe(1.0, 0.001));
        (0..60).for_each(|_| fit.observe(1.0, 0.010));
        assert!(near(fit.at(1.0), 0.010, 0.2), "{fit:?}");
        (0..60).for_each(|_| fit.observe(1.0, 0.001));
        assert!(near(fit.at(1.0), 0.001, 1.5), "{fit:?}");
    }

    proptest! {
        /// Whatever the line, sizes that differ find it.
        #[test]
        fn a_line_is_found(
            fixed in 0.0..0.1f64,
            each in 1e-6..0.1f64,
            sizes in prop::collection::vec(1u16..33, 200..300),
        ) {
            prop_assume!(sizes[100..].iter().collect::<std::collections::BTreeSet<_>>().len() > 3);
            let mut fit = Fit::default();
            sizes.iter().for_each(|&size| fit.observe(size.into(), fixed + each * f64::from(size)));
            for size in [1.0, 16.0, 32.0] {
                prop_assert!(near(fit.at(size), fixed + each * size, 0.02), "{} {fit:?}", fit.at(size));
            }
        }

        /// Never below nothing, never falling with the size, whatever is measured.
        #[test]
        fn a_time_is_a_time(measured in prop::collection::vec((1u16..100, 1e-9..10.0f64), 1..200)) {
            let mut fit = Fit::default();
            for (size, seconds) in measured {
                fit.observe(size.into(), seconds);
                prop_assert!(fit.fixed() >= 0.0 && fit.each() >= 0.0 && fit.at(1.0).is_finite(), "{fit:?}");
                prop_assert!(fit.at(1.0) > 0.0, "{fit:?}");
            }
        }
    }
}
