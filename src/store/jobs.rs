//! Retraining jobs as rows: what was asked, where it stands, what it told.

use std::fmt;
use std::str::FromStr;

use sqlx::{Database, Row};

use super::{Db, Store, StoreError, Writing, number, page, parsed};
use crate::model::{ModelName, Version};

mod events;
mod evidence;
mod leases;
mod requests;

pub use events::{Event, MAX_EVENTS};
pub use evidence::LiveAccuracy;
pub use leases::{JobEnd, Lease, Reclaimed, Standing, Wish};
pub use requests::{JobError, NewJob, Submitted};

/// A job's number, from 1, in the order of their submission over all models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(i64);

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobState {
    /// Waits for somebody to run it.
    Queued,
    /// Somebody runs it.
    Running,
    /// Stands still until it is resumed.
    Paused,
    /// Ended with all that was asked.
    Succeeded,
    /// Ended with a version that the gate did not bless.
    Refused,
    /// Ended by its own fault; may be resumed.
    Failed,
    /// Ended from outside, once too often or by a signal; may be resumed.
    Interrupted,
    /// Ended because somebody said so.
    Cancelled,
}

/// Who or what asked for a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Somebody.
    Manual,
    /// The time of the schedule.
    Schedule,
    /// So many new labels.
    Labels,
    /// The measured accuracy.
    Accuracy,
}

/// Every state with its text.
pub const JOB_STATES: [(JobState, &str); 8] = [
    (JobState::Queued, "queued"),
    (JobState::Running, "running"),
    (JobState::Paused, "paused"),
    (JobState::Succeeded, "succeeded"),
    (JobState::Refused, "refused"),
    (JobState::Failed, "failed"),
    (JobState::Interrupted, "interrupted"),
    (JobState::Cancelled, "cancelled"),
];

const CAUSES: [(Cause, &str); 4] = [
    (Cause::Manual, "manual"),
    (Cause::Schedule, "schedule"),
    (Cause::Labels, "labels"),
    (Cause::Accuracy, "accuracy"),
];

/// A job as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Its number.
    pub id: JobId,
    /// Whose new version it makes.
    pub model: ModelName,
    /// What was asked, as JSON.
    pub request: String,
    /// Where it stands.
    pub state: JobState,
    /// Who or what asked.
    pub cause: Cause,
    /// When it was asked for, in Unix milliseconds.
    pub created_ms: i64,
    /// When it was last taken.
    pub started_ms: Option<i64>,
    /// When it ended.
    pub ended_ms: Option<i64>,
    /// How often it was taken.
    pub attempt: u32,
    /// What was asked of it while it runs and has not happened yet.
    pub wish: Option<Wish>,
    /// Why it stands where it stands, where that needs a word.
    pub reason: Option<String>,
    /// The version that it made.
    pub version: Option<Version>,
    /// Whether that became the champion.
    pub promoted: Option<bool>,
    /// How far it came.
    pub progress: JobProgress,
}

/// How far a job came; `None` is what it has not told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobProgress {
    /// The phase's name.
    pub phase: Option<String>,
    /// Epochs done.
    pub epoch: Option<u32>,
    /// Of how many, at most.
    pub epochs: Option<u32>,
    /// Mean loss of the last epoch, in nats.
    pub loss: Option<f64>,
    /// Accuracy of the last epoch, 0 to 1.
    pub accuracy: Option<f64>,
    /// Estimated time until training ends, in seconds.
    pub eta_seconds: Option<f64>,
}

/// Which jobs a listing holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobFilter {
    /// Those of this model alone.
    pub model: Option<ModelName>,
    /// Those in this state alone.
    pub state: Option<JobState>,
}

impl Store {
    /// The job `id`, where there is one.
    pub async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        let row = sqlx::query("SELECT * FROM jobs WHERE id = $1").bind(id.0);
        row.fetch_optional(&self.pool)
            .await?
            .as_ref()
            .map(job)
            .transpose()
    }

    /// Jobs, the newest first, `limit` of them (at most [`super::MAX_PAGE`]).
    pub async fn jobs(&self, filter: &JobFilter, limit: usize) -> Result<Vec<Job>, StoreError> {
        let sought = "SELECT * FROM jobs WHERE ($1 = '' OR model = $1) AND ($2 = '' OR state = $2) \
                      ORDER BY id DESC LIMIT $3";
        let rows = sqlx::query(sought)
            .bind(filter.model.as_ref().map(ModelName::as_str).unwrap_or_default())
            .bind(filter.state.map(JobState::text).unwrap_or_default())
            .bind(page(limit))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(job).collect()
    }

    /// How many jobs are in each state, in the order of [`JOB_STATES`].
    pub async fn job_counts(&self) -> Result<[u64; JOB_STATES.len()], StoreError> {
        let rows: Vec<(String, i64)> = sqlx::query_as("SELECT state, COUNT(*) FROM jobs GROUP BY state")
            .fetch_all(&self.pool)
            .await?;
        Ok(JOB_STATES.map(|(_, text)| {
            let found = rows.iter().find(|(state, _)| state == text);
            found.map_or(0, |&(_, count)| count.unsigned_abs())
        }))
    }
}

