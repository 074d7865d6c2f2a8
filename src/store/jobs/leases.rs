//! Running a job: whoever holds the lease of its model, and nobody else.
//!
//! A holder that is late finds its lease taken over, and nothing that it says counts any more: every call names the job, the
//! attempt and the holder, and changes nothing where they are not those of the lease.

use std::str::FromStr;

use super::super::{Key, Store, StoreError, Writing, number, parsed};
use super::{JobId, JobProgress, JobState, events, named, put};
use crate::model::{ModelName, Version};

/// The right to run a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Which.
    pub job: JobId,
    /// Its model; its lease is held.
    pub model: ModelName,
    /// What is asked, as JSON.
    pub request: String,
    /// How often the job was taken, this time included.
    pub attempt: u32,
    holder: Key,
}

/// What was asked of a job while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// End it for good.
    Cancel,
    /// Stop it until it is resumed.
    Pause,
}

/// Whether a lease still holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It does; what was asked of the job meanwhile.
    Held(Option<Wish>),
    /// It was taken over.
    Lost,
}

/// How a job stops running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobEnd {
    /// Where it stands then.
    pub state: JobState,
    /// Why, where that needs a word.
    pub reason: Option<String>,
    /// The version that it made.
    pub version: Option<Version>,
    /// Whether that became the champion.
    pub promoted: Option<bool>,
}

/// A job whose holder died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reclaimed {
    /// Which.
    pub job: JobId,
    /// Whether it waits again; else it was lost too often.
    pub is_queued: bool,
}

const WISHES: [(Wish, &str); 2] = [(Wish::Cancel, "cancel"), (Wish::Pause, "pause")];

/// The lease of these arguments, in each statement that only its holder may make.
const HELD: &str = "EXISTS (SELECT 1 FROM leases WHERE job = $1 AND attempt = $2 AND holder = $3)";

impl Store {
    /// Takes the oldest queued job whose model nobody holds, for `ttl_ms`; `None` where there is none.
    pub async fn take_job(
        &self,
        holder: &Key,
        now_ms: i64,
        ttl_ms: i64,
    ) -> Result<Option<Lease>, StoreError> {
        let queued = sqlx::query_scalar("SELECT COUNT(*) FROM jobs WHERE state = 'queued'");
        let queued: i64 = queued.fetch_one(&self.pool).await?;
        // Mostly nothing waits; then nobody is kept from writing.
        if queued == 0 {
            return Ok(None);
        }
        let mut writing = self.begin().await?;
        let Some(lease) = next(&mut writing, holder, now_ms).await? else {
            return Ok(None);
        };
        let row = "INSERT INTO leases (model, job, attempt, holder, heartbeat_ms, expires_ms) \
                   VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (model) DO UPDATE SET job = excluded.job, \
                   attempt = excluded.attempt, holder = excluded.holder, heartbeat_ms = excluded.heartbeat_ms, \
                   expires_ms = excluded.expires_ms";
        sqlx::query(row)
            .bind(lease.model.as_str())
            .bind(lease.job.0)
            .bind(i64::from(lease.attempt))
            .bind(lease.holder.as_str())
            .bind(now_ms)
            .bind(now_ms.saturating_add(ttl_ms))
            .execute(&mut *writing)
            .await?;
        let row = "UPDATE jobs SET started_ms = $2, attempt = $3 WHERE id = $1";
        sqlx::query(row)
            .bind(lease.job.0)
            .bind(now_ms)
            .bind(i64::from(lease.attempt))
            .execute(&mut *writing)
            .await?;
        put(&mut writing, lease.job, (JobState::Running, None), now_ms).await?;
        writing.commit().await?;
        Ok(Some(lease))
    }

    /// Prolongs the lease to `ttl_ms` from now.
    pub async fn heartbeat(&self, lease: &Lease, now_ms: i64, ttl_ms: i64) -> Result<Standing, StoreError> {
        let row = "UPDATE leases SET heartbeat_ms = $4, expires_ms = $5 \
                   WHERE job = $1 AND attempt = $2 AND holder = $3";
        sqlx::query(row)
            .bind(lease.job.0)
            .bind(i64::from(lease.attempt))
            .bind(lease.holder.as_str())
            .bind(now_ms)
            .bind(now_ms.saturating_add(ttl_ms))
            .execute(&self.pool)
            .await?;
        self.standing(lease).await
    }

    /// Whether the lease still holds, and what was asked of the job meanwhile.
    pub async fn standing(&self, lease: &Lease) -> Result<Standing, StoreError> {
        let sought = format!("SELECT wish FROM jobs WHERE id = $1 AND {HELD}");
        let found: Option<Option<String>> = sqlx::query_scalar(sqlx::AssertSqlSafe(sought))
            .bind(lease.job.0)
            .bind(i64::from(lease.attempt))
            .bind(lease.holder.as_str())
            .fetch_optional(&self.pool)
            .await?;
        match found {
            Some(wish) => Ok(Standing::Held(wish.as_deref().map(str::parse).transpose()?)),
            None => Ok(Standing::Lost),
        }
    }

