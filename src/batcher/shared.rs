//! What the handles and the workers of one queue share.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::queue::{Held, Queue, Waiting};
use super::{Ask, Busy, Config, Item, ItemError};
use crate::queueing::Fit;
use crate::telemetry::ModelMetrics;

/// Tells the time; another in tests.
pub(super) type Clock = fn() -> Instant;

pub(super) struct Shared {
    queue: Mutex<Queue>,
    /// Notified when a sleeping worker has something to do.
    wake: Condvar,
    clock: Clock,
    pub(super) metrics: Arc<ModelMetrics>,
    /// Workers not yet dropped.
    workers: AtomicUsize,
}

impl Shared {
    pub(super) fn new(config: Config, instances: usize, metrics: Arc<ModelMetrics>, clock: Clock) -> Self {
        Self {
            queue: Mutex::new(Queue::new(config, instances, clock())),
            wake: Condvar::new(),
            clock,
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
        let mut queue = self.lock();
        if queue.is_closed() {
            queue.give_back(&held);
            drop(queue);
            return item.answer(Err(ItemError::Closed));
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
    }

    /// Closes, and answers all that wait by dropping them.
    pub(super) fn abort(&self) {
        let mut queue = self.lock();
        queue.close();
        let waiting = queue.clear();
        self.metrics.queue_depth.sub(waiting.len() as i64);
        drop(queue);
        self.wake.notify_all();
        drop(waiting);
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
