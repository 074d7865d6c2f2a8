//! Predictions that are kept, so that feedback finds them by their id.

use bytes::Bytes;

use super::blobs::aside;
use super::{Digest, Key, Store, StoreError, Writing, labels, number, parsed};
use crate::model::{ModelName, Version};

/// A prediction to keep, or one that was kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// The answer's id.
    pub id: Key,
    /// Who answered.
    pub model: ModelName,
    /// In which version.
    pub version: Version,
    /// Of the image's bytes as they came.
    pub sha256: Digest,
    /// The most probable class, from 0.
    pub class: u32,
    /// Its probability.
    pub probability: f64,
    /// When, in Unix milliseconds.
    pub at_ms: i64,
    /// The image, where it is to be kept too. Never given back: see [`Store::blob`].
    pub image: Option<Bytes>,
}

/// What became of a prediction to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// It is on the disk.
    Kept,
    /// A prediction of this id is kept already; it stays as it is.
    IdTaken,
    /// Its image was erased: nothing of it is kept again.
    Erased,
}

impl Store {
    /// Keeps one prediction: [`Store::keep_all`] of it alone.
    pub async fn keep(&self, prediction: &Kept) -> Result<Keeping, StoreError> {
        check(prediction)?;
        let mut writing = self.begin().await?;
        let keeping = self.keep_one(&mut writing, prediction).await?;
        writing.commit().await?;
        Ok(keeping)
    }

    /// Keeps a batch of predictions in one transaction, each with its image if it has one; what became of each, in order.
    /// When this returns, those kept are on the disk.
    ///
    /// # Errors
    ///
    /// A probability outside of 0 to 1, an image of another sha256, and what the disk says; then nothing of the batch is
    /// kept.
    pub async fn keep_all(&self, predictions: Vec<Kept>) -> Result<Vec<Keeping>, StoreError> {
        // Hashing large images takes milliseconds.
        let predictions = aside(move || {
            predictions.iter().try_for_each(check)?;
            Ok(predictions)
        })
        .await?;
        let mut writing = self.begin().await?;
        let mut keepings = Vec::with_capacity(predictions.len());
        for prediction in &predictions {
            keepings.push(self.keep_one(&mut writing, prediction).await?);
        }
        writing.commit().await?;
        Ok(keepings)
    }

    async fn keep_one(&self, writing: &mut Writing, prediction: &Kept) -> Result<Keeping, StoreError> {
        if labels::is_erased(writing, &prediction.sha256).await? {
            return Ok(Keeping::Erased);
        }
        let row = "INSERT INTO predictions (id, model, version, sha256, class, probability, at_ms) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (id) DO NOTHING";
        let inserted = sqlx::query(row)
            .bind(prediction.id.as_str())
            .bind(prediction.model.as_str())
            .bind(i64::from(prediction.version.number()))
            .bind(prediction.sha256.to_string())
            .bind(i64::from(prediction.class))
            .bind(prediction.probability)
            .bind(prediction.at_ms)
            .execute(&mut **writing)
            .await?;
        if inserted.rows_affected() == 0 {
            return Ok(Keeping::IdTaken);
        }
        if let Some(image) = &prediction.image {
            self.put(writing, &prediction.sha256, image, prediction.at_ms)
                .await?;
        }
        Ok(Keeping::Kept)
    }

    /// The kept prediction of this id, without its image.
    pub async fn prediction(&self, id: &Key) -> Result<Option<Kept>, StoreError> {
        let sought =
            "SELECT model, version, sha256, class, probability, at_ms FROM predictions WHERE id = $1";
        let row: Option<(String, i64, String, i64, f64, i64)> = sqlx::query_as(sought)
            .bind(id.as_str())
            .fetch_optional(&self.pool)
            .await?;
        let Some((model, version, sha256, class, probability, at_ms)) = row else {
            return Ok(None);
        };
        Ok(Some(Kept {
            id: id.clone(),
            model: parsed(&model)?,
            version: parsed(&version.to_string())?,
            sha256: parsed(&sha256)?,
            class: number(class)?,
            probability,
            at_ms,
            image: None,
        }))
    }
}

fn check(prediction: &Kept) -> Result<(), StoreError> {
    if !(0.0..=1.0).contains(&prediction.probability) {
        let problem = format!("a probability is 0 to 1, not {}", prediction.probability);
        return Err(StoreError::Invalid(problem));
    }
    let other = |image: &Bytes| Digest::of(image) != prediction.sha256;
    if prediction.image.as_ref().is_some_and(other) {
        let problem = "the image is not the one that the sha256 names";
        return Err(StoreError::Invalid(problem.to_owned()));
    }
    Ok(())
}
