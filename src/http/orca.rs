//! How loaded the server is, told in answers to balancers that ask for it: ORCA, `xds.data.orca.v3.OrcaLoadReport`
//! (<https://github.com/cncf/xds/blob/main/xds/data/orca/v3/orca_load_report.proto>).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;

use super::routes::predict;
use crate::batcher::Busy;
use crate::model::{ModelName, Version};
use crate::predict::Table;
use crate::telemetry::Metrics;

const ASKED: HeaderName = HeaderName::from_static("endpoint-load-metrics-format");
const TOLD: HeaderName = HeaderName::from_static("endpoint-load-metrics");

/// Shares and rates are of at least so long.
const WINDOW: Duration = Duration::from_secs(1);

/// How a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Pairs of name and number.
    Text,
    /// The message as JSON, with its own names.
    Json,
}

/// What is told. The shares are of what there is, and above 1 where more is asked than that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
struct Report {
    cpu_utilization: f64,
    application_utilization: f64,
    rps_fractional: f64,
    eps: f64,
    named_metrics: Named,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
struct Named {
    queue_depth: f64,
    images_in_flight: f64,
    queue_wait_seconds: f64,
}

/// Measures what the reports tell: one per server.
#[derive(Debug)]
pub struct Reporter {
    /// Processors that this process may use.
    processors: f64,
    window: Mutex<Window>,
}

/// The shares and rates of the last whole window, and where the next began.
#[derive(Debug)]
struct Window {
    begun: Sample,
    rates: Rates,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Rates {
    processors: f64,
    instances: f64,
    answers: f64,
    failures: f64,
}

/// What has come together until a moment.
#[derive(Clone, Debug)]
struct Sample {
    at: Instant,
    /// Processor time of the whole process.
    processors: Duration,
    answers: u64,
    failures: u64,
    /// Of each version in service.
    instances: HashMap<(ModelName, Version), Busy>,
}

impl Format {
    /// What the request asks for; as a balancer's wish, one that is not known is none.
    pub(super) fn asked(headers: &HeaderMap) -> Option<Self> {
        let name = headers.get(ASKED)?.as_bytes();
        if name.eq_ignore_ascii_case(b"text") {
            Some(Self::Text)
        } else if name.eq_ignore_ascii_case(b"json") {
            Some(Self::Json)
        } else {
            None
        }
    }
}

impl Reporter {
    pub(super) fn new() -> Self {
        let begun = Sample {
            at: Instant::now(),
            processors: processor_time(),
            answers: 0,
            failures: 0,
            instances: HashMap::new(),
        };
        Self {
            processors: available_parallelism().map_or(1.0, |count| count.get() as f64),
            window: Mutex::new(Window {
                begun,
                rates: Rates::default(),
            }),
        }
    }

