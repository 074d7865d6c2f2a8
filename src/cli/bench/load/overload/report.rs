//! What a drill found, beside what should be.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::super::super::super::table::{Align, json, table};
use super::super::super::super::{CliError, url::Url};
use super::super::recorder::Recorder;
use super::gauges::Gauges;

/// What was measured.
pub(super) struct Findings {
    /// One connection, nothing else.
    pub(super) quiet: Recorder,
    /// Answers 2xx per second at most.
    pub(super) capacity: f64,
    /// Requests per second of the overload.
    pub(super) rate: f64,
    /// Each request's deadline.
    pub(super) limit: Duration,
    pub(super) overload: Recorder,
    /// From the end of the overload; none where it never was.
    pub(super) normal_after: Option<Duration>,
    /// Before the overload, at most in its first half, in its second, and after it, in bytes.
    pub(super) memory: [f64; 4],
    pub(super) hang_ups: Option<HangUps>,
}

/// What became of clients that hung up.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct HangUps {
    /// Those that were connected.
    pub(super) sent: u64,
    /// Those that could not connect.
    pub(super) failed: u64,
    pub(super) seconds: f64,
    /// Before and after, in bytes.
    #[serde(rename = "memory_bytes")]
    pub(super) memory: [f64; 2],
    /// What the server still had afterwards.
    pub(super) left: Gauges,
}

/// A drill's figures.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    url: String,
    capacity_per_second: f64,
    offered_per_second: f64,
    sent: u64,
    /// Due, but no connection was free.
    never_sent: u64,
    statuses: BTreeMap<u16, u64>,
    connect_errors: u64,
    timeouts: u64,
    protocol_errors: u64,
    goodput_per_second: f64,
    limit_ms: f64,
    quiet_p99_ms: Option<f64>,
    answered_p50_ms: Option<f64>,
    answered_p99_ms: Option<f64>,
    refused_p50_ms: Option<f64>,
    refused_p99_ms: Option<f64>,
    /// Refusals 429 that do not say when to come back, or which limit was met.
    unexplained: u64,
    normal_after_ms: Option<f64>,
    /// Before the overload, at most in its first half, in its second, and after it.
    memory_bytes: [f64; 4],
    hang_ups: Option<HangUps>,
    /// Names of the bars that are not met.
    missed: Vec<String>,
}

/// Least share of the capacity that is answered.
const GOODPUT: f64 = 0.9;
/// Most of the 99th percentile of what is answered, in deadlines.
const LATE: f64 = 2.0;
/// Most of the 99th percentile until a refusal is there.
const REFUSED_MS: f64 = 10.0;
/// Most until it is normal again.
const NORMAL_MS: f64 = 1000.0;
/// Most that memory may grow by from the first half to the second: what a full queue holds is in both.
const GROWTH_MB: f64 = 8.0;
const MB: f64 = 1e6;
const MISSED: &str = "missed";

impl Report {
    pub(super) fn new(url: &Url, findings: &Findings) -> Self {
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        let overload = &findings.overload;
        let mut report = Self {
            url: url.to_string(),
            capacity_per_second: findings.capacity,
            offered_per_second: findings.rate,
            sent: overload.requests(),
            never_sent: overload.unsent,
            statuses: overload.statuses.clone(),
            connect_errors: overload.connect_errors,
            timeouts: overload.timeouts,
            protocol_errors: overload.protocol_errors,
            goodput_per_second: overload.throughput(),
            limit_ms: ms(findings.limit),
            quiet_p99_ms: findings.quiet.service.quantile(0.99).map(ms),
            answered_p50_ms: overload.service.quantile(0.5).map(ms),
            answered_p99_ms: overload.service.quantile(0.99).map(ms),
            refused_p50_ms: overload.refusals.quantile(0.5).map(ms),
            refused_p99_ms: overload.refusals.quantile(0.99).map(ms),
            unexplained: overload.unexplained,
            normal_after_ms: findings.normal_after.map(ms),
            memory_bytes: findings.memory,
            hang_ups: findings.hang_ups,
            missed: Vec::new(),
        };
        let bars = report.bars();
        let missed = bars.into_iter().filter(|bar| bar[3] == MISSED);
        report.missed = missed.map(|[name, ..]| name).collect();
        report
    }

    pub(super) fn json(&self) -> Result<String, CliError> {
        json(self)
    }

    /// A line that says what was done, a table of figures and bars, and what was answered.
    pub(super) fn text(&self) -> String {
        let columns = [
            ("", Align::Left),
            ("FOUND", Align::Right),
            ("BAR", Align::Right),
            ("", Align::Left),
        ];
        let title = format!(
            "{}\n{:.1} requests/s of a server that answers {:.1}/s, each within {} ms\n\n",
            self.url, self.offered_per_second, self.capacity_per_second, self.limit_ms
        );
        let mut text = title
            + &table(
                &columns,
                &self.bars().into_iter().map(Vec::from).collect::<Vec<_>>(),
            )
            + "\n"
            + &self.answers();
        if let Some(hang_ups) = &self.hang_ups {
            text += &hang_ups.text();
        }
        if self.never_sent * 10 > self.sent {
            text += "\nMuch of it was never sent: no connection was free, or this client is too slow for the rate. Give more \
                     --connections,\nor take a slower model.\n";
        }
        text
    }

