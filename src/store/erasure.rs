//! Erasing an image and everything that was said of it.

use super::{Digest, Learner, Store, StoreError, Writing, database, parsed};
use crate::model::{ModelName, Version};

/// What was erased, and who has to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erased {
    /// How many predictions.
    pub predictions: u64,
    /// How many labels.
    pub labels: u64,
    /// Whether there were bytes.
    pub image: bool,
    /// The versions that learnt from the image, by model and number.
    pub learnt: Vec<(ModelName, Version)>,
    /// The runs that learn from it and are tied to no version yet, by model and id.
    pub learning: Vec<Learner>,
}

impl Store {
    /// Erases an image: its rows and its bytes are gone from the disk, and nothing of it is taken again. Its sha256 alone
    /// stays, so that it can be refused, and who learnt from it. It need not be known: an image may be erased before it comes,
    /// and twice is as once.
    ///
    /// # Errors
    ///
    /// What the disk says. [`StoreError::Busy`] may also mean that somebody reads for so long that the database's log still
    /// holds what was erased: erasing once more ends that.
    pub async fn erase(&self, sha256: &Digest, now_ms: i64) -> Result<Erased, StoreError> {
        let mut writing = self.begin().await?;
        let stone = "INSERT INTO tombstones (sha256, at_ms) VALUES ($1, $2) ON CONFLICT (sha256) DO NOTHING";
        sqlx::query(stone)
            .bind(sha256.to_string())
            .bind(now_ms)
            .execute(&mut *writing)
            .await?;
        let predictions = delete(&mut writing, "DELETE FROM predictions WHERE sha256 = $1", sha256).await?;
        let labels = delete(&mut writing, "DELETE FROM labels WHERE sha256 = $1", sha256).await?;
        delete(&mut writing, "DELETE FROM decisions WHERE sha256 = $1", sha256).await?;
        delete(&mut writing, "DELETE FROM images WHERE sha256 = $1", sha256).await?;
        let (learnt, learning) = (
            learnt(&mut writing, sha256).await?,
            learning(&mut writing, sha256).await?,
        );
        // A failure from here on leaves rows without their image, never an image that no row knows.
        let image = self.blobs.remove(sha256).await?;
        writing.commit().await?;
        database::empty_log(&self.pool).await?;
        Ok(Erased {
            predictions,
            labels,
            image,
            learnt,
            learning,
        })
    }
}

async fn delete(writing: &mut Writing, statement: &'static str, sha256: &Digest) -> Result<u64, StoreError> {
    let deleted = sqlx::query(statement)
        .bind(sha256.to_string())
        .execute(&mut **writing)
        .await?;
    Ok(deleted.rows_affected())
}

async fn learnt(writing: &mut Writing, sha256: &Digest) -> Result<Vec<(ModelName, Version)>, StoreError> {
    let sought = "SELECT model, version FROM learnt WHERE sha256 = $1 ORDER BY model, version";
    let rows: Vec<(String, i64)> = sqlx::query_as(sought)
        .bind(sha256.to_string())
        .fetch_all(&mut **writing)
        .await?;
    rows.iter()
        .map(|(model, version)| Ok((parsed(model)?, parsed(&version.to_string())?)))
        .collect()
}

async fn learning(writing: &mut Writing, sha256: &Digest) -> Result<Vec<Learner>, StoreError> {
    let sought = "SELECT model, run FROM learning WHERE sha256 = $1 ORDER BY model, run";
    let rows: Vec<(String, String)> = sqlx::query_as(sought)
        .bind(sha256.to_string())
        .fetch_all(&mut **writing)
        .await?;
    let learner = |(model, run): &(String, String)| {
        let (model, run) = (parsed(model)?, parsed(run)?);
        Ok(Learner { model, run })
    };
    rows.iter().map(learner).collect()
}
