//! A queue under stepped time, with an engine that misbehaves on demand.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::queue::Next;
use super::{Answer, Ask, Batcher, Config, Infer, Item, ItemError, Timing, Worker};
use crate::model::Version;
use crate::queueing::Asker;
use crate::telemetry::{Metrics, ModelMetrics};

mod promises;
mod rules;
mod schedules;
mod sharing;
mod threads;

type Receiver = oneshot::Receiver<Result<Answer, ItemError>>;

thread_local! {
    static START: Instant = Instant::now();
    static PASSED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// This thread's stepped time.
fn now() -> Instant {
    START.with(|start| *start) + PASSED.get()
}

fn pass(microseconds: u64) {
    PASSED.set(PASSED.get() + Duration::from_micros(microseconds));
}

/// What an item does to the engine.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Good,
    /// Fails the batch.
    Fail,
    /// Panics the batch.
    Panic,
    /// Has logits that are not numbers.
    NaN,
}

const KINDS: [Kind; 4] = [Kind::Good, Kind::Fail, Kind::Panic, Kind::NaN];

/// What the engine was asked to run.
#[derive(Clone, Debug, PartialEq)]
struct Run {
    version: Version,
    items: Vec<u32>,
}

/// Gives item n the logits n and −n, takes 100 µs of stepped time and binds each batch to a version of its own.
#[derive(Default)]
struct Engine {
    bindings: AtomicU32,
    log: Arc<Log>,
}

#[derive(Default)]
struct Log {
    runs: Mutex<Vec<Run>>,
    panics: AtomicU64,
    /// Whatever it is asked, it fails.
    is_lost: AtomicBool,
}

const RUN_US: u64 = 100;

impl Infer for Engine {
    type Bound = (Version, Arc<Log>);

    fn bind(&self) -> Self::Bound {
        let number = self.bindings.fetch_add(1, Ordering::Relaxed) + 1;
        (Version::try_from(number).unwrap(), Arc::clone(&self.log))
    }

    fn version((version, _): &Self::Bound) -> Version {
        *version
    }

    fn run(
        (version, log): &Self::Bound,
        inputs: &[f32],
        items: usize,
        logits: &mut Vec<f32>,
    ) -> Result<(), ()> {
        let (inputs, []) = inputs.as_chunks::<2>() else {
            panic!("items are pairs");
        };
        assert_eq!(inputs.len(), items);
        pass(RUN_US);
        log.runs.lock().unwrap().push(Run {
            version: *version,
            items: inputs.iter().map(|[n, _]| *n as u32).collect(),
        });
        if log.is_lost.load(Ordering::Relaxed) {
            return Err(());
        }
        for &[n, kind] in inputs {
            match KINDS[kind as usize] {
                Kind::Good => logits.extend([n, -n]),
                Kind::NaN => logits.extend([n, f32::NAN]),
                Kind::Fail => return Err(()),
                Kind::Panic => {
                    log.panics.fetch_add(1, Ordering::Relaxed);
                    // Past the hook, which would print each.
                    std::panic::resume_unwind(Box::new("as asked"));
                }
            }
        }
        Ok(())
    }

    fn answers((_, log): &Self::Bound) -> bool {
        !log.is_lost.load(Ordering::Relaxed)
    }
}

/// A queue under stepped time.
struct Bench {
    engine: Arc<Engine>,
    metrics: Arc<Metrics>,
    model: Arc<ModelMetrics>,
    batcher: Batcher,
    workers: Vec<Worker<Engine>>,
}

impl Bench {
    fn new(config: Config, instances: usize) -> Self {
        let engine = Arc::new(Engine::default());
        let metrics = Metrics::new(&[]);
        let model = metrics.model(&"digits".parse().unwrap(), Version::FIRST);
        let (batcher, workers) = Batcher::with_clock(config, &engine, instances, (Arc::clone(&model), now));
        Self {
            engine,
            metrics,
            model,
            batcher,
            workers,
        }
    }

    fn submit(&self, n: u32, kind: Kind, deadline: Option<Instant>) -> Receiver {
        let (item, receiver) = item(vec![n as f32, f32::from(kind as u8)], deadline);
        self.batcher.submit(item);
        receiver
    }

    fn submit_all(&self, kinds: &[Kind]) -> Vec<Receiver> {
        (0..)
            .zip(kinds)
            .map(|(n, &kind)| self.submit(n, kind, None))
            .collect()
    }

    fn look(&mut self) -> Next {
        look(&mut self.workers[0])
    }

    /// Takes a batch, which must be due, and answers it.
    fn work(&mut self) {
        assert!(matches!(self.look(), Next::Compute { .. }));
        self.workers[0].answer_batch().unwrap();
    }

    fn runs(&self) -> Vec<Vec<u32>> {
        let runs = self.engine.log.runs.lock().unwrap();
        runs.iter().map(|run| run.items.clone()).collect()
    }

    /// Batches closed for `reason`.
    fn closed_for(&self, reason: &str) -> u64 {
        let series =
            format!("sconce_batch_size_count{{model=\"digits\",reason=\"{reason}\",version=\"1\"}} ");
        let text = self.metrics.render();
        let line = text.lines().find_map(|line| line.strip_prefix(&series)).unwrap();
        line.parse().unwrap()
    }
}

fn look(worker: &mut Worker<Engine>) -> Next {
    let shared = Arc::clone(&worker.shared);
    worker.look(&mut shared.lock())
}

fn item(tensor: Vec<f32>, deadline: Option<Instant>) -> (Item, Receiver) {
    let (reply, receiver) = oneshot::channel();
    let item = Item {
        tensor,
        deadline,
        timing: Timing::default(),
        reply,
    };
    (item, receiver)
}

fn sized(max_batch_size: usize, max_delay_us: u64, max_queue: usize) -> Config {
    Config {
        max_batch_size,
        max_delay_us,
        max_queue,
        ageing_ms: 1000,
        max_lost_ms: 0,
    }
}

fn answer(mut receiver: Receiver) -> Result<Answer, ItemError> {
    receiver.try_recv().expect("answered")
}

fn answers(receivers: Vec<Receiver>) -> Vec<Result<Vec<f32>, ItemError>> {
    receivers
        .into_iter()
        .map(|receiver| answer(receiver).map(|a| a.logits))
        .collect()
}
