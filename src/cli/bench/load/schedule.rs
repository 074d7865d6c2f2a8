//! When the requests of an open loop are due.

use std::time::Duration;

/// Arrivals at equal distances from time 0 on, whatever the server does. Times count from the round's start.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    /// Arrivals per second.
    rate: f64,
    /// Nothing arrives from here on.
    end: Duration,
    /// Arrivals handed out.
    taken: u64,
}

impl Schedule {
    /// `rate` arrivals per second, more than 0, before `end`.
    pub(super) fn new(rate: f64, end: Duration) -> Self {
        Self { rate, end, taken: 0 }
    }

    /// When arrival `index`, from 0, is due. Computed from the index: an added-up interval would drift.
    pub(super) fn due(&self, index: u64) -> Option<Duration> {
        let due = Duration::try_from_secs_f64(index as f64 / self.rate).ok()?;
        (due < self.end).then_some(due)
    }

    /// Hands out the oldest arrival that no connection has taken.
    pub(super) fn take(&mut self) -> Option<Duration> {
        let due = self.due(self.taken)?;
        self.taken += 1;
        Some(due)
    }

    /// The time from which nothing arrives.
    pub(super) fn end(&self) -> Duration {
        self.end
    }

    /// How many arrivals due at `from` or later no connection has taken.
    pub(super) fn left(&self, from: Duration) -> u64 {
        let untaken = (self.taken..).map_while(|index| self.due(index));
        untaken.filter(|&due| due >= from).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn arrivals_are_handed_out_in_turn() {
        let mut schedule = Schedule::new(4.0, Duration::from_secs(1));
        let mut taken = || schedule.take().map(|due| due.as_millis());
        assert_eq!(
            [taken(), taken(), taken(), taken(), taken()],
            [Some(0), Some(250), Some(500), Some(750), None]
        );
    }

    #[test]
    fn what_is_left_is_counted_from_the_window_on() {
        let check = |taken: usize, from_ms: u64, expected: u64| {
            let mut schedule = Schedule::new(100.0, Duration::from_secs(2));
            (0..taken).for_each(|_| assert!(schedule.take().is_some()));
            assert_eq!(
                schedule.left(Duration::from_millis(from_ms)),
                expected,
                "{taken} {from_ms}"
            );
        };
        check(0, 0, 200);
        check(0, 1000, 100);
        check(50, 1000, 100);
        check(150, 1000, 50);
        check(200, 1000, 0);
    }

    proptest! {
        #[test]
        fn arrivals_neither_drift_nor_pass_the_end(rate in 0.1..1e6, index in 0..1_000_000_u64) {
            let schedule = Schedule::new(rate, Duration::from_secs(10));
            let exact = index as f64 / rate;
            match schedule.due(index) {
                Some(due) => prop_assert!((due.as_secs_f64() - exact).abs() < 1e-8 && exact < 10.0 + 1e-8),
                None => prop_assert!(exact >= 10.0 - 1e-8),
            }
        }
    }
}
