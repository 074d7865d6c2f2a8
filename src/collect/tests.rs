//! Predictions on their way to a store, with the worker in the test's hand.

use proptest::prelude::*;

use super::worker::digest;
use super::*;
use crate::batcher::{ItemError, Timing};
use crate::postprocess::Prediction;
use crate::predict::fixture::{Workbench, pixels, png};
use crate::predict::{self, Failure};
use crate::preprocess::ImageError;
use crate::store::{Config, Digest, Expiry};

const NOW: i64 = 1_800_000_000_000;

struct Bench {
    folder: tempfile::TempDir,
    served: Arc<Served>,
    metrics: Arc<Metrics>,
    store: Arc<Store>,
    collector: Arc<Collector>,
    worker: Worker,
    stop: watch::Sender<bool>,
}

/// What is left when all is written.
struct Worked {
    _folder: tempfile::TempDir,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
}

impl Bench {
    async fn new(change: fn(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config {
            folder: folder.path().join("data"),
            sampling_rate: 1.0,
            keep_images: true,
            ..Config::default()
        };
        change(&mut config);
        let metrics = Metrics::new(&[]);
        let (collector, worker) = Collector::new(&config, &metrics);
        let store = open(&config).await.unwrap().unwrap();
        collector.opened(&store);
        Self {
            folder,
            served: Workbench::new(1, 1).served(),
            metrics,
            store,
            collector,
            worker,
            stop: watch::channel(false).0,
        }
    }

    /// Predicts class 2 for each picture.
    fn predict(&self, request: &str, pictures: &[Picture]) {
        let outcomes: Vec<Outcome> = pictures.iter().map(|_| outcome(Ok(2))).collect();
        let chosen = self.collector.choose(&self.served, request, pictures);
        self.collector.offer(&self.served, chosen, &outcomes, NOW);
    }

    /// Does all of the worker's work.
    async fn work(self) -> Worked {
        self.stop.send_replace(true);
        self.worker
            .run(Arc::clone(&self.store), self.stop.subscribe())
            .await;
        Worked {
            _folder: self.folder,
            store: self.store,
            metrics: self.metrics,
        }
    }
}

fn outcome(result: Result<usize, Failure>) -> Outcome {
    let prediction = |index| Prediction {
        label: "two".into(),
        index,
        probability: 0.75,
        margin: 0.5,
        top_k: Vec::new(),
        probabilities: None,
    };
    Outcome {
        result: result.map(prediction),
        timing: Timing::default(),
        postprocess: Duration::ZERO,
    }
}

fn file(level: u8) -> Picture {
    Picture::Encoded(png(level).into())
}

fn count(metrics: &Metrics, outcome: &str) -> u64 {
    let line = format!("sconce_collected_predictions_total{{outcome=\"{outcome}\"}} ");
    let text = metrics.render();
    let count = text.lines().find_map(|text| text.strip_prefix(&line));
    count.unwrap().parse().unwrap()
}

async fn kept(store: &Store, id: &str) -> Option<store::Kept> {
    store.prediction(&id.parse().unwrap()).await.unwrap()
}

#[tokio::test]
async fn at_rate_0_and_without_a_store_nothing_is_chosen() {
    let check = |collector: &Collector, served: &Served, expected: usize| {
        assert_eq!(collector.choose(served, "r", &[file(0)]).len(), expected);
    };
    let bench = Bench::new(|config| config.sampling_rate = 0.0).await;
    check(&bench.collector, &bench.served, 0);
    let bench = Bench::new(|_| {}).await;
    check(&bench.collector, &bench.served, 1);
    let config = Config {
        sampling_rate: 1.0,
        ..Config::default()
    };
    check(&Collector::new(&config, &bench.metrics).0, &bench.served, 0);
}

#[tokio::test]
async fn a_model_outweighs_the_configuration() {
    let bench = Bench::new(|config| config.sampling_rate = 0.0).await;
    let series = bench.metrics.model(&bench.served.name, bench.served.version);
    let mut spec = (*bench.served.spec).clone();
    spec.collect.rate = Some(1.0);
    spec.collect.images = Some(false);
    let served = Served::new(
        bench.served.name.clone(),
        bench.served.version,
        Arc::new(spec),
        (bench.served.batcher.clone(), series),
        predict::Config::default(),
    );
    let chosen = bench.collector.choose(&served, "r", &[file(0)]);
    bench.collector.offer(&served, chosen, &[outcome(Ok(1))], NOW);
    let Worked { store, _folder, .. } = bench.work().await;
    let kept = kept(&store, "r").await.unwrap();
    assert_eq!(store.blob(&kept.sha256).await.unwrap(), None);
}

#[tokio::test]
async fn what_has_a_prediction_is_kept_under_its_place() {
    let bench = Bench::new(|_| {}).await;
    let refused = || Picture::Refused(ImageError::Empty);
    let pictures = [file(1), refused(), pixels(3), file(4), file(5)];
    let outcomes = [
        outcome(Ok(2)),
        outcome(Err(ImageError::Empty.into())),
        outcome(Ok(0)),
        outcome(Err(ItemError::Closed.into())),
        outcome(Ok(1)),
    ];
    let chosen = bench.collector.choose(&bench.served, "many", &pictures);
    bench.collector.offer(&bench.served, chosen, &outcomes, NOW);
    bench.predict("one", &[file(6)]);
    let Worked {
        store,
        metrics,
        _folder,
    } = bench.work().await;

    let found = kept(&store, "many:0").await.unwrap();
    assert_eq!((found.class, found.probability, found.at_ms), (2, 0.75, NOW));
    assert_eq!(found.sha256, Digest::of(&png(1)));
    assert_eq!(store.blob(&found.sha256).await.unwrap(), Some(png(1).into()));
    // Levels have no file; their name is a rule that others can follow.
    let found = kept(&store, "many:2").await.unwrap();
    assert_eq!(found.sha256, Digest::of(b"pixels 2x2x1\n\x03\0\0\0"));
    assert_eq!(store.blob(&found.sha256).await.unwrap(), None);
    assert_eq!(kept(&store, "many:4").await.map(|kept| kept.class), Some(1));
    for none in ["many", "many:1", "many:3", "one:0"] {
        assert_eq!(kept(&store, none).await, None, "{none}");
    }
    assert!(kept(&store, "one").await.is_some());
    assert_eq!(count(&metrics, "kept"), 4);
    assert_eq!(metrics.collecting.waiting.get(), 0);
}

#[tokio::test]
async fn what_does_not_fit_is_counted_and_not_kept() {
    let check = async |change: fn(&mut Config)| {
        let bench = Bench::new(change).await;
        for request in ["a", "b", "c"] {
            bench.predict(request, &[file(1)]);
        }
        let Worked {
            store,
            metrics,
            _folder,
        } = bench.work().await;
        assert_eq!((count(&metrics, "kept"), count(&metrics, "queue_full")), (2, 1));
        assert!(kept(&store, "b").await.is_some() && kept(&store, "c").await.is_none());
    };
    check(|config| config.max_queue = 2).await;
    check(|config| config.max_queue_bytes = 2 * png(1).len() + 1).await;
}

#[tokio::test]
async fn ids_that_are_taken_and_images_that_were_erased_are_counted() {
    let bench = Bench::new(|_| {}).await;
    bench.store.erase(&Digest::of(&png(9)), NOW).await.unwrap();
    bench.predict("a", &[file(1)]);
    bench.predict("a", &[file(2)]);
    bench.predict("b", &[file(9)]);
    let metrics = bench.work().await.metrics;
    let counts = ["kept", "id_taken", "erased", "queue_full", "failed"].map(|name| count(&metrics, name));
    assert_eq!(counts, [1, 1, 1, 0, 0]);
}

#[tokio::test]
async fn a_clock_that_is_trusted_is_no_jump() {
    for trust_clock in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            folder: folder.path().join("data"),
            trust_clock,
            ..Config::default()
        };
        let long_ago = now_ms() - 400 * 86_400_000;
        let store = open(&config).await.unwrap().unwrap();
        store.trust_clock(long_ago).await.unwrap();
        store.close().await;
        let store = open(&config).await.unwrap().unwrap();
        let jumped = matches!(store.expire(now_ms()).await.unwrap(), Expiry::ClockJumped { .. });
        assert_eq!(jumped, !trust_clock);
    }
}