    /// The answer's field. While models are loaded there are none to tell of.
    pub(super) fn mark(
        &self,
        format: Format,
        (metrics, table): (&Metrics, Option<&Table>),
        headers: &mut HeaderMap,
    ) {
        let now = Instant::now();
        let rates = {
            let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
            if now.saturating_duration_since(window.begun.at) >= WINDOW {
                window.turn(sample(now, metrics, table), self.processors);
            }
            window.rates
        };
        let report = Report {
            cpu_utilization: rates.processors,
            application_utilization: rates.instances,
            rps_fractional: rates.answers,
            eps: rates.failures,
            named_metrics: table.map(named).unwrap_or_default(),
        };
        headers.insert(TOLD, report.rounded().field(format));
    }
}

impl Window {
    /// Ends with this sample; the next begins there.
    fn turn(&mut self, end: Sample, processors: f64) {
        let seconds = end.at.saturating_duration_since(self.begun.at).as_secs_f64();
        let each = |from: u64, to: u64| to.saturating_sub(from) as f64 / seconds;
        let share =
            |from: Duration, to: Duration, of: f64| to.saturating_sub(from).as_secs_f64() / seconds / of;
        let instances = end.instances.iter().map(|(version, busy)| {
            let before = self
                .begun
                .instances
                .get(version)
                .map_or(Duration::ZERO, |busy| busy.total);
            share(before, busy.total, busy.instances.max(1) as f64)
        });
        self.rates = Rates {
            processors: share(self.begun.processors, end.processors, processors),
            // A balancer cannot choose among versions: the busiest is where the next may have to wait.
            instances: instances.fold(0.0, f64::max),
            answers: each(self.begun.answers, end.answers),
            failures: each(self.begun.failures, end.failures),
        };
        self.begun = end;
    }
}

fn sample(at: Instant, metrics: &Metrics, table: Option<&Table>) -> Sample {
    let versions = table.into_iter().flat_map(Table::versions);
    let routes = predict::PATHS.map(|path| metrics.route(path));
    Sample {
        at,
        processors: processor_time(),
        answers: routes.iter().map(|route| route.answers()).sum(),
        failures: routes.iter().map(|route| route.failures()).sum(),
        instances: versions
            .map(|served| ((served.name.clone(), served.version), served.batcher.busy()))
            .collect(),
    }
}

/// As it stands now: images over all models, and the longest wait.
fn named(table: &Table) -> Named {
    let models = table.models.values().filter_map(|model| model.versions.first());
    let (mut queue_depth, mut images_in_flight) = (0, 0);
    // These series are one per model.
    for served in models {
        queue_depth += served.metrics.queue_depth.get();
        images_in_flight += served.metrics.in_flight.get();
    }
    let waits = table.versions().map(|served| served.batcher.wait().as_secs_f64());
    Named {
        queue_depth: queue_depth as f64,
        images_in_flight: images_in_flight as f64,
        queue_wait_seconds: waits.fold(0.0, f64::max),
    }
}

/// Of all threads of this process; zero where the system has no `/proc`.
fn processor_time() -> Duration {
    std::fs::read_to_string("/proc/self/stat")
        .ok()
        .and_then(|line| ticks(&line))
        .map_or(Duration::ZERO, |ticks| TICK * ticks)
}

/// In which Linux counts there, on every machine (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// In user and kernel mode, the 14th and 15th field of proc(5)'s `stat`. The second is the program's name in brackets, which may hold
/// anything.
fn ticks(line: &str) -> Option<u32> {
    let (_, rest) = line.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let [user, system] = [fields.next()?, fields.next()?].map(|field| field.parse::<u32>().ok());
    user?.checked_add(system?)
}

impl Report {
    /// To four digits, which is finer than what is measured.
    fn rounded(self) -> Self {
        let round = |number: f64| (number * 1e4).round() / 1e4;
        Self {
            cpu_utilization: round(self.cpu_utilization),
            application_utilization: round(self.application_utilization),
            rps_fractional: round(self.rps_fractional),
            eps: round(self.eps),
            named_metrics: Named {
                queue_wait_seconds: round(self.named_metrics.queue_wait_seconds),
                ..self.named_metrics
            },
        }
    }

    fn field(&self, format: Format) -> HeaderValue {
        let text = match format {
            Format::Text => self.text(),
            Format::Json => format!("JSON {}", serde_json::json!(self)),
        };
        HeaderValue::try_from(text).expect("names and finite numbers are valid in a header")
    }

