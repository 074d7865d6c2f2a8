//! Every Prometheus series, declared once as a typed field.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::access::AccessMetrics;
use super::admission::{Admission, AdmissionSeries};
use super::collecting::{Collecting, Live};
use super::jobs::JobMetrics;
use super::service::ServiceMetrics;
use super::sharing::{Sharing, SharingSeries};
use crate::model::{ModelName, Version};

/// A stage of one item's way through the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Bytes to pixels.
    Decode,
    /// Pixels to tensor.
    Preprocess,
    /// From submission until a batch takes the item.
    Queue,
    /// From joining a batch until it closes.
    BatchWait,
    /// The batch in the engine.
    Inference,
    /// Logits to answer.
    Postprocess,
}

/// How an accepted item ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered with a prediction.
    Ok,
    /// Answered with an error of its own: a bad image, a failed inference, a passed deadline.
    Failed,
    /// Refused for load: a full queue or a drain.
    Rejected,
    /// The caller hung up first.
    Dropped,
}

/// Why a batch closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// It reached the largest size.
    Full,
    /// Nothing more was waiting.
    Empty,
    /// The delay of its first item passed.
    Delay,
    /// One more item would have made it too late for one in it.
    Deadline,
    /// One item alone, after its batch failed.
    Retry,
    /// The server is draining.
    Drain,
}

const STAGES: [(Stage, &str); 6] = [
    (Stage::Decode, "decode"),
    (Stage::Preprocess, "preprocess"),
    (Stage::Queue, "queue"),
    (Stage::BatchWait, "batch_wait"),
    (Stage::Inference, "inference"),
    (Stage::Postprocess, "postprocess"),
];
const OUTCOMES: [(Outcome, &str); 4] = [
    (Outcome::Ok, "ok"),
    (Outcome::Failed, "failed"),
    (Outcome::Rejected, "rejected"),
    (Outcome::Dropped, "dropped"),
];
const REASONS: [(CloseReason, &str); 6] = [
    (CloseReason::Full, "full"),
    (CloseReason::Empty, "empty"),
    (CloseReason::Delay, "delay"),
    (CloseReason::Deadline, "deadline"),
    (CloseReason::Retry, "retry"),
    (CloseReason::Drain, "drain"),
];
const DURATION_BUCKETS: &[f64] = &[
    1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];
const BATCH_BUCKETS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// The server's series. One per process; handles are cheap to clone.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    request_duration: HistogramVec,
    accepted: IntCounterVec,
    items: IntCounterVec,
    stage: HistogramVec,
    batch_size: HistogramVec,
    engine_panics: IntCounterVec,
    queue_depth: IntGaugeVec,
    in_flight: IntGaugeVec,
    admission: AdmissionSeries,
    sharing: SharingSeries,
    models: Mutex<HashMap<(ModelName, Version), Arc<ModelMetrics>>>,
    routes: Mutex<HashMap<&'static str, Arc<RouteMetrics>>>,
    /// Requests being answered now.
    pub http_in_flight: IntGauge,
    /// Open client connections.
    pub http_connections: IntGauge,
    /// Bytes of images being decoded now, estimated as decoded size.
    pub decode_in_flight_bytes: IntGauge,
    /// Decoders that panicked; each was one item's error.
    pub decode_panics: IntCounter,
    /// 1 while the server takes requests.
    pub ready: IntGauge,
    /// Seconds from process start until ready; 0 before.
    pub startup_seconds: Gauge,
    /// Which versions serve, and how they came to.
    pub service: ServiceMetrics,
    /// What is kept, and what it says.
    pub collecting: Collecting,
    /// Retraining jobs.
    pub jobs: JobMetrics,
    /// Who may do what.
    pub access: AccessMetrics,
}

/// One model version's series, looked up once when it is loaded.
#[derive(Debug)]
pub struct ModelMetrics {
    /// Items taken in. Accepted = ok + failed + rejected + dropped + in flight.
    pub accepted: IntCounter,
    /// Items waiting in the queue; per model.
    pub queue_depth: IntGauge,
    /// Accepted and not yet ended; per model.
    pub in_flight: IntGauge,
    /// Batches that panicked in the engine.
    pub engine_panics: IntCounter,
    /// What its queue refuses, and by which times.
    pub admission: Admission,
    /// Answers that cost no inference of their own.
    pub sharing: Sharing,
    /// How good its kept predictions are.
    pub live: Live,
    outcomes: [IntCounter; OUTCOMES.len()],
    stages: [Histogram; STAGES.len()],
    batch_sizes: [Histogram; REASONS.len()],
}

