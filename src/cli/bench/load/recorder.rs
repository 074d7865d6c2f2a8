//! What became of a round's requests.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::histogram::Histogram;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Answered whole, with this status.
    Answered(u16),
    /// Answered 429, without saying when to come back and which limit was met.
    Unexplained,
    /// No connection could be opened.
    ConnectError,
    /// No whole answer within the time a request has.
    Timeout,
    /// The connection ended early, or what came was not HTTP.
    ProtocolError,
}

/// One request. Times count from the round's start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// When the schedule wanted it sent; in a closed loop, when it was.
    pub(super) intended: Duration,
    /// When it was begun, which includes opening the connection where it had to be.
    pub(super) sent: Duration,
    /// When the last byte of the answer was there, or the error.
    pub(super) ended: Duration,
    pub(super) outcome: Outcome,
}

/// Counts the requests that were due in a window of time. Latencies are those of answers 2xx: a quick refusal is no quick
/// answer.
#[derive(Clone, Debug)]
pub(super) struct Recorder {
    window: Range<Duration>,
    pub(super) statuses: BTreeMap<u16, u64>,
    pub(super) connect_errors: u64,
    pub(super) timeouts: u64,
    pub(super) protocol_errors: u64,
    /// Arrivals of the window for which no connection was free before its end.
    pub(super) unsent: u64,
    /// From sending to the answer.
    pub(super) service: Histogram,
    /// From the intended time of sending to the answer, so that what waited for a stalled server counts as slow.
    pub(super) corrected: Histogram,
    /// From sending to an answer 429 or 503.
    pub(super) refusals: Histogram,
    /// Those of them that were 429 without `Retry-After`, `RateLimit` or `RateLimit-Policy`.
    pub(super) unexplained: u64,
    /// Answers 2xx that came within the window, also to requests from before it.
    arrived: u64,
}

impl Recorder {
    pub(super) fn new(window: Range<Duration>) -> Self {
        Self {
            window,
            statuses: BTreeMap::new(),
            connect_errors: 0,
            timeouts: 0,
            protocol_errors: 0,
            unsent: 0,
            service: Histogram::default(),
            corrected: Histogram::default(),
            refusals: Histogram::default(),
            unexplained: 0,
            arrived: 0,
        }
    }

    pub(super) fn add(&mut self, sample: Sample) {
        let success = sample.outcome.is_success();
        if success && self.window.contains(&sample.ended) {
            self.arrived += 1;
        }
        if !self.window.contains(&sample.intended) {
            return;
        }
        let status = sample.outcome.status();
        if let Some(status) = status {
            *self.statuses.entry(status).or_default() += 1;
        }
        match sample.outcome {
            Outcome::Answered(_) => {}
            Outcome::Unexplained => self.unexplained += 1,
            Outcome::ConnectError => self.connect_errors += 1,
            Outcome::Timeout => self.timeouts += 1,
            Outcome::ProtocolError => self.protocol_errors += 1,
        }
        if matches!(status, Some(429 | 503)) {
            self.refusals.add(sample.ended.saturating_sub(sample.sent));
        }
        if success {
            self.service.add(sample.ended.saturating_sub(sample.sent));
            self.corrected.add(sample.ended.saturating_sub(sample.intended));
        }
    }

    /// Answers 2xx per second of the window.
    pub(super) fn throughput(&self) -> f64 {
        self.arrived as f64 / (self.window.end - self.window.start).as_secs_f64()
    }

    /// Requests answered 2xx.
    pub(super) fn successes(&self) -> u64 {
        self.service.count()
    }

    /// Requests sent.
    pub(super) fn requests(&self) -> u64 {
        self.statuses.values().sum::<u64>() + self.connect_errors + self.timeouts + self.protocol_errors
    }
}

impl Outcome {
    fn is_success(self) -> bool {
        matches!(self.status(), Some(200..=299))
    }

