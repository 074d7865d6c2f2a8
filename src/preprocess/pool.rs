//! The bounded pool that decodes: a byte budget, a few threads, panics caught.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::decode::is_decoding;
use crate::queueing::{Asker, Fit, Room, Turns};
use crate::telemetry::Metrics;

/// The decode pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Threads; 0 means one per core this process may use.
    pub threads: usize,
    /// Jobs that may wait.
    pub max_queue: usize,
    /// Decoded bytes of all jobs running or waiting.
    pub max_in_flight_bytes: u64,
    /// Waiting so long counts as one level more urgent, in milliseconds, from 1.
    pub ageing_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            threads: 0,
            max_queue: 1024,
            max_in_flight_bytes: 96 << 20,
            ageing_ms: 1000,
        }
    }
}

/// The pool took no job: it is full or closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The queue or the byte budget is used up.
    #[error("too many images are waiting to be decoded")]
    Full(Full),
    /// [`Pool::close`] was called.
    #[error("the server is shutting down")]
    Closed,
}

/// What there is no room beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// Until what is there will have been done, as far as is known.
    pub wait: Duration,
    /// Jobs that may wait.
    pub limit: usize,
}

/// How long a job would take, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Until it begins; zero where a thread is free.
    pub waits: Duration,
    /// From its begin to its end.
    pub takes: Duration,
}

struct Job {
    work: Box<dyn FnOnce() + Send>,
    /// Of the budget.
    bytes: u64,
    /// What it was expected to take.
    seconds: f64,
}

/// Hands jobs to the threads that run [`Worker`]s.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

/// One thread's part of the pool; `app` names and joins the thread.
pub struct Worker(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Waits for a job; signalled only while somebody sleeps.
    wakeup: Condvar,
    room: Room,
    max_queue: usize,
    max_bytes: u64,
    threads: usize,
    metrics: Arc<Metrics>,
}

struct State {
    jobs: Turns<Job>,
    running: usize,
    /// Of jobs running or waiting.
    bytes: u64,
    /// What those that run were expected to take, and those that wait.
    running_seconds: f64,
    waiting_seconds: f64,
    /// A job's seconds, over its bytes.
    fit: Fit,
    sleeping: usize,
    closed: bool,
}

impl Pool {
    /// A pool and its workers, one per thread.
    pub fn new(config: &Config, threads: usize, metrics: Arc<Metrics>) -> (Self, Vec<Worker>) {
        let threads = threads.max(1);
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                jobs: Turns::new(Duration::from_millis(config.ageing_ms)),
                running: 0,
                bytes: 0,
                running_seconds: 0.0,
                waiting_seconds: 0.0,
                fit: Fit::default(),
                sleeping: 0,
                closed: false,
            }),
            wakeup: Condvar::new(),
            room: Room::new(config.max_queue),
            max_queue: config.max_queue,
            max_bytes: config.max_in_flight_bytes,
            threads,
            metrics,
        });
        let workers = (0..threads).map(|_| Worker(Arc::clone(&shared))).collect();
        (Self(shared), workers)
    }

    /// How long a job with so many bytes would take if it came now. Of those that wait, only what would go before it counts.
    pub fn expected(&self, asker: Asker, bytes: u64) -> Expected {
        let state = self.0.lock();
        Expected {
            waits: self.0.wait(&state, asker),
            takes: Duration::try_from_secs_f64(state.expected(bytes)).unwrap_or(Duration::MAX),
        }
    }

    /// Queues `job`, which holds `bytes` of the budget until it ends. Never blocks. Jobs run in turns, as [`Turns`] has them.
    /// A job that panics is counted and
    /// does not end its thread; whatever it captured is dropped. One job larger than the budget may run alone.
    pub fn submit(
        &self,
        asker: Asker,
        bytes: u64,
        job: impl FnOnce() + Send + 'static,
    ) -> Result<(), Refused> {
        let mut state = self.0.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        let over = state.bytes > 0 && state.bytes.saturating_add(bytes) > self.0.max_bytes;
        let own = state.jobs.seats_of(asker.client);
        let admitted = self.0.room.admits(state.jobs.len(), own);
        let limit = if over { Err(self.0.max_queue) } else { admitted };
        if let Err(limit) = limit {
            let wait = self.0.wait(&state, asker);
            return Err(Refused::Full(Full { wait, limit }));
        }
        let seconds = state.expected(bytes);
        state.bytes += bytes;
        state.waiting_seconds += seconds;
        self.0.metrics.decode_in_flight_bytes.add(bytes as i64);
        let seat = state.jobs.take(asker, Instant::now());
        let work = Box::new(job);
        state.jobs.push(seat, Job { work, bytes, seconds });
        let wake = state.sleeping > 0;
        drop(state);
        if wake {
            self.0.wakeup.notify_one();
        }
        Ok(())
    }

    /// Takes no more jobs; workers end once the queue is empty.
    pub fn close(&self) {
        self.0.lock().closed = true;
        self.0.wakeup.notify_all();
    }
}

