//! The figures of rounds, side by side.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

use super::histogram::Histogram;
use super::recorder::Recorder;

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Unit {
    PerSecond,
    Milliseconds,
    Requests,
}

/// One figure over the rounds of each server.
#[derive(Debug, Serialize)]
pub(super) struct Figure {
    pub(super) name: String,
    pub(super) unit: Unit,
    /// In the servers' order.
    pub(super) servers: Vec<Spread>,
    /// Whether the rounds of two servers do not overlap; counts are not compared.
    pub(super) differs: Option<bool>,
}

/// A figure's rounds. The three are none where no round has the figure: without an answer there is no latency.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Spread {
    pub(super) median: Option<f64>,
    pub(super) lowest: Option<f64>,
    pub(super) highest: Option<f64>,
    /// In their order.
    pub(super) rounds: Vec<Option<f64>>,
}

/// A figure's name, its unit, and its value in a round.
type Definition = (String, Unit, Box<dyn Fn(&Recorder) -> Option<f64>>);

/// Every figure of one or two servers. `open` tells an open loop, which has corrected latencies and requests unsent.
pub(super) fn figures(servers: &[Vec<Recorder>], open: bool) -> Vec<Figure> {
    let spreads = |value: &dyn Fn(&Recorder) -> Option<f64>| -> Vec<Spread> {
        let rounds = servers.iter().map(|rounds| rounds.iter().map(value));
        rounds.map(|values| Spread::of(values.collect())).collect()
    };
    let figure = |(name, unit, value): Definition| {
        let servers = spreads(&*value);
        Figure {
            differs: differs(unit, &servers),
            name,
            unit,
            servers,
        }
    };
    definitions(servers, open).into_iter().map(figure).collect()
}

fn definitions(servers: &[Vec<Recorder>], open: bool) -> Vec<Definition> {
    let throughput: Definition = (
        "answers 2xx per second".to_owned(),
        Unit::PerSecond,
        Box::new(|round| Some(round.throughput())),
    );
    let mut all = vec![throughput];
    if open {
        all.extend(latencies("corrected latency", |round| &round.corrected));
    }
    all.extend(latencies("service time", |round| &round.service));
    let count = |name: String, value: Box<dyn Fn(&Recorder) -> u64>| -> Definition {
        (
            name,
            Unit::Requests,
            Box::new(move |round| Some(value(round) as f64)),
        )
    };
    all.push(count("requests sent".to_owned(), Box::new(Recorder::requests)));
    let rounds = servers.iter().flatten();
    let statuses: BTreeSet<u16> = rounds.flat_map(|round| round.statuses.keys().copied()).collect();
    for status in statuses {
        let value = move |round: &Recorder| round.statuses.get(&status).copied().unwrap_or(0);
        all.push(count(format!("answered {status}"), Box::new(value)));
    }
    all.push(count(
        "connect errors".to_owned(),
        Box::new(|round| round.connect_errors),
    ));
    all.push(count("timeouts".to_owned(), Box::new(|round| round.timeouts)));
    all.push(count(
        "protocol errors".to_owned(),
        Box::new(|round| round.protocol_errors),
    ));
    if open {
        all.push(count("never sent".to_owned(), Box::new(|round| round.unsent)));
    }
    all
}

/// A statistic of a histogram.
type Statistic = fn(&Histogram) -> Option<Duration>;

const STATISTICS: [(&str, Statistic); 7] = [
    ("min", |histogram| histogram.min()),
    ("p50", |histogram| histogram.quantile(0.5)),
    ("p90", |histogram| histogram.quantile(0.9)),
    ("p99", |histogram| histogram.quantile(0.99)),
    ("p99.9", |histogram| histogram.quantile(0.999)),
    ("max", |histogram| histogram.max()),
    ("mean", |histogram| histogram.mean()),
];

fn latencies(of: &str, histogram: fn(&Recorder) -> &Histogram) -> impl Iterator<Item = Definition> {
    STATISTICS
        .into_iter()
        .map(move |(name, statistic)| -> Definition {
            let value = move |round: &Recorder| Some(statistic(histogram(round))?.as_secs_f64() * 1e3);
            (format!("{of} {name}"), Unit::Milliseconds, Box::new(value))
        })
}

fn differs(unit: Unit, servers: &[Spread]) -> Option<bool> {
    let [a, b] = servers else { return None };
    if unit == Unit::Requests {
        return None;
    }
    Some(a.highest? < b.lowest? || b.highest? < a.lowest?)
}

