//! Whether the time of day can be trusted to tell whose lease has run out.

use std::time::{Duration, Instant};

use super::supervise::TTL_MS;

/// Compares the time of day with a clock that nobody sets. Leases are kept in the time of day, since other processes read
/// them; once it was set, a lease that is alive looks as if it had run out, or one that is dead as if it had long to go,
/// until its holder has written it anew.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// Both clocks at the last look.
    read: Option<(i64, Instant)>,
    /// When the time of day was last found to have been set.
    set: Option<Instant>,
}

/// Two readings are so far apart at most where nobody sets the clock: a thread that waits between them, or a clock that is
/// being brought to the right time slowly.
const SLACK_MS: i64 = 2_000;

impl Clock {
    /// Looks at both clocks. False for a lease's time after the time of day was set, or the machine slept: until then each
    /// holder that is alive has written its lease anew.
    pub(super) fn is_settled(&mut self, now_ms: i64, now: Instant) -> bool {
        if let Some((before_ms, before)) = self.read {
            let passed = i64::try_from(now.saturating_duration_since(before).as_millis()).unwrap_or(i64::MAX);
            let off_ms = now_ms.saturating_sub(before_ms).saturating_sub(passed);
            if off_ms.saturating_abs() > SLACK_MS {
                self.set = Some(now);
                let seconds = off_ms / 1000;
                tracing::warn!(
                    seconds,
                    "the time of day was set; leases of jobs are left alone for a while"
                );
            }
        }
        self.read = Some((now_ms, now));
        let rest = Duration::from_millis(TTL_MS.unsigned_abs());
        self.set
            .is_none_or(|set| now.saturating_duration_since(set) >= rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_is_not_trusted_for_a_leases_time() {
        let (begun, noon) = (Instant::now(), 1_800_000_000_000);
        for hour in [3_600_000, -3_600_000] {
            let mut clock = Clock::default();
            let mut look = |ms: u64, off: i64| {
                let now_ms = noon + i64::try_from(ms).unwrap() + off;
                clock.is_settled(now_ms, begun + Duration::from_millis(ms))
            };
            // The first look compares nothing; small steps are none.
            assert!(look(0, 0) && look(5_000, 100) && look(10_000, -1_500));
            assert!(!look(15_000, hour));
            assert!(!look(20_000, hour) && !look(44_999, hour));
            assert!(look(45_000, hour) && look(50_000, hour));
            // And back.
            assert!(!look(55_000, 0) && look(85_000, 0));
        }
    }
}
