//! One bounded queue per model, batches that form while an instance is busy, one answer to each waiter always.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::engine::{Plan, Slot};
use crate::model::Version;
use crate::telemetry::ModelMetrics;

/// A model's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Most images in one batch, from 1.
    pub max_batch_size: usize,
    /// How long an idle instance waits for more after the first, in microseconds; 0 never waits.
    pub max_delay_us: u64,
    /// Most images waiting, from 1.
    pub max_queue: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_batch_size: 32,
            max_delay_us: 0,
            max_queue: 1024,
        }
    }
}

/// An item's answer: its logits and who computed them.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// One per class, finite.
    pub logits: Vec<f32>,
    /// The version that computed them.
    pub version: Version,
    /// Time in the queue, waiting in the batch, and in the engine.
    pub timing: Timing,
}

/// Where an item's time went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// Bytes to pixels.
    pub decode: Duration,
    /// Pixels to tensor.
    pub preprocess: Duration,
    /// Submission until a batch took it.
    pub queue: Duration,
    /// In the forming batch.
    pub batch_wait: Duration,
    /// The batch in the engine.
    pub inference: Duration,
}

/// Why an item has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ItemError {
    /// The queue is full.
    #[error("the queue is full")]
    QueueFull {
        /// When to ask again.
        retry_after: Duration,
    },
    /// Its deadline passed before inference.
    #[error("the deadline passed")]
    DeadlinePassed,
    /// The server shuts down.
    #[error("the server is shutting down")]
    Closed,
    /// The engine failed or panicked on this item alone.
    #[error("inference failed")]
    Inference,
    /// The logits are not finite.
    #[error("the model gave a number that is not finite")]
    NonFinite,
}

/// The one answer.
pub type Reply = oneshot::Sender<Result<Answer, ItemError>>;

/// One image on its way.
#[derive(Debug)]
pub struct Item {
    /// The input tensor.
    pub tensor: Vec<f32>,
    /// When it is too late to begin.
    pub deadline: Option<Instant>,
    /// Time already spent, handed through.
    pub timing: Timing,
    /// Where the answer goes; closed means that the caller hung up.
    pub reply: Reply,
}

/// What computes batches. [`Slot`] is the real one; tests have another.
pub trait Infer: Send + Sync + 'static {
    /// What a batch is bound to from its begin to its end.
    type Bound;
    /// Binds the next batch.
    fn bind(&self) -> Self::Bound;
    /// The version of a binding.
    fn version(bound: &Self::Bound) -> Version;
    /// Logits of `items` inputs laid end to end. May panic.
    fn run(bound: &Self::Bound, inputs: &[f32], items: usize, logits: &mut Vec<f32>) -> Result<(), ()>;
}

impl Infer for Slot {
    type Bound = Arc<Plan>;

    fn bind(&self) -> Arc<Plan> {
        self.load()
    }

    fn version(bound: &Arc<Plan>) -> Version {
        bound.version()
    }

    fn run(_bound: &Arc<Plan>, _inputs: &[f32], _items: usize, _logits: &mut Vec<f32>) -> Result<(), ()> {
        todo!()
    }
}

/// A model's queue; cheap to clone.
#[derive(Clone, Debug)]
pub struct Batcher {
    metrics: Arc<ModelMetrics>,
}

/// One instance's loop; `app` names and joins its thread.
pub struct Worker<I: Infer> {
    _infer: Arc<I>,
}

impl Batcher {
    /// A queue and `instances` workers that empty it.
    pub fn new<I: Infer>(
        _config: Config,
        _infer: &Arc<I>,
        _instances: usize,
        _metrics: Arc<ModelMetrics>,
    ) -> (Self, Vec<Worker<I>>) {
        todo!()
    }

    /// Queues an item; never blocks. Its reply gets exactly one answer, refusal included.
    pub fn submit(&self, _item: Item) {
        let _ = &self.metrics;
        todo!()
    }

    /// Takes no more items; those waiting are still answered.
    pub fn close(&self) {
        todo!()
    }

    /// Answers everything still waiting with [`ItemError::Closed`].
    pub fn abort(&self) {
        todo!()
    }
}

impl<I: Infer> Worker<I> {
    /// Answers batches until the queue is closed and empty.
    pub fn run(self) {
        todo!()
    }
}
