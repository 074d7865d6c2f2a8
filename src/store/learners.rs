//! Who learns from what: a run from before its first step on, then the version that came of it.

use super::{Digest, Key, Store, StoreError, Writing, parsed};
use crate::model::{ModelName, Version};

/// A run that learns. What it learns from is known before it begins, and is its version's as soon as there is one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Learner {
    /// The model of which it makes a version.
    pub model: ModelName,
    /// Its id, which stands in that version's manifest.
    pub run: Key,
}

/// What came of [`Store::stage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Staged {
    /// The version is there, and tied to what it learnt from.
    Published(Version),
    /// There is none: so many of the images are erased.
    Erased(usize),
}

impl Store {
    /// Records what a run is about to learn from, in place of what it recorded before. Gives back those of the images that
    /// are erased, by sha256: whoever erased them was not told of the run, which must not learn from them.
    pub async fn learns(
        &self,
        learner: &Learner,
        images: &[Digest],
        now_ms: i64,
    ) -> Result<Vec<Digest>, StoreError> {
        let mut writing = self.begin().await?;
        forget(&mut writing, learner).await?;
        record(&mut writing, learner, images, now_ms).await?;
        let erased = spoilt(&mut writing, learner).await?;
        writing.commit().await?;
        Ok(erased)
    }

    /// Whether an image is erased that a run learns from.
    pub async fn is_spoilt(&self, learner: &Learner) -> Result<bool, StoreError> {
        let sought = "SELECT COUNT(*) FROM learning l JOIN tombstones t ON t.sha256 = l.sha256 \
                      WHERE l.model = $1 AND l.run = $2";
        let erased: i64 = sqlx::query_scalar(sought)
            .bind(learner.model.as_str())
            .bind(learner.run.as_str())
            .fetch_one(&self.pool)
            .await?;
        Ok(erased > 0)
    }

    /// Has the version of a run published, unless one of `images` is erased, and ties it to them. Other writers wait
    /// meanwhile: whoever erases one of them is either told of the version, or it is never there.
    ///
    /// # Errors
    ///
    /// The store's, and those of `publish`. A version that is published and could not be tied is still known by its run.
    pub async fn stage<E: From<StoreError>>(
        &self,
        learner: &Learner,
        (images, now_ms): (&[Digest], i64),
        publish: impl FnOnce() -> Result<Version, E>,
    ) -> Result<Staged, E> {
        let mut writing = self.begin().await?;
        record(&mut writing, learner, images, now_ms).await?;
        let erased = spoilt(&mut writing, learner).await?;
        if !erased.is_empty() {
            return Ok(Staged::Erased(erased.len()));
        }
        let version = publish()?;
        tie(&mut writing, learner, version).await?;
        writing.commit().await.map_err(StoreError::from)?;
        Ok(Staged::Published(version))
    }

    /// Ties the version that came of a run to what the run recorded and to `images`. Gives back those of all of them that are
    /// erased, by sha256.
    pub async fn learnt(
        &self,
        learner: &Learner,
        version: Version,
        (images, now_ms): (&[Digest], i64),
    ) -> Result<Vec<Digest>, StoreError> {
        let mut writing = self.begin().await?;
        record(&mut writing, learner, images, now_ms).await?;
        tie(&mut writing, learner, version).await?;
        let sought = "SELECT l.sha256 FROM learnt l JOIN tombstones t ON t.sha256 = l.sha256 \
                      WHERE l.model = $1 AND l.version = $2 ORDER BY l.sha256";
        let erased: Vec<String> = sqlx::query_scalar(sought)
            .bind(learner.model.as_str())
            .bind(i64::from(version.number()))
            .fetch_all(&mut *writing)
            .await?;
        writing.commit().await?;
        erased.iter().map(|sha256| parsed(sha256)).collect()
    }

    /// The runs of a model that are tied to no version yet, by their id, each with when it last recorded what it learns from.
    pub async fn learners(&self, model: &ModelName) -> Result<Vec<(Learner, i64)>, StoreError> {
        let sought = "SELECT run, MAX(at_ms) FROM learning WHERE model = $1 GROUP BY run ORDER BY run";
        let rows: Vec<(String, i64)> = sqlx::query_as(sought)
            .bind(model.as_str())
            .fetch_all(&self.pool)
            .await?;
        let learner = |(run, at_ms): (String, i64)| {
            let (model, run) = (model.clone(), parsed(&run)?);
            Ok((Learner { model, run }, at_ms))
        };
        rows.into_iter().map(learner).collect()
    }

    /// Forgets a run of which no version will come.
    pub async fn forget(&self, learner: &Learner) -> Result<(), StoreError> {
        let mut writing = self.begin().await?;
        forget(&mut writing, learner).await?;
        Ok(writing.commit().await?)
    }
}

async fn record(
    writing: &mut Writing,
    learner: &Learner,
    images: &[Digest],
    now_ms: i64,
) -> Result<(), StoreError> {
    let row = "INSERT INTO learning (sha256, model, run, at_ms) VALUES ($1, $2, $3, $4) \
               ON CONFLICT (sha256, model, run) DO NOTHING";
    for sha256 in images {
        sqlx::query(row)
            .bind(sha256.to_string())
            .bind(learner.model.as_str())
            .bind(learner.run.as_str())
            .bind(now_ms)
            .execute(&mut **writing)
            .await?;
    }
    Ok(())
}

/// What is erased of what a run recorded.
async fn spoilt(writing: &mut Writing, learner: &Learner) -> Result<Vec<Digest>, StoreError> {
    let sought = "SELECT l.sha256 FROM learning l JOIN tombstones t ON t.sha256 = l.sha256 \
                  WHERE l.model = $1 AND l.run = $2 ORDER BY l.sha256";
    let erased: Vec<String> = sqlx::query_scalar(sought)
        .bind(learner.model.as_str())
        .bind(learner.run.as_str())
        .fetch_all(&mut **writing)
        .await?;
    erased.iter().map(|sha256| parsed(sha256)).collect()
}

/// What a run recorded becomes the version's.
async fn tie(writing: &mut Writing, learner: &Learner, version: Version) -> Result<(), StoreError> {
    let rows = "INSERT INTO learnt (sha256, model, version) \
                SELECT sha256, model, $3 FROM learning WHERE model = $1 AND run = $2 \
                ON CONFLICT (sha256, model, version) DO NOTHING";
    sqlx::query(rows)
        .bind(learner.model.as_str())
        .bind(learner.run.as_str())
        .bind(i64::from(version.number()))
        .execute(&mut **writing)
        .await?;
    forget(writing, learner).await
}

async fn forget(writing: &mut Writing, learner: &Learner) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM learning WHERE model = $1 AND run = $2")
        .bind(learner.model.as_str())
        .bind(learner.run.as_str())
        .execute(&mut **writing)
        .await?;
    Ok(())
}