    fn text(&self) -> String {
        let Self {
            cpu_utilization,
            application_utilization,
            rps_fractional,
            eps,
            named_metrics,
        } = self;
        let Named {
            queue_depth,
            images_in_flight,
            queue_wait_seconds,
        } = named_metrics;
        format!(
            "TEXT cpu_utilization={cpu_utilization}, application_utilization={application_utilization}, \
             rps_fractional={rps_fractional}, eps={eps}, named_metrics.queue_depth={queue_depth}, \
             named_metrics.images_in_flight={images_in_flight}, named_metrics.queue_wait_seconds={queue_wait_seconds}"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, OnceLock};

    use axum::body::Body;
    use axum::extract::Request;
    use tokio::sync::watch;
    use tower::ServiceExt;

    use super::*;
    use crate::http::{Config, Door, Phase, State, router};
    use crate::predict::fixture::{Workbench, png};

    fn report() -> Report {
        Report {
            cpu_utilization: 0.312_34,
            application_utilization: 0.5,
            rps_fractional: 1000.0,
            eps: 0.0,
            named_metrics: Named {
                queue_depth: 3.0,
                images_in_flight: 5.0,
                queue_wait_seconds: 0.012_345,
            },
        }
        .rounded()
    }

    #[test]
    fn both_forms_tell_the_same() {
        let text = "TEXT cpu_utilization=0.3123, application_utilization=0.5, rps_fractional=1000, eps=0, \
                    named_metrics.queue_depth=3, named_metrics.images_in_flight=5, named_metrics.queue_wait_seconds=0.0123";
        assert_eq!(report().field(Format::Text), text);
        let json = report().field(Format::Json);
        let json = json.to_str().unwrap().strip_prefix("JSON ").unwrap();
        let json: serde_json::Value = serde_json::from_str(json).unwrap();
        let mut pairs = HashMap::new();
        for (name, value) in json.as_object().unwrap() {
            match value.as_object() {
                Some(inner) => {
                    pairs.extend(inner.iter().map(|(key, value)| (format!("{name}.{key}"), value)));
                }
                None => drop(pairs.insert(name.clone(), value)),
            }
        }
        let parsed = text.strip_prefix("TEXT ").unwrap().split(", ").map(|pair| {
            let (name, value) = pair.split_once('=').unwrap();
            (name.to_owned(), value.parse::<f64>().unwrap())
        });
        let told: HashMap<String, f64> = pairs
            .into_iter()
            .map(|(name, value)| (name, value.as_f64().unwrap()))
            .collect();
        assert_eq!(told, parsed.collect());
    }

    #[test]
    fn a_balancer_says_which_form_it_wants() {
        let check = |value: &'static str, expected| {
            let headers = HeaderMap::from_iter([(ASKED, HeaderValue::from_static(value))]);
            assert_eq!(Format::asked(&headers), expected, "{value}");
        };
        check("text", Some(Format::Text));
        check("TEXT", Some(Format::Text));
        check("Json", Some(Format::Json));
        check("bin", None);
        check("", None);
        assert_eq!(Format::asked(&HeaderMap::new()), None);
    }

    #[test]
    fn shares_and_rates_are_those_of_the_time_between_two_samples() {
        let at = Instant::now();
        let [idle, busy, new] = [1, 2, 3].map(|number: u32| {
            let name: ModelName = "digits".parse().unwrap();
            (name, Version::try_from(number).unwrap())
        });
        let of = |instances, ms| Busy {
            instances,
            total: Duration::from_millis(ms),
        };
        let sample = |seconds, ms, [answers, failures]: [u64; 2], instances: Vec<_>| Sample {
            at: at + Duration::from_secs(seconds),
            processors: Duration::from_millis(ms),
            answers,
            failures,
            instances: instances.into_iter().collect(),
        };
        let mut window = Window {
            begun: sample(
                0,
                5000,
                [10, 5],
                vec![(idle.clone(), of(2, 100)), (busy.clone(), of(2, 4000))],
            ),
            rates: Rates::default(),
        };
        let end = vec![(idle, of(2, 100)), (busy, of(2, 7000)), (new, of(1, 500))];
        window.turn(sample(2, 6000, [110, 15], end), 4.0);
        let expected = Rates {
            processors: 1.0 / 2.0 / 4.0,
            instances: 3.0 / 2.0 / 2.0,
            answers: 50.0,
            failures: 5.0,
        };
        assert_eq!(window.rates, expected);
        // What was forgotten meanwhile, or began anew, counts from nothing and never below it.
        window.turn(sample(3, 6000, [0, 0], Vec::new()), 4.0);
        assert_eq!(window.rates, Rates::default());
    }

