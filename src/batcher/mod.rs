//! One bounded queue per model, batches that form while an instance is busy, one answer to each waiter always.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::model::Version;
use crate::queueing::Asker;
use crate::telemetry::{ModelMetrics, Refused};

mod infer;
mod pace;
mod queue;
mod share;
mod shared;
mod sizes;
#[cfg(test)]
mod tests;
mod worker;

use queue::Held;
use shared::{Clock, Shared};

pub use infer::Infer;
pub use share::{Member, Share};
pub use worker::{Lost, Worker};

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
    /// Waiting so long counts as one level more urgent, in milliseconds, from 1.
    pub ageing_ms: u64,
    /// An engine that answers nothing for so long ends its worker, in milliseconds; 0 never.
    pub max_lost_ms: u64,
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
            ageing_ms: 1000,
            max_lost_ms: 60_000,
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
    /// There is no room for it, or not in its time.
    #[error("{0}")]
    Refused(Refusal),
    /// Its deadline passed before inference.
    #[error("the deadline passed")]
    DeadlinePassed,
    /// The server shuts down.
    #[error("the server is shutting down")]
    Closed,
    /// The engine computes nothing any more, this item or another.
    #[error("the model's engine does not answer")]
    Lost,
    /// The engine failed or panicked on this item alone.
    #[error("inference failed")]
    Inference,
    /// The logits are not finite.
    #[error("the model gave a number that is not finite")]
    NonFinite,
}

/// Why an item was not let in, and what room there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What it came up against.
    pub why: Refused,
    /// Until what stands before it now will have been done, at least a second.
    pub retry_after: Duration,
    /// Items that may wait at once; those that one may find waiting and be in time, where its deadline is the reason.
    pub limit: usize,
}

/// What an item that must still be prepared asks of a queue.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// Who asks, and how urgently.
    pub asker: Asker,
    /// When its answer is worth nothing any more.
    pub deadline: Option<Instant>,
    /// Until its preparation begins.
    pub waits: Duration,
    /// What its preparation takes.
    pub takes: Duration,
}

/// How much a queue's instances have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Busy {
    /// For how long they have computed, together, since the queue was made.
    pub total: Duration,
    /// Those that are alive.
    pub instances: usize,
}

/// An item's place in a queue while it is prepared. Dropped, it is free again.
pub struct Place {
    shared: Arc<Shared>,
    /// Taken by the submission.
    held: Option<Held>,
}

/// The one answer.
pub type Reply = oneshot::Sender<Result<Answer, ItemError>>;

/// One image on its way.
#[derive(Debug)]
pub struct Item {
    /// The input tensor.
    pub tensor: Vec<f32>,
    /// When its answer is worth nothing any more.
    pub deadline: Option<Instant>,
    /// Time already spent, handed through.
    pub timing: Timing,
    /// Where the answer goes; closed means that the caller hung up.
    pub reply: Reply,
}

/// One of several items that are the same image.
#[derive(Debug)]
pub struct SharedItem {
    /// The input tensor of all.
    pub tensor: Arc<Vec<f32>>,
    /// When its own answer is worth nothing any more.
    pub deadline: Option<Instant>,
    /// Time already spent on it, handed through.
    pub timing: Timing,
    /// Whose answer it is.
    pub member: Member,
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
        let worker = |number| Worker::new(Arc::clone(infer), Arc::clone(&shared), number);
        let workers = (0..instances).map(worker).collect();
        (Self { shared }, workers)
    }

    /// Whether an item would be let in now, as [`Batcher::admit`] would say.
    ///
    /// # Errors
    ///
    /// As [`Batcher::admit`].
    pub fn would_admit(&self, ask: &Ask) -> Result<(), ItemError> {
        self.shared.would_admit(ask)
    }

    /// A place for an item that is still to be prepared; never blocks. Items are taken in turns, as
    /// [`Turns`](crate::queueing::Turns) has them, those of one asker in the order of their places. Of what waits, only that
    /// counts which would go before it.
    ///
    /// # Errors
    ///
    /// There is no room, the answer would come too late, or the queue is closed. Where an instance is idle and nothing is
    /// ahead, an item is let in whatever its deadline.
    pub fn admit(&self, ask: &Ask) -> Result<Place, ItemError> {
        let held = self.shared.admit(ask)?;
        Ok(Place {
            shared: Arc::clone(&self.shared),
            held: Some(held),
        })
    }

    /// Queues an item that is ready, of nobody in particular; never blocks. Its reply gets exactly one answer, refusal included.
    pub fn submit(&self, item: Item) {
        let ask = Ask {
            asker: Asker::default(),
            deadline: item.deadline,
            waits: Duration::ZERO,
            takes: Duration::ZERO,
        };
        match self.admit(&ask) {
            Ok(place) => place.submit(item),
            // Nobody is to be told where the caller has hung up.
            Err(refusal) => drop(item.reply.send(Err(refusal))),
        }
    }

    /// How much its instances have done.
    pub fn busy(&self) -> Busy {
        self.shared.busy()
    }

    /// How long an image that came now, of nobody in particular and ready, would wait until a batch that it is in begins.
    pub fn wait(&self) -> Duration {
        self.shared.wait()
    }

    /// Whether the engine computes nothing, so that everything is refused with [`ItemError::Lost`] until it does again.
    pub fn is_lost(&self) -> bool {
        self.shared.lock().is_lost()
    }

    /// Takes timings of batches from before the queue is used: items and seconds of each.
    pub fn seed(&self, timings: &[(usize, Duration)]) {
        self.shared.seed(timings);
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

impl Place {
    /// Queues the item, now that it is ready. Its reply gets exactly one answer.
    pub fn submit(mut self, item: Item) {
        if let Some(held) = self.held.take() {
            self.shared.submit(held, item);
        }
    }

    /// Queues one of several that are the same image. The first of them whose turn comes is computed, and its answer is that of
    /// all, those included that are not queued yet; a deadline that passes and a queue that is aborted are each one's own.
    pub fn submit_shared(mut self, item: SharedItem) {
        if let Some(held) = self.held.take() {
            self.shared.submit_shared(held, item);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            self.shared.give_back(&held);
        }
    }
}

impl Refusal {
    /// Where what is ahead takes `wait`, and at most `limit` may wait.
    pub fn new(why: Refused, wait: Duration, limit: usize) -> Self {
        Self {
            why,
            retry_after: pace::retry_after(wait),
            limit,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.why {
            Refused::Queue | Refused::Decode => "the queue is full",
            Refused::Deadline => "what is waiting takes longer than the request may",
        })
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").finish_non_exhaustive()
    }
}

impl fmt::Debug for Batcher {
    /// Without the items: they are callers' images.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batcher").finish_non_exhaustive()
    }
}
