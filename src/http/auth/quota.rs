//! How often a key may ask: GCRA, a token bucket that is one number (ITU-T I.371, annex A).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A bucket of `burst` requests that fills at a steady rate. Times are nanoseconds since any fixed moment.
#[derive(Debug)]
pub(crate) struct Bucket {
    /// Between two requests at the steady rate.
    interval: u64,
    burst: u32,
    /// When the bucket will be full again; in the past where it is.
    full_at: AtomicU64,
}

/// What a key has left after a request, as the `RateLimit` fields tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Most requests at once.
    pub(super) burst: u32,
    /// Seconds in which an empty bucket fills, rounded up.
    pub(super) window: u64,
    /// Requests that may follow at once.
    pub(super) left: u32,
    /// Until the bucket is full, or after a refusal until one request fits.
    pub(super) wait: Duration,
}

impl Bucket {
    /// `per_second` is 0.001 to 1,000,000, so that no time here passes 2⁶³ ns.
    pub(crate) fn new(per_second: f64, burst: u32) -> Self {
        Self {
            interval: (1e9 / per_second) as u64,
            burst,
            full_at: AtomicU64::new(0),
        }
    }

    /// Whether two buckets fill alike.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        (self.interval, self.burst) == (other.interval, other.burst)
    }

    /// Takes one request out, or tells how long until there is one. What is refused costs nothing.
    pub(crate) fn take(&self, now: u64) -> Result<Standing, Standing> {
        let capacity = self.interval.saturating_mul(self.burst.into());
        let after = |full_at: u64| full_at.max(now).saturating_add(self.interval);
        let fits = |full_at: u64| Some(after(full_at)).filter(|after| after - now <= capacity);
        let taken = self
            .full_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        match taken {
            Ok(before) => {
                let until_full = after(before) - now;
                let left = (capacity - until_full) / self.interval;
                Ok(self.standing(u32::try_from(left).unwrap_or(u32::MAX), until_full))
            }
            Err(full_at) => Err(self.standing(0, after(full_at) - now - capacity)),
        }
    }

    fn standing(&self, left: u32, wait: u64) -> Standing {
        let capacity = Duration::from_nanos(self.interval.saturating_mul(self.burst.into()));
        Standing {
            burst: self.burst,
            window: whole_seconds(capacity),
            left,
            wait: Duration::from_nanos(wait),
        }
    }
}

impl Standing {
    /// `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers).
    pub(crate) fn policy(self) -> String {
        format!("\"key\";q={};w={}", self.burst, self.window)
    }

    /// `RateLimit`.
    pub(crate) fn limit(self) -> String {
        format!("\"key\";r={};t={}", self.left, whole_seconds(self.wait))
    }
}

/// Rounded up.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_burst_fits_and_then_the_steady_rate() {
        let bucket = Bucket::new(2.0, 3);
        let left = |now: u64| bucket.take(now).map(|standing| standing.left);
        let start = 7 * SECOND;
        assert_eq!([left(start), left(start), left(start)], [Ok(2), Ok(1), Ok(0)]);
        let refused = bucket.take(start).unwrap_err();
        assert_eq!(refused.wait, Duration::from_millis(500));
        // A refusal costs nothing: the wait that it named is enough.
        assert_eq!(
            bucket.take(start + SECOND / 2 - 1).unwrap_err().wait,
            Duration::from_nanos(1)
        );
        assert_eq!(left(start + SECOND / 2), Ok(0));
        // Full again, and never fuller.
        assert_eq!(left(start + 60 * SECOND), Ok(2));
    }

    #[test]
    fn the_fields_are_structured_and_round_up() {
        let bucket = Bucket::new(0.4, 3);
        let standing = bucket.take(0).unwrap();
        assert_eq!(standing.policy(), "\"key\";q=3;w=8");
        assert_eq!(standing.limit(), "\"key\";r=2;t=3");
        assert_eq!((bucket.take(0).is_ok(), bucket.take(0).is_ok()), (true, true));
        assert_eq!(bucket.take(1).unwrap_err().limit(), "\"key\";r=0;t=3");
    }

    #[test]
    fn the_slowest_and_the_largest_bucket_do_not_overflow() {
        let bucket = Bucket::new(0.001, 1_000_000);
        for now in [0, 1, u64::MAX / 2] {
            assert!(bucket.take(now).is_ok());
        }
    }

    #[test]
    fn threads_take_no_more_than_there_is() {
        let bucket = Bucket::new(0.001, 1000);
        let taken = std::thread::scope(|scope| {
            let taker = || (0..1000).filter(|_| bucket.take(5).is_ok()).count();
            let takers: Vec<_> = (0..4).map(|_| scope.spawn(taker)).collect();
            takers
                .into_iter()
                .map(|taker| taker.join().unwrap())
                .sum::<usize>()
        });
        assert_eq!(taken, 1000);
    }

    proptest! {
        /// The rule of a token bucket: in no span of time more than the burst and what came in meanwhile.
        #[test]
        fn no_span_holds_more_than_the_bucket(
            per_second in 0.5..1000.0,
            burst in 1_u32..20,
            steps in proptest::collection::vec(0_u64..2_000_000_000, 1..200),
        ) {
            let bucket = Bucket::new(per_second, burst);
            let (mut now, mut taken) = (0, Vec::new());
            for step in steps {
                now += step;
                match bucket.take(now) {
                    Ok(standing) => {
                        prop_assert!(standing.left < burst);
                        taken.push(now);
                    }
                    Err(standing) => {
                        let wait = u64::try_from(standing.wait.as_nanos()).unwrap();
                        prop_assert!((1..=bucket.interval).contains(&wait));
                    }
                }
            }
            for (place, from) in taken.iter().enumerate() {
                for (count, to) in taken[place..].iter().enumerate() {
                    let most = u64::from(burst) + (to - from) / bucket.interval;
                    prop_assert!((count as u64) < most, "{count} from {from} to {to}");
                }
            }
        }
    }
}