/// One route's series.
#[derive(Debug)]
pub struct RouteMetrics {
    by_status: HashMap<u16, IntCounter>,
    other: IntCounter,
    duration: Histogram,
}

/// Statuses that have their own series; any other counts as `other`.
pub const STATUSES: &[u16] = &[
    200, 201, 202, 204, 304, 400, 401, 403, 404, 405, 408, 409, 410, 413, 415, 422, 429, 431, 499, 500, 503,
    504, 507,
];

impl Metrics {
    /// All series, at 0. `info` are pairs for `sconce_build_info`: `("version", "0.1.0")`, …
    pub fn new(info: &[(&str, &str)]) -> Arc<Self> {
        let registry = Registry::new();
        let r = &registry;
        let metrics = Self {
            requests: counters(
                r,
                "sconce_http_requests_total",
                "Answers by route and status.",
                &["route", "status"],
            ),
            request_duration: histograms(
                r,
                (
                    "sconce_http_request_duration_seconds",
                    "From the request's head until its answer is ready.",
                ),
                &["route"],
                DURATION_BUCKETS,
            ),
            accepted: counters(
                r,
                "sconce_items_accepted_total",
                "Images taken in.",
                &["model", "version"],
            ),
            items: counters(
                r,
                "sconce_items_total",
                "Images by how they ended; their sum and those in flight are the accepted.",
                &["model", "version", "outcome"],
            ),
            stage: histograms(
                r,
                (
                    "sconce_stage_duration_seconds",
                    "Time of one image in each stage (of its batch, for inference).",
                ),
                &["model", "version", "stage"],
                DURATION_BUCKETS,
            ),
            batch_size: histograms(
                r,
                ("sconce_batch_size", "Images per batch, by why it closed."),
                &["model", "version", "reason"],
                BATCH_BUCKETS,
            ),
            engine_panics: counters(
                r,
                "sconce_engine_panics_total",
                "Batches that panicked in the engine.",
                &["model", "version"],
            ),
            queue_depth: gauges(r, "sconce_queue_depth", "Images waiting for a batch.", &["model"]),
            in_flight: gauges(
                r,
                "sconce_items_in_flight",
                "Images accepted and not yet ended.",
                &["model"],
            ),
            admission: AdmissionSeries::new(r),
            sharing: SharingSeries::new(r),
            http_in_flight: gauge(r, "sconce_http_in_flight", "Requests being answered."),
            http_connections: gauge(r, "sconce_http_connections", "Open client connections."),
            decode_in_flight_bytes: gauge(
                r,
                "sconce_decode_in_flight_bytes",
                "Memory that images in decoding may take.",
            ),
            decode_panics: counter(r, "sconce_decode_panics_total", "Image decoders that panicked."),
            ready: gauge(r, "sconce_ready", "1 while the server takes requests."),
            startup_seconds: seconds_gauge(
                r,
                "sconce_startup_seconds",
                "Seconds from process start until ready.",
            ),
            service: ServiceMetrics::new(r),
            collecting: Collecting::new(r),
            jobs: JobMetrics::new(r),
            access: AccessMetrics::new(r),
            models: Mutex::default(),
            routes: Mutex::default(),
            registry: registry.clone(),
        };
        build_info(r, info);
        #[cfg(target_os = "linux")]
        register(r, prometheus::process_collector::ProcessCollector::for_self());
        Arc::new(metrics)
    }

    /// The series of one model version, made at 0 on first use.
    pub fn model(&self, name: &ModelName, version: Version) -> Arc<ModelMetrics> {
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(
            models
                .entry((name.clone(), version))
                .or_insert_with(|| Arc::new(self.new_model(name, version))),
        )
    }

    /// Takes away the series of a version that is out of service and that nobody holds any more, so that their number does
    /// not grow with the versions that ever served. Should it serve again, they begin at 0.
    pub fn forget(&self, name: &ModelName, version: Version) {
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        if models.remove(&(name.clone(), version)).is_none() {
            return;
        }
        let version = version.to_string();
        let both = [name.as_str(), version.as_str()];
        let with = |third: &'static str| [name.as_str(), version.as_str(), third];
        // Each was made when the version was, so none of these can fail.
        let _ = self.accepted.remove_label_values(&both);
        let _ = self.engine_panics.remove_label_values(&both);
        for (_, label) in OUTCOMES {
            let _ = self.items.remove_label_values(&with(label));
        }
        for (_, label) in STAGES {
            let _ = self.stage.remove_label_values(&with(label));
        }
        for (_, label) in REASONS {
            let _ = self.batch_size.remove_label_values(&with(label));
        }
        self.admission.forget(&both);
        self.sharing.forget(&both);
        self.collecting.forget_live(&both);
    }

