//! The bounded pool that decodes: a ceiling over the memory of what runs, a few threads, panics caught.
//!
//! Jobs are small or large by the memory they take, and each kind has a queue. Large jobs wait until there is room for them,
//! and never take the room and the time that keep small ones going: so a photo waits for photos, and a thumbnail for
//! nobody. In each queue jobs run in turns, as [`Turns`](crate::queueing::Turns) has them.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use self::lanes::{Job, Load, Rules, State, duration};
use super::decode::is_decoding;
use crate::queueing::{Asker, Room};
use crate::telemetry::Metrics;

mod lanes;

/// The decode pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Threads; 0 means one per core this process may use.
    pub threads: usize,
    /// Jobs that may wait.
    pub max_queue: usize,
    /// Bytes of memory that all jobs being run may take.
    pub max_in_flight_bytes: u64,
    /// Waiting so long counts as one level more urgent, in milliseconds, from 1.
    pub ageing_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            threads: 0,
            max_queue: 1024,
            max_in_flight_bytes: 80_000_000,
            ageing_ms: 1000,
        }
    }
}

/// The pool took no job: it is full or closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The queue is used up.
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

/// Hands jobs to the threads that run [`Worker`]s.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

/// One thread's part of the pool; `app` names and joins the thread.
pub struct Worker(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Waits for a job that may begin; signalled only while somebody sleeps.
    wakeup: Condvar,
    room: Room,
    rules: Rules,
    /// Not yet dropped.
    workers: AtomicUsize,
    metrics: Arc<Metrics>,
}

impl Pool {
    /// A pool and its workers, one per thread.
    pub fn new(config: &Config, threads: usize, metrics: Arc<Metrics>) -> (Self, Vec<Worker>) {
        let threads = threads.max(1);
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new(Duration::from_millis(config.ageing_ms))),
            wakeup: Condvar::new(),
            room: Room::new(config.max_queue),
            rules: Rules::new(threads, config.max_in_flight_bytes),
            workers: AtomicUsize::new(threads),
            metrics,
        });
        let workers = (0..threads).map(|_| Worker(Arc::clone(&shared))).collect();
        (Self(shared), workers)
    }

    /// How long a job with so many bytes would take if it came now. Of those that wait, only what would go before it counts.
    pub fn expected(&self, asker: Asker, bytes: u64) -> Expected {
        let state = self.0.lock();
        Expected {
            waits: state.wait(self.0.rules, asker, bytes),
            takes: duration(state.expected(bytes)),
        }
    }

    /// Queues `job`, which begins when there is room for its `bytes` of memory and holds them until it ends. Never blocks. A
    /// job that panics is counted and does not end its thread; whatever it captured is dropped. One that says it needs more
    /// than all the room takes all of it.
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
        if let Err(limit) = self.0.room.admits(state.waiting(), state.seats_of(asker)) {
            let wait = state.wait(self.0.rules, asker, bytes);
            return Err(Refused::Full(Full { wait, limit }));
        }
        state.put(self.0.rules, asker, bytes, Box::new(job));
        let wake = state.sleeping > 0;
        drop(state);
        if wake {
            self.0.wakeup.notify_one();
        }
        Ok(())
    }

    /// Bytes of memory that one job may take at most.
    pub fn largest(&self) -> u64 {
        self.0.rules.max_large_bytes()
    }

    /// Takes no more jobs; workers end once the queues are empty.
    pub fn close(&self) {
        self.0.lock().closed = true;
        self.0.wakeup.notify_all();
    }
}

impl Worker {
    /// Runs jobs until the pool is closed and empty.
    pub fn run(self) {
        while let Some(Job { work, load }) = self.0.next() {
            #[cfg(feature = "failpoints")]
            crate::failpoints::fails(crate::failpoints::Place::DecodeThread);
            let begun = Instant::now();
            if catch_unwind(AssertUnwindSafe(work)).is_err() {
                self.0.metrics.decode_panics.inc();
            }
            self.0.done(load, begun.elapsed());
        }
    }
}

