//! Deleting what was kept for long enough, unless the clock cannot be right.

use std::collections::HashSet;

use super::{Store, StoreError, Writing, parsed};

/// What an expiry did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// It deleted what was old.
    Done {
        /// How many predictions.
        predictions: u64,
        /// How many images, those among them that no row knew.
        images: u64,
    },
    /// The clock went on by more than twice the retention since the last expiry: nothing was deleted. Where the time is
    /// right, [`Store::trust_clock`] says so.
    ClockJumped {
        /// The time of the last expiry; before the first, of the oldest prediction.
        last_ms: i64,
        /// The time that was passed in.
        now_ms: i64,
    },
}

/// The mark of the last expiry.
const MARK: &str = "expiry";

/// Images that one transaction deletes, so that other writers wait only for so many.
const IMAGES_AT_ONCE: i64 = 100;

impl Store {
    /// Deletes predictions older than the retention, images that neither a prediction nor a label names any more, and
    /// what a killed writer left.
    pub async fn expire(&self, now_ms: i64) -> Result<Expiry, StoreError> {
        let mut writing = self.begin().await?;
        let last_ms = last(&mut writing).await?.unwrap_or(now_ms);
        if now_ms.saturating_sub(last_ms) > 2 * self.retention_ms {
            return Ok(Expiry::ClockJumped { last_ms, now_ms });
        }
        mark(&mut writing, now_ms).await?;
        let deleted = sqlx::query("DELETE FROM predictions WHERE at_ms < $1")
            .bind(now_ms.saturating_sub(self.retention_ms))
            .execute(&mut *writing)
            .await?;
        writing.commit().await?;
        let images = self.remove_unnamed().await? + self.sweep().await?;
        let predictions = deleted.rows_affected();
        Ok(Expiry::Done { predictions, images })
    }

    /// Says that `now_ms` is right however far it is from the last expiry; the next one deletes by it.
    pub async fn trust_clock(&self, now_ms: i64) -> Result<(), StoreError> {
        let mut writing = self.begin().await?;
        mark(&mut writing, now_ms).await?;
        Ok(writing.commit().await?)
    }

    /// Removes images without a prediction and a label.
    async fn remove_unnamed(&self) -> Result<u64, StoreError> {
        let sought = "SELECT sha256 FROM images i \
                      WHERE NOT EXISTS (SELECT 1 FROM predictions p WHERE p.sha256 = i.sha256) \
                      AND NOT EXISTS (SELECT 1 FROM labels l WHERE l.sha256 = i.sha256) LIMIT $1";
        let mut removed = 0;
        loop {
            let mut writing = self.begin().await?;
            let unnamed: Vec<String> = sqlx::query_scalar(sought)
                .bind(IMAGES_AT_ONCE)
                .fetch_all(&mut *writing)
                .await?;
            if unnamed.is_empty() {
                return Ok(removed);
            }
            for sha256 in &unnamed {
                self.blobs.remove(&parsed(sha256)?).await?;
                sqlx::query("DELETE FROM images WHERE sha256 = $1")
                    .bind(sha256)
                    .execute(&mut *writing)
                    .await?;
                removed += 1;
            }
            writing.commit().await?;
        }
    }

    /// Removes files that no row knows.
    async fn sweep(&self) -> Result<u64, StoreError> {
        let mut removed = 0;
        for prefix in self.blobs.prefixes().await? {
            // Files are written under the write lock: while it is held here, each is either known or left behind.
            let mut writing = self.begin().await?;
            let known: Vec<String> =
                sqlx::query_scalar("SELECT sha256 FROM images WHERE sha256 >= $1 AND sha256 < $2")
                    .bind(&prefix)
                    // After every hexadecimal digit.
                    .bind(format!("{prefix}g"))
                    .fetch_all(&mut *writing)
                    .await?;
            removed += self.blobs.sweep(&prefix, HashSet::from_iter(known)).await?;
            writing.rollback().await?;
        }
        Ok(removed)
    }
}

/// When expiry was last done; before the first, when the oldest prediction was made.
async fn last(writing: &mut Writing) -> Result<Option<i64>, StoreError> {
    let marked: Option<i64> = sqlx::query_scalar("SELECT at_ms FROM marks WHERE name = $1")
        .bind(MARK)
        .fetch_optional(&mut **writing)
        .await?;
    if marked.is_some() {
        return Ok(marked);
    }
    let oldest = sqlx::query_scalar("SELECT MIN(at_ms) FROM predictions");
    Ok(oldest.fetch_one(&mut **writing).await?)
}

async fn mark(writing: &mut Writing, now_ms: i64) -> Result<(), StoreError> {
    let row = "INSERT INTO marks (name, at_ms) VALUES ($1, $2) \
               ON CONFLICT (name) DO UPDATE SET at_ms = excluded.at_ms";
    sqlx::query(row)
        .bind(MARK)
        .bind(now_ms)
        .execute(&mut **writing)
        .await?;
    Ok(())
}
