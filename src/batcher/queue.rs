//! The items that wait, and what an idle worker does about them: state alone, told the time.

use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::pace::{Ahead, Drag, Pace};
use super::share::Member;
use super::sizes::Sizes;
use super::{Answer, Ask, Busy, Config, Item, ItemError, Refusal, Reply, SharedItem, Timing};
use crate::queueing::{Asker, Fit, Room, Seat, Turns};
use crate::telemetry::{CloseReason, Refused};

/// Times are floats on their way, which are off by less.
const ROUNDING: Duration = Duration::from_micros(1);

/// Longest delay of a batch, whatever the configuration says.
const MAX_DELAY: Duration = Duration::from_secs(60);

/// A place that is taken until it is given back or pushed.
#[derive(Debug)]
pub(super) struct Held {
    seat: Seat,
    /// The largest batch that the item may be in, at least 1; as [`Sizes::allowed`] has it.
    largest: usize,
}

/// An item in the queue or in a batch. Dropped without an answer, it answers [`ItemError::Closed`].
pub(super) struct Waiting {
    pub(super) tensor: Tensor,
    pub(super) timing: Timing,
    /// The largest batch that it may be in.
    largest: usize,
    deadline: Option<Instant>,
    submitted: Instant,
    /// Taken by the answer.
    to: Option<To>,
}

/// An item's input.
pub(super) enum Tensor {
    Own(Vec<f32>),
    /// Of several items.
    Shared(Arc<Vec<f32>>),
}

/// Where an item's answer goes.
enum To {
    One(Reply),
    /// It and those that wait with it.
    All(Member),
}

impl Waiting {
    pub(super) fn new(item: Item, held: &Held, now: Instant) -> Self {
        Self {
            largest: held.largest,
            tensor: Tensor::Own(item.tensor),
            timing: item.timing,
            deadline: item.deadline,
            submitted: now,
            to: Some(To::One(item.reply)),
        }
    }

    pub(super) fn shared(item: SharedItem, held: &Held, now: Instant) -> Self {
        Self {
            largest: held.largest,
            tensor: Tensor::Shared(item.tensor),
            timing: item.timing,
            deadline: item.deadline,
            submitted: now,
            to: Some(To::All(item.member)),
        }
    }

    /// With what was computed; how many others were answered with it.
    pub(super) fn answer(mut self, answer: Result<Answer, ItemError>, now: Instant) -> usize {
        match self.to.take() {
            Some(To::One(reply)) => {
                // A caller who hung up wants no answer.
                let _ = reply.send(answer);
                0
            }
            Some(To::All(member)) => member.answer(&answer, now),
            None => 0,
        }
    }

    /// It is late; or it is in time, and nobody waits for it or another is computed for it.
    pub(super) fn pass_over(self, now: Instant) {
        if self.is_in_time(now) {
            return drop(self);
        }
        self.refuse(ItemError::DeadlinePassed);
    }

    /// With an error of its own; one that was to be computed for others tells them too.
    pub(super) fn refuse(mut self, error: ItemError) {
        self.end(error);
    }

    fn end(&mut self, error: ItemError) {
        match self.to.take() {
            // A caller who hung up wants no answer.
            Some(To::One(reply)) => drop(reply.send(Err(error))),
            Some(To::All(member)) if member.has_claimed() => {
                member.answer(&Err(error), self.submitted);
            }
            Some(To::All(member)) => member.refuse(error),
            None => {}
        }
    }

    /// Whether its caller still listens, its deadline has not passed, and no other is computed for it.
    pub(super) fn is_wanted(&self, now: Instant) -> bool {
        match &self.to {
            Some(To::One(reply)) => self.is_in_time(now) && !reply.is_closed(),
            Some(To::All(member)) => (self.is_in_time(now) || member.has_claimed()) && member.is_wanted(),
            None => false,
        }
    }

    fn is_in_time(&self, now: Instant) -> bool {
        self.deadline.is_none_or(|deadline| now < deadline)
    }

    /// It is in a batch.
    fn claim(&mut self) {
        if let Some(To::All(member)) = &mut self.to {
            member.claim();
        }
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
        self.end(ItemError::Closed);
    }
}

impl Deref for Tensor {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match self {
            Self::Own(numbers) => numbers,
            Self::Shared(numbers) => numbers,
        }
    }
}

