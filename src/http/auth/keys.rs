//! The keys in force: read, checked, and found by a token in constant time.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::AuthError;
use super::key::{KeyEntry, KeyHash, KeyId, Scopes};
use super::quota::Bucket;
use crate::telemetry::access::{AccessMetrics, KeySeries};

/// All keys in force.
#[derive(Debug, Default)]
pub(super) struct Keys(Vec<Known>);

/// One key in force.
#[derive(Debug)]
pub(super) struct ApiKey {
    pub(super) id: KeyId,
    pub(super) scopes: Scopes,
    /// Where its requests are counted out.
    pub(super) bucket: Option<Arc<Bucket>>,
    pub(super) series: KeySeries,
}

#[derive(Debug)]
struct Known {
    hash: [u64; 4],
    key: Arc<ApiKey>,
}

/// Every request is held against all of them.
const MAX_KEYS: usize = 1000;
const MAX_FILE_BYTES: u64 = 1 << 20;

impl Keys {
    /// Those of `entries`, which are checked. A key of `before` that is the same but for its token goes on with what it
    /// has left of its quota.
    pub(super) fn new(entries: &[KeyEntry], before: &Self, metrics: &AccessMetrics) -> Self {
        let known = |entry: &KeyEntry| {
            let fresh = entry.bucket();
            let kept = before.0.iter().find(|known| known.key.id == entry.id);
            let kept = kept.and_then(|known| known.key.bucket.clone());
            let bucket = match (fresh, kept) {
                (Some(fresh), Some(kept)) if kept.is_like(&fresh) => Some(kept),
                (fresh, _) => fresh.map(Arc::new),
            };
            let key = ApiKey {
                id: entry.id.clone(),
                scopes: Scopes::of(&entry.scopes),
                bucket,
                series: metrics.key(entry.id.as_str()),
            };
            Known {
                hash: entry.hash.words(),
                key: Arc::new(key),
            }
        };
        Self(entries.iter().map(known).collect())
    }

