//! The names in a safetensors header: each once, and as few of them in an error as anybody reads.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use crate::model::text::on_one_line;

/// Most names that one list of an error tells, and most characters of each.
const TOLD: usize = 20;
const TOLD_CHARS: usize = 80;

/// Refuses a header that says something twice: of two tensors of one name the reader would take the last one in silence.
pub(super) fn check_once(header: &[u8]) -> Result<(), String> {
    let mut json = serde_json::Deserializer::from_slice(header);
    let checked = Once.deserialize(&mut json).and_then(|()| json.end());
    checked.map_err(|error| shown(&error.to_string()))
}

/// A list of names as an error tells it: on one line, whatever the names are, and not much longer than one.
pub(super) fn told(names: &[String]) -> String {
    let mut text: Vec<String> = names.iter().take(TOLD).map(|name| shown(name)).collect();
    if names.len() > TOLD {
        text.push(format!("and {} more", names.len() - TOLD));
    }
    text.join(", ")
}

/// A name as it is, but for what a terminal or a log would take for more than text.
pub(super) fn shown(name: &str) -> String {
    let mut shown: String = name.chars().take(TOLD_CHARS).collect();
    if name.chars().nth(TOLD_CHARS).is_some() {
        shown.push('…');
    }
    on_one_line(&shown)
}

/// An object without two equal keys; so are the objects in it.
struct Once;

impl<'de> DeserializeSeed<'de> for Once {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Once {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            // Two deep: names, and what is said of each.
            map.next_value_seed(Within)?;
            if let Some(key) = seen.replace(key) {
                return Err(A::Error::custom(format_args!("'{key}' stands in it twice")));
            }
        }
        Ok(())
    }
}

/// What is said of a tensor, each thing once; anything but an object is the reader's to judge.
struct Within;

impl<'de> DeserializeSeed<'de> for Within {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Within {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = BTreeSet::new();
        while let Some((key, _)) = map.next_entry::<String, IgnoredAny>()? {
            if let Some(key) = seen.replace(key) {
                return Err(A::Error::custom(format_args!("'{key}' stands in it twice")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_twice_is_refused() {
        for good in ["{}", r#"{"a": {"dtype": "F32"}, "b": {"dtype": "F32"}}"#] {
            assert_eq!(check_once(good.as_bytes()), Ok(()), "{good}");
        }
        let check = |header: &str, expected: &str| {
            let error = check_once(header.as_bytes()).unwrap_err();
            assert!(error.starts_with(expected), "{header}: {error}");
        };
        check(r#"{"a": {}, "b": {}, "a": {}}"#, "'a' stands in it twice");
        check(
            r#"{"a": {"shape": [1], "shape": [2]}}"#,
            "'shape' stands in it twice",
        );
        check(r#"{"\u0061": {}, "a": {}}"#, "'a' stands in it twice");
        check("{", "EOF");
        check("[]", "invalid type: sequence, expected an object");
        check("{} {}", "trailing characters");
    }

    #[test]
    fn a_list_of_names_is_one_short_line() {
        let names = |count: usize| (0..count).map(|i| format!("t{i}")).collect::<Vec<_>>();
        assert_eq!(told(&names(2)), "t0, t1");
        assert!(told(&names(100_000)).ends_with("t19, and 99980 more"));
        let odd = ["a\nb\u{1b}[2J".to_owned(), "x".repeat(1000)];
        let told = told(&odd);
        assert_eq!(told.lines().count(), 1);
        assert!(told.starts_with("a\u{fffd}b\u{fffd}[2J, xxx") && told.chars().count() < 100);
    }
}