impl Worker {
    /// Runs jobs until the pool is closed and empty.
    pub fn run(self) {
        while let Some(Job { work, bytes, seconds }) = self.0.next() {
            let begun = Instant::now();
            if catch_unwind(AssertUnwindSafe(work)).is_err() {
                self.0.metrics.decode_panics.inc();
            }
            self.0.lock().ended(bytes, seconds, begun.elapsed());
            self.0.metrics.decode_in_flight_bytes.sub(bytes as i64);
        }
    }
}

impl State {
    /// Seconds of a job with so many bytes.
    fn expected(&self, bytes: u64) -> f64 {
        self.fit.at(size_of_job(bytes))
    }

    /// Takes the next job, which runs from now on.
    fn begin(&mut self) -> Option<Job> {
        let job = self.jobs.pop()?;
        self.running += 1;
        self.running_seconds += job.seconds;
        self.waiting_seconds = rest(self.waiting_seconds, job.seconds, self.jobs.len());
        Some(job)
    }

    fn ended(&mut self, bytes: u64, seconds: f64, took: Duration) {
        self.running -= 1;
        self.bytes -= bytes;
        self.running_seconds = rest(self.running_seconds, seconds, self.running);
        self.fit.observe(size_of_job(bytes), took.as_secs_f64());
    }
}

/// A sum without one of its parts; of none it is nothing, however floats drift.
fn rest(sum: f64, part: f64, left: usize) -> f64 {
    if left == 0 { 0.0 } else { (sum - part).max(0.0) }
}

