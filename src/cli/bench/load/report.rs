//! What a load test found, as text or JSON.

use serde::Serialize;

use super::super::super::table::{Align, json, table};
use super::super::super::{CliError, url::Url};
use super::figures::{Figure, Spread, Unit, figures};
use super::recorder::Recorder;
use super::round::Load;

/// A load test with what it was.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// One, or the two that are compared.
    urls: Vec<String>,
    load: Settings,
    figures: Vec<Figure>,
}

#[derive(Debug, Serialize)]
struct Settings {
    connections: usize,
    /// Of an open loop.
    rate_per_second: Option<f64>,
    warm_up_s: f64,
    duration_s: f64,
    timeout_s: f64,
    rounds: usize,
}

impl Report {
    /// Of the rounds of each of `urls`.
    pub(super) fn new(urls: &[Url], load: &Load, servers: &[Vec<Recorder>]) -> Self {
        Self {
            urls: urls.iter().map(Url::to_string).collect(),
            load: Settings {
                connections: load.connections,
                rate_per_second: load.rate,
                warm_up_s: load.warm_up.as_secs_f64(),
                duration_s: load.duration.as_secs_f64(),
                timeout_s: load.timeout.as_secs_f64(),
                rounds: servers.first().map_or(0, Vec::len),
            },
            figures: figures(servers, load.rate.is_some()),
        }
    }

    pub(super) fn json(&self) -> Result<String, CliError> {
        json(self)
    }

    /// A line that says what was done, and a table.
    pub(super) fn text(&self) -> String {
        let body = match &*self.urls {
            [_, _] => self.two_servers(),
            _ => self.one_server(),
        };
        format!("{}\n\n{body}{}", self.title(), self.warning())
    }

    pub(super) fn title(&self) -> String {
        let Settings {
            connections,
            rounds,
            warm_up_s,
            duration_s,
            ..
        } = self.load;
        let connections = match connections {
            1 => "1 connection".to_owned(),
            many => format!("{many} connections"),
        };
        let kind = match self.load.rate_per_second {
            Some(rate) => format!("open loop, {rate} requests per second over at most {connections}"),
            None => format!("closed loop, {connections}"),
        };
        let names = match &*self.urls {
            [a, b] => format!("A {a}\nB {b}"),
            all => all.concat(),
        };
        format!("{names}\n{kind}; {rounds} × {duration_s} s after {warm_up_s} s of warm-up")
    }

    fn one_server(&self) -> String {
        let columns = [
            ("", Align::Left),
            ("MEDIAN", Align::Right),
            ("LOWEST", Align::Right),
            ("HIGHEST", Align::Right),
        ];
        let row = |figure: &Figure| {
            let cells = figure.servers.iter().flat_map(|spread| spread.cells(figure.unit));
            std::iter::once(figure.label()).chain(cells).collect()
        };
        table(&columns, &self.figures.iter().map(row).collect::<Vec<_>>())
    }

    fn two_servers(&self) -> String {
        let columns = [
            ("", Align::Left),
            ("A", Align::Right),
            ("LOWEST", Align::Right),
            ("HIGHEST", Align::Right),
            ("B", Align::Right),
            ("LOWEST", Align::Right),
            ("HIGHEST", Align::Right),
            ("B / A", Align::Right),
            ("", Align::Left),
        ];
        let row = |figure: &Figure| {
            let cells = figure.servers.iter().flat_map(|spread| spread.cells(figure.unit));
            let differs = if figure.differs == Some(true) {
                "differs"
            } else {
                ""
            };
            let last = [figure.ratio(), differs.to_owned()];
            std::iter::once(figure.label()).chain(cells).chain(last).collect()
        };
        table(&columns, &self.figures.iter().map(row).collect::<Vec<_>>())
    }

    /// What the percentiles do not say.
    fn warning(&self) -> &'static str {
        let unsent = |figure: &&Figure| figure.name == "never sent";
        let some = |spread: &Spread| spread.highest.is_some_and(|count| count > 0.0);
        match self.figures.iter().find(unsent) {
            Some(figure) if figure.servers.iter().any(some) => {
                "\nNot every request could be sent in its time: the rate is more than the server and the connections can \
                 take.\nThe latencies are only of those that were sent.\n"
            }
            _ => "",
        }
    }
}