    /// Of an answer that came whole.
    pub(super) fn status(self) -> Option<u16> {
        match self {
            Self::Answered(status) => Some(status),
            Self::Unexplained => Some(429),
            Self::ConnectError | Self::Timeout | Self::ProtocolError => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::schedule::Schedule;
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// An open loop of 100 requests per second for 10 s against a server that needs 1 ms for each, and answers nothing
    /// from 5 s to 6 s; in invented time.
    fn stalled(connections: usize) -> Recorder {
        let end = ms(10_000);
        let mut schedule = Schedule::new(100.0, end);
        let mut recorder = Recorder::new(Duration::ZERO..end);
        let mut free_at = vec![Duration::ZERO; connections];
        while let Some(intended) = schedule.take() {
            let free = free_at.iter_mut().min().unwrap();
            let sent = intended.max(*free);
            let ended = match sent + ms(1) {
                done if (ms(5000)..ms(6000)).contains(&done) => ms(6001),
                done => done,
            };
            *free = ended;
            let outcome = Outcome::Answered(200);
            recorder.add(Sample {
                intended,
                sent,
                ended,
                outcome,
            });
        }
        recorder
    }

    #[test]
    fn a_stall_shows_in_the_corrected_latency_alone() {
        for connections in [1, 8] {
            let recorder = stalled(connections);
            assert_eq!(recorder.successes(), 1000);
            let quantile = |histogram: &Histogram, q| histogram.quantile(q).unwrap();
            // A tenth of the arrivals fell into the stall, and waited from nothing to a second.
            assert!(quantile(&recorder.corrected, 0.99) > ms(850), "{connections}");
            assert!(quantile(&recorder.corrected, 0.95) > ms(400), "{connections}");
            assert!(quantile(&recorder.corrected, 0.5) < ms(2), "{connections}");
            assert!(quantile(&recorder.service, 0.5) < ms(2), "{connections}");
            // Of the service times, the stall holds no more than one request per connection.
            assert!(quantile(&recorder.service, 0.99) < ms(2), "{connections}");
            assert_eq!(recorder.service.max(), Some(ms(1001)));
        }
    }

    #[test]
    fn the_window_begins_after_the_warm_up() {
        let check = |[intended, ended]: [u64; 2], [requests, arrived]: [u64; 2]| {
            let mut recorder = Recorder::new(ms(1000)..ms(2000));
            let (intended, ended) = (ms(intended), ms(ended));
            let outcome = Outcome::Answered(204);
            recorder.add(Sample {
                intended,
                sent: intended,
                ended,
                outcome,
            });
            assert_eq!(recorder.requests(), requests, "{intended:?} {ended:?}");
            assert_eq!(recorder.throughput(), arrived as f64, "{intended:?} {ended:?}");
        };
        check([0, 999], [0, 0]);
        check([999, 1000], [0, 1]);
        check([1000, 1500], [1, 1]);
        check([1999, 2001], [1, 0]);
        check([2000, 2001], [0, 0]);
    }

    #[test]
    fn only_successes_have_a_latency() {
        let mut recorder = Recorder::new(ms(0)..ms(2000));
        let outcomes = [
            Outcome::Answered(200),
            Outcome::Answered(429),
            Outcome::Unexplained,
            Outcome::ConnectError,
            Outcome::Timeout,
            Outcome::ProtocolError,
        ];
        for outcome in outcomes {
            recorder.add(Sample {
                intended: ms(1),
                sent: ms(3),
                ended: ms(10),
                outcome,
            });
        }
        assert_eq!(recorder.statuses, BTreeMap::from([(200, 1), (429, 2)]));
        let errors = [
            recorder.connect_errors,
            recorder.timeouts,
            recorder.protocol_errors,
        ];
        assert_eq!(
            (errors, recorder.requests(), recorder.successes()),
            ([1, 1, 1], 6, 1)
        );
        assert_eq!(
            (recorder.service.max(), recorder.corrected.max()),
            (Some(ms(7)), Some(ms(9)))
        );
        assert_eq!(
            (recorder.refusals.count(), recorder.refusals.max()),
            (2, Some(ms(7)))
        );
        assert_eq!((recorder.throughput(), recorder.unexplained), (0.5, 1));
    }
}