impl JobState {
    /// As rows and JSON name it.
    pub fn text(self) -> &'static str {
        name(&JOB_STATES, self)
    }

    /// Whether the job waits or runs: while it does, its model has no other.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Queued | Self::Running)
    }

    /// Whether it may wait and run again.
    pub fn is_resumable(self) -> bool {
        matches!(self, Self::Paused | Self::Failed | Self::Interrupted)
    }
}

impl Cause {
    /// As rows and JSON name it.
    pub fn text(self) -> &'static str {
        name(&CAUSES, self)
    }
}

fn name<T: PartialEq + Copy>(names: &[(T, &'static str)], value: T) -> &'static str {
    let found = names.iter().find(|(other, _)| *other == value);
    found.map_or("", |&(_, text)| text)
}

fn named<T: Copy>(names: &[(T, &str)], text: &str, what: &str) -> Result<T, StoreError> {
    let found = names.iter().find(|(_, name)| *name == text);
    let invalid = || StoreError::Invalid(format!("'{text}' is no {what}"));
    found.map(|&(value, _)| value).ok_or_else(invalid)
}

impl FromStr for JobState {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        named(&JOB_STATES, text, "state of a job")
    }
}

impl FromStr for JobId {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let number = text.parse().ok().filter(|&number: &i64| number > 0);
        let plain = number.filter(|number| number.to_string() == text);
        let invalid = || StoreError::Invalid("a job's id is a whole number from 1".to_owned());
        plain.map(Self).ok_or_else(invalid)
    }
}

impl JobId {
    /// The number.
    pub fn number(self) -> i64 {
        self.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

fn job(row: &<Db as Database>::Row) -> Result<Job, StoreError> {
    let text = |column: &str| row.try_get::<String, _>(column);
    let count = |column: &str| row.try_get::<Option<i64>, _>(column)?.map(number).transpose();
    let version = count("version")?.map(version).transpose()?;
    let wish: Option<String> = row.try_get("wish")?;
    let promoted: Option<i64> = row.try_get("promoted")?;
    Ok(Job {
        id: JobId(row.try_get("id")?),
        model: parsed(&text("model")?)?,
        request: text("request")?,
        state: parsed(&text("state")?)?,
        cause: named(&CAUSES, &text("cause")?, "cause of a job")?,
        created_ms: row.try_get("created_ms")?,
        started_ms: row.try_get("started_ms")?,
        ended_ms: row.try_get("ended_ms")?,
        attempt: number(row.try_get("attempt")?)?,
        wish: wish.as_deref().map(str::parse).transpose()?,
        reason: row.try_get("reason")?,
        version,
        promoted: promoted.map(|promoted| promoted != 0),
        progress: JobProgress {
            phase: row.try_get("phase")?,
            epoch: count("epoch")?,
            epochs: count("epochs")?,
            loss: row.try_get("loss")?,
            accuracy: row.try_get("accuracy")?,
            eta_seconds: row.try_get("eta_seconds")?,
        },
    })
}

fn version(number: u32) -> Result<Version, StoreError> {
    let version = Version::try_from(number);
    version.map_err(|error| StoreError::Database(sqlx::Error::Decode(error.to_string().into())))
}

/// Where the job stands, under the write lock.
async fn state(writing: &mut Writing, id: JobId) -> Result<Option<JobState>, StoreError> {
    let found: Option<String> = sqlx::query_scalar("SELECT state FROM jobs WHERE id = $1")
        .bind(id.0)
        .fetch_optional(&mut **writing)
        .await?;
    found.as_deref().map(str::parse).transpose()
}

/// Puts the job in a state, with the reason for it, and tells so among its events.
async fn put(
    writing: &mut Writing,
    id: JobId,
    (state, reason): (JobState, Option<&str>),
    now_ms: i64,
) -> Result<(), StoreError> {
    // Waiting, running and pausing are no ends.
    let ended = !state.is_active() && state != JobState::Paused;
    let row = "UPDATE jobs SET state = $2, reason = $3, ended_ms = $4, wish = NULL WHERE id = $1";
    sqlx::query(row)
        .bind(id.0)
        .bind(state.text())
        .bind(reason)
        .bind(ended.then_some(now_ms))
        .execute(&mut **writing)
        .await?;
    let line = match reason {
        Some(reason) => serde_json::json!({"event": "state", "state": state.text(), "reason": reason}),
        None => serde_json::json!({"event": "state", "state": state.text()}),
    };
    events::append(writing, id, &[line.to_string()], now_ms).await
}