    /// The series of one model version, if they were made before.
    pub fn known_model(&self, name: &ModelName, version: Version) -> Option<Arc<ModelMetrics>> {
        let models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        models.get(&(name.clone(), version)).map(Arc::clone)
    }

    /// The series of one route template, made at 0 on first use.
    pub fn route(&self, route: &'static str) -> Arc<RouteMetrics> {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(
            routes
                .entry(route)
                .or_insert_with(|| Arc::new(self.new_route(route))),
        )
    }

    /// Everything in Prometheus' text format.
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics could not be written");
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    fn new_model(&self, name: &ModelName, version: Version) -> ModelMetrics {
        let version = version.to_string();
        let both = [name.as_str(), version.as_str()];
        let with = |third: &'static str| [name.as_str(), version.as_str(), third];
        ModelMetrics {
            accepted: self.accepted.with_label_values(&both),
            queue_depth: self.queue_depth.with_label_values(&both[..1]),
            in_flight: self.in_flight.with_label_values(&both[..1]),
            engine_panics: self.engine_panics.with_label_values(&both),
            admission: self.admission.of(&both),
            sharing: self.sharing.of(&both),
            live: self.collecting.live(&both),
            outcomes: OUTCOMES.map(|(_, label)| self.items.with_label_values(&with(label))),
            stages: STAGES.map(|(_, label)| self.stage.with_label_values(&with(label))),
            batch_sizes: REASONS.map(|(_, label)| self.batch_size.with_label_values(&with(label))),
        }
    }

    fn new_route(&self, route: &'static str) -> RouteMetrics {
        let counter = |status: &str| self.requests.with_label_values(&[route, status]);
        RouteMetrics {
            by_status: STATUSES
                .iter()
                .map(|&status| (status, counter(&status.to_string())))
                .collect(),
            other: counter("other"),
            duration: self.request_duration.with_label_values(&[route]),
        }
    }
}

impl ModelMetrics {
    /// Counts one accepted item in and returns the guard that must count it out.
    pub fn accept(self: &Arc<Self>) -> InFlight {
        self.accepted.inc();
        self.in_flight.inc();
        InFlight {
            metrics: Arc::clone(self),
            outcome: Outcome::Dropped,
        }
    }

    /// Records `seconds` of a stage.
    pub fn observe(&self, stage: Stage, seconds: f64) {
        self.stages[stage as usize].observe(seconds);
    }

    /// Records a closed batch.
    pub fn batch(&self, size: usize, reason: CloseReason) {
        self.batch_sizes[reason as usize].observe(size as f64);
    }

    /// How many items ended so.
    pub fn ended(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize].get()
    }
}

/// Counts an item out when it is dropped: as [`Outcome::Dropped`] unless [`InFlight::end`] said otherwise.
#[derive(Debug)]
pub struct InFlight {
    metrics: Arc<ModelMetrics>,
    outcome: Outcome,
}

impl InFlight {
    /// Ends the item with this outcome.
    pub fn end(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.metrics.in_flight.dec();
        self.metrics.outcomes[self.outcome as usize].inc();
    }
}

impl RouteMetrics {
    /// How many answers there were, those to callers who hung up included.
    pub fn answers(&self) -> u64 {
        let known = self.by_status.values().map(IntCounter::get);
        known.sum::<u64>() + self.other.get()
    }

    /// Those of them that were refusals for load and failures: 429 and 5xx.
    pub fn failures(&self) -> u64 {
        let failed = self
            .by_status
            .iter()
            .filter(|(status, _)| **status == 429 || **status >= 500);
        failed.map(|(_, counter)| counter.get()).sum()
    }

    /// Records one answer.
    pub fn observe(&self, status: u16, seconds: f64) {
        self.by_status.get(&status).unwrap_or(&self.other).inc();
        self.duration.observe(seconds);
    }
}

pub(super) const FRESH: &str = "names are constants of this file, each declared once";

pub(super) fn register<C: prometheus::core::Collector + 'static>(registry: &Registry, collector: C) {
    registry.register(Box::new(collector)).expect(FRESH);
}

pub(super) fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    let vec = IntCounterVec::new(Opts::new(name, help), labels).expect(FRESH);
    register(registry, vec.clone());
    vec
}

fn histograms(
    registry: &Registry,
    (name, help): (&str, &str),
    labels: &[&str],
    buckets: &[f64],
) -> HistogramVec {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    let vec = HistogramVec::new(options, labels).expect(FRESH);
    register(registry, vec.clone());
    vec
}

pub(super) fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    let vec = IntGaugeVec::new(Opts::new(name, help), labels).expect(FRESH);
    register(registry, vec.clone());
    vec
}

