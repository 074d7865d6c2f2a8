//! What was measured, with the figures that follow from it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::super::table::{Align, table};
use super::compare::{Verdict, compare};

/// A run of `sconce bench engine`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) format: u32,
    /// The program's version.
    pub(super) sconce: String,
    /// Model and version, or architecture.
    pub(super) subject: String,
    /// C×H×W.
    pub(super) input: String,
    /// The widest vector instructions; the device and its precision where the plan is not for the CPU.
    pub(super) isa: String,
    /// [`crate::model::Graph::flops`].
    pub(super) flops_per_image: u64,
    /// Of each point in each round.
    pub(super) seconds: f64,
    /// One for each count of threads; none where the plan is not for the CPU.
    pub(super) peaks: Vec<Peak>,
    pub(super) points: Vec<Point>,
}

/// What the processor can do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Peak {
    pub(super) threads: usize,
    /// 10⁹ multiplications and additions per second of all threads together, by round.
    pub(super) gflops: Vec<f64>,
}

impl Peak {
    /// A peak without rounds.
    pub(super) fn new(&threads: &usize) -> Self {
        Self {
            threads,
            gflops: Vec::new(),
        }
    }
}

/// Who computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Executor {
    /// The serving plan.
    Plan,
    /// The same graph in stock candle.
    Candle,
}

/// One executor at one batch and count of parallel instances.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Point {
    pub(super) executor: Executor,
    pub(super) batch: usize,
    /// Instances, each on a thread of its own.
    pub(super) threads: usize,
    /// µs for an image, all threads together, by round.
    pub(super) us_per_image: Vec<f64>,
    /// The same by the quickest calls of any round.
    pub(super) min_us_per_image: f64,
    pub(super) figures: Figures,
}

/// What follows from a point's rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Figures {
    /// The median of the rounds.
    pub(super) us_per_image: f64,
    pub(super) images_per_second: f64,
    pub(super) gflops: f64,
    /// Of the peak at as many threads.
    pub(super) share_of_peak: Option<f64>,
    /// (slowest − quickest round) / median.
    pub(super) spread: f64,
}

impl Report {
    /// The only format there is.
    pub(super) const FORMAT: u32 = 1;

    /// Fills in every point's figures.
    pub(super) fn with_figures(mut self) -> Self {
        for point in &mut self.points {
            let peak = self.peaks.iter().find(|peak| peak.threads == point.threads);
            point.figures = Figures::of(point, self.flops_per_image, peak);
        }
        self
    }

    /// Lines for a terminal; beside `baseline` where there is one.
    pub(super) fn text(&self, baseline: Option<&Self>) -> String {
        format!("{}\n{}", self.heading(), self.table(baseline))
    }

    /// What was measured, in one line.
    pub(super) fn heading(&self) -> String {
        let peak = |peak: &Peak| format!("{:.1} GFLOP/s at {}", median(&peak.gflops), threads(peak.threads));
        let peaks: Vec<String> = self.peaks.iter().map(peak).collect();
        let peaks = if peaks.is_empty() {
            format!("; {}", self.isa)
        } else {
            format!("; {}, peak {}", self.isa, peaks.join(", "))
        };
        let mflops = self.flops_per_image as f64 / 1e6;
        format!(
            "{} ({}): {mflops:.2} MFLOP per image{peaks}",
            self.subject, self.input
        )
    }

    fn table(&self, baseline: Option<&Self>) -> String {
        let against_candle = self.points.iter().any(|point| point.executor == Executor::Candle);
        let mut columns = vec![
            ("EXECUTOR", Align::Left),
            ("BATCH", Align::Right),
            ("THREADS", Align::Right),
            ("µs/IMAGE", Align::Right),
            ("MIN", Align::Right),
            ("IMAGES/S", Align::Right),
            ("GFLOP/S", Align::Right),
            ("OF PEAK", Align::Right),
            ("SPREAD", Align::Right),
        ];
        columns.extend(against_candle.then_some(("× CANDLE", Align::Right)));
        columns.extend(baseline.map(|_| ("BASELINE", Align::Left)));
        let row = |point: &Point| {
            let mut row = point.cells();
            row.extend(against_candle.then(|| self.times_candle(point)));
            row.extend(baseline.map(|before| verdict(before, point)));
            row
        };
        table(&columns, &self.points.iter().map(row).collect::<Vec<_>>())
    }

    /// How many times quicker than candle at the same batch and threads.
    fn times_candle(&self, point: &Point) -> String {
        let candle = self
            .point(Executor::Candle, point)
            .filter(|_| point.executor == Executor::Plan);
        candle.map_or_else(dash, |candle| {
            format!("{:.2}", candle.figures.us_per_image / point.figures.us_per_image)
        })
    }

    /// `executor`'s point at the batch and threads of `like`.
    pub(super) fn point(&self, executor: Executor, like: &Point) -> Option<&Point> {
        let same = |point: &&Point| {
            (point.executor, point.batch, point.threads) == (executor, like.batch, like.threads)
        };
        self.points.iter().find(same)
    }
}

