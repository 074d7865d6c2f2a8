//! What the handles and the workers of one queue share.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::queue::{Held, Queue, Waiting};
use super::{Ask, Busy, Config, Item, ItemError, SharedItem};
use crate::queueing::Fit;
use crate::telemetry::ModelMetrics;

/// Tells the time; another in tests.
pub(super) type Clock = fn() -> Instant;

pub(super) struct Shared {
    queue: Mutex<Queue>,
    /// Notified when a sleeping worker has something to do.
    wake: Condvar,
    /// Notified when a worker whose engine was lost need not try it again: another found it, or the queue is closed.
    found: Condvar,
    clock: Clock,
    /// For how long an engine is tried that computes nothing; `None` is for ever.
    pub(super) max_lost: Option<Duration>,
    pub(super) metrics: Arc<ModelMetrics>,
    /// Workers not yet dropped.
    workers: AtomicUsize,
}

impl Shared {
    pub(super) fn new(config: Config, instances: usize, metrics: Arc<ModelMetrics>, clock: Clock) -> Self {
        Self {
            queue: Mutex::new(Queue::new(config, instances, clock())),
            wake: Condvar::new(),
            found: Condvar::new(),
            clock,
            max_lost: (config.max_lost_ms > 0).then(|| Duration::from_millis(config.max_lost_ms)),
            metrics,
            workers: AtomicUsize::new(instances),
        }
    }

    pub(super) fn now(&self) -> Instant {
        (self.clock)()
    }

    /// Nothing panics while it holds the lock, and each change of the queue is whole.
    pub(super) fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn would_admit(&self, ask: &Ask) -> Result<(), ItemError> {
        let now = self.now();
        self.lock().look_at(ask, now).map(drop)
    }

    pub(super) fn admit(&self, ask: &Ask) -> Result<Held, ItemError> {
        let now = self.now();
        let mut queue = self.lock();
        let largest = queue.look_at(ask, now)?;
        Ok(queue.hold(ask.asker, largest, now))
    }

    pub(super) fn give_back(&self, held: &Held) {
        self.lock().give_back(held);
    }

    pub(super) fn submit(&self, held: Held, item: Item) {
        let item = Waiting::new(item, &held, self.now());
        self.push(held, item);
    }

    pub(super) fn submit_shared(&self, held: Held, item: SharedItem) {
        let item = Waiting::shared(item, &held, self.now());
        self.push(held, item);
    }

    fn push(&self, held: Held, item: Waiting) {
        let mut queue = self.lock();
        let refused = match (queue.is_closed(), queue.is_lost()) {
            (true, _) => Some(ItemError::Closed),
            (false, true) => Some(ItemError::Lost),
            (false, false) => None,
        };
        if let Some(error) = refused {
            queue.give_back(&held);
            drop(queue);
            return item.refuse(error);
        }
        let wake = queue.push(held, item);
        self.metrics.queue_depth.inc();
        drop(queue);
        self.notify(wake);
    }

    pub(super) fn busy(&self) -> Busy {
        let now = self.now();
        self.lock().busy(now)
    }

    pub(super) fn wait(&self) -> Duration {
        let now = self.now();
        self.lock().wait(now)
    }

    pub(super) fn seed(&self, timings: &[(usize, Duration)]) {
        let mut queue = self.lock();
        for &(items, duration) in timings {
            queue.measured(items, duration);
        }
        self.tell(queue.fit());
    }

    pub(super) fn close(&self) {
        self.lock().close();
        self.wake.notify_all();
        self.found.notify_all();
    }

    /// Closes, and answers all that wait by dropping them.
    pub(super) fn abort(&self) {
        let mut queue = self.lock();
        queue.close();
        let waiting = queue.clear();
        self.metrics.queue_depth.sub(waiting.len() as i64);
        drop(queue);
        self.wake.notify_all();
        self.found.notify_all();
        drop(waiting);
    }

    /// The engine computes nothing: everything that waits is told so, and nothing is let in until [`Shared::found`].
    pub(super) fn lost(&self) {
        let mut queue = self.lock();
        queue.set_lost(true);
        let waiting = queue.clear();
        self.metrics.queue_depth.sub(waiting.len() as i64);
        self.metrics.admission.lost(true);
        drop(queue);
        waiting.into_iter().for_each(|item| item.refuse(ItemError::Lost));
    }

    /// The engine computes again.
    pub(super) fn found(&self) {
        let mut queue = self.lock();
        queue.set_lost(false);
        self.metrics.admission.lost(false);
        drop(queue);
        self.found.notify_all();
    }

    /// Waits for `time` before the engine is tried again; false where that need not be, since another worker found it, or
    /// the queue is closed.
    pub(super) fn rests_lost(&self, time: Duration) -> bool {
        let is_lost = |queue: &mut Queue| queue.is_lost() && !queue.is_closed();
        let waited = self.found.wait_timeout_while(self.lock(), time, is_lost);
        is_lost(&mut waited.unwrap_or_else(PoisonError::into_inner).0)
    }

    pub(super) fn notify(&self, wake: bool) {
        if wake {
            self.wake.notify_one();
        }
    }

    /// Sleeps, the queue unlocked meanwhile, until notified, until the instant, or for no reason.
    pub(super) fn sleep<'a>(
        &self,
        queue: MutexGuard<'a, Queue>,
        until: Option<Instant>,
    ) -> MutexGuard<'a, Queue> {
        let Some(until) = until else {
            return self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        };
        let duration = until.saturating_duration_since(self.now());
        let woken = self.wake.wait_timeout(queue, duration);
        woken.unwrap_or_else(PoisonError::into_inner).0
    }

    /// The batch of this instance has ended; with its items and its time where it went as it should.
    pub(super) fn finish(&self, instance: usize, computed: Option<(usize, Duration)>) {
        let now = self.now();
        let mut queue = self.lock();
        queue.finish(instance, now);
        if let Some((items, duration)) = computed {
            queue.measured(items, duration);
        }
        let fit = queue.fit();
        drop(queue);
        self.tell(fit);
    }

    fn tell(&self, fit: Fit) {
        self.metrics.admission.fitted(fit.fixed(), fit.each());
    }

    /// A worker is gone. Without the last nobody would answer: the queue is aborted.
    pub(super) fn worker_gone(&self, instance: usize) {
        self.lock().gone(instance);
        if self.workers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.abort();
        }
    }
}
