//! Retraining in the background: who asks for it, which process runs it, what comes of it.
//!
//! A job runs as a child process, so that nothing that it does can harm the answers (why:
//! docs/decisions/0013-jobs.md). A [`Worker`] takes jobs from the store, whichever process it lives in.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::retrain::RequestError;
use crate::store::{JobError, StoreError};

mod child;
mod clock;
mod desk;
mod ending;
mod folder;
mod lines;
mod schedule;
mod supervise;
mod triggers;
mod worker;

pub use child::Launch;
pub use desk::{Ask, Desk, Known};
pub use worker::{Setup, Worker};

/// How jobs run, and what starts them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Whether the server runs jobs itself; else `sconce worker` does.
    pub enabled: bool,
    /// Threads of a job, 1 to 1024.
    pub threads: usize,
    /// Most bytes of memory that a job may allocate; 0 is no limit.
    pub memory_bytes: u64,
    /// Days until the checkpoint of a job that failed is deleted, 1 to 3650.
    pub keep_days: u32,
    /// Most callers that follow jobs' events at once, from 1.
    pub max_listeners: usize,
    /// When every model is retrained, as crontab(5) writes it, in UTC; empty: never.
    pub schedule: String,
    /// So many images labelled since the last job start one; 0: never.
    pub new_labels: u64,
    /// A live accuracy that is surely under this starts a job, 0 to 1; 0: never.
    pub accuracy_floor: f64,
    /// Minutes after a job in which none is started by itself.
    pub cooldown_minutes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            threads: 1,
            memory_bytes: 0,
            keep_days: 7,
            max_listeners: 64,
            schedule: String::new(),
            new_labels: 0,
            accuracy_floor: 0.0,
            cooldown_minutes: 60,
        }
    }
}

impl Config {
    /// Tells, as `key: problem`, which value is out of its range.
    pub fn check(&self) -> Result<(), String> {
        for (key, value, most) in [
            ("threads", self.threads as u64, 1024),
            ("keep_days", u64::from(self.keep_days), 3650),
            ("max_listeners", self.max_listeners as u64, 1_000_000),
        ] {
            if !(1..=most).contains(&value) {
                return Err(format!("{key}: {value}; 1 to {most} is possible"));
            }
        }
        for (key, value, most) in [
            ("memory_bytes", self.memory_bytes, 1 << 50),
            ("new_labels", self.new_labels, 1_000_000_000),
            ("cooldown_minutes", self.cooldown_minutes, 525_600),
        ] {
            if value > most {
                return Err(format!("{key}: {value}; 0 to {most} is possible"));
            }
        }
        if !(0.0..=1.0).contains(&self.accuracy_floor) {
            return Err(format!(
                "accuracy_floor: {}; 0 to 1 is possible",
                self.accuracy_floor
            ));
        }
        let schedule = schedule::Schedule::parse(&self.schedule);
        schedule
            .map_err(|problem| format!("schedule: {problem}"))
            .map(drop)
    }
}

/// Why a job could not be had, or not be run.
#[derive(Debug, thiserror::Error)]
pub enum JobsError {
    /// No such model.
    #[error("there is no model '{0}'")]
    Model(String),
    /// A request that is not possible.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The rows say no.
    #[error(transparent)]
    Job(#[from] JobError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file, a folder or the process.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: String,
        /// The system's word.
        source: io::Error,
    },
}

/// The folder of the jobs' checkpoints, in that of the store.
fn jobs_folder(store: &Path) -> PathBuf {
    store.join("jobs")
}

fn failed(what: &dyn std::fmt::Display) -> impl FnOnce(io::Error) -> JobsError + use<> {
    let what = what.to_string();
    |source| JobsError::Io { what, source }
}

#[cfg(test)]
mod tests;
