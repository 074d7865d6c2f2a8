//! Samples: images that come with their label.

use bytes::Bytes;

use super::labels::{self, Classes, Label, Outcome, Quota};
use super::{Digest, Key, Store, StoreError};
use crate::model::ModelName;

/// An image with its label.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Whose classes the label counts.
    pub model: ModelName,
    /// The image's bytes, as they came. The caller has decoded them: nothing here looks inside.
    pub image: Bytes,
    /// The true class, from 0.
    pub label: u32,
    /// Who says so.
    pub source: Key,
    /// The id of the API key that it came with.
    pub key: Option<Key>,
}

impl Store {
    /// Takes a sample: its image, then its row. When this returns, both are on the disk; an image whose label is refused
    /// is not kept.
    ///
    /// # Errors
    ///
    /// What the disk says; then no row is kept, and an image without a row is removed by [`Store::expire`].
    pub async fn sample(
        &self,
        sample: &Sample,
        classes: &Classes,
        now_ms: i64,
    ) -> Result<Outcome, StoreError> {
        let sha256 = Digest::of(&sample.image);
        let mut quota = Quota::new(self.quota, now_ms);
        let mut writing = self.begin().await?;
        if labels::is_erased(&mut writing, &sha256).await? {
            return Ok(Outcome::Erased);
        }
        let label = Label {
            model: &sample.model,
            sha256,
            source: &sample.source,
            key: sample.key.as_ref(),
            label: sample.label,
            prediction: None,
            confidence: None,
        };
        let outcome = labels::add(&mut writing, &label, classes, &mut quota).await?;
        // Also for a duplicate: feedback may have named the image before its bytes came.
        if outcome.is_kept() {
            self.put(&mut writing, &sha256, &sample.image, now_ms).await?;
        }
        // Until here the row is seen by nobody: the image is on the disk first.
        writing.commit().await?;
        Ok(outcome)
    }
}
