//! What a person sees of the labels: how many there are, which disagree, and the decision on those.

use std::fmt;
use std::str::FromStr;

use super::labels::{self, Label};
use super::{Digest, Key, Store, StoreError, number, page, parsed};
use crate::model::ModelName;

/// How a label stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Every label of the image agrees, or a person decided for this one.
    Accepted,
    /// Labels of the image disagree.
    Quarantined,
    /// A person decided otherwise.
    Overruled,
}

/// A label as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// The class, from 0.
    pub label: u32,
    /// Who said so.
    pub source: Key,
    /// The id of the API key that it came with.
    pub key: Option<Key>,
    /// How sure the source is, 0 to 1.
    pub confidence: Option<f64>,
    /// Since when, in Unix milliseconds.
    pub at_ms: i64,
}

/// An image whose labels disagree.
#[derive(Clone, Debug, PartialEq)]
pub struct Conflict {
    /// The image.
    pub sha256: Digest,
    /// Everything that was said of it, by source and label.
    pub labels: Vec<Judged>,
}

/// A person's decision on an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Whose labels.
    pub model: ModelName,
    /// The image.
    pub sha256: Digest,
    /// The true class, from 0; `None` where the image is not to be learnt from.
    pub label: Option<u32>,
    /// Who decides.
    pub source: Key,
    /// The id of the API key that it came with.
    pub key: Option<Key>,
}

/// How many labels are alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// The class, from 0.
    pub label: u32,
    /// Who said so.
    pub source: Key,
    /// The id of the API key that they came with.
    pub key: Option<Key>,
    /// How they stand.
    pub state: State,
    /// How many.
    pub labels: u64,
}

/// sha256, label, source, confidence, time and key.
type Row = (String, i64, String, Option<f64>, i64, Option<String>);

impl Store {
    /// Images of `model` whose labels disagree, by sha256: the `limit` (at most [`super::MAX_PAGE`]) that follow `after`.
    pub async fn quarantine(
        &self,
        model: &ModelName,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Vec<Conflict>, StoreError> {
        let sought = "SELECT sha256, label, source, confidence, at_ms, api_key FROM judged WHERE model = $1 AND sha256 IN (\
                      SELECT DISTINCT sha256 FROM judged WHERE model = $1 AND sha256 > $2 AND state = 'quarantined' \
                      ORDER BY sha256 LIMIT $3) ORDER BY sha256, source, label";
        let rows: Vec<Row> = sqlx::query_as(sought)
            .bind(model.as_str())
            .bind(after.map(Digest::to_string).unwrap_or_default())
            .bind(page(limit))
            .fetch_all(&self.pool)
            .await?;
        let mut conflicts: Vec<Conflict> = Vec::new();
        for (sha256, label, source, confidence, at_ms, key) in rows {
            let judged = Judged {
                label: number(label)?,
                source: parsed(&source)?,
                key: key.as_deref().map(parsed).transpose()?,
                confidence,
                at_ms,
            };
            let sha256 = parsed(&sha256)?;
            match conflicts.last_mut().filter(|c| c.sha256 == sha256) {
                Some(conflict) => conflict.labels.push(judged),
                None => conflicts.push(Conflict {
                    sha256,
                    labels: vec![judged],
                }),
            }
        }
        Ok(conflicts)
    }

    /// Decides what an image with labels is, now and for labels to come; a later decision replaces an earlier one. Whether
    /// there are labels of it. `classes` is how many the model has.
    ///
    /// # Errors
    ///
    /// A label that the model does not have, and what the disk says.
    pub async fn resolve(&self, decision: &Decision, classes: u32, now_ms: i64) -> Result<bool, StoreError> {
        if let Some(label) = decision.label.filter(|&label| label >= classes) {
            let problem = format!("the model has no class {label}: it has {classes}, from 0");
            return Err(StoreError::Invalid(problem));
        }
        let mut writing = self.begin().await?;
        let counted = "SELECT COUNT(*) FROM labels WHERE model = $1 AND sha256 = $2";
        let labels: i64 = sqlx::query_scalar(counted)
            .bind(decision.model.as_str())
            .bind(decision.sha256.to_string())
            .fetch_one(&mut *writing)
            .await?;
        if labels == 0 {
            return Ok(false);
        }
        let row = "INSERT INTO decisions (model, sha256, label, source, at_ms, api_key) \
                   VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (model, sha256) DO UPDATE SET label = excluded.label, \
                   source = excluded.source, at_ms = excluded.at_ms, api_key = excluded.api_key";
        sqlx::query(row)
            .bind(decision.model.as_str())
            .bind(decision.sha256.to_string())
            .bind(decision.label.map(i64::from))
            .bind(decision.source.as_str())
            .bind(now_ms)
            .bind(decision.key.as_ref().map(Key::as_str))
            .execute(&mut *writing)
            .await?;
        if let Some(label) = decision.label {
            // The decision is a label too, since it may be one that no source gave.
            let label = Label {
                model: &decision.model,
                sha256: decision.sha256,
                source: &decision.source,
                key: decision.key.as_ref(),
                label,
                prediction: None,
                confidence: None,
            };
            labels::insert(&mut writing, &label, now_ms).await?;
        }
        writing.commit().await?;
        Ok(true)
    }

    /// How many labels of `model` there are by label, source, key and state, in this order; those without a key first.
    pub async fn counts(&self, model: &ModelName) -> Result<Vec<Count>, StoreError> {
        let counted = "SELECT label, source, api_key, state, COUNT(*) FROM judged WHERE model = $1 \
                       GROUP BY label, source, api_key, state \
                       ORDER BY label, source, COALESCE(api_key, ''), state";
        let rows: Vec<(i64, String, Option<String>, String, i64)> = sqlx::query_as(counted)
            .bind(model.as_str())
            .fetch_all(&self.pool)
            .await?;
        let count = |(label, source, key, state, labels): (i64, String, Option<String>, String, i64)| {
            Ok(Count {
                label: number(label)?,
                source: parsed(&source)?,
                key: key.as_deref().map(parsed).transpose()?,
                state: parsed(&state)?,
                labels: labels.unsigned_abs(),
            })
        };
        rows.into_iter().map(count).collect()
    }
}

impl FromStr for State {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let all = [Self::Accepted, Self::Quarantined, Self::Overruled];
        let found = all.into_iter().find(|state| state.to_string() == text);
        found.ok_or_else(|| StoreError::Invalid(format!("{text} is no state of a label")))
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accepted => "accepted",
            Self::Quarantined => "quarantined",
            Self::Overruled => "overruled",
        })
    }
}
