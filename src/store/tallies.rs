//! How often predictions and labels agree.

use super::{Store, StoreError, number, parsed};
use crate::model::{ModelName, Version};

/// How often a version said one class of images whose accepted label is another, or the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Who predicted.
    pub model: ModelName,
    /// In which version.
    pub version: Version,
    /// The class it said, from 0.
    pub predicted: u32,
    /// The accepted label, from 0.
    pub label: u32,
    /// How many predictions.
    pub predictions: u64,
}

/// Something that is another whenever labels or decisions were added or erased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LabelMark((i64, i64, i64, i64));

impl Store {
    /// Kept predictions whose image has an accepted label, counted; ordered by model, version, class and label.
    pub async fn tallies(&self) -> Result<Vec<Tally>, StoreError> {
        // An image has at most one accepted label: where labels disagree, a decision names one or none.
        let counted = "SELECT p.model, p.version, p.class, j.label, COUNT(*) FROM predictions p JOIN (\
                       SELECT DISTINCT model, sha256, label FROM judged WHERE state = 'accepted') j \
                       ON j.model = p.model AND j.sha256 = p.sha256 \
                       GROUP BY p.model, p.version, p.class, j.label ORDER BY p.model, p.version, p.class, j.label";
        let rows: Vec<(String, i64, i64, i64, i64)> = sqlx::query_as(counted).fetch_all(&self.pool).await?;
        let tally = |(model, version, predicted, label, predictions): (String, i64, i64, i64, i64)| {
            Ok(Tally {
                model: parsed(&model)?,
                version: parsed(&version.to_string())?,
                predicted: number(predicted)?,
                label: number(label)?,
                predictions: predictions.unsigned_abs(),
            })
        };
        rows.into_iter().map(tally).collect()
    }

    /// Where the labels stand now.
    pub async fn label_mark(&self) -> Result<LabelMark, StoreError> {
        let read = "SELECT (SELECT COUNT(*) FROM labels), (SELECT COALESCE(MAX(at_ms), 0) FROM labels), \
                    (SELECT COUNT(*) FROM decisions), (SELECT COALESCE(MAX(at_ms), 0) FROM decisions)";
        Ok(LabelMark(sqlx::query_as(read).fetch_one(&self.pool).await?))
    }
}