    #[test]
    fn what_waits_is_told_as_it_stands() {
        let bench = Workbench::new(9, 9);
        let served = bench.served();
        let waiting = [served.metrics.accept(), served.metrics.accept()];
        served.metrics.queue_depth.set(1);
        let table = bench.predictor.table();
        let found = named(&table);
        assert_eq!((found.queue_depth, found.images_in_flight), (1.0, 2.0));
        assert_eq!(found.queue_wait_seconds, 0.0);
        drop(waiting);
        let mut headers = HeaderMap::new();
        Reporter::new().mark(Format::Text, (&bench.metrics, Some(&table)), &mut headers);
        let told = headers[TOLD].to_str().unwrap();
        assert!(told.contains("named_metrics.images_in_flight=0,"), "{told}");
        // None is served yet.
        Reporter::new().mark(Format::Json, (&bench.metrics, None), &mut headers);
        let told = headers[TOLD].to_str().unwrap();
        assert!(
            told.starts_with("JSON {") && told.contains("\"queue_depth\":0.0"),
            "{told}"
        );
    }

    #[tokio::test]
    async fn predictions_alone_carry_it_and_only_where_it_is_asked_for() {
        let check = async |load_report: bool, path: &str, asked: &'static str, expected: Option<&str>| {
            let mut bench = Workbench::new(9, 9);
            let _running = bench.run();
            let config = Config {
                load_report,
                ..Config::default()
            };
            let state = State {
                predictor: OnceLock::from(Arc::clone(&bench.predictor)),
                ..State::new(config, &bench.metrics, watch::channel(Phase::Ready).1)
            };
            let router = router(Arc::new(state), Door::WHOLE);
            // What has no prediction tells of the load as well.
            for body in [png(1), b"text".to_vec()] {
                let request = Request::post(path)
                    .header("content-type", "image/png")
                    .header(ASKED, asked)
                    .body(Body::from(body));
                let answer = router.clone().oneshot(request.unwrap()).await.unwrap();
                let told = answer.headers().get(TOLD);
                let form = told.map(|told| told.to_str().unwrap().split(' ').next().unwrap());
                assert_eq!(form, expected, "{path} {asked}");
            }
        };
        check(true, "/v1/predict", "text", Some("TEXT")).await;
        check(true, "/v1/models/digits/predict", "JSON", Some("JSON")).await;
        check(true, "/v1/models/digits/versions/1/predict", "text", Some("TEXT")).await;
        check(true, "/v1/predict", "bin", None).await;
        check(true, "/v1/feedback", "text", None).await;
        check(false, "/v1/predict", "text", None).await;
    }

    #[test]
    fn processor_time_is_read_from_its_line() {
        let line = "42 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 250 50 13 14 15 16 17";
        assert_eq!(ticks(line), Some(300));
        for broken in [
            "",
            "42 (a",
            "42 (a) S 1 2 3",
            "42 (a) S 1 2 3 4 5 6 7 8 9 10 x 50",
        ] {
            assert_eq!(ticks(broken), None, "{broken}");
        }
        #[cfg(target_os = "linux")]
        assert!(ticks(&std::fs::read_to_string("/proc/self/stat").unwrap()).is_some());
    }

    #[test]
    fn a_window_lasts_a_second_at_least() {
        let reporter = Reporter::new();
        let metrics = Metrics::new(&[]);
        metrics.route(predict::PATHS[0]).observe(200, 0.1);
        let mut headers = HeaderMap::new();
        let mut tell = || {
            reporter.mark(Format::Text, (&metrics, None), &mut headers);
            headers[TOLD].to_str().unwrap().contains("rps_fractional=0,")
        };
        assert!(tell());
        // As if it had begun before.
        reporter.window.lock().unwrap().begun.at -= WINDOW;
        assert!(!tell());
        assert!(!tell(), "the last whole one is told");
    }
}
