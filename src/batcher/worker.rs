//! One instance's loop: takes batches, computes them, answers each item.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;
use std::sync::Arc;
use std::time::Instant;

use super::queue::{Batch, Next, Queue, Waiting};
use super::shared::Shared;
use super::{Answer, Infer, ItemError};
use crate::engine;
use crate::telemetry::{CloseReason, Stage};

/// One instance's loop; `app` names and joins its thread. When the last worker of a queue is dropped, all that still
/// wait and all that come later are answered with [`ItemError::Closed`].
pub struct Worker<I: Infer> {
    infer: Arc<I>,
    pub(super) shared: Arc<Shared>,
    /// Of its instance.
    number: usize,
    /// Taken and not yet answered.
    pub(super) batch: Batch,
    /// A batch's inputs end to end; kept for its memory.
    inputs: Vec<f32>,
    /// A batch's logits; kept for its memory.
    logits: Vec<f32>,
}

/// The engine failed or panicked; told where it happened.
#[derive(Clone, Copy)]
struct Failed;

impl<I: Infer> Worker<I> {
    pub(super) fn new(infer: Arc<I>, shared: Arc<Shared>, number: usize) -> Self {
        Self {
            infer,
            shared,
            number,
            batch: Batch::new(),
            inputs: Vec::new(),
            logits: Vec::new(),
        }
    }

    /// Answers batches until the queue is closed and empty. Prepares its thread for inference first.
    pub fn run(mut self) {
        engine::prepare_thread();
        while self.wait_for_batch() {
            self.answer_batch();
        }
    }

    /// False when no batch will come any more.
    fn wait_for_batch(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        let mut queue = shared.lock();
        loop {
            match self.look(&mut queue) {
                Next::Compute { wake } => {
                    drop(queue);
                    shared.notify(wake);
                    return true;
                }
                Next::Sleep { until } => {
                    queue = shared.sleep(queue, until);
                    queue.woke(until);
                }
                Next::Stop => return false,
            }
        }
    }

    /// Takes a batch if one is due.
    pub(super) fn look(&mut self, queue: &mut Queue) -> Next {
        let before = queue.len();
        let next = queue.next(self.number, self.shared.now(), &mut self.batch);
        self.shared.metrics.queue_depth.sub((before - queue.len()) as i64);
        next
    }

    /// Computes the batch taken, wholly by one binding, and answers each item.
    pub(super) fn answer_batch(&mut self) {
        for item in self.batch.unwanted.drain(..) {
            item.answer(Err(ItemError::DeadlinePassed));
        }
        if self.batch.items.is_empty() {
            return self.shared.finish(self.number, None);
        }
        let mut items = std::mem::take(&mut self.batch.items);
        self.record(&items);
        let bound = self.infer.bind();
        let start = self.shared.now();
        let computed = self.compute(&bound, &items);
        let took = self.shared.now() - start;
        if computed.is_err() && items.len() > 1 {
            self.retry(&bound, items.drain(..), start);
            self.shared.finish(self.number, None);
        } else {
            // Before the answers: who asks again after his own finds an idle instance.
            let usual = computed.is_ok().then_some((items.len(), took));
            self.shared.finish(self.number, usual);
            self.hand_out(&bound, items.drain(..), computed, start);
        }
        // Empty again, with its memory.
        self.batch.items = items;
    }

    fn record(&self, items: &[Waiting]) {
        let metrics = &self.shared.metrics;
        metrics.batch(items.len(), self.batch.reason);
        for item in items {
            metrics.observe(Stage::Queue, item.timing.queue.as_secs_f64());
            metrics.observe(Stage::BatchWait, item.timing.batch_wait.as_secs_f64());
        }
    }

    /// Writes the logits of `items`; how many each has.
    fn compute(&mut self, bound: &I::Bound, items: &[Waiting]) -> Result<usize, Failed> {
        let inputs = if let [item] = items {
            &item.tensor
        } else {
            self.inputs.clear();
            items
                .iter()
                .for_each(|item| self.inputs.extend_from_slice(&item.tensor));
            &self.inputs
        };
        let logits = &mut self.logits;
        logits.clear();
        // What a panic may leave half written is `logits`, which is cleared before it is used again.
        let run = AssertUnwindSafe(|| I::run(bound, inputs, items.len(), logits));
        match catch_unwind(run) {
            Ok(Ok(())) if !self.logits.is_empty() && self.logits.len().is_multiple_of(items.len()) => {
                Ok(self.logits.len() / items.len())
            }
            Ok(Ok(())) => {
                let (items, logits) = (items.len(), self.logits.len());
                tracing::error!(
                    items,
                    logits,
                    "the engine did not give as many logits for each item"
                );
                Err(Failed)
            }
            Ok(Err(())) => Err(Failed),
            Err(_) => {
                self.shared.metrics.engine_panics.inc();
                tracing::error!(version = %I::version(bound), items = items.len(), "the engine panicked");
                Err(Failed)
            }
        }
    }

    /// Computes each item alone, so that only the guilty fail.
    fn retry(&mut self, bound: &I::Bound, items: impl Iterator<Item = Waiting>, start: Instant) {
        for item in items {
            if !item.is_wanted(self.shared.now()) {
                item.answer(Err(ItemError::DeadlinePassed));
                continue;
            }
            self.shared.metrics.batch(1, CloseReason::Retry);
            let computed = self.compute(bound, slice::from_ref(&item));
            self.hand_out(bound, std::iter::once(item), computed, start);
        }
    }

    /// Answers `items` from the logits just computed.
    fn hand_out(
        &self,
        bound: &I::Bound,
        items: impl Iterator<Item = Waiting>,
        computed: Result<usize, Failed>,
        start: Instant,
    ) {
        let inference = self.shared.now() - start;
        let version = I::version(bound);
        // A failure gives each item an empty row, which is not looked at.
        let classes = computed.unwrap_or_default();
        for (index, mut item) in items.enumerate() {
            self.shared
                .metrics
                .observe(Stage::Inference, inference.as_secs_f64());
            item.timing.inference = inference;
            let timing = item.timing;
            let row = &self.logits[index * classes..][..classes];
            item.answer(match computed {
                Err(Failed) => Err(ItemError::Inference),
                Ok(_) if !row.iter().all(|logit| logit.is_finite()) => Err(ItemError::NonFinite),
                Ok(_) => Ok(Answer {
                    logits: row.to_vec(),
                    version,
                    timing,
                }),
            });
        }
    }
}

impl<I: Infer> Drop for Worker<I> {
    fn drop(&mut self) {
        self.shared.worker_gone(self.number);
    }
}