impl Figure {
    fn label(&self) -> String {
        match self.unit {
            Unit::Milliseconds => format!("{}, ms", self.name),
            Unit::PerSecond | Unit::Requests => self.name.clone(),
        }
    }

    /// Of the two medians, where both are there and not 0.
    fn ratio(&self) -> String {
        match &*self.servers {
            [Spread { median: Some(a), .. }, Spread { median: Some(b), .. }] if *a > 0.0 && *b > 0.0 => {
                format!("{:.2}", b / a)
            }
            _ => String::new(),
        }
    }
}

impl Spread {
    fn cells(&self, unit: Unit) -> [String; 3] {
        let cell = |value: Option<f64>| match (value, unit) {
            (None, _) => "–".to_owned(),
            (Some(value), Unit::PerSecond) => format!("{value:.1}"),
            (Some(value), Unit::Milliseconds) => format!("{value:.3}"),
            (Some(value), Unit::Requests) => format!("{value:.0}"),
        };
        [self.median, self.lowest, self.highest].map(cell)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::Value;

    use super::super::recorder::{Outcome, Sample};
    use super::*;

    fn load(rate: Option<f64>) -> Load {
        Load {
            payloads: Vec::new(),
            connections: 1,
            rate,
            warm_up: Duration::ZERO,
            duration: Duration::from_secs(1),
            timeout: Duration::from_secs(5),
        }
    }

    /// A round of one answer, and of `unsent` arrivals that were not sent.
    fn round(latency_ms: u64, unsent: u64) -> Recorder {
        let mut recorder = Recorder::new(Duration::ZERO..Duration::from_secs(1));
        recorder.add(Sample {
            intended: Duration::ZERO,
            sent: Duration::ZERO,
            ended: Duration::from_millis(latency_ms),
            outcome: Outcome::Answered(200),
        });
        recorder.unsent = unsent;
        recorder
    }

    fn report(rate: Option<f64>, servers: &[Vec<Recorder>]) -> Report {
        let urls = ["http://a/", "http://b/"].map(|url| Url::parse(url).unwrap());
        Report::new(&urls[..servers.len()], &load(rate), servers)
    }

    /// The row that begins with `name`, its columns parted by one blank.
    fn row(text: &str, name: &str) -> String {
        let line = text.lines().find(|line| line.starts_with(name));
        let line = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn one_server_has_medians_and_ranges() {
        let text = report(None, &[vec![round(2, 0), round(4, 0), round(3, 0)]]).text();
        assert!(
            text.starts_with("http://a:80/\nclosed loop, 1 connection; 3 × 1 s after 0 s of warm-up\n\n"),
            "{text}"
        );
        assert_eq!(
            row(&text, "service time max"),
            "service time max, ms 3.000 2.000 4.000"
        );
        assert_eq!(row(&text, "answered 200"), "answered 200 1 1 1");
        assert!(!text.contains("Not every"), "{text}");
    }

    #[test]
    fn two_servers_are_told_apart_where_their_rounds_are() {
        let (a, b) = (vec![round(2, 0), round(4, 0)], vec![round(5, 0), round(7, 0)]);
        let text = report(None, &[a, b]).text();
        let expected = "service time max, ms 3.000 2.000 4.000 6.000 5.000 7.000 2.00 differs";
        assert_eq!(row(&text, "service time max"), expected);
        assert_eq!(row(&text, "timeouts"), "timeouts 0 0 0 0 0 0");
        let same = report(None, &[vec![round(2, 0), round(4, 0)], vec![round(3, 0)]]).text();
        assert!(!same.contains("differs"), "{same}");
    }

    #[test]
    fn what_was_never_sent_is_told() {
        let report = report(Some(10.0), &[vec![round(2, 0), round(2, 7)]]);
        let text = report.text();
        assert!(text.contains("Not every request could be sent"), "{text}");
        let value: Value = serde_json::from_str(&report.json().unwrap()).unwrap();
        assert_eq!(value["load"]["rate_per_second"], 10.0);
        let figures = value["figures"].as_array().unwrap();
        let unsent = figures
            .iter()
            .find(|figure| figure["name"] == "never sent")
            .unwrap();
        assert_eq!(unsent["servers"][0]["rounds"], serde_json::json!([0.0, 7.0]));
    }
}
