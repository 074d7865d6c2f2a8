//! How long a queue takes: a batch's time, fitted to what was measured, and from it when a new item would be answered.

use std::time::Duration;

use crate::queueing::Fit;

/// Bounds of what a refused caller is told: `Retry-After` knows whole seconds, and a guess beyond is worth nothing.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// A share of the time that an item may wait is set aside: between batches there is work that is in none of them, and others may want
/// the processors. Without it, a server of which too much is asked lets every item in that would be answered at its deadline, and those
/// that are a little later are computed in vain.
const SPARE: f64 = 1.0 / 8.0;

/// By so much of its time a batch may be longer than expected without anything being wrong.
const LONGER: f64 = 1.0 / 4.0;

/// The time of batches and what it means for those who wait. Times are seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Of a batch, over its items.
    pub(super) fit: Fit,
    pub(super) max_batch: usize,
    /// How long an idle instance may wait for more.
    pub(super) delay: f64,
    /// How much longer than fitted batches take in the mean of the last ones, at least 1.
    pub(super) drag: Drag,
}

/// The mean of what batches took, of what was fitted. The line passes over what is much too long, as it should where a core was lost for a
/// moment; but where that happens all the time, the wait is as much longer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drag(f64);

/// The mean is of about so many batches.
const LAST: f64 = 32.0;
/// One batch counts as at most so many times too long.
const WORST: f64 = 4.0;

impl Drag {
    /// A batch took so many times what was expected.
    pub(super) fn observe(&mut self, times: f64) {
        if times.is_finite() {
            self.0 += (times.clamp(1.0 / WORST, WORST) - self.0) / LAST;
        }
    }

    fn factor(self) -> f64 {
        self.0.max(1.0)
    }
}

impl Default for Drag {
    fn default() -> Self {
        Self(1.0)
    }
}

/// What stands before a new item.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ahead {
    /// Items that go before it.
    pub(super) items: usize,
    /// Those of them, and itself, that allow no full batch.
    pub(super) small: usize,
    /// The smallest batch that one of them, or itself, allows.
    pub(super) smallest: usize,
    /// What is left of the batches that run, over all instances.
    pub(super) running: f64,
    /// Instances that are alive.
    pub(super) instances: usize,
}

impl Pace {
    /// Of a batch of so many.
    pub(super) fn of(&self, items: usize) -> f64 {
        self.fit.at(items as f64)
    }

    /// What an item with `patience` left sets aside for its own batch: half of its time, where a full batch takes longer, but
    /// enough to be computed alone.
    fn own(&self, patience: f64) -> f64 {
        (patience / 2.0).min(self.of(self.max_batch)).max(self.of(1))
    }

    /// The largest batch that an item with `patience` left may be in: one that ends within its own share of the time.
    pub(super) fn largest(&self, patience: f64) -> usize {
        let (own, each) = (self.own(patience), self.fit.each());
        if each <= 0.0 || own >= self.of(self.max_batch) {
            return self.max_batch;
        }
        // A float that is too large or negative becomes the nearest whole number.
        (((own - self.fit.fixed()) / each) as usize).clamp(1, self.max_batch)
    }

    /// Until an item that is behind all of `ahead` is in a batch that begins. Exact to a batch where each takes what is
    /// fitted and its instance takes the next at once.
    ///
    /// Every instance works until then, so what is ahead is shared by all of them. How many batches it makes: each that is
    /// not full ends because of an item that allows no larger one, in it or first in the next; so there are at most two more
    /// for each such item than full ones, and never more than if all allowed as little as the least.
    pub(super) fn wait(&self, ahead: &Ahead) -> f64 {
        let least = ahead.items / ahead.smallest.max(1);
        let batches = least.min(ahead.items / self.max_batch + 2 * ahead.small);
        let work = self.fit.fixed() * batches as f64 + self.fit.each() * ahead.items as f64;
        self.delay + (ahead.running + work) * self.drag.factor() / ahead.instances.max(1) as f64
    }

    /// The most that an item with `patience` left may be expected to wait: [`SPARE`] less than what would just do.
    pub(super) fn longest_wait(&self, patience: f64) -> f64 {
        (patience - self.own(patience)) * (1.0 - SPARE)
    }

    /// Until a batch of `items` that begins now has surely answered one that had `patience` when it came: a batch may take a quarter
    /// longer than expected, as far as that is within what [`Pace::longest_wait`] sets aside, so that whoever waited no longer than
    /// that has time enough.
    pub(super) fn until(&self, items: usize, patience: f64) -> f64 {
        let expected = self.of(items) * self.drag.factor();
        let spare = (patience - self.own(patience)).max(0.0) * SPARE;
        expected + (expected * LONGER).min(spare)
    }

    /// How many items such an item would wait for, at most, and be answered in time.
    pub(super) fn within(&self, patience: f64, instances: usize) -> usize {
        let largest = self.largest(patience) as f64;
        let each = (self.fit.each() + self.fit.fixed() / largest) * self.drag.factor();
        let time = (self.longest_wait(patience) - self.delay) * instances.max(1) as f64;
        // As above; nothing fitted is no limit.
        (time / each.max(f64::MIN_POSITIVE)) as usize
    }
}

