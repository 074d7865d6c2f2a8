//! What the handles and the workers of one queue share.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::queue::{Queue, Room, Waiting};
use super::{Config, Item, ItemError};
use crate::telemetry::ModelMetrics;

/// Bounds of what a refused caller is told: a full queue is rarely free sooner, and a guess beyond is worth nothing.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(30));
/// Weight of the newest batch in the moving mean of seconds per item.
const NEWEST: f64 = 0.2;

/// Tells the time; another in tests.
pub(super) type Clock = fn() -> Instant;

pub(super) struct Shared {
    queue: Mutex<Queue>,
    /// Notified when a sleeping worker has something to do.
    wake: Condvar,
    clock: Clock,
    pub(super) metrics: Arc<ModelMetrics>,
    pace: Pace,
    /// Workers not yet dropped.
    workers: AtomicUsize,
}

impl Shared {
    pub(super) fn new(config: Config, instances: usize, metrics: Arc<ModelMetrics>, clock: Clock) -> Self {
        Self {
            queue: Mutex::new(Queue::new(config)),
            wake: Condvar::new(),
            clock,
            metrics,
            pace: Pace {
                seconds_per_item: AtomicU64::new(0.0f64.to_bits()),
                instances: instances as f64,
            },
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

    pub(super) fn submit(&self, item: Item) {
        let item = Waiting::new(item, self.now());
        let mut queue = self.lock();
        let refusal = match queue.room() {
            Room::Free => {
                let wake = queue.push(item);
                self.metrics.queue_depth.inc();
                drop(queue);
                return self.notify(wake);
            }
            Room::Full => ItemError::QueueFull {
                retry_after: self.pace.time_for(queue.len()),
            },
            Room::Closed => ItemError::Closed,
        };
        drop(queue);
        item.answer(Err(refusal));
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

    pub(super) fn computed(&self, items: usize, duration: Duration) {
        self.pace.observe(duration.as_secs_f64() / items as f64);
    }

    /// A worker is gone. Without the last nobody would answer: the queue is aborted.
    pub(super) fn worker_gone(&self) {
        if self.workers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.abort();
        }
    }
}

/// How fast the instances empty the queue.
struct Pace {
    /// Moving mean for one instance, as bits of an f64; 0 before the first batch.
    seconds_per_item: AtomicU64,
    instances: f64,
}

impl Pace {
    /// Two instances at once may lose one's sample, which the mean does not miss.
    fn observe(&self, seconds_per_item: f64) {
        let before = f64::from_bits(self.seconds_per_item.load(Ordering::Relaxed));
        let mean = if before == 0.0 {
            seconds_per_item
        } else {
            before + NEWEST * (seconds_per_item - before)
        };
        self.seconds_per_item.store(mean.to_bits(), Ordering::Relaxed);
    }

    /// Time until `items` are answered, within [`RETRY_AFTER`].
    fn time_for(&self, items: usize) -> Duration {
        let seconds_per_item = f64::from_bits(self.seconds_per_item.load(Ordering::Relaxed));
        let seconds = items as f64 * seconds_per_item / self.instances;
        let (least, most) = RETRY_AFTER;
        Duration::try_from_secs_f64(seconds)
            .unwrap_or(most)
            .clamp(least, most)
    }
}
