//! The items that wait, and what an idle worker does about them: state alone, told the time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Answer, Config, Item, ItemError, Reply, Timing};
use crate::telemetry::CloseReason;

/// Longest delay of a batch, whatever the configuration says.
const MAX_DELAY: Duration = Duration::from_secs(60);

/// An item in the queue or in a batch. Dropped without an answer, it answers [`ItemError::Closed`].
pub(super) struct Waiting {
    pub(super) tensor: Vec<f32>,
    pub(super) timing: Timing,
    deadline: Option<Instant>,
    submitted: Instant,
    /// Taken by the answer.
    reply: Option<Reply>,
}

impl Waiting {
    pub(super) fn new(item: Item, now: Instant) -> Self {
        Self {
            tensor: item.tensor,
            timing: item.timing,
            deadline: item.deadline,
            submitted: now,
            reply: Some(item.reply),
        }
    }

    pub(super) fn answer(mut self, answer: Result<Answer, ItemError>) {
        if let Some(reply) = self.reply.take() {
            // A caller who hung up wants no answer.
            let _ = reply.send(answer);
        }
    }

    /// Whether its caller still listens and its deadline has not passed.
    pub(super) fn is_wanted(&self, now: Instant) -> bool {
        let in_time = self.deadline.is_none_or(|deadline| now < deadline);
        in_time && self.reply.as_ref().is_some_and(|reply| !reply.is_closed())
    }

    /// Splits its wait at the instant where an idle worker began to form the batch, if one waited.
    fn split_wait(&mut self, forming_since: Option<Instant>, closed: Instant) {
        let joined = forming_since.map_or(closed, |since| {
            since.clamp(self.submitted, closed.max(self.submitted))
        });
        self.timing.queue = joined.saturating_duration_since(self.submitted);
        self.timing.batch_wait = closed.saturating_duration_since(joined);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(reply) = self.reply.take() {
            let _ = reply.send(Err(ItemError::Closed));
        }
    }
}

/// What a worker took.
pub(super) struct Batch {
    /// At most the largest size; in order of submission.
    pub(super) items: Vec<Waiting>,
    /// Passed over: late, or their callers hung up.
    pub(super) unwanted: Vec<Waiting>,
    pub(super) reason: CloseReason,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self {
            items: Vec::new(),
            unwanted: Vec::new(),
            reason: CloseReason::Empty,
        }
    }
}

/// What a worker that looks at the queue does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Compute the batch taken; first wake another worker if `wake`.
    Compute { wake: bool },
    /// Sleep until woken, or until the batch in the queue is due; then [`Queue::woke`].
    Sleep { until: Option<Instant> },
    /// The queue is closed and empty.
    Stop,
}

/// Whether the queue takes another item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Free,
    Full,
    Closed,
}

/// First in, first out. Wakes no more workers than there is work for: one at a time, and none while one waits for a
/// batch to fill.
pub(super) struct Queue {
    waiting: VecDeque<Waiting>,
    max_batch: usize,
    max_queue: usize,
    max_delay: Duration,
    closed: bool,
    /// Workers asleep, those woken that have not yet looked included.
    sleeping: usize,
    /// A worker was woken and has not yet looked.
    waking: bool,
    /// One of the sleeping wakes by itself when the batch is due.
    gathering: bool,
    /// Since when a batch has been forming under the eyes of an idle worker.
    forming_since: Option<Instant>,
}

impl Queue {
    /// Sizes of 0 count as 1: a queue that takes nothing would answer nothing.
    pub(super) fn new(config: Config) -> Self {
        Self {
            waiting: VecDeque::new(),
            max_batch: config.max_batch(),
            max_queue: config.max_queue.max(1),
            max_delay: Duration::from_micros(config.max_delay_us).min(MAX_DELAY),
            closed: false,
            sleeping: 0,
            waking: false,
            gathering: false,
            forming_since: None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn room(&self) -> Room {
        match self.closed {
            true => Room::Closed,
            false if self.waiting.len() >= self.max_queue => Room::Full,
            false => Room::Free,
        }
    }

    /// Adds an item for which there is [`Room::Free`]; whether a worker is to be woken.
    pub(super) fn push(&mut self, item: Waiting) -> bool {
        self.waiting.push_back(item);
        self.wake_one()
    }

    /// Takes no more; every sleeping worker is to be woken.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Everything that waits.
    pub(super) fn clear(&mut self) -> VecDeque<Waiting> {
        self.forming_since = None;
        std::mem::take(&mut self.waiting)
    }

    /// What a worker does now; a batch is written to `batch`, which is empty.
    pub(super) fn next(&mut self, now: Instant, batch: &mut Batch) -> Next {
        let Some(first) = self.waiting.front() else {
            return if self.closed { Next::Stop } else { self.sleep(None) };
        };
        let due = first.submitted + self.max_delay;
        if now >= due || self.max_delay.is_zero() || self.is_full() || self.closed {
            self.take(now, batch);
            batch.reason = self.reason(batch, now >= due);
            return Next::Compute {
                wake: self.wake_one(),
            };
        }
        self.forming_since.get_or_insert(now);
        if self.gathering {
            return self.sleep(None);
        }
        self.gathering = true;
        self.sleep(Some(due))
    }

    /// A worker told to sleep `until` is awake again, whatever woke it.
    pub(super) fn woke(&mut self, until: Option<Instant>) {
        self.sleeping -= 1;
        self.waking = false;
        if until.is_some() {
            self.gathering = false;
        }
    }

    fn sleep(&mut self, until: Option<Instant>) -> Next {
        self.sleeping += 1;
        Next::Sleep { until }
    }

    /// A woken worker takes all it can and wakes the next if something is left, so one on its way is enough.
    fn wake_one(&mut self) -> bool {
        let attended = self.waking || (self.gathering && !self.is_full());
        let wake = self.sleeping > 0 && !self.waiting.is_empty() && !attended;
        self.waking |= wake;
        wake
    }

    /// Whether a batch would gain nothing from waiting.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= self.max_batch.min(self.max_queue)
    }

    fn take(&mut self, now: Instant, batch: &mut Batch) {
        let forming_since = self.forming_since.take();
        while batch.items.len() < self.max_batch
            && let Some(mut item) = self.waiting.pop_front()
        {
            if item.is_wanted(now) {
                item.split_wait(forming_since, now);
                batch.items.push(item);
            } else {
                batch.unwanted.push(item);
            }
        }
    }

    fn reason(&self, batch: &Batch, due: bool) -> CloseReason {
        if batch.items.len() >= self.max_batch.min(self.max_queue) {
            CloseReason::Full
        } else if self.closed {
            CloseReason::Drain
        } else if due && !self.max_delay.is_zero() {
            CloseReason::Delay
        } else {
            CloseReason::Empty
        }
    }
}

#[cfg(test)]
impl Queue {
    /// Whether work waits that no worker is coming for; `gathering`: one sleeps that wakes by itself.
    pub(super) fn is_forgotten(&self, gathering: bool) -> bool {
        let attended = self.waking || (gathering && !self.is_full());
        !self.closed && !self.waiting.is_empty() && self.sleeping > 0 && !attended
    }
}
