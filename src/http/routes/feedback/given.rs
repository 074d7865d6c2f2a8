//! A body of feedback to checked entries.

use std::fmt::Display;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::http::keeping::{self, Label, json};
use crate::http::problem::{Kind, Problem};
use crate::model::ModelName;
use crate::store::{Key, Subject};

/// What a request holds.
#[derive(Debug)]
pub(super) enum Given {
    /// One entry, as the whole body.
    One(Entry),
    /// A list of at least one.
    Many(Vec<Entry>),
}

/// One entry, its label still as the caller named it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) subject: Subject,
    pub(super) label: Label,
    pub(super) source: Key,
    pub(super) confidence: Option<f64>,
}

/// Whether the body is a list.
#[derive(Deserialize)]
struct Probe {
    feedback: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    feedback: Vec<Written>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    id: Option<String>,
    sha256: Option<String>,
    model: Option<ModelName>,
    label: Label,
    source: Option<String>,
    confidence: Option<f64>,
}

impl Given {
    /// Reads `{"feedback": […]}` of up to `most` entries, or one entry. The first thing that is wrong is the problem. An
    /// entry that names no source is its `caller`'s.
    pub(super) fn read(body: &[u8], most: usize, caller: Option<&Key>) -> Result<Self, Problem> {
        if json::<Probe>(body)?.feedback.is_none() {
            let entry = json::<Written>(body)?.checked(caller);
            return entry.map(Self::One).map_err(invalid);
        }
        let List { feedback } = json(body)?;
        if feedback.is_empty() || feedback.len() > most {
            let detail = format!("feedback: {} entries; 1 to {most} are possible", feedback.len());
            return Err(invalid(detail));
        }
        let checked = |(place, written): (usize, Written)| {
            let entry = written.checked(caller);
            entry.map_err(|problem| invalid(format!("feedback[{place}].{problem}")))
        };
        let entries: Result<_, _> = feedback.into_iter().enumerate().map(checked).collect();
        entries.map(Self::Many)
    }
}

impl Entry {
    /// Whether the prediction's id is what it names.
    pub(super) fn names_prediction(&self) -> bool {
        matches!(self.subject, Subject::Prediction(_))
    }
}

impl Written {
    /// As `key: problem` where it is not possible.
    fn checked(self, caller: Option<&Key>) -> Result<Entry, String> {
        let subject = match (self.id, self.sha256, self.model) {
            (Some(id), None, None) => Subject::Prediction(parsed("id", &id)?),
            (None, Some(sha256), Some(model)) => Subject::Image {
                model,
                sha256: parsed("sha256", &sha256)?,
            },
            _ => return Err("id: either id, or sha256 and model, name what is meant".to_owned()),
        };
        if self.confidence.is_some_and(|sure| !(0.0..=1.0).contains(&sure)) {
            return Err("confidence: 0 to 1 is possible".to_owned());
        }
        let source = self.source.map(|source| parsed("source", &source)).transpose()?;
        let source = source.or_else(|| caller.cloned());
        Ok(Entry {
            subject,
            label: self.label,
            source: source.ok_or_else(|| format!("source: {}", keeping::NO_SOURCE))?,
            confidence: self.confidence,
        })
    }
}

fn parsed<T: FromStr<Err: Display>>(key: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|error| format!("{key}: {error}"))
}

fn invalid(detail: String) -> Problem {
    Problem::new(Kind::InvalidInput, detail)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(body: &str, expected: Result<usize, (Kind, &str)>) {
        let found = Given::read(body.as_bytes(), 2, None).map(|given| match given {
            Given::One(_) => 0,
            Given::Many(entries) => entries.len(),
        });
        match (found, expected) {
            (Err(problem), Err((kind, detail))) => {
                assert_eq!(problem.kind, kind, "{body}: {}", problem.detail);
                assert!(problem.detail.contains(detail), "{body}: {}", problem.detail);
            }
            (found, expected) => assert_eq!(found.ok(), expected.ok(), "{body}"),
        }
    }

    #[test]
    fn one_and_many_are_read() {
        check(r#"{"id": "r:3", "label": 7, "source": "ann"}"#, Ok(0));
        check(
            r#"{"id": "r", "label": "seven", "source": "ann", "confidence": 0.5}"#,
            Ok(0),
        );
        let sha256 = "0".repeat(64);
        let image = format!(r#"{{"sha256": "{sha256}", "model": "digits", "label": 7, "source": "ann"}}"#);
        check(&image, Ok(0));
        check(&format!(r#"{{"feedback": [{image}]}}"#), Ok(1));
        check(&format!(r#"{{"feedback": [{image}, {image}]}}"#), Ok(2));
        let three = format!(r#"{{"feedback": [{image}, {image}, {image}]}}"#);
        check(&three, Err((Kind::InvalidInput, "feedback: 3 entries; 1 to 2")));
    }

    #[test]
    fn an_entry_without_a_source_is_its_callers() {
        let caller: Key = "ann".parse().unwrap();
        let source = |body: &str| match Given::read(body.as_bytes(), 2, Some(&caller)).unwrap() {
            Given::One(entry) => entry.source.to_string(),
            Given::Many(_) => panic!("one is given"),
        };
        assert_eq!(source(r#"{"id": "r", "label": 7}"#), "ann");
        assert_eq!(source(r#"{"id": "r", "label": 7, "source": "bob"}"#), "bob");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let bad = |detail| Err((Kind::BadRequest, detail));
        let invalid = |detail| Err((Kind::InvalidInput, detail));
        check("", bad("JSON"));
        check("[1]", bad("JSON"));
        check("{}", bad("missing field"));
        check(
            r#"{"id": "r", "label": 7, "source": "s", "lable": 1}"#,
            bad("lable"),
        );
        check(r#"{"id": "r", "source": "s"}"#, bad("missing field `label`"));
        check(r#"{"id": "r", "label": 7}"#, invalid("source: it says whose"));
        check(
            r#"{"id": "r", "label": null, "source": "s"}"#,
            bad("number or its name"),
        );
        check(r#"{"feedback": 3}"#, bad("JSON"));
        check(r#"{"feedback": [], "id": "r"}"#, bad("unknown field `id`"));
        check(r#"{"feedback": []}"#, invalid("feedback: 0 entries"));
        check(r#"{"id": "a b", "label": 7, "source": "s"}"#, invalid("id: "));
        check(r#"{"id": "r", "label": 7, "source": ""}"#, invalid("source: "));
        check(
            r#"{"id": "r", "label": 7, "source": "s", "confidence": 1.5}"#,
            invalid("confidence: "),
        );
        check(
            r#"{"sha256": "00", "model": "m", "label": 7, "source": "s"}"#,
            invalid("sha256: "),
        );
        check(
            r#"{"sha256": "00", "label": 7, "source": "s"}"#,
            invalid("either id, or sha256"),
        );
        check(
            r#"{"id": "r", "model": "m", "label": 7, "source": "s"}"#,
            invalid("either id"),
        );
        check(r#"{"label": 7, "source": "s"}"#, invalid("either id"));
        check(
            r#"{"feedback": [{"id": "r", "label": 7, "source": "s"}, {"id": "r", "label": 7, "source": "a b"}]}"#,
            invalid("feedback[1].source: "),
        );
    }

    proptest! {
        #[test]
        fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Given::read(&body, 2, None);
        }
    }
}
