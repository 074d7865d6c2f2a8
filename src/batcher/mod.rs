//! One bounded queue per model, batches that form while an instance is busy, one answer to each waiter always.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::model::Version;
use crate::telemetry::ModelMetrics;

mod infer;
mod queue;
mod shared;
#[cfg(test)]
mod tests;
mod worker;

use shared::{Clock, Shared};

pub use infer::Infer;
pub use worker::Worker;

/// A model's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Most images in one batch; 0 means as kept timings say, else [`MAX_BATCH_SIZE`].
    pub max_batch_size: usize,
    /// How long an idle instance waits for more after the first, in microseconds; 0 never waits.
    pub max_delay_us: u64,
    /// Most images waiting, from 1.
    pub max_queue: usize,
}

/// Most images in one batch where nothing says otherwise.
pub const MAX_BATCH_SIZE: usize = 32;

impl Config {
    /// Most images in one batch, at least 1.
    pub fn max_batch(&self) -> usize {
        match self.max_batch_size {
            0 => MAX_BATCH_SIZE,
            images => images,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_batch_size: 0,
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

/// A model's queue; cheap to clone.
#[derive(Clone)]
pub struct Batcher {
    shared: Arc<Shared>,
}

impl Batcher {
    /// A queue and `instances` (at least one) workers that empty it.
    pub fn new<I: Infer>(
        config: Config,
        infer: &Arc<I>,
        instances: usize,
        metrics: Arc<ModelMetrics>,
    ) -> (Self, Vec<Worker<I>>) {
        Self::with_clock(config, infer, instances, (metrics, Instant::now))
    }

    fn with_clock<I: Infer>(
        config: Config,
        infer: &Arc<I>,
        instances: usize,
        (metrics, clock): (Arc<ModelMetrics>, Clock),
    ) -> (Self, Vec<Worker<I>>) {
        let instances = instances.max(1);
        let shared = Arc::new(Shared::new(config, instances, metrics, clock));
        let worker = |_| Worker::new(Arc::clone(infer), Arc::clone(&shared));
        let workers = (0..instances).map(worker).collect();
        (Self { shared }, workers)
    }

    /// Queues an item; never blocks. Its reply gets exactly one answer, refusal included.
    pub fn submit(&self, item: Item) {
        self.shared.submit(item);
    }

    /// Takes no more items; those waiting are still answered.
    pub fn close(&self) {
        self.shared.close();
    }

    /// Takes no more items and answers everything still waiting with [`ItemError::Closed`]; what an engine already
    /// computes is answered by it.
    pub fn abort(&self) {
        self.shared.abort();
    }
}

impl fmt::Debug for Batcher {
    /// Without the items: they are callers' images.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batcher").finish_non_exhaustive()
    }
}
