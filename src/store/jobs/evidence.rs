//! What speaks for a new run: labels that came, and how right the kept predictions were.

use super::super::{Store, StoreError};
use crate::model::ModelName;

/// Kept predictions of images whose true class is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LiveAccuracy {
    /// How many.
    pub judged: u64,
    /// How many of them were right.
    pub right: u64,
}

impl Store {
    /// Images of `model` with an accepted label that was given at `since_ms` or later.
    pub async fn labelled_since(&self, model: &ModelName, since_ms: i64) -> Result<u64, StoreError> {
        let counted = "SELECT COUNT(DISTINCT sha256) FROM judged \
                       WHERE model = $1 AND at_ms >= $2 AND state = 'accepted'";
        let count: i64 = sqlx::query_scalar(counted)
            .bind(model.as_str())
            .bind(since_ms)
            .fetch_one(&self.pool)
            .await?;
        Ok(count.unsigned_abs())
    }

    /// How right `model` was in the predictions kept at `since_ms` or later whose image has an accepted label.
    pub async fn live_accuracy(&self, model: &ModelName, since_ms: i64) -> Result<LiveAccuracy, StoreError> {
        let counted = "SELECT COUNT(*), COALESCE(SUM(CASE WHEN p.class = t.label THEN 1 ELSE 0 END), 0) \
                       FROM predictions p JOIN (SELECT DISTINCT sha256, label FROM judged \
                       WHERE model = $1 AND state = 'accepted') t ON t.sha256 = p.sha256 \
                       WHERE p.model = $1 AND p.at_ms >= $2";
        let (judged, right): (i64, i64) = sqlx::query_as(counted)
            .bind(model.as_str())
            .bind(since_ms)
            .fetch_one(&self.pool)
            .await?;
        Ok(LiveAccuracy {
            judged: judged.unsigned_abs(),
            right: right.unsigned_abs(),
        })
    }
}
