//! What a job told, line by line.

use super::super::{Store, StoreError, Writing, page};
use super::JobId;

/// Events that are kept of one job; older ones make room.
pub const MAX_EVENTS: usize = 10_000;

/// An event of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its place among the job's events, from 1.
    pub number: i64,
    /// When it was told, in Unix milliseconds.
    pub at_ms: i64,
    /// A JSON object on one line; its `event` says of what kind it is.
    pub line: String,
}

impl Store {
    /// The job's events that follow number `after`, in order, `limit` of them (at most [`super::super::MAX_PAGE`]).
    pub async fn job_events(&self, id: JobId, after: i64, limit: usize) -> Result<Vec<Event>, StoreError> {
        let sought = "SELECT number, at_ms, line FROM job_events WHERE job = $1 AND number > $2 \
                      ORDER BY number LIMIT $3";
        let rows: Vec<(i64, i64, String)> = sqlx::query_as(sought)
            .bind(id.0)
            .bind(after)
            .bind(page(limit))
            .fetch_all(&self.pool)
            .await?;
        let event = |(number, at_ms, line)| Event { number, at_ms, line };
        Ok(rows.into_iter().map(event).collect())
    }
}

/// Adds lines to the job's events; the oldest go where there are too many.
pub(super) async fn append(
    writing: &mut Writing,
    id: JobId,
    lines: &[String],
    now_ms: i64,
) -> Result<(), StoreError> {
    let mut last: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(number), 0) FROM job_events WHERE job = $1")
        .bind(id.0)
        .fetch_one(&mut **writing)
        .await?;
    for line in lines {
        last += 1;
        sqlx::query("INSERT INTO job_events (job, number, at_ms, line) VALUES ($1, $2, $3, $4)")
            .bind(id.0)
            .bind(last)
            .bind(now_ms)
            .bind(line)
            .execute(&mut **writing)
            .await?;
    }
    sqlx::query("DELETE FROM job_events WHERE job = $1 AND number <= $2")
        .bind(id.0)
        .bind(last - MAX_EVENTS as i64)
        .execute(&mut **writing)
        .await?;
    Ok(())
}
