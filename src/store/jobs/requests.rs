//! What people and triggers ask: submit, cancel, pause, resume.

use super::super::{Key, Store, StoreError, Writing};
use super::{Cause, JobId, JobState, Wish, put, state};
use crate::model::ModelName;

/// A job to be.
#[derive(Clone, Debug, PartialEq)]
pub struct NewJob {
    /// Whose new version it makes.
    pub model: ModelName,
    /// What is asked, as JSON; equal requests have equal texts.
    pub request: String,
    /// Who or what asks.
    pub cause: Cause,
    /// Asking again under the same key is asking once.
    pub key: Option<Key>,
}

/// The job that an asker gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// Which.
    pub id: JobId,
    /// Whether it was made now; else an earlier call with the same key has made it.
    pub is_new: bool,
}

/// Why a job cannot be had or changed.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The model has a job that waits or runs.
    #[error("job {0} of this model waits or runs")]
    Active(JobId),
    /// The idempotency key was given before, with another request.
    #[error("the idempotency key was given before, for job {0} with another request")]
    KeyTaken(JobId),
    /// There is no such job.
    #[error("there is no job {0}")]
    Unknown(JobId),
    /// What is asked is not possible from this state.
    #[error("job {id} is {state}")]
    NotFrom {
        /// Which job.
        id: JobId,
        /// Where it stands.
        state: JobState,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for JobError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Jobs that are kept: one that has ended goes when so many have come after it.
const KEPT_JOBS: i64 = 1_000;

impl Store {
    /// Puts a job in the queue. A model has one job at a time that waits or runs.
    pub async fn submit_job(&self, job: &NewJob, now_ms: i64) -> Result<Submitted, JobError> {
        let mut writing = self.begin().await?;
        if let Some(earlier) = earlier(&mut writing, job).await? {
            return Ok(earlier);
        }
        refuse_active(&mut writing, &job.model).await?;
        let id: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(id), 0) + 1 FROM jobs")
            .fetch_one(&mut *writing)
            .await?;
        let id = JobId(id);
        let row = "INSERT INTO jobs (id, model, request, state, cause, idempotency, created_ms, attempt, losses) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, 0, 0)";
        sqlx::query(row)
            .bind(id.0)
            .bind(job.model.as_str())
            .bind(&job.request)
            .bind(JobState::Queued.text())
            .bind(job.cause.text())
            .bind(job.key.as_ref().map(Key::as_str))
            .bind(now_ms)
            .execute(&mut *writing)
            .await?;
        put(&mut writing, id, (JobState::Queued, None), now_ms).await?;
        prune(&mut writing, id).await?;
        writing.commit().await?;
        Ok(Submitted { id, is_new: true })
    }

    /// Ends a job that has not ended; one that runs is asked to end, which its state still has to show. The state now.
    pub async fn cancel_job(&self, id: JobId, now_ms: i64) -> Result<JobState, JobError> {
        self.ask(id, Wish::Cancel, now_ms).await
    }

    /// Takes a job out of the queue; one that runs is asked to stop, which its state still has to show. The state now.
    pub async fn pause_job(&self, id: JobId, now_ms: i64) -> Result<JobState, JobError> {
        self.ask(id, Wish::Pause, now_ms).await
    }

    /// Puts a job that was paused, failed or interrupted back in the queue; it goes on from its checkpoint.
    pub async fn resume_job(&self, id: JobId, now_ms: i64) -> Result<(), JobError> {
        let mut writing = self.begin().await?;
        let state = state(&mut writing, id).await?.ok_or(JobError::Unknown(id))?;
        if !state.is_resumable() {
            return Err(JobError::NotFrom { id, state });
        }
        let model: String = sqlx::query_scalar("SELECT model FROM jobs WHERE id = $1")
            .bind(id.0)
            .fetch_one(&mut *writing)
            .await?;
        refuse_active(&mut writing, &super::parsed(&model)?).await?;
        sqlx::query("UPDATE jobs SET losses = 0 WHERE id = $1")
            .bind(id.0)
            .execute(&mut *writing)
            .await?;
        put(&mut writing, id, (JobState::Queued, None), now_ms).await?;
        Ok(writing.commit().await?)
    }

    async fn ask(&self, id: JobId, wish: Wish, now_ms: i64) -> Result<JobState, JobError> {
        let mut writing = self.begin().await?;
        let state = state(&mut writing, id).await?.ok_or(JobError::Unknown(id))?;
        let now = match (state, wish) {
            (JobState::Running, _) => {
                // Nothing takes back a cancel.
                let row = "UPDATE jobs SET wish = $2 WHERE id = $1 AND (wish IS NULL OR wish <> $3)";
                sqlx::query(row)
                    .bind(id.0)
                    .bind(wish.text())
                    .bind(Wish::Cancel.text())
                    .execute(&mut *writing)
                    .await?;
                JobState::Running
            }
            (JobState::Queued | JobState::Paused, Wish::Cancel) => JobState::Cancelled,
            (JobState::Queued, Wish::Pause) => JobState::Paused,
            _ => return Err(JobError::NotFrom { id, state }),
        };
        if now != JobState::Running {
            put(&mut writing, id, (now, None), now_ms).await?;
        }
        writing.commit().await?;
        Ok(now)
    }
}

/// The job that the same key asked for before.
async fn earlier(writing: &mut Writing, job: &NewJob) -> Result<Option<Submitted>, JobError> {
    let Some(key) = &job.key else {
        return Ok(None);
    };
    let found: Option<(i64, String, String)> =
        sqlx::query_as("SELECT id, model, request FROM jobs WHERE idempotency = $1")
            .bind(key.as_str())
            .fetch_optional(&mut **writing)
            .await?;
    match found {
        Some((id, model, request)) if model == job.model.as_str() && request == job.request => {
            let (id, is_new) = (JobId(id), false);
            Ok(Some(Submitted { id, is_new }))
        }
        Some((id, ..)) => Err(JobError::KeyTaken(JobId(id))),
        None => Ok(None),
    }
}

async fn refuse_active(writing: &mut Writing, model: &ModelName) -> Result<(), JobError> {
    let sought = "SELECT id FROM jobs WHERE model = $1 AND state IN ('queued', 'running')";
    let active: Option<i64> = sqlx::query_scalar(sought)
        .bind(model.as_str())
        .fetch_optional(&mut **writing)
        .await?;
    active.map_or(Ok(()), |id| Err(JobError::Active(JobId(id))))
}

/// Removes ended jobs that are too many numbers behind the newest, with their events.
async fn prune(writing: &mut Writing, newest: JobId) -> Result<(), JobError> {
    let old = "SELECT id FROM jobs WHERE id <= $1 AND ended_ms IS NOT NULL";
    let ids: Vec<i64> = sqlx::query_scalar(old)
        .bind(newest.0 - KEPT_JOBS)
        .fetch_all(&mut **writing)
        .await?;
    for id in ids {
        for row in [
            "DELETE FROM job_events WHERE job = $1",
            "DELETE FROM jobs WHERE id = $1",
        ] {
            sqlx::query(row).bind(id).execute(&mut **writing).await?;
        }
    }
    Ok(())
}