impl Spread {
    fn of(rounds: Vec<Option<f64>>) -> Self {
        let mut sorted: Vec<f64> = rounds.iter().copied().flatten().collect();
        sorted.sort_unstable_by(f64::total_cmp);
        Self {
            median: median(&sorted),
            lowest: sorted.first().copied(),
            highest: sorted.last().copied(),
            rounds,
        }
    }
}

/// Of an even number, the mean of the middle two.
fn median(sorted: &[f64]) -> Option<f64> {
    let upper = sorted.get(sorted.len() / 2)?;
    let lower = sorted.get(sorted.len().saturating_sub(1) / 2)?;
    Some(f64::midpoint(*lower, *upper))
}

#[cfg(test)]
mod tests {
    use super::super::recorder::{Outcome, Sample};
    use super::*;

    #[test]
    fn medians_and_ranges() {
        let check = |rounds: &[Option<f64>], expected: [Option<f64>; 3]| {
            let spread = Spread::of(rounds.to_vec());
            assert_eq!(
                [spread.median, spread.lowest, spread.highest],
                expected,
                "{rounds:?}"
            );
        };
        check(&[], [None; 3]);
        check(&[None], [None; 3]);
        check(&[Some(2.0)], [Some(2.0); 3]);
        check(
            &[Some(3.0), Some(1.0), Some(9.0)],
            [Some(3.0), Some(1.0), Some(9.0)],
        );
        check(&[Some(3.0), None, Some(1.0)], [Some(2.0), Some(1.0), Some(3.0)]);
    }

    #[test]
    fn only_what_does_not_overlap_differs() {
        let check = |a: &[f64], b: &[f64], expected: Option<bool>| {
            let spread = |values: &[f64]| Spread::of(values.iter().copied().map(Some).collect());
            let servers = [spread(a), spread(b)];
            assert_eq!(differs(Unit::Milliseconds, &servers), expected, "{a:?} {b:?}");
            assert_eq!(differs(Unit::Requests, &servers), None);
            assert_eq!(differs(Unit::Milliseconds, &servers[..1]), None);
        };
        check(&[1.0, 2.0], &[2.5, 3.0], Some(true));
        check(&[2.5, 3.0], &[1.0, 2.0], Some(true));
        check(&[1.0, 2.0], &[2.0, 3.0], Some(false));
        check(&[1.0, 9.0], &[2.0, 3.0], Some(false));
        check(&[1.0], &[], None);
    }

    /// A round with one request per outcome, each of 4 ms after having waited 2 ms.
    fn round(outcomes: &[Outcome]) -> Recorder {
        let ms = Duration::from_millis;
        let mut recorder = Recorder::new(ms(0)..ms(1000));
        for &outcome in outcomes {
            recorder.add(Sample {
                intended: ms(1),
                sent: ms(3),
                ended: ms(7),
                outcome,
            });
        }
        recorder
    }

    #[test]
    fn every_status_of_any_round_has_its_row() {
        let a = vec![
            round(&[Outcome::Answered(200), Outcome::Answered(429)]),
            round(&[]),
        ];
        let b = vec![round(&[Outcome::Answered(503), Outcome::Timeout])];
        let all = figures(&[a, b], true);
        let check = |name: &str, expected: [Option<f64>; 2]| {
            let figure = all.iter().find(|figure| figure.name == name);
            let figure = figure.unwrap_or_else(|| panic!("no {name}"));
            assert_eq!(
                [figure.servers[0].median, figure.servers[1].median],
                expected,
                "{name}"
            );
        };
        check("answers 2xx per second", [Some(0.5), Some(0.0)]);
        check("corrected latency p50", [Some(6.0), None]);
        check("service time p50", [Some(4.0), None]);
        check("requests sent", [Some(1.0), Some(2.0)]);
        check("answered 200", [Some(0.5), Some(0.0)]);
        check("answered 429", [Some(0.5), Some(0.0)]);
        check("answered 503", [Some(0.0), Some(1.0)]);
        check("timeouts", [Some(0.0), Some(1.0)]);
        check("never sent", [Some(0.0), Some(0.0)]);
    }

    #[test]
    fn a_closed_loop_has_nothing_to_correct() {
        let all = figures(&[vec![round(&[Outcome::Answered(200)])]], false);
        assert!(
            all.iter()
                .all(|figure| !figure.name.starts_with("corrected") && figure.name != "never sent")
        );
    }
}