pub(super) fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    let gauge = IntGauge::new(name, help).expect(FRESH);
    register(registry, gauge.clone());
    gauge
}

pub(super) fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    let counter = IntCounter::new(name, help).expect(FRESH);
    register(registry, counter.clone());
    counter
}

pub(super) fn seconds_gauge(registry: &Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::new(name, help).expect(FRESH);
    register(registry, gauge.clone());
    gauge
}

fn build_info(registry: &Registry, info: &[(&str, &str)]) {
    let (keys, values): (Vec<&str>, Vec<&str>) = info.iter().copied().unzip();
    let vec = GaugeVec::new(
        Opts::new("sconce_build_info", "Always 1; the labels tell the build."),
        &keys,
    );
    let vec = vec.expect(FRESH);
    register(registry, vec.clone());
    vec.with_label_values(&values).set(1.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(metrics: &Metrics) -> Arc<ModelMetrics> {
        metrics.model(&"mnist".parse().unwrap(), Version::FIRST)
    }

    #[test]
    fn every_series_of_a_model_and_a_route_exists_at_zero() {
        let metrics = Metrics::new(&[("version", "1.2.3")]);
        model(&metrics);
        metrics.route("/v1/predict");
        let text = metrics.render();
        for (_, label) in OUTCOMES {
            let line = format!("sconce_items_total{{model=\"mnist\",outcome=\"{label}\",version=\"1\"}} 0\n");
            assert!(text.contains(&line), "{line}{text}");
        }
        for (_, label) in STAGES {
            assert!(text.contains(&format!(
                "_count{{model=\"mnist\",stage=\"{label}\",version=\"1\"}} 0\n"
            )));
        }
        for (_, label) in REASONS {
            assert!(text.contains(&format!(
                "_count{{model=\"mnist\",reason=\"{label}\",version=\"1\"}} 0\n"
            )));
        }
        for status in STATUSES {
            assert!(text.contains(&format!("{{route=\"/v1/predict\",status=\"{status}\"}} 0\n")));
        }
        assert!(text.contains("sconce_build_info{version=\"1.2.3\"} 1\n"));
        assert!(text.contains("sconce_ready 0\n"));
    }

    #[test]
    fn labels_stand_at_the_places_their_enums_index() {
        let in_order = STAGES
            .iter()
            .enumerate()
            .all(|(i, (stage, _))| *stage as usize == i)
            && OUTCOMES
                .iter()
                .enumerate()
                .all(|(i, (outcome, _))| *outcome as usize == i)
            && REASONS
                .iter()
                .enumerate()
                .all(|(i, (reason, _))| *reason as usize == i);
        assert!(in_order);
    }

    #[test]
    fn an_item_is_counted_out_once_however_it_ends() {
        let metrics = Metrics::new(&[]);
        let model = model(&metrics);
        let forgotten = model.accept();
        model.accept().end(Outcome::Ok);
        model.accept().end(Outcome::Rejected);
        assert_eq!(model.in_flight.get(), 1);
        drop(forgotten);
        assert_eq!((model.accepted.get(), model.in_flight.get()), (3, 0));
        let ended =
            [Outcome::Ok, Outcome::Failed, Outcome::Rejected, Outcome::Dropped].map(|o| model.ended(o));
        assert_eq!(ended, [1, 0, 1, 1]);
    }

    #[test]
    fn a_forgotten_version_leaves_no_series_and_its_model_stays() {
        let metrics = Metrics::new(&[]);
        let name: ModelName = "mnist".parse().unwrap();
        metrics.service.of(&name).champion.set(1);
        model(&metrics).accept().end(Outcome::Ok);
        let one = metrics.render().lines().count();
        for number in 2..100 {
            let version: Version = number.try_into().unwrap();
            metrics.model(&name, version).batch(1, CloseReason::Empty);
            metrics.forget(&name, version);
        }
        assert_eq!(metrics.render().lines().count(), one);
        metrics.forget(&name, Version::FIRST);
        let text = metrics.render();
        assert!(!text.contains("version=\"1\""), "{text}");
        assert!(
            text.contains("sconce_model_champion_version{model=\"mnist\"} 1\n"),
            "{text}"
        );
        assert_eq!(model(&metrics).accepted.get(), 0);
    }

    #[test]
    fn an_unknown_status_adds_no_series() {
        let metrics = Metrics::new(&[]);
        metrics.route("/x").observe(418, 0.1);
        let text = metrics.render();
        assert!(
            text.contains("sconce_http_requests_total{route=\"/x\",status=\"other\"} 1\n"),
            "{text}"
        );
        assert!(!text.contains("418"));
    }
}