#[tokio::test]
async fn a_store_that_fails_costs_what_was_queued_and_nothing_else() {
    let bench = Bench::new(|_| {}).await;
    bench.store.close().await;
    bench.predict("a", &[file(1)]);
    let collector = Arc::clone(&bench.collector);
    let served = Arc::clone(&bench.served);
    let metrics = bench.work().await.metrics;
    assert_eq!(count(&metrics, "failed"), 1);
    // The worker is gone: nobody waits for it, and what it cannot take is counted.
    collector.settled().await;
    let chosen = collector.choose(&served, "b", &[file(1)]);
    collector.offer(&served, chosen, &[outcome(Ok(1))], NOW);
    assert_eq!(count(&metrics, "failed"), 2);
}

#[tokio::test]
async fn what_is_settled_is_written() {
    let bench = Bench::new(|config| config.keep_images = false).await;
    for n in 0..9 {
        bench.predict(&format!("r{n}"), &[file(n)]);
    }
    let working = tokio::spawn(bench.worker.run(Arc::clone(&bench.store), bench.stop.subscribe()));
    bench.collector.settled().await;
    assert!(kept(&bench.store, "r8").await.is_some());
    bench.stop.send_replace(true);
    working.await.unwrap();
}

#[test]
fn levels_of_another_shape_have_another_name() {
    let Picture::Pixels(two) = pixels(3) else {
        unreachable!()
    };
    let mut wide = two.clone();
    (wide.width, wide.height) = (4, 1);
    assert_ne!(digest(&two), digest(&wide));
}

proptest! {
    #[test]
    fn an_id_is_a_key_and_tells_request_and_place(
        request in "[A-Za-z0-9._-]{1,128}",
        place in 0_usize..1_000_000,
        many: bool,
    ) {
        let images = if many { 1_000_000 } else { 1 };
        let id = PredictionId::new(&request, place, images).to_string();
        prop_assert!(id.parse::<Key>().is_ok());
        let expected = if many { (request.as_str(), Some(place.to_string())) } else { (request.as_str(), None) };
        let found = id.split_once(':').map_or((id.as_str(), None), |(r, p)| (r, Some(p.to_owned())));
        prop_assert_eq!(found, expected);
    }
}