/// A line's size is above 0.
fn size_of_job(bytes: u64) -> f64 {
    bytes.max(1) as f64
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until a job that came now would begin. Of those that run, all is counted: how far they are is not known. Of those
    /// that wait, as many as would go before it, each as long as all are on average.
    fn wait(&self, state: &State, asker: Asker) -> Duration {
        if state.jobs.is_empty() && state.running < self.threads {
            return Duration::ZERO;
        }
        let share = state.jobs.ahead(asker, Instant::now()) as f64 / state.jobs.len().max(1) as f64;
        let seconds = state.running_seconds + share * state.waiting_seconds;
        Duration::try_from_secs_f64(seconds / self.threads as f64).unwrap_or(Duration::MAX)
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.begin() {
                return Some(job);
            }
            if state.closed {
                return None;
            }
            state.sleeping += 1;
            state = self.wakeup.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.sleeping -= 1;
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

/// Silences the panic message of decoders for the whole process; every other panic is told as before.
pub fn quiet_decoder_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !is_decoding() {
            before(info);
        }
    }));
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;
    use crate::queueing::{Client, Urgency};

    const ANYONE: Asker = Asker {
        urgency: Urgency::DEFAULT,
        client: Client(0),
    };

    fn pool(max_queue: usize, max_bytes: u64) -> (Pool, Vec<Worker>, Arc<Metrics>) {
        let metrics = Metrics::new(&[]);
        let config = Config {
            threads: 1,
            max_queue,
            max_in_flight_bytes: max_bytes,
            ageing_ms: 1000,
        };
        let (pool, workers) = Pool::new(&config, 1, Arc::clone(&metrics));
        (pool, workers, metrics)
    }

    #[test]
    fn jobs_run_in_order_until_the_pool_is_closed_and_empty() {
        let (pool, workers, metrics) = pool(10, 100);
        let (send, receive) = mpsc::channel();
        for number in 0..3 {
            let send = send.clone();
            pool.submit(ANYONE, 1, move || send.send(number).unwrap())
                .unwrap();
        }
        pool.close();
        assert_eq!(pool.submit(ANYONE, 1, || {}), Err(Refused::Closed));
        workers.into_iter().for_each(Worker::run);
        assert_eq!(receive.try_iter().collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(metrics.decode_in_flight_bytes.get(), 0);
    }

    #[test]
    fn the_urgent_and_the_modest_do_not_wait_for_all_that_is_there() {
        let (pool, workers, _) = pool(100, 1000);
        let (send, receive) = mpsc::channel();
        let submit = |level: u8, client: u64, number: u32| {
            let (urgency, client) = (Urgency::new(level).unwrap(), Client(client));
            let send = send.clone();
            let asker = Asker { urgency, client };
            pool.submit(asker, 1, move || send.send(number).unwrap()).unwrap();
        };
        (0..3).for_each(|number| submit(3, 1, number));
        submit(3, 2, 10);
        submit(0, 1, 20);
        pool.close();
        workers.into_iter().for_each(Worker::run);
        assert_eq!(receive.try_iter().collect::<Vec<_>>(), [20, 0, 10, 1, 2]);
    }

    #[test]
    fn queue_and_bytes_are_bounded_but_one_large_job_may_run_alone() {
        let (small_queue, _workers, _) = pool(2, 100);
        assert_eq!(
            [1, 1, 1].map(|b| small_queue.submit(ANYONE, b, || {}).is_ok()),
            [true, true, false]
        );
        let (few_bytes, _workers, metrics) = pool(9, 10);
        assert_eq!(
            [6, 4, 1].map(|b| few_bytes.submit(ANYONE, b, || {}).is_ok()),
            [true, true, false]
        );
        assert_eq!(metrics.decode_in_flight_bytes.get(), 10);
        let (alone, _workers, _) = pool(9, 10);
        assert_eq!(
            [50, 1].map(|b| alone.submit(ANYONE, b, || {}).is_ok()),
            [true, false]
        );
    }

    #[test]
    fn a_wait_is_what_is_there_over_the_threads() {
        let (pool, workers, _) = pool(9, 1000);
        let expected = |bytes| {
            let Expected { waits, takes } = pool.expected(ANYONE, bytes);
            (waits.as_secs_f64(), takes.as_secs_f64())
        };
        assert_eq!(expected(10), (0.0, 0.0), "nothing is known");
        for (bytes, ms) in [(100u64, 10), (200, 20)].repeat(50) {
            let mut state = pool.0.lock();
            state.running += 1;
            state.bytes += bytes;
            state.ended(bytes, 0.0, Duration::from_millis(ms));
        }
        let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-4, "{found} {expected}");
        near(expected(150).1, 0.015);
        assert_eq!(expected(150).0, 0.0, "its one thread is free");
        pool.submit(ANYONE, 100, || {}).unwrap();
        pool.submit(ANYONE, 300, || {}).unwrap();
        near(expected(150).0, 0.040);
        pool.close();
        workers.into_iter().for_each(Worker::run);
        assert_eq!(expected(150).0, 0.0);
    }

    #[test]
    fn a_panic_is_counted_and_its_bytes_come_back() {
        let (pool, workers, metrics) = pool(9, 10);
        let (send, receive) = mpsc::channel();
        pool.submit(ANYONE, 10, || panic!("a decoder's bug")).unwrap();
        pool.close();
        workers.into_iter().for_each(Worker::run);
        assert_eq!(
            (metrics.decode_panics.get(), metrics.decode_in_flight_bytes.get()),
            (1, 0)
        );
        drop(send);
        assert!(receive.recv() == Err::<(), _>(mpsc::RecvError));
    }

    #[test]
    fn a_sleeping_worker_wakes_for_a_job_and_for_the_end() {
        let (pool, mut workers, _) = pool(9, 10);
        let worker = workers.pop().unwrap();
        let thread = thread::Builder::new().spawn(move || worker.run()).unwrap();
        let (send, receive) = mpsc::channel();
        pool.submit(ANYONE, 1, move || send.send(7).unwrap()).unwrap();
        assert_eq!(receive.recv(), Ok(7));
        pool.close();
        thread.join().unwrap();
    }
}
