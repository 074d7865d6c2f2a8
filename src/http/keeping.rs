//! What the routes of feedback, samples and erasure share: the store and its problems, the models' classes, labels.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Query;
use axum::http::{Extensions, Uri};
use serde::de::{DeserializeOwned, Error, Visitor};
use serde::{Deserialize, Deserializer};

use super::State;
use super::auth::Caller;
use super::problem::{Kind, Problem, excerpt};
use crate::model::ModelName;
use crate::predict::{Predictor, ServedModel};
use crate::store::{Classes, Key, Outcome, Store, StoreError};

/// A class as a caller names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Label {
    /// By its number; what is not a whole number from 0 is one that no model has.
    Number(u32),
    /// By its name.
    Name(String),
}

/// More classes than any model may have.
const NO_CLASS: u32 = u32::MAX;
/// A write that waits for another process has waited ten times as long.
const BUSY_RETRY: Duration = Duration::from_secs(1);
const DAY_MS: i64 = 86_400_000;

/// The open store, or the problem that nothing is kept.
pub(super) fn store(state: &State) -> Result<&Arc<Store>, Problem> {
    state.collector.store().ok_or_else(|| {
        let detail = "the server keeps nothing: store.folder is empty or cannot be used";
        Problem::new(Kind::StoreUnavailable, detail)
    })
}

/// How many classes each model in service has.
pub(super) fn classes(predictor: &Predictor) -> Classes {
    let count = |(name, model): (&ModelName, &ServedModel)| {
        let served = model.versions.last()?;
        Some((name.clone(), u32::try_from(served.spec.labels.len()).ok()?))
    };
    predictor.table().models.iter().filter_map(count).collect()
}

/// The names of a model's classes in order; none of a model that is not in service.
pub(super) fn labels(predictor: &Predictor, model: &ModelName) -> Vec<String> {
    let served = predictor.find(Some(model), None);
    served.map_or_else(|_| Vec::new(), |served| served.spec.labels.clone())
}

/// Said where labels or a decision come without a source and without a key.
pub(super) const NO_SOURCE: &str = "it says whose word this is; only a key can stand for it";

/// The key that a request came with, as the store keeps it.
pub(super) fn caller(extensions: &Extensions) -> Option<Key> {
    let caller = extensions.get::<Caller>()?;
    let key = caller.id().as_str().parse();
    Some(key.expect("the characters of a key's id are visible, and few"))
}

/// The source that is named, or else the key.
pub(super) fn source(named: Option<&str>, key: Option<&Key>) -> Result<Key, Problem> {
    match (named, key) {
        (Some(named), _) => value("source", named),
        (None, Some(key)) => Ok(key.clone()),
        (None, None) => Err(Problem::new(Kind::InvalidInput, format!("source: {NO_SOURCE}"))),
    }
}

/// The model that is named, or else the default one; it must be in service.
pub(super) fn model(predictor: &Predictor, named: Option<&str>) -> Result<ModelName, Problem> {
    let named: Option<ModelName> = named.map(|name| value("model", name)).transpose()?;
    Ok(predictor.find(named.as_ref(), None)?.name.clone())
}

/// The keys of a query string; an unknown one is an error.
pub(super) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    let read = Query::<T>::try_from_uri(uri).map_err(|rejected| {
        let text = rejected.to_string();
        let detail = format!("the query string is not understood: {}", excerpt(&text));
        Problem::new(Kind::BadRequest, detail)
    });
    read.map(|Query(keys)| keys)
}

/// A document of JSON.
pub(super) fn json<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        let text = error.to_string();
        let detail = format!("the JSON is not understood: {}", excerpt(&text));
        Problem::new(Kind::BadRequest, detail)
    })
}

/// A value that its own type reads; the problem names the key.
pub(super) fn value<T: FromStr<Err: fmt::Display>>(key: &str, text: &str) -> Result<T, Problem> {
    text.parse().map_err(|error| {
        let detail = format!("{key}: {error}");
        Problem::new(Kind::InvalidInput, detail)
    })
}

impl Label {
    /// Its number among a model's classes; where it is none of them, a number that no model has.
    pub(super) fn number(&self, names: &[String]) -> u32 {
        match self {
            Self::Number(number) => *number,
            Self::Name(name) => position(names, name).unwrap_or(NO_CLASS),
        }
    }
}

/// The number of a class that is told in a form, where everything is text: by its name, else by its number.
pub(super) fn class_of(text: &str, names: &[String]) -> u32 {
    let number = || text.parse().unwrap_or(NO_CLASS);
    position(names, text).unwrap_or_else(number)
}

fn position(names: &[String], name: &str) -> Option<u32> {
    let place = names.iter().position(|known| known == name)?;
    u32::try_from(place).ok()
}

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Class;
        impl Visitor<'_> for Class {
            type Value = Label;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a class's number or its name")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Label, E> {
                Ok(Label::Number(u32::try_from(number).unwrap_or(NO_CLASS)))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Label, E> {
                Ok(Label::Number(u32::try_from(number).unwrap_or(NO_CLASS)))
            }

            fn visit_f64<E: Error>(self, _: f64) -> Result<Label, E> {
                Ok(Label::Number(NO_CLASS))
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Label, E> {
                Ok(Label::Name(name.to_owned()))
            }
        }
        deserializer.deserialize_any(Class)
    }
}