impl Drop for Worker {
    /// Without the last nobody would run what waits: it is dropped, and so is all that would come.
    fn drop(&mut self) {
        if self.0.workers.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        let mut state = self.0.lock();
        state.closed = true;
        let left = state.clear();
        drop(state);
        drop(left);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.take(self.rules) {
                self.metrics.decode_in_flight_bytes.add(job.load.bytes as i64);
                return Some(job);
            }
            if state.closed && state.waiting() == 0 {
                return None;
            }
            state.sleeping += 1;
            state = self.wakeup.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.sleeping -= 1;
        }
    }

    fn done(&self, load: Load, spent: Duration) {
        let mut state = self.lock();
        state.end(self.rules, load, spent);
        self.metrics.decode_in_flight_bytes.sub(load.bytes as i64);
        // The room that came free may be what a waiting job needs, and this thread takes one job at most. At the end the
        // others see that nothing is left.
        let wake = state.sleeping > 0 && (state.waiting() > 0 || state.closed);
        drop(state);
        if wake {
            self.wakeup.notify_all();
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

    pub(super) const ANYONE: Asker = Asker {
        urgency: Urgency::DEFAULT,
        client: Client(0),
    };

    fn pool(threads: usize, max_queue: usize, max_bytes: u64) -> (Pool, Vec<Worker>, Arc<Metrics>) {
        let metrics = Metrics::new(&[]);
        let config = Config {
            threads,
            max_queue,
            max_in_flight_bytes: max_bytes,
            ageing_ms: 1000,
        };
        let (pool, workers) = Pool::new(&config, threads, Arc::clone(&metrics));
        (pool, workers, metrics)
    }

    /// Of a pool of 4000 bytes: at most 100 are small.
    pub(super) const ROOM: u64 = 4000;
    pub(super) const SMALL: u64 = 100;

    #[test]
    fn jobs_of_a_kind_run_in_order_until_the_pool_is_closed_and_empty() {
        let (pool, workers, metrics) = pool(1, 10, ROOM);
        let (send, receive) = mpsc::channel();
        for number in 0..6 {
            let send = send.clone();
            let bytes = if number % 2 == 0 { SMALL } else { 2 * ROOM };
            pool.submit(ANYONE, bytes, move || send.send(number).unwrap())
                .unwrap();
        }
        pool.close();
        assert_eq!(pool.submit(ANYONE, 1, || {}), Err(Refused::Closed));
        workers.into_iter().for_each(Worker::run);
        let (even, odd): (Vec<_>, Vec<_>) = receive.try_iter().partition(|number| number % 2 == 0);
        assert_eq!((even, odd), (vec![0, 2, 4], vec![1, 3, 5]));
        assert_eq!(metrics.decode_in_flight_bytes.get(), 0);
    }

    #[test]
    fn the_urgent_and_the_modest_do_not_wait_for_all_that_is_there() {
        for bytes in [1, ROOM] {
            let (pool, workers, _) = pool(1, 100, ROOM);
            let (send, receive) = mpsc::channel();
            let submit = |level: u8, client: u64, number: u32| {
                let (urgency, client) = (Urgency::new(level).unwrap(), Client(client));
                let send = send.clone();
                let asker = Asker { urgency, client };
                pool.submit(asker, bytes, move || send.send(number).unwrap())
                    .unwrap();
            };
            (0..3).for_each(|number| submit(3, 1, number));
            submit(3, 2, 10);
            submit(0, 1, 20);
            pool.close();
            workers.into_iter().for_each(Worker::run);
            assert_eq!(receive.try_iter().collect::<Vec<_>>(), [20, 0, 10, 1, 2]);
        }
    }

    #[test]
    fn the_queue_is_bounded_whatever_its_jobs_take() {
        let (pool, _workers, metrics) = pool(1, 2, ROOM);
        assert_eq!(
            [1, 2 * ROOM, 1].map(|bytes| pool.submit(ANYONE, bytes, || {}).is_ok()),
            [true, true, false]
        );
        // What waits takes no room yet.
        assert_eq!(metrics.decode_in_flight_bytes.get(), 0);
    }

    #[test]
    fn room_that_comes_free_lets_the_next_begin() {
        let (pool, workers, _) = pool(3, 9, ROOM);
        let (send, receive) = mpsc::channel();
        let (go, gate) = mpsc::channel::<()>();
        let send_first = send.clone();
        pool.submit(ANYONE, ROOM, move || {
            send_first.send("begun").unwrap();
            gate.recv().unwrap();
            send_first.send("ended").unwrap();
        })
        .unwrap();
        let threads: Vec<_> = workers
            .into_iter()
            .map(|worker| thread::Builder::new().spawn(|| worker.run()).unwrap())
            .collect();
        assert_eq!(receive.recv(), Ok("begun"));
        let send_second = send.clone();
        pool.submit(ANYONE, ROOM, move || send_second.send("second").unwrap())
            .unwrap();
        pool.submit(ANYONE, SMALL, move || send.send("small").unwrap())
            .unwrap();
        // The small one needs nothing of what the large ones wait for.
        assert_eq!(receive.recv(), Ok("small"));
        go.send(()).unwrap();
        assert_eq!(receive.iter().take(2).collect::<Vec<_>>(), ["ended", "second"]);
        pool.close();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }

    #[test]
    fn a_panic_is_counted_and_its_bytes_come_back() {
        let (pool, workers, metrics) = pool(1, 9, ROOM);
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
    fn without_a_worker_what_waits_is_dropped_and_nothing_is_taken() {
        let (pool, workers, metrics) = pool(1, 9, 10);
        let (send, receive) = mpsc::channel::<()>();
        pool.submit(ANYONE, 5, move || drop(send)).unwrap();
        drop(workers);
        assert_eq!(receive.try_recv(), Err(mpsc::TryRecvError::Disconnected));
        assert_eq!(metrics.decode_in_flight_bytes.get(), 0);
        assert_eq!(pool.submit(ANYONE, 1, || {}), Err(Refused::Closed));
    }

    #[test]
    fn a_sleeping_worker_wakes_for_a_job_and_for_the_end() {
        let (pool, mut workers, _) = pool(1, 9, 10);
        let worker = workers.pop().unwrap();
        let thread = thread::Builder::new().spawn(move || worker.run()).unwrap();
        let (send, receive) = mpsc::channel();
        pool.submit(ANYONE, 1, move || send.send(7).unwrap()).unwrap();
        assert_eq!(receive.recv(), Ok(7));
        pool.close();
        thread.join().unwrap();
    }
}