    /// The key of a token. Every key is looked at whole, whichever fits, so that the time tells nothing of where the
    /// hashes differ or which key it is.
    pub(super) fn find(&self, token: &[u8]) -> Option<&Arc<ApiKey>> {
        let sought = KeyHash::of(token).words();
        let mut place = u64::MAX;
        for (at, known) in (0_u64..).zip(&self.0) {
            let differing = sought
                .iter()
                .zip(&known.hash)
                .fold(0, |bits, (a, b)| bits | (a ^ b));
            let same: Choice = differing.ct_eq(&0);
            place.conditional_assign(&at, same);
        }
        let place = usize::try_from(place).ok()?;
        self.0.get(place).map(|known| &known.key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &ApiKey> {
        self.0.iter().map(|known| &*known.key)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl KeyEntry {
    fn bucket(&self) -> Option<Bucket> {
        Some(Bucket::new(self.requests_per_second?, self.at_once()?))
    }
}

/// Checks each entry, and that no id and no hash stands twice.
pub(super) fn check(entries: &[KeyEntry]) -> Result<(), String> {
    if entries.len() > MAX_KEYS {
        return Err(format!("{} keys; at most {MAX_KEYS} are possible", entries.len()));
    }
    let (mut ids, mut hashes) = (HashSet::new(), HashSet::new());
    for entry in entries {
        entry.check()?;
        if !ids.insert(&entry.id) {
            return Err(format!("key {}: the id stands twice", entry.id));
        }
        if !hashes.insert(entry.hash) {
            return Err(format!("key {}: another key has this hash", entry.id));
        }
    }
    Ok(())
}

/// The entries of a file: a JSON object on each line; empty lines and those that begin with `#` are passed over.
pub(super) fn read(path: &Path) -> Result<Vec<KeyEntry>, AuthError> {
    parse(&text(path)?).map_err(|problem| AuthError(format!("{}: {problem}", path.display())))
}

fn text(path: &Path) -> Result<String, AuthError> {
    let told = |problem: String| AuthError(format!("{}: {problem}", path.display()));
    let mut text = String::new();
    let file = File::open(path).map_err(|error| told(error.to_string()))?;
    file.take(MAX_FILE_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(|error| told(error.to_string()))?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(told(format!("is larger than {MAX_FILE_BYTES} bytes")));
    }
    Ok(text)
}

/// Adds a line to a file of keys, which is made for its owner alone where it is missing. A server that reads it meanwhile
/// finds the line whole or not at all.
///
/// # Errors
///
/// A file that cannot be read or written, or with which the key does not go together.
pub fn append(path: &Path, entry: &KeyEntry) -> Result<(), AuthError> {
    let told = |problem: String| AuthError(format!("{}: {problem}", path.display()));
    let io = |error: std::io::Error| told(error.to_string());
    let mut options = OpenOptions::new();
    let mut file = options
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(io)?;
    let before = text(path)?;
    let mut all = parse(&before).map_err(told)?;
    all.push(entry.clone());
    check(&all).map_err(told)?;
    let ended = before.is_empty() || before.ends_with('\n');
    let line = format!("{}{}\n", if ended { "" } else { "\n" }, entry.line()?);
    file.write_all(line.as_bytes()).map_err(io)?;
    file.sync_all().map_err(io)
}

fn parse(text: &str) -> Result<Vec<KeyEntry>, String> {
    let lines = (1..).zip(text.lines().map(str::trim));
    let filled = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let entry = |(number, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| format!("line {number}: {error}"))
    };
    filled.map(entry).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::key::{Scope, Token};
    use super::*;
    use crate::telemetry::Metrics;

    fn entry(id: &str, token: &str) -> KeyEntry {
        KeyEntry {
            id: id.parse().unwrap(),
            scopes: vec![Scope::Predict],
            hash: KeyHash::of(token.as_bytes()),
            requests_per_second: None,
            burst: None,
        }
    }

    fn keys(entries: &[KeyEntry], before: &Keys) -> Keys {
        Keys::new(entries, before, &Metrics::new(&[]).access)
    }

    #[test]
    fn a_token_finds_its_key_wherever_it_stands() {
        let entries: Vec<_> = (0..20)
            .map(|n| entry(&format!("key-{n}"), &format!("t{n}")))
            .collect();
        let keys = keys(&entries, &Keys::default());
        for n in 0..20 {
            let found = keys.find(format!("t{n}").as_bytes()).unwrap();
            assert_eq!(found.id.as_str(), format!("key-{n}"));
        }
        for wrong in ["", "t", "t20", "T1", "t1 "] {
            assert!(keys.find(wrong.as_bytes()).is_none(), "{wrong:?}");
        }
        assert!(Keys::default().find(b"t1").is_none());
    }

    #[test]
    fn a_quota_outlives_a_new_token_but_not_another_rate() {
        let limited = |token: &str, rate: f64| KeyEntry {
            requests_per_second: Some(rate),
            ..entry("ann", token)
        };
        let first = keys(&[limited("a", 2.0)], &Keys::default());
        let take = |keys: &Keys, token: &[u8]| {
            let key = keys.find(token).unwrap();
            key.bucket.as_ref().unwrap().take(0).map(|standing| standing.left)
        };
        // The burst is a second's.
        assert_eq!(take(&first, b"a"), Ok(1));
        let second = keys(&[limited("b", 2.0)], &first);
        assert!(second.find(b"a").is_none());
        assert_eq!(take(&second, b"b"), Ok(0));
        let third = keys(&[limited("b", 3.0)], &second);
        assert_eq!(take(&third, b"b"), Ok(2));
        assert!(
            keys(&[entry("ann", "b")], &third)
                .find(b"b")
                .unwrap()
                .bucket
                .is_none()
        );
    }

    #[test]
    fn a_file_is_lines() {
        let token = Token::fresh().unwrap();
        let line = serde_json::to_string(&entry("ann", token.as_str())).unwrap();
        let text = format!("# people\n\n  {line}\r\n{}\n", line.replace("ann", "bob"));
        let entries = parse(&text).unwrap();
        assert_eq!(entries[0], entry("ann", token.as_str()));
        assert_eq!((entries.len(), entries[1].id.as_str()), (2, "bob"));
        assert!(parse("# nobody\n").unwrap().is_empty());
        for (wrong, part) in [
            (&*format!("{line}\n{{"), "line 2: "),
            (&line.replace("scopes", "scope"), "line 1: unknown field `scope`"),
            (&line.replace("predict", "everything"), "line 1: unknown variant"),
            (&line.replace("ann", "a b"), "line 1: a key's id"),
        ] {
            let error = parse(wrong).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn nothing_stands_twice() {
        assert_eq!(check(&[entry("a", "1"), entry("b", "2")]), Ok(()));
        let error = check(&[entry("a", "1"), entry("a", "2")]).unwrap_err();
        assert!(error.contains("key a: the id stands twice"), "{error}");
        let error = check(&[entry("a", "1"), entry("b", "1")]).unwrap_err();
        assert!(error.contains("key b: another key has this hash"), "{error}");
        let many: Vec<_> = (0..=MAX_KEYS)
            .map(|n| entry(&n.to_string(), &n.to_string()))
            .collect();
        assert!(check(&many).unwrap_err().contains("1001 keys"));
    }

    proptest! {
        #[test]
        fn no_file_panics(text in "(.|\n){0,60}") {
            let _ = parse(&text);
        }
    }
}
