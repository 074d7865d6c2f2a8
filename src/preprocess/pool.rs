//! The bounded pool that decodes: a byte budget, a few threads, panics caught.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

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
}

impl Default for Config {
    fn default() -> Self {
        Self {
            threads: 0,
            max_queue: 1024,
            max_in_flight_bytes: 96 << 20,
        }
    }
}

/// The pool took no job: it is full or closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The queue or the byte budget is used up.
    #[error("too many images are waiting to be decoded")]
    Full,
    /// [`Pool::close`] was called.
    #[error("the server is shutting down")]
    Closed,
}

/// Hands jobs to the threads that run [`Worker`]s.
#[derive(Clone, Debug)]
pub struct Pool {
    metrics: Arc<Metrics>,
}

/// One thread's part of the pool; `app` names and joins the thread.
#[derive(Debug)]
pub struct Worker {
    _pool: Pool,
}

impl Pool {
    /// A pool and its workers, one per thread.
    pub fn new(_config: &Config, _metrics: Arc<Metrics>) -> (Self, Vec<Worker>) {
        todo!()
    }

    /// Queues `job`, which holds `bytes` of the budget until it ends. Never blocks. A job that panics is counted and
    /// does not end its thread; whatever it captured is dropped.
    pub fn submit(&self, _bytes: u64, _job: impl FnOnce() + Send + 'static) -> Result<(), Refused> {
        let _ = &self.metrics;
        todo!()
    }

    /// Takes no more jobs; workers end once the queue is empty.
    pub fn close(&self) {
        todo!()
    }
}

impl Worker {
    /// Runs jobs until the pool is closed and empty.
    pub fn run(self) {
        todo!()
    }
}