/// What a caller is told who would have waited for so long.
pub(super) fn retry_after(wait: Duration) -> Duration {
    let (least, most) = RETRY_AFTER;
    wait.clamp(least, most)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pace(fixed: f64, each: f64, max_batch: usize) -> Pace {
        let mut fit = Fit::default();
        for size in (1u16..=32).cycle().take(320) {
            fit.observe(size.into(), fixed + each * f64::from(size));
        }
        Pace {
            fit,
            max_batch,
            delay: 0.0,
            drag: Drag::default(),
        }
    }

    fn ahead(items: usize, instances: usize) -> Ahead {
        Ahead {
            items,
            small: 0,
            smallest: usize::MAX,
            running: 0.0,
            instances,
        }
    }

    #[test]
    fn a_wait_is_what_is_ahead_over_the_instances() {
        let pace = pace(0.010, 0.001, 10);
        let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-4, "{found} {expected}");
        near(pace.wait(&ahead(0, 2)), 0.0);
        // Nine items are part of the batch that the item is in.
        let full = Ahead {
            smallest: 10,
            ..ahead(0, 2)
        };
        near(pace.wait(&Ahead { items: 9, ..full }), 0.0045);
        near(
            pace.wait(&Ahead { items: 100, ..full }),
            (10.0 * 0.010 + 0.100) / 2.0,
        );
        let running = Ahead {
            items: 100,
            running: 0.030,
            ..full
        };
        near(pace.wait(&running), 0.115);
        // One that allows batches of two alone costs two batches, a hundred of them fifty.
        let small = |small| Ahead {
            items: 100,
            smallest: 2,
            small,
            ..full
        };
        near(pace.wait(&small(1)), (12.0 * 0.010 + 0.100) / 2.0);
        near(pace.wait(&small(100)), (50.0 * 0.010 + 0.100) / 2.0);
    }

    #[test]
    fn what_is_slower_all_the_time_lengthens_the_wait() {
        let mut pace = pace(0.010, 0.001, 10);
        let full = Ahead {
            smallest: 10,
            ..ahead(100, 1)
        };
        let (wait, within) = (pace.wait(&full), pace.within(1.0, 1));
        // Once is no matter, not even where a core was lost for long; quicker than fitted is none either.
        pace.drag.observe(1000.0);
        assert!(pace.wait(&full) < wait * 1.1);
        (0..300).for_each(|_| pace.drag.observe(0.5));
        assert_eq!((pace.wait(&full), pace.within(1.0, 1)), (wait, within));
        (0..300).for_each(|_| pace.drag.observe(1.25));
        assert!((pace.wait(&full) / wait - 1.25).abs() < 1e-3);
        assert!(pace.within(1.0, 1) < within);
        pace.drag.observe(f64::INFINITY);
        pace.drag.observe(f64::NAN);
        assert!((pace.wait(&full) / wait - 1.25).abs() < 1e-3);
    }

    #[test]
    fn an_item_in_a_hurry_is_in_small_batches() {
        let pace = pace(0.010, 0.001, 32);
        let check = |patience: f64, expected: usize| {
            let found = pace.largest(patience);
            assert!(found.abs_diff(expected) <= 1, "{patience}: {found}");
        };
        check(10.0, 32);
        check(0.084, 32);
        check(0.040, 10);
        check(0.022, 1);
        check(0.001, 1);
        check(-1.0, 1);
        let nothing = Pace {
            fit: Fit::default(),
            max_batch: 32,
            delay: 0.0,
            drag: Drag::default(),
        };
        assert_eq!((nothing.largest(0.001), nothing.within(1.0, 1)), (32, usize::MAX));
    }

    #[test]
    fn a_caller_is_told_whole_seconds_within_bounds() {
        let check = |wait_ms: u64, expected_ms: u64| {
            let [wait, expected] = [wait_ms, expected_ms].map(Duration::from_millis);
            assert_eq!(retry_after(wait), expected);
        };
        check(0, 1000);
        check(300, 1000);
        check(1200, 1200);
        check(999_999, 30_000);
    }

    proptest! {
        /// More time is never refused where less was not, and never allows smaller batches.
        #[test]
        fn patience_pays(
            fixed in 0.0..0.1f64,
            each in 1e-6..0.05f64,
            max_batch in 1usize..64,
            patience in 0.0..5.0f64,
            more in 0.0..1.0f64,
        ) {
            let pace = pace(fixed, each, max_batch);
            prop_assert!(pace.longest_wait(patience + more) >= pace.longest_wait(patience) - 1e-12);
            prop_assert!(pace.largest(patience + more) >= pace.largest(patience));
            let own = pace.of(pace.largest(patience));
            prop_assert!(own <= pace.own(patience) + 1e-9, "its batch fits its share");
        }

        /// More ahead is a longer wait, more instances a shorter one.
        #[test]
        fn a_wait_grows_with_what_is_ahead(
            fixed in 0.0..0.1f64,
            each in 1e-6..0.05f64,
            [items, more, small] in [0usize..2000, 0usize..100, 0usize..100],
            smallest in 1usize..33,
            running in 0.0..1.0f64,
            instances in 1usize..9,
        ) {
            let pace = pace(fixed, each, 32);
            let before = Ahead { items, small, smallest, running, instances };
            let wait = pace.wait(&before);
            let not_less = |after: Ahead| pace.wait(&after) >= wait;
            prop_assert!(not_less(Ahead { items: items + more, ..before }), "{before:?}");
            prop_assert!(not_less(Ahead { small: small + 1, ..before }), "{before:?}");
            prop_assert!(not_less(Ahead { running: running + 0.1, ..before }), "{before:?}");
            let more_instances = Ahead { instances: instances + 1, ..before };
            prop_assert!(pace.wait(&more_instances) <= wait);
        }
    }
}