    /// Keeps lines that the job told, and how far it is. Whether the lease still holds; if not, nothing is kept.
    pub async fn record_job(
        &self,
        lease: &Lease,
        lines: &[String],
        progress: &JobProgress,
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        let mut writing = self.begin().await?;
        let row = format!(
            "UPDATE jobs SET phase = $4, epoch = $5, epochs = $6, loss = $7, accuracy = $8, eta_seconds = $9 \
             WHERE id = $1 AND {HELD}"
        );
        let updated = sqlx::query(sqlx::AssertSqlSafe(row))
            .bind(lease.job.0)
            .bind(i64::from(lease.attempt))
            .bind(lease.holder.as_str())
            .bind(&progress.phase)
            .bind(progress.epoch.map(i64::from))
            .bind(progress.epochs.map(i64::from))
            .bind(progress.loss)
            .bind(progress.accuracy)
            .bind(progress.eta_seconds)
            .execute(&mut *writing)
            .await?;
        if updated.rows_affected() == 0 {
            return Ok(false);
        }
        events::append(&mut writing, lease.job, lines, now_ms).await?;
        writing.commit().await?;
        Ok(true)
    }

    /// Gives the lease back with what came of the job: an end, a pause, or the queue again. Whether the lease still held; if
    /// not, nothing changes.
    pub async fn end_job(&self, lease: &Lease, end: &JobEnd, now_ms: i64) -> Result<bool, StoreError> {
        let mut writing = self.begin().await?;
        let row = "DELETE FROM leases WHERE job = $1 AND attempt = $2 AND holder = $3";
        let given = sqlx::query(row)
            .bind(lease.job.0)
            .bind(i64::from(lease.attempt))
            .bind(lease.holder.as_str())
            .execute(&mut *writing)
            .await?;
        if given.rows_affected() == 0 {
            return Ok(false);
        }
        sqlx::query("UPDATE jobs SET version = $2, promoted = $3 WHERE id = $1")
            .bind(lease.job.0)
            .bind(end.version.map(|version| i64::from(version.number())))
            .bind(end.promoted.map(i64::from))
            .execute(&mut *writing)
            .await?;
        let standing = (end.state, end.reason.as_deref());
        put(&mut writing, lease.job, standing, now_ms).await?;
        writing.commit().await?;
        Ok(true)
    }

    /// Frees the jobs whose holder's lease has run out: each waits again, until that has happened `max_losses` times; then it
    /// is interrupted until somebody resumes it. A job that was to be cancelled or paused is. A lease that was written in the
    /// future, by more than its time, is of a clock that was set back since: it has run out too.
    pub async fn reclaim_jobs(&self, now_ms: i64, max_losses: u32) -> Result<Vec<Reclaimed>, StoreError> {
        let dead = "SELECT j.id, j.losses, j.wish FROM jobs j WHERE j.state = 'running' AND NOT EXISTS (\
                    SELECT 1 FROM leases l WHERE l.job = j.id AND l.expires_ms > $1 \
                    AND l.heartbeat_ms <= $1 + (l.expires_ms - l.heartbeat_ms)) ORDER BY j.id";
        let found: Vec<(i64, i64, Option<String>)> =
            sqlx::query_as(dead).bind(now_ms).fetch_all(&self.pool).await?;
        if found.is_empty() {
            return Ok(Vec::new());
        }
        let mut writing = self.begin().await?;
        // Read again: another process may have been quicker.
        let found: Vec<(i64, i64, Option<String>)> =
            sqlx::query_as(dead).bind(now_ms).fetch_all(&mut *writing).await?;
        let mut reclaimed = Vec::new();
        for (id, losses, wish) in found {
            let (job, losses) = (JobId(id), number(losses)? + 1);
            let wish = wish.as_deref().map(str::parse).transpose()?;
            let state = free(&mut writing, job, (losses, max_losses, wish), now_ms).await?;
            let is_queued = state == JobState::Queued;
            reclaimed.push(Reclaimed { job, is_queued });
        }
        writing.commit().await?;
        Ok(reclaimed)
    }
}

/// The job to take next, not taken yet.
async fn next(writing: &mut Writing, holder: &Key, now_ms: i64) -> Result<Option<Lease>, StoreError> {
    let sought = "SELECT id, model, request, attempt FROM jobs WHERE state = 'queued' AND NOT EXISTS (\
                  SELECT 1 FROM leases l WHERE l.model = jobs.model AND l.expires_ms > $1) ORDER BY id LIMIT 1";
    let found: Option<(i64, String, String, i64)> = sqlx::query_as(sought)
        .bind(now_ms)
        .fetch_optional(&mut **writing)
        .await?;
    let Some((id, model, request, attempts)) = found else {
        return Ok(None);
    };
    Ok(Some(Lease {
        job: JobId(id),
        model: parsed(&model)?,
        request,
        attempt: number(attempts)? + 1,
        holder: holder.clone(),
    }))
}

/// Takes the job from its dead holder; where it stands then.
async fn free(
    writing: &mut Writing,
    job: JobId,
    (losses, max_losses, wish): (u32, u32, Option<Wish>),
    now_ms: i64,
) -> Result<JobState, StoreError> {
    sqlx::query("DELETE FROM leases WHERE job = $1")
        .bind(job.0)
        .execute(&mut **writing)
        .await?;
    sqlx::query("UPDATE jobs SET losses = $2 WHERE id = $1")
        .bind(job.0)
        .bind(i64::from(losses))
        .execute(&mut **writing)
        .await?;
    let lost = "whoever ran it is gone";
    put(writing, job, (JobState::Interrupted, Some(lost)), now_ms).await?;
    let state = match wish {
        Some(Wish::Cancel) => JobState::Cancelled,
        Some(Wish::Pause) => JobState::Paused,
        None if losses < max_losses => JobState::Queued,
        None => return Ok(JobState::Interrupted),
    };
    put(writing, job, (state, None), now_ms).await?;
    Ok(state)
}

impl Wish {
    /// As rows and JSON name it.
    pub fn text(self) -> &'static str {
        super::name(&WISHES, self)
    }
}

impl FromStr for Wish {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        named(&WISHES, text, "wish")
    }
}
