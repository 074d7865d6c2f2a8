//! Feedback: what a source says of a prediction, or of an image that was predicted.

use super::labels::{self, Classes, Label, Outcome, Quota};
use super::{Digest, Key, Store, StoreError, Writing, parsed};
use crate::model::ModelName;

/// What feedback is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A kept prediction, by its id; the model and the image are its own.
    Prediction(Key),
    /// An image of which a prediction or a label is kept.
    Image {
        /// Whose classes the label counts.
        model: ModelName,
        /// Of the image's bytes.
        sha256: Digest,
    },
}

/// What a source says.
#[derive(Clone, Debug, PartialEq)]
pub struct Feedback {
    /// Of what.
    pub subject: Subject,
    /// The true class, from 0.
    pub label: u32,
    /// Who says so.
    pub source: Key,
    /// The id of the API key that it came with.
    pub key: Option<Key>,
    /// How sure the source is, 0 to 1.
    pub confidence: Option<f64>,
}

impl Store {
    /// Takes a batch of feedback in one transaction; one outcome for each, in order. When this returns, what was taken is
    /// on the disk.
    ///
    /// # Errors
    ///
    /// A confidence outside of 0 to 1, and what the disk says; then nothing of the batch is kept.
    pub async fn feedback(
        &self,
        batch: &[Feedback],
        classes: &Classes,
        now_ms: i64,
    ) -> Result<Vec<Outcome>, StoreError> {
        let outside = |confidence: f64| !(0.0..=1.0).contains(&confidence);
        if batch.iter().filter_map(|f| f.confidence).any(outside) {
            return Err(StoreError::Invalid("a confidence is 0 to 1".to_owned()));
        }
        let mut quota = Quota::new(self.quota, now_ms);
        let mut writing = self.begin().await?;
        let mut outcomes = Vec::with_capacity(batch.len());
        for feedback in batch {
            outcomes.push(take(&mut writing, feedback, classes, &mut quota).await?);
        }
        writing.commit().await?;
        Ok(outcomes)
    }
}

async fn take(
    writing: &mut Writing,
    feedback: &Feedback,
    classes: &Classes,
    quota: &mut Quota,
) -> Result<Outcome, StoreError> {
    let found = match &feedback.subject {
        Subject::Prediction(id) => {
            let found = predicted(writing, id).await?;
            found.map(|(model, sha256)| (model, sha256, Some(id)))
        }
        Subject::Image { model, sha256 } => {
            if labels::is_erased(writing, sha256).await? {
                return Ok(Outcome::Erased);
            }
            let known = is_known(writing, model, sha256).await?;
            known.then(|| (model.clone(), *sha256, None))
        }
    };
    let Some((model, sha256, prediction)) = found else {
        return Ok(Outcome::Unknown);
    };
    let label = Label {
        model: &model,
        sha256,
        source: &feedback.source,
        key: feedback.key.as_ref(),
        label: feedback.label,
        prediction,
        confidence: feedback.confidence,
    };
    labels::add(writing, &label, classes, quota).await
}

async fn predicted(writing: &mut Writing, id: &Key) -> Result<Option<(ModelName, Digest)>, StoreError> {
    let row: Option<(String, String)> = sqlx::query_as("SELECT model, sha256 FROM predictions WHERE id = $1")
        .bind(id.as_str())
        .fetch_optional(&mut **writing)
        .await?;
    row.map(|(model, sha256)| Ok((parsed(&model)?, parsed(&sha256)?)))
        .transpose()
}

async fn is_known(writing: &mut Writing, model: &ModelName, sha256: &Digest) -> Result<bool, StoreError> {
    let sought = "SELECT at_ms FROM predictions WHERE model = $1 AND sha256 = $2 \
                  UNION ALL SELECT at_ms FROM labels WHERE model = $1 AND sha256 = $2 LIMIT 1";
    let found: Option<i64> = sqlx::query_scalar(sought)
        .bind(model.as_str())
        .bind(sha256.to_string())
        .fetch_optional(&mut **writing)
        .await?;
    Ok(found.is_some())
}