fn verdict(before: &Report, point: &Point) -> String {
    before
        .point(point.executor, point)
        .map_or(Verdict::Unknown, |before| {
            compare(&before.us_per_image, &point.us_per_image)
        })
        .to_string()
}

impl Point {
    /// A point without rounds.
    pub(super) fn new(executor: Executor, batch: usize, threads: usize) -> Self {
        Self {
            executor,
            batch,
            threads,
            us_per_image: Vec::new(),
            min_us_per_image: f64::INFINITY,
            figures: Figures::default(),
        }
    }

    /// µs for an image in one more round, by the median and by the quickest call.
    pub(super) fn add_round(&mut self, [median, best]: [f64; 2]) {
        self.us_per_image.push(median);
        self.min_us_per_image = self.min_us_per_image.min(best);
    }

    fn cells(&self) -> Vec<String> {
        let figures = &self.figures;
        vec![
            self.executor.to_string(),
            self.batch.to_string(),
            self.threads.to_string(),
            format!("{:.2}", figures.us_per_image),
            format!("{:.2}", self.min_us_per_image),
            format!("{:.0}", figures.images_per_second),
            format!("{:.1}", figures.gflops),
            figures.share_of_peak.map_or_else(dash, percent),
            percent(figures.spread),
        ]
    }
}

impl Figures {
    fn of(point: &Point, flops_per_image: u64, peak: Option<&Peak>) -> Self {
        let us_per_image = median(&point.us_per_image);
        let gflops = flops_per_image as f64 / us_per_image / 1e3;
        let (low, high) = range(&point.us_per_image);
        Self {
            us_per_image,
            images_per_second: 1e6 / us_per_image,
            gflops,
            share_of_peak: peak.map(|peak| gflops / median(&peak.gflops)),
            spread: (high - low) / us_per_image,
        }
    }
}

impl fmt::Display for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plan => "plan",
            Self::Candle => "candle",
        })
    }
}

/// The middle value, the mean of the two middle ones of an even count; NaN of none.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n => f64::midpoint(sorted[(n - 1) / 2], sorted[n / 2]),
    }
}

/// The least and the greatest value.
pub(super) fn range(values: &[f64]) -> (f64, f64) {
    let start = (f64::INFINITY, f64::NEG_INFINITY);
    values
        .iter()
        .fold(start, |(low, high), &v| (low.min(v), high.max(v)))
}

/// `1 thread`, `2 threads`.
pub(super) fn threads(count: usize) -> String {
    format!("{count} thread{}", if count == 1 { "" } else { "s" })
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn dash() -> String {
    "–".to_owned()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Rounds of 100, 80 and 120 µs on one thread at batch 8; of candle, ten times that.
    pub(in super::super) fn report() -> Report {
        let point = |executor, factor: f64| {
            let mut point = Point::new(executor, 8, 1);
            for us in [100.0, 80.0, 120.0] {
                point.add_round([us * factor, us * factor - 5.0]);
            }
            point
        };
        Report {
            format: Report::FORMAT,
            sconce: "0.1.0".to_owned(),
            subject: "seed-cnn".to_owned(),
            input: "1×28×28".to_owned(),
            isa: "avx512".to_owned(),
            flops_per_image: 5_000_000,
            seconds: 0.3,
            peaks: vec![Peak {
                threads: 1,
                gflops: vec![90.0, 110.0],
            }],
            points: vec![point(Executor::Plan, 1.0), point(Executor::Candle, 10.0)],
        }
        .with_figures()
    }

    #[test]
    fn figures_follow_from_the_rounds() {
        let point = &report().points[0];
        let expected = Figures {
            us_per_image: 100.0,
            images_per_second: 10_000.0,
            gflops: 50.0,
            share_of_peak: Some(0.5),
            spread: 0.4,
        };
        assert_eq!(point.figures, expected);
        assert_eq!(point.min_us_per_image, 75.0);
    }

    #[test]
    fn the_table_has_ratios_and_verdicts_where_there_is_something_to_compare() {
        let mut slower = report();
        slower.points.truncate(1);
        slower.points[0].us_per_image = vec![50.0, 60.0, 70.0];
        let text = report().text(Some(&slower));
        let expected = "\
seed-cnn (1×28×28): 5.00 MFLOP per image; avx512, peak 100.0 GFLOP/s at 1 thread
EXECUTOR  BATCH  THREADS  µs/IMAGE     MIN  IMAGES/S  GFLOP/S  OF PEAK  SPREAD  × CANDLE  BASELINE
plan          8        1    100.00   75.00     10000     50.0   50.0 %  40.0 %     10.00  slower: 1.67 × the time
candle        8        1   1000.00  795.00      1000      5.0    5.0 %  40.0 %         –  –
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_report_written_and_read_is_the_same() {
        let text = serde_json::to_string(&report()).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report());
    }

    #[test]
    fn the_median_of_an_even_count_is_between_the_middle_two() {
        assert_eq!(median(&[4.0, 1.0, 3.0]), 3.0);
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
        assert!(median(&[]).is_nan());
    }
}
