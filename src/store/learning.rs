//! What there is to learn from.

use super::{Digest, Key, Store, StoreError, number, page, parsed};
use crate::model::ModelName;

/// An image to learn from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// The image; its bytes are kept.
    pub sha256: Digest,
    /// Its class, from 0.
    pub label: u32,
    /// Who said so: `key:` and the id of the API key that it came with, since a caller may name any source; without a key the
    /// source. The first by name where several agree.
    pub source: Key,
    /// When it was first said, in Unix milliseconds.
    pub at_ms: i64,
}

impl Store {
    /// Images of `model` with an accepted label whose bytes are kept, each once, by sha256: the `limit` (at most
    /// [`super::MAX_PAGE`]) that follow `after`. The order does not depend on when they came.
    pub async fn labelled(
        &self,
        model: &ModelName,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Vec<Example>, StoreError> {
        let sought = "SELECT sha256, label, \
                      MIN(CASE WHEN api_key IS NULL THEN source ELSE 'key:' || api_key END), MIN(at_ms) FROM judged \
                      WHERE model = $1 AND sha256 > $2 AND state = 'accepted' \
                      AND EXISTS (SELECT 1 FROM images i WHERE i.sha256 = judged.sha256) \
                      GROUP BY sha256, label ORDER BY sha256 LIMIT $3";
        let rows: Vec<(String, i64, String, i64)> = sqlx::query_as(sought)
            .bind(model.as_str())
            .bind(after.map(Digest::to_string).unwrap_or_default())
            .bind(page(limit))
            .fetch_all(&self.pool)
            .await?;
        let example = |(sha256, label, source, at_ms): (String, i64, String, i64)| {
            Ok(Example {
                sha256: parsed(&sha256)?,
                label: number(label)?,
                source: parsed(&source)?,
                at_ms,
            })
        };
        rows.into_iter().map(example).collect()
    }

    /// Erased images, by sha256: the `limit` (at most [`super::MAX_PAGE`]) that follow `after`.
    pub async fn erased(&self, after: Option<&Digest>, limit: usize) -> Result<Vec<Digest>, StoreError> {
        let sought = "SELECT sha256 FROM tombstones WHERE sha256 > $1 ORDER BY sha256 LIMIT $2";
        let rows: Vec<String> = sqlx::query_scalar(sought)
            .bind(after.map(Digest::to_string).unwrap_or_default())
            .bind(page(limit))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(|sha256| parsed(sha256)).collect()
    }
}