/// Why a label that stands alone in its request was refused; `None` where it is on the disk.
pub(super) fn refusal(outcome: Outcome, now_ms: i64) -> Option<Problem> {
    let (kind, detail) = match outcome {
        Outcome::Accepted | Outcome::Duplicate | Outcome::Quarantined | Outcome::Overruled => return None,
        Outcome::Unknown => (
            Kind::NotKept,
            "no prediction of this id and no image of this sha256 is kept",
        ),
        Outcome::OutOfRange => (Kind::InvalidInput, "label: the model has no such class"),
        Outcome::OverQuota => (
            Kind::QuotaUsed,
            "the source gave as many labels as it may in a day (UTC)",
        ),
        Outcome::Erased => (
            Kind::Erased,
            "the image was erased, and nothing of it is taken again",
        ),
    };
    let problem = Problem::new(kind, detail);
    Some(match outcome {
        Outcome::OverQuota => problem.retry_after(until_tomorrow(now_ms)),
        _ => problem,
    })
}

fn until_tomorrow(now_ms: i64) -> Duration {
    let left = DAY_MS - now_ms.rem_euclid(DAY_MS);
    Duration::from_millis(left.unsigned_abs())
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full => Self::new(Kind::InsufficientStorage, "nothing of this was kept"),
            StoreError::Busy => {
                let detail = "another writer holds the store; nothing of this was kept";
                Self::new(Kind::StoreUnavailable, detail).retry_after(BUSY_RETRY)
            }
            StoreError::Invalid(detail) => Self::new(Kind::InvalidInput, detail),
            StoreError::Files { .. }
            | StoreError::Disk(_)
            | StoreError::Newer { .. }
            | StoreError::Corrupt(_)
            | StoreError::Database(_)
            | StoreError::Blobs(_) => failed(&error),
        }
    }
}

/// The store failed by its disk, or by a bug; the log is told of it.
pub(super) fn failed(error: &StoreError) -> Problem {
    tracing::error!(%error, "the store failed");
    let more = "the log says more under this request's id";
    match error {
        StoreError::Files { .. } | StoreError::Disk(_) => {
            let detail = format!("the disk of the store fails and nothing of this was kept; {more}");
            Problem::new(Kind::StoreUnavailable, detail)
        }
        _ => Problem::new(Kind::Internal, more),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names() -> Vec<String> {
        ["zero", "one", "0"].map(str::to_owned).to_vec()
    }

    #[test]
    fn a_class_is_told_by_number_or_by_name() {
        let check = |json: &str, expected: u32| {
            let label: Label = serde_json::from_str(json).unwrap();
            assert_eq!(label.number(&names()), expected, "{json}");
        };
        check("1", 1);
        check("7", 7);
        check("\"one\"", 1);
        check("\"0\"", 2);
        check("\"1\"", NO_CLASS);
        check("-1", NO_CLASS);
        check("4294967296", NO_CLASS);
        check("1.5", NO_CLASS);
        assert!(serde_json::from_str::<Label>("null").is_err());
        assert!(serde_json::from_str::<Label>("[1]").is_err());
    }

    #[test]
    fn in_a_form_a_name_comes_before_a_number() {
        let check = |text: &str, expected| assert_eq!(class_of(text, &names()), expected, "{text}");
        check("one", 1);
        check("0", 2);
        check("1", 1);
        check("-1", NO_CLASS);
        check("", NO_CLASS);
    }

    #[test]
    fn the_disk_and_the_day_tell_what_to_do() {
        assert_eq!(Problem::from(StoreError::Full).kind, Kind::InsufficientStorage);
        let busy = Problem::from(StoreError::Busy);
        assert_eq!(
            (busy.kind, busy.retry_after),
            (Kind::StoreUnavailable, Some(BUSY_RETRY))
        );
        let files = StoreError::Files {
            path: "/secret/place".into(),
            source: std::io::ErrorKind::PermissionDenied.into(),
        };
        for error in [files, StoreError::Disk("/secret/place".into())] {
            let problem = Problem::from(error);
            assert_eq!(problem.kind, Kind::StoreUnavailable);
            assert!(!problem.detail.contains("secret"));
        }
        let newer = StoreError::Newer { found: 2, known: 1 };
        assert_eq!(Problem::from(newer).kind, Kind::Internal);
        let over = refusal(Outcome::OverQuota, 3 * DAY_MS - 1500).unwrap();
        assert_eq!(over.retry_after, Some(Duration::from_millis(1500)));
    }

    proptest! {
        #[test]
        fn tomorrow_is_at_most_a_day_away(now_ms: i64) {
            let wait = until_tomorrow(now_ms).as_millis();
            prop_assert!((1..=DAY_MS.unsigned_abs().into()).contains(&wait));
        }
    }
}
