//! What is kept of predictions, what sources say of them, the images to learn from, and the jobs that learn.
//!
//! Rows lie in a database, images in files named by their sha256 (why: docs/decisions/0011-store.md). What a
//! call has acknowledged is on the disk; a call that fails has kept nothing. No call reads the clock: times are passed in,
//! as Unix milliseconds. Several processes may hold one store open.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sqlx::Pool;

mod blobs;
mod database;
mod erasure;
mod error;
mod expiry;
mod feedback;
mod jobs;
mod key;
mod labels;
mod learners;
mod learning;
mod predictions;
mod review;
mod samples;
mod tallies;
#[cfg(test)]
mod tests;

use blobs::{Blobs, aside};
use database::{Db, Writing};

pub use erasure::Erased;
pub use error::StoreError;
pub use expiry::Expiry;
pub use feedback::{Feedback, Subject};
pub use jobs::{
    Cause, Event, JOB_STATES, Job, JobEnd, JobError, JobFilter, JobId, JobProgress, JobState, Lease,
    LiveAccuracy, MAX_EVENTS, NewJob, Reclaimed, Standing, Submitted, Wish,
};
pub use key::{Digest, Key, sampled};
pub use labels::{Classes, Outcome};
pub use learners::{Learner, Staged};
pub use learning::Example;
pub use predictions::{Keeping, Kept};
pub use review::{Conflict, Count, Decision, Judged, State};
pub use samples::Sample;
pub use tallies::{LabelMark, Tally};

/// What is kept, for how long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Folder of the database and the images; made where it is missing. Empty: nothing is kept.
    pub folder: PathBuf,
    /// Share of predictions to keep, 0 to 1, of a model that says nothing else.
    pub sampling_rate: f64,
    /// Whether the images of kept predictions are kept too, of a model that says nothing else. Samples always keep
    /// theirs.
    pub keep_images: bool,
    /// Days until a kept prediction is deleted, 1 to 3650.
    pub retention_days: u32,
    /// Whether the time at the start is right however far it is from the last expiry.
    pub trust_clock: bool,
    /// Most labels that one source may give in a day (UTC), from 1.
    pub max_labels_per_source_per_day: u32,
    /// Predictions that may wait to be kept, from 1; further ones are not kept.
    pub max_queue: usize,
    /// Bytes of the images that wait with them, from 1.
    pub max_queue_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            folder: PathBuf::from("data"),
            sampling_rate: 0.0,
            keep_images: false,
            retention_days: 30,
            trust_clock: false,
            max_labels_per_source_per_day: 10_000,
            max_queue: 1024,
            max_queue_bytes: 64 << 20,
        }
    }
}

impl Config {
    /// Tells, as `key: problem`, which value is out of its range.
    pub fn check(&self) -> Result<(), String> {
        if !(0.0..=1.0).contains(&self.sampling_rate) {
            return Err(format!("sampling_rate: {} is not 0 to 1", self.sampling_rate));
        }
        if !(1..=3650).contains(&self.retention_days) {
            return Err(format!(
                "retention_days: {} is not 1 to 3650",
                self.retention_days
            ));
        }
        for (key, value) in [
            (
                "max_labels_per_source_per_day",
                self.max_labels_per_source_per_day as usize,
            ),
            ("max_queue", self.max_queue),
            ("max_queue_bytes", self.max_queue_bytes),
        ] {
            if value == 0 {
                return Err(format!("{key}: 0 is not from 1"));
            }
        }
        Ok(())
    }
}

/// Most rows that one page of a listing holds.
pub const MAX_PAGE: usize = 10_000;

const DAY_MS: i64 = 86_400_000;

/// An open store.
#[derive(Debug)]
pub struct Store {
    pool: Pool<Db>,
    blobs: Blobs,
    retention_ms: i64,
    quota: i64,
}

impl Store {
    /// Opens the store in the configured folder, making what is missing; nobody but the owner may read it.
    ///
    /// # Errors
    ///
    /// A value out of its range, a folder or file that cannot be used, a database of a newer program.
    pub async fn open(config: &Config) -> Result<Self, StoreError> {
        let invalid = |problem| StoreError::Invalid(format!("store.{problem}"));
        config.check().map_err(invalid)?;
        let (folder, images) = (config.folder.clone(), config.folder.join("images"));
        let made = images.clone();
        // One opens at a time, over all processes: making a database takes several steps. Released when it is dropped.
        let _lock = aside(move || {
            make_folder(&folder)?;
            make_folder(&made)?;
            lock(&folder.join("store.lock"))
        })
        .await?;
        Ok(Self {
            pool: database::open(&config.folder.join("store.sqlite")).await?,
            blobs: Blobs::open(&images)?,
            retention_ms: i64::from(config.retention_days) * DAY_MS,
            quota: i64::from(config.max_labels_per_source_per_day),
        })
    }

    /// Waits for what is under way and closes the database; later calls fail. A store that is dropped instead loses
    /// nothing either.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// The bytes of a kept image, checked against their sha256; `None` where they are not kept.
    pub async fn blob(&self, sha256: &Digest) -> Result<Option<Bytes>, StoreError> {
        self.blobs.get(sha256).await
    }

    async fn begin(&self) -> Result<Writing, StoreError> {
        database::begin(&self.pool).await
    }

    /// Writes the image `sha256`, then its row. The caller commits.
    async fn put(
        &self,
        writing: &mut Writing,
        sha256: &Digest,
        image: &Bytes,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        self.blobs.put(sha256, image.clone()).await?;
        let row =
            "INSERT INTO images (sha256, bytes, at_ms) VALUES ($1, $2, $3) ON CONFLICT (sha256) DO NOTHING";
        sqlx::query(row)
            .bind(sha256.to_string())
            .bind(image.len() as i64)
            .bind(now_ms)
            .execute(&mut **writing)
            .await?;
        Ok(())
    }
}

/// Makes `folder` for the owner alone; one that exists stays as it is.
fn make_folder(folder: &Path) -> Result<(), StoreError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| StoreError::files(folder, error))
}

/// Waits until nobody else holds `file`, and holds it.
fn lock(file: &Path) -> Result<fs::File, StoreError> {
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(file);
    let locked = opened.and_then(|file| -> io::Result<fs::File> {
        file.lock()?;
        Ok(file)
    });
    locked.map_err(|error| StoreError::files(file, error))
}

/// A row's text as the value that it was made from.
fn parsed<T: std::str::FromStr>(text: &str) -> Result<T, StoreError>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    text.parse()
        .map_err(|error: T::Err| StoreError::Database(sqlx::Error::Decode(Box::new(error))))
}

/// A row's number as the value that it was made from.
fn number(value: i64) -> Result<u32, StoreError> {
    u32::try_from(value).map_err(|error| StoreError::Database(sqlx::Error::Decode(Box::new(error))))
}

/// A page's length within its limit.
fn page(limit: usize) -> i64 {
    limit.min(MAX_PAGE) as i64
}