/// What a worker took.
pub(super) struct Batch {
    /// At most the largest size; in the order of their places.
    pub(super) items: Vec<Waiting>,
    /// Passed over: late, or their callers hung up.
    pub(super) unwanted: Vec<Waiting>,
    /// Passed over: they would be late when it ends.
    pub(super) hopeless: Vec<(Waiting, Refusal)>,
    pub(super) reason: CloseReason,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self {
            items: Vec::new(),
            unwanted: Vec::new(),
            hopeless: Vec::new(),
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

/// What an instance does.
#[derive(Clone, Copy, Debug)]
enum Instance {
    Idle,
    /// Computes so many items.
    Busy {
        since: Instant,
        items: usize,
    },
    /// Its worker has ended.
    Gone,
}

impl Instance {
    /// For how long it has computed its batch.
    fn computes(&self, now: Instant) -> Duration {
        match *self {
            Self::Busy { since, .. } => now.saturating_duration_since(since),
            Self::Idle | Self::Gone => Duration::ZERO,
        }
    }
}

/// Items in turns, by their places. Wakes no more workers than there is work for: one at a time, and none while one waits
/// for a batch to fill.
pub(super) struct Queue {
    waiting: Turns<Waiting>,
    /// Since when the one that waits longest does; of no meaning where none does.
    oldest: Instant,
    /// Of those that wait, and of those that are still prepared.
    sizes: Sizes,
    pace: Pace,
    instances: Vec<Instance>,
    /// How long instances have computed, those that compute now aside.
    busy: Duration,
    max_queue: usize,
    room: Room,
    max_delay: Duration,
    closed: bool,
    /// The engine computes nothing: nothing waits and nothing is let in.
    lost: bool,
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
    pub(super) fn new(config: Config, instances: usize, now: Instant) -> Self {
        let max_delay = Duration::from_micros(config.max_delay_us).min(MAX_DELAY);
        Self {
            waiting: Turns::new(Duration::from_millis(config.ageing_ms)),
            oldest: now,
            sizes: Sizes::new(config.max_batch()),
            pace: Pace {
                fit: Fit::default(),
                max_batch: config.max_batch(),
                delay: max_delay.as_secs_f64(),
                drag: Drag::default(),
            },
            instances: vec![Instance::Idle; instances],
            busy: Duration::ZERO,
            max_queue: config.max_queue.max(1),
            room: Room::new(config.max_queue.max(1)),
            max_delay,
            closed: false,
            lost: false,
            sleeping: 0,
            waking: false,
            gathering: false,
            forming_since: None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether an item would be let in now; the largest batch that it may be in.
    pub(super) fn look_at(&self, ask: &Ask, now: Instant) -> Result<usize, ItemError> {
        if self.closed {
            return Err(ItemError::Closed);
        }
        if self.lost {
            return Err(ItemError::Lost);
        }
        let left = |deadline: Instant| deadline.saturating_duration_since(now).as_secs_f64();
        let patience = ask.deadline.map_or(f64::INFINITY, left);
        let largest = self.sizes.allowed(self.pace.largest(patience));
        let ahead = self.ahead(ask.asker, largest, now);
        let prepared = (ask.waits + ask.takes).as_secs_f64();
        let wait = prepared + self.pace.wait(&ahead);
        let refused = |why, limit| {
            let wait = Duration::try_from_secs_f64(wait).unwrap_or(Duration::MAX);
            Err(ItemError::Refused(Refusal::new(why, wait, limit)))
        };
        let own = self.waiting.seats_of(ask.asker.client);
        if let Err(limit) = self.room.admits(self.waiting.seats(), own) {
            return refused(Refused::Queue, limit);
        }
        if wait > self.pace.longest_wait(patience) && !(ask.waits.is_zero() && self.is_idle()) {
            let limit = self.pace.within(patience - prepared, ahead.instances);
            return refused(Refused::Deadline, limit.min(self.max_queue));
        }
        Ok(largest)
    }

    /// Gives a place to an item for which [`Queue::look_at`] has room, and found this largest batch.
    pub(super) fn hold(&mut self, asker: Asker, largest: usize, now: Instant) -> Held {
        self.sizes.add(largest);
        Held {
            seat: self.waiting.take(asker, now),
            largest,
        }
    }

    /// Frees the place of an item that will not come.
    pub(super) fn give_back(&mut self, held: &Held) {
        self.sizes.remove(held.largest);
        self.waiting.give_back(&held.seat);
    }

    /// Adds an item to its place; whether a worker is to be woken. Not where [`Queue::is_closed`].
    pub(super) fn push(&mut self, held: Held, item: Waiting) -> bool {
        if self.waiting.is_empty() {
            self.oldest = item.submitted;
        }
        self.waiting.push(held.seat, item);
        self.wake_one()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost
    }

    /// The engine computes nothing any more, or again. Of what waits, nothing is to be left in the first case.
    pub(super) fn set_lost(&mut self, lost: bool) {
        self.lost = lost;
    }

    /// Whether an item that came now would be computed at once.
    fn is_idle(&self) -> bool {
        let free = self
            .instances
            .iter()
            .any(|instance| matches!(instance, Instance::Idle));
        free && self.waiting.seats() == 0
    }

    /// What stands before an item that allows batches of `largest`.
    fn ahead(&self, asker: Asker, largest: usize, now: Instant) -> Ahead {
        let left = |instance: &Instance| match *instance {
            Instance::Busy { since, items } => {
                (self.pace.of(items) - now.saturating_duration_since(since).as_secs_f64()).max(0.0)
            }
            Instance::Idle | Instance::Gone => 0.0,
        };
        Ahead {
            items: self.waiting.ahead(asker, now),
            small: self.sizes.small() + usize::from(largest < self.pace.max_batch),
            smallest: self.sizes.smallest().min(largest),
            running: self.instances.iter().map(left).sum(),
            instances: self.alive(),
        }
    }

    /// The batch that the instance took has ended.
    pub(super) fn finish(&mut self, instance: usize, now: Instant) {
        self.busy += self.instances[instance].computes(now);
        self.instances[instance] = Instance::Idle;
    }

    /// How long instances have computed until now, and how many are alive.
    pub(super) fn busy(&self, now: Instant) -> Busy {
        let running: Duration = self.instances.iter().map(|instance| instance.computes(now)).sum();
        Busy {
            total: self.busy + running,
            instances: self.alive(),
        }
    }

    /// Until an item of nobody in particular that came now would be in a batch that begins; the longest there is for one that
    /// cannot be told.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        if self.is_idle() {
            return Duration::ZERO;
        }
        let ahead = self.ahead(Asker::default(), self.pace.max_batch, now);
        Duration::try_from_secs_f64(self.pace.wait(&ahead)).unwrap_or(Duration::MAX)
    }

    fn alive(&self) -> usize {
        let alive = |instance: &&Instance| !matches!(instance, Instance::Gone);
        self.instances.iter().filter(alive).count()
    }

    /// A batch of so many items took so long.
    pub(super) fn measured(&mut self, items: usize, duration: Duration) {
        let seconds = duration.as_secs_f64();
        // Before anything is fitted, nothing is expected.
        self.pace.drag.observe(seconds / self.pace.of(items));
        self.pace.fit.observe(items as f64, seconds);
    }

    /// The instance takes no more.
    pub(super) fn gone(&mut self, instance: usize) {
        self.instances[instance] = Instance::Gone;
    }

    /// The line of a batch's time.
    pub(super) fn fit(&self) -> Fit {
        self.pace.fit
    }

    /// Takes no more; every sleeping worker is to be woken.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Everything that waits.
    pub(super) fn clear(&mut self) -> Vec<Waiting> {
        self.forming_since = None;
        std::iter::from_fn(|| self.pop()).collect()
    }

    fn pop(&mut self) -> Option<Waiting> {
        let item = self.waiting.pop()?;
        self.sizes.remove(item.largest);
        Some(item)
    }

    /// What an instance's worker does now; a batch is written to `batch`, which is empty.
    pub(super) fn next(&mut self, instance: usize, now: Instant, batch: &mut Batch) -> Next {
        if self.waiting.is_empty() {
            return if self.closed { Next::Stop } else { self.sleep(None) };
        }
        let due = self.oldest + self.max_delay;
        if now >= due || self.max_delay.is_zero() || self.is_full() || self.closed {
            let cut = self.take(now, batch);
            batch.reason = if cut {
                CloseReason::Deadline
            } else {
                self.reason(batch, now >= due)
            };
            self.instances[instance] = Instance::Busy {
                since: now,
                items: batch.items.len(),
            };
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
        self.waiting.len() >= self.pace.max_batch.min(self.max_queue)
    }

    /// Whether what is left could have been in it, had all had more time.
    fn take(&mut self, now: Instant, batch: &mut Batch) -> bool {
        let forming_since = self.forming_since.take();
        let mut most = self.pace.max_batch;
        let mut cut = false;
        while let Some(next) = self.waiting.peek()
            && batch.items.len() < self.pace.max_batch
        {
            let wanted = next.is_wanted(now);
            cut = wanted && batch.items.len() >= most.min(next.largest);
            if cut {
                break;
            }
            let Some(mut item) = self.pop() else {
                break;
            };
            if !wanted {
                batch.unwanted.push(item);
            } else if let Some(refusal) = self.refuses(&item, (batch.items.len(), most), now) {
                batch.hopeless.push((item, refusal));
            } else {
                most = most.min(item.largest);
                item.claim();
                item.split_wait(forming_since, now);
                batch.items.push(item);
            }
        }
        if !self.max_delay.is_zero() {
            let oldest = self.waiting.iter().map(|item| item.submitted).min();
            self.oldest = oldest.unwrap_or(self.oldest);
        }
        cut
    }

    /// Why an item that was let in is not computed after all: it would be the next of a batch with so many `before` it and `most` in
    /// it, and that would end when its answer is worth nothing any more. What would be computed alone always is: were the line wrong,
    /// nothing else would correct it.
    fn refuses(&self, item: &Waiting, (before, most): (usize, usize), now: Instant) -> Option<Refusal> {
        let deadline = item.deadline?;
        let alike = before + 1 + self.waiting.len();
        let size = alike.min(most).min(item.largest);
        let patience = deadline.saturating_duration_since(item.submitted).as_secs_f64();
        let end = now + Duration::from_secs_f64(self.pace.until(size, patience));
        if alike == 1 || end <= deadline + ROUNDING {
            return None;
        }
        let limit = self.pace.within(patience, self.alive()).min(self.max_queue);
        Some(Refusal::new(Refused::Deadline, self.wait(now), limit))
    }

    fn reason(&self, batch: &Batch, due: bool) -> CloseReason {
        if batch.items.len() >= self.pace.max_batch.min(self.max_queue) {
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
