//! One label of one image by one source: whether it is taken, and what it does to the image.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use super::review::State;
use super::{DAY_MS, Digest, Key, StoreError, Writing, parsed};
use crate::model::ModelName;

/// How many classes each model has; labels are taken for these models only.
pub type Classes = BTreeMap<ModelName, u32>;

/// What became of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It is on the disk, and every label of its image agrees.
    Accepted,
    /// This source said the same of this image before; nothing changed.
    Duplicate,
    /// It is on the disk, but labels of its image disagree: none of them is learnt from until a person decides.
    Quarantined,
    /// It is on the disk, but a person decided otherwise before.
    Overruled,
    /// No prediction of this id, no image of this sha256 or no such model is kept.
    Unknown,
    /// The model has no class of this number.
    OutOfRange,
    /// The key, or without one the source, gave as many labels today as it may.
    OverQuota,
    /// The image was erased: nothing of it is kept again.
    Erased,
}

impl Outcome {
    /// Whether the label is on the disk, by this call or by one before.
    pub fn is_kept(self) -> bool {
        use Outcome::{Accepted, Duplicate, Overruled, Quarantined};
        matches!(self, Accepted | Duplicate | Quarantined | Overruled)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::Quarantined => "quarantined",
            Self::Overruled => "overruled",
            Self::Unknown => "unknown",
            Self::OutOfRange => "out_of_range",
            Self::OverQuota => "over_quota",
            Self::Erased => "erased",
        })
    }
}

/// A label to be judged.
pub(super) struct Label<'a> {
    pub(super) model: &'a ModelName,
    pub(super) sha256: Digest,
    pub(super) source: &'a Key,
    pub(super) key: Option<&'a Key>,
    pub(super) label: u32,
    pub(super) prediction: Option<&'a Key>,
    pub(super) confidence: Option<f64>,
}

/// How many labels each giver has given on the day of `now_ms`.
pub(super) struct Quota {
    now_ms: i64,
    limit: i64,
    used: HashMap<Giver, i64>,
}

/// Who is counted: the key, since a caller may name any source; without one the source.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Giver {
    Key(Key),
    Source(Key),
}

impl Quota {
    pub(super) fn new(limit: i64, now_ms: i64) -> Self {
        let used = HashMap::new();
        Self { now_ms, limit, used }
    }

    /// Counts one more of the label's giver, unless that is too many.
    async fn take(&mut self, writing: &mut Writing, label: &Label<'_>) -> Result<bool, StoreError> {
        let giver = match label.key {
            Some(key) => Giver::Key(key.clone()),
            None => Giver::Source(label.source.clone()),
        };
        let used = match self.used.get(&giver) {
            Some(&used) => used,
            None => self.count(writing, &giver).await?,
        };
        let fits = used < self.limit;
        self.used.insert(giver, used + i64::from(fits));
        Ok(fits)
    }

    async fn count(&self, writing: &mut Writing, giver: &Giver) -> Result<i64, StoreError> {
        let day = self.now_ms.div_euclid(DAY_MS);
        let (counted, name) = match giver {
            Giver::Key(key) => (
                "SELECT COUNT(*) FROM labels WHERE api_key = $1 AND at_ms >= $2 AND at_ms < $3",
                key,
            ),
            Giver::Source(source) => (
                "SELECT COUNT(*) FROM labels \
                 WHERE source = $1 AND api_key IS NULL AND at_ms >= $2 AND at_ms < $3",
                source,
            ),
        };
        let count = sqlx::query_scalar(counted)
            .bind(name.as_str())
            .bind(day.saturating_mul(DAY_MS))
            .bind(day.saturating_add(1).saturating_mul(DAY_MS))
            .fetch_one(&mut **writing)
            .await?;
        Ok(count)
    }
}

/// Takes a label of an image that is known to be there, or says why not. The caller commits.
pub(super) async fn add(
    writing: &mut Writing,
    label: &Label<'_>,
    classes: &Classes,
    quota: &mut Quota,
) -> Result<Outcome, StoreError> {
    match classes.get(label.model) {
        None => return Ok(Outcome::Unknown),
        Some(&classes) if label.label >= classes => return Ok(Outcome::OutOfRange),
        Some(_) => {}
    }
    if is_there(writing, label).await? {
        return Ok(Outcome::Duplicate);
    }
    if !quota.take(writing, label).await? {
        return Ok(Outcome::OverQuota);
    }
    insert(writing, label, quota.now_ms).await?;
    Ok(match state(writing, label).await? {
        State::Accepted => Outcome::Accepted,
        State::Quarantined => Outcome::Quarantined,
        State::Overruled => Outcome::Overruled,
    })
}

/// Whether the image was erased, and so is refused for ever.
pub(super) async fn is_erased(writing: &mut Writing, sha256: &Digest) -> Result<bool, StoreError> {
    let found: Option<i64> = sqlx::query_scalar("SELECT at_ms FROM tombstones WHERE sha256 = $1")
        .bind(sha256.to_string())
        .fetch_optional(&mut **writing)
        .await?;
    Ok(found.is_some())
}

async fn is_there(writing: &mut Writing, label: &Label<'_>) -> Result<bool, StoreError> {
    let sought = "SELECT at_ms FROM labels WHERE model = $1 AND sha256 = $2 AND source = $3 AND label = $4";
    let found: Option<i64> = sqlx::query_scalar(sought)
        .bind(label.model.as_str())
        .bind(label.sha256.to_string())
        .bind(label.source.as_str())
        .bind(i64::from(label.label))
        .fetch_optional(&mut **writing)
        .await?;
    Ok(found.is_some())
}

/// Writes the row; one that is there already stays as it is.
pub(super) async fn insert(writing: &mut Writing, label: &Label<'_>, now_ms: i64) -> Result<(), StoreError> {
    let row = "INSERT INTO labels (model, sha256, source, label, prediction, confidence, at_ms, api_key) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (model, sha256, source, label) DO NOTHING";
    sqlx::query(row)
        .bind(label.model.as_str())
        .bind(label.sha256.to_string())
        .bind(label.source.as_str())
        .bind(i64::from(label.label))
        .bind(label.prediction.map(Key::as_str))
        .bind(label.confidence)
        .bind(now_ms)
        .bind(label.key.map(Key::as_str))
        .execute(&mut **writing)
        .await?;
    Ok(())
}

async fn state(writing: &mut Writing, label: &Label<'_>) -> Result<State, StoreError> {
    let sought = "SELECT state FROM judged WHERE model = $1 AND sha256 = $2 AND source = $3 AND label = $4";
    let state: String = sqlx::query_scalar(sought)
        .bind(label.model.as_str())
        .bind(label.sha256.to_string())
        .bind(label.source.as_str())
        .bind(i64::from(label.label))
        .fetch_one(&mut **writing)
        .await?;
    parsed(&state)
}
