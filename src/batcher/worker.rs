//! One instance's loop: takes batches, computes them, answers each item.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;
use std::sync::Arc;
use std::time::{Duration, Instant};

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

/// The engine computed nothing for `batcher.max_lost_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the engine computes nothing any more")]
pub struct Lost;

/// Between two looks whether an engine that was lost computes again.
const TRY_EVERY: Duration = Duration::from_secs(1);

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
    ///
    /// # Errors
    ///
    /// The engine computed nothing for `batcher.max_lost_ms`, however often it was tried.
    pub fn run(mut self) -> Result<(), Lost> {
        engine::prepare_thread();
        while self.wait_for_batch() {
            #[cfg(feature = "failpoints")]
            crate::failpoints::fails(crate::failpoints::Place::Worker);
            if let Err(Lost) = self.answer_batch() {
                self.recover()?;
            }
        }
        Ok(())
    }

    /// Tries the engine until it computes again, another worker finds that it does, or the queue is closed.
    fn recover(&self) -> Result<(), Lost> {
        let begun = self.shared.now();
        while self.shared.rests_lost(TRY_EVERY) {
            self.try_again(begun)?;
        }
        Ok(())
    }

    /// Tries an engine that is lost since `begun`.
    pub(super) fn try_again(&self, begun: Instant) -> Result<(), Lost> {
        let bound = self.infer.bind();
        let lost = self.shared.now() - begun;
        if self.answers(&bound) {
            let (version, seconds) = (I::version(&bound), lost.as_secs_f64());
            tracing::warn!(%version, seconds, "the engine computes again");
            self.shared.found();
        } else if self.shared.max_lost.is_some_and(|most| lost >= most) {
            return Err(Lost);
        }
        Ok(())
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

    /// Computes the batch taken, wholly by one binding, and answers each item. An error says that the engine computes
    /// nothing; each item is answered all the same.
    pub(super) fn answer_batch(&mut self) -> Result<(), Lost> {
        if !self.batch.unwanted.is_empty() {
            let now = self.shared.now();
            let unwanted = self.batch.unwanted.drain(..);
            unwanted.for_each(|item| item.pass_over(now));
        }
        for (item, refusal) in self.batch.hopeless.drain(..) {
            item.refuse(ItemError::Refused(refusal));
        }
        if self.batch.items.is_empty() {
            self.shared.finish(self.number, None);
            return Ok(());
        }
        let mut items = std::mem::take(&mut self.batch.items);
        self.record(&items);
        let bound = self.infer.bind();
        let start = self.shared.now();
        let computed = self.compute(&bound, &items);
        let took = self.shared.now() - start;
        let stands = if computed.is_ok() {
            // Before the answers: who asks again after his own finds an idle instance.
            self.shared.finish(self.number, Some((items.len(), took)));
            self.hand_out(&bound, items.drain(..), computed, start);
            Ok(())
        } else {
            let stands = self.make_good(&bound, &mut items, start);
            self.shared.finish(self.number, None);
            stands
        };
        // Empty again, with its memory.
        self.batch.items = items;
        stands
    }

    /// After a batch that failed: each item alone, unless it was alone, so that only the guilty fail.
    fn make_good(&mut self, bound: &I::Bound, items: &mut Vec<Waiting>, start: Instant) -> Result<(), Lost> {
        let was_alone = items.len() == 1;
        let mut rest = items.drain(..);
        while let Some(item) = rest.next() {
            if !was_alone && !item.is_wanted(self.shared.now()) {
                item.refuse(ItemError::DeadlinePassed);
                continue;
            }
            let computed = if was_alone {
                Err(Failed)
            } else {
                self.shared.metrics.batch(1, CloseReason::Retry);
                self.compute(bound, slice::from_ref(&item))
            };
            if computed.is_err() && !self.answers(bound) {
                tracing::error!(version = %I::version(bound), "the engine computes nothing any more");
                self.shared.lost();
                rest.chain([item]).for_each(|item| item.refuse(ItemError::Lost));
                return Err(Lost);
            }
            self.hand_out(bound, std::iter::once(item), computed, start);
        }
        Ok(())
    }

    /// Whether the engine computes what nothing is wrong with.
    fn answers(&self, bound: &I::Bound) -> bool {
        catch_unwind(AssertUnwindSafe(|| I::answers(bound))).unwrap_or(false)
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
            &*item.tensor
        } else {
            self.inputs.clear();
            items
                .iter()
                .for_each(|item| self.inputs.extend_from_slice(&item.tensor));
            self.inputs.as_slice()
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

    /// Answers `items` from the logits just computed.
    fn hand_out(
        &self,
        bound: &I::Bound,
        items: impl Iterator<Item = Waiting>,
        computed: Result<usize, Failed>,
        start: Instant,
    ) {
        let now = self.shared.now();
        let inference = now - start;
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
            let answer = match computed {
                Err(Failed) => Err(ItemError::Inference),
                Ok(_) if !row.iter().all(|logit| logit.is_finite()) => Err(ItemError::NonFinite),
                Ok(_) => Ok(Answer {
                    logits: row.to_vec(),
                    version,
                    timing,
                }),
            };
            let others = item.answer(answer, now);
            if others > 0 {
                self.shared.metrics.sharing.shared(others);
            }
        }
    }
}

impl<I: Infer> Drop for Worker<I> {
    fn drop(&mut self) {
        self.shared.worker_gone(self.number);
    }
}