    /// Of each figure its name, what was found, its bar and whether it is met.
    fn bars(&self) -> Vec<[String; 4]> {
        let [before, first, second, after] = self.memory_bytes.map(|bytes| bytes / MB);
        let share = self.goodput_per_second / self.capacity_per_second;
        let most_ms = LATE * self.limit_ms;
        let failures: u64 = self.statuses.range(500..).map(|(_, count)| count).sum();
        let row = |name: &str, found: String, bar: String, met: Option<bool>| {
            let word = met.map_or("", |met| if met { "met" } else { MISSED });
            [name.to_owned(), found, bar, word.to_owned()]
        };
        let ms = |value: Option<f64>| value.map_or("–".to_owned(), |ms| format!("{ms:.2} ms"));
        let time = |name, value: Option<f64>, most: f64| {
            row(
                name,
                ms(value),
                format!("≤ {most} ms"),
                value.map(|value| value <= most),
            )
        };
        let plain = |name: &str, found: String| row(name, found, String::new(), None);
        vec![
            row(
                "goodput",
                format!("{:.1} %", share * 1e2),
                "≥ 90 %".to_owned(),
                Some(share >= GOODPUT),
            ),
            plain("quiet p99", ms(self.quiet_p99_ms)),
            plain("answered p50", ms(self.answered_p50_ms)),
            time("answered p99", self.answered_p99_ms, most_ms),
            plain("refused p50", ms(self.refused_p50_ms)),
            time("refused p99", self.refused_p99_ms, REFUSED_MS),
            row(
                "answered 5xx",
                failures.to_string(),
                "0".to_owned(),
                Some(failures == 0),
            ),
            row(
                "unexplained 429",
                self.unexplained.to_string(),
                "0".to_owned(),
                Some(self.unexplained == 0),
            ),
            row(
                "normal after",
                self.normal_after_ms
                    .map_or("never".to_owned(), |found| ms(Some(found))),
                format!("≤ {NORMAL_MS} ms"),
                Some(self.normal_after_ms.is_some_and(|found| found <= NORMAL_MS)),
            ),
            plain("memory before", format!("{before:.1} MB")),
            plain("memory, first half", format!("{first:.1} MB")),
            row(
                "memory, second half",
                format!("{second:.1} MB"),
                format!("≤ {:.1} MB", first + GROWTH_MB),
                Some(second <= first + GROWTH_MB),
            ),
            plain("memory after", format!("{after:.1} MB")),
        ]
    }

    fn answers(&self) -> String {
        let answered = self
            .statuses
            .iter()
            .map(|(status, count)| (format!("answered {status}"), *count));
        let errors = [
            ("connect errors", self.connect_errors),
            ("timeouts", self.timeouts),
            ("protocol errors", self.protocol_errors),
            ("never sent", self.never_sent),
        ];
        let errors = errors.map(|(name, count)| (name.to_owned(), count));
        let rows = answered.chain(errors);
        let rows: Vec<_> = rows.map(|(name, count)| vec![name, count.to_string()]).collect();
        table(&[("", Align::Left), ("REQUESTS", Align::Right)], &rows)
    }

    /// What is wrong whatever the machine: a failure for load, or something left of who is gone.
    pub(super) fn judge(&self) -> Result<(), CliError> {
        let failures = |(status, _): &(&u16, &u64)| **status >= 500 && !matches!(**status, 503 | 504);
        if let Some((status, count)) = self.statuses.iter().find(failures) {
            return Err(CliError::Failed(format!(
                "{count} requests were answered {status} under load"
            )));
        }
        if self.unexplained > 0 {
            return Err(CliError::Failed(format!(
                "{} refusals lack Retry-After, RateLimit or RateLimit-Policy",
                self.unexplained
            )));
        }
        match &self.hang_ups {
            Some(hang_ups) if !hang_ups.left.is_idle() => Err(CliError::Failed(format!(
                "clients hung up, and something is left of them: {:?}",
                hang_ups.left
            ))),
            _ => Ok(()),
        }
    }
}

impl HangUps {
    fn text(&self) -> String {
        let [before, after] = self.memory.map(|bytes| bytes / MB);
        let Gauges {
            connections,
            items_in_flight,
            queued,
            ..
        } = self.left;
        format!(
            "\n{} clients hung up in {:.1} s ({} could not connect); memory {before:.1} → {after:.1} MB; left: {} connections, \
             {items_in_flight} images in flight, {queued} queued\n",
            self.sent,
            self.seconds,
            self.failed,
            (connections - 1.0).max(0.0),
        )
    }
}
