//! A key as it is configured: its id, what it may do, and the hash of its token.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use super::AuthError;

/// The name of a key, by which logs, metrics and feedback know it: 1 to 64 of `A-Za-z0-9._-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(Arc<str>);

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Ask for predictions.
    Predict,
    /// Give feedback and samples.
    Feedback,
    /// Read the series.
    Metrics,
    /// All of it, and whatever changes what is served or kept.
    Admin,
}

/// Several [`Scope`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scopes(u8);

/// The SHA-256 of a token; as text, 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 32]);

/// A key as a file holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyEntry {
    /// Its name.
    pub id: KeyId,
    /// What it may do; at least one.
    pub scopes: Vec<Scope>,
    /// Of its token.
    pub hash: KeyHash,
    /// Requests per second, steadily, 0.001 to 1,000,000; unset: as many as it likes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<f64>,
    /// Requests at once, 1 to 1,000,000; unset: those of a second, at least one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
}

/// What a caller shows. It is never logged and has no `Debug` text.
pub struct Token(String);

/// What is wrong with a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeyError(&'static str);

/// Tells people, and programs that look for lost secrets, what it is.
const PREFIX: &str = "sconce_";
const MAX_ID: usize = 64;

impl KeyId {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyId {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if (1..=MAX_ID).contains(&text.len()) && text.bytes().all(plain) {
            return Ok(Self(text.into()));
        }
        Err(KeyError("a key's id is 1 to 64 of A-Za-z0-9._-"))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Scope {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Predict, Self::Feedback, Self::Metrics, Self::Admin];

    /// As it stands in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Predict => "predict",
            Self::Feedback => "feedback",
            Self::Metrics => "metrics",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for Scope {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let found = Self::ALL.into_iter().find(|scope| scope.name() == text);
        found.ok_or(KeyError("a scope is predict, feedback, metrics or admin"))
    }
}

impl Scopes {
    pub(super) fn of(scopes: &[Scope]) -> Self {
        Self(scopes.iter().fold(0, |bits, &scope| bits | 1 << scope as u8))
    }

    /// Whether `scope` is among them; the admin scope includes every other.
    pub(super) fn allow(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8 | 1 << Scope::Admin as u8) != 0
    }
}

impl KeyHash {
    /// Of what a caller sent.
    pub fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// Its 256 bits.
    pub(super) fn words(self) -> [u64; 4] {
        let word = |at: usize| {
            let bytes = self.0[8 * at..8 * at + 8].try_into();
            u64::from_ne_bytes(bytes.expect("eight bytes of 32"))
        };
        std::array::from_fn(word)
    }
}

impl FromStr for KeyHash {
    type Err = KeyError;

    /// The error does not repeat the text: somebody may have put the token in its place.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let wrong = KeyError("hash is the SHA-256 of the token in 64 lower-case hexadecimal digits");
        let digest: crate::store::Digest = text.parse().map_err(|_| wrong)?;
        Ok(Self(*digest.bytes()))
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyHash({self})")
    }
}

impl Token {
    /// A fresh one of 256 random bits from the operating system.
    pub fn fresh() -> io::Result<Self> {
        let mut bits = [0; 32];
        getrandom::fill(&mut bits)?;
        Ok(Self(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bits))))
    }

    /// What the caller sends.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the server keeps.
    pub fn hash(&self) -> KeyHash {
        KeyHash::of(self.0.as_bytes())
    }
}

impl KeyEntry {
    /// As a file of keys holds it.
    ///
    /// # Errors
    ///
    /// What is out of range.
    pub fn line(&self) -> Result<String, AuthError> {
        self.check().map_err(AuthError)?;
        Ok(serde_json::to_string(self).expect("texts and finite numbers always serialise"))
    }

    /// Requests that may come at once; `None` where there is no limit.
    pub fn at_once(&self) -> Option<u32> {
        let rate = self.requests_per_second?;
        Some(self.burst.unwrap_or(rate.ceil() as u32))
    }

    /// Tells what is out of range.
    pub(super) fn check(&self) -> Result<(), String> {
        let Self { id, scopes, .. } = self;
        if scopes.is_empty() {
            return Err(format!("key {id}: scopes: at least one is expected"));
        }
        if self
            .requests_per_second
            .is_some_and(|rate| !RATES.contains(&rate))
        {
            return Err(format!(
                "key {id}: requests_per_second: 0.001 to 1000000 is possible"
            ));
        }
        match (self.burst, self.requests_per_second) {
            (Some(burst), _) if !(1..=MAX_BURST).contains(&burst) => {
                Err(format!("key {id}: burst: 1 to {MAX_BURST} is possible"))
            }
            (Some(_), None) => Err(format!(
                "key {id}: burst: it means nothing without requests_per_second"
            )),
            _ => Ok(()),
        }
    }
}

/// Requests per second.
const RATES: std::ops::RangeInclusive<f64> = 0.001..=1e6;
const MAX_BURST: u32 = 1_000_000;

/// As text, read by the type's own rule.
macro_rules! text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

text!(KeyId);
text!(KeyHash);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_admin_scope_includes_the_others_and_no_other_does() {
        let check = |scopes: &[Scope], expected: [bool; 4]| {
            assert_eq!(
                Scope::ALL.map(|scope| Scopes::of(scopes).allow(scope)),
                expected,
                "{scopes:?}"
            );
        };
        check(&[], [false; 4]);
        check(&[Scope::Predict], [true, false, false, false]);
        check(&[Scope::Feedback, Scope::Predict], [true, true, false, false]);
        check(&[Scope::Metrics], [false, false, true, false]);
        check(&[Scope::Admin], [true; 4]);
    }

    #[test]
    fn a_token_is_fresh_and_only_its_hash_is_kept() {
        let (one, other) = (Token::fresh().unwrap(), Token::fresh().unwrap());
        assert_ne!(one.as_str(), other.as_str());
        // 256 bits are 43 characters of 6.
        assert_eq!(one.as_str().len(), PREFIX.len() + 43);
        assert_eq!(one.hash(), KeyHash::of(one.as_str().as_bytes()));
        // printf abc | sha256sum
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(KeyHash::of(b"abc").to_string(), abc);
        assert_eq!(abc.parse(), Ok(KeyHash::of(b"abc")));
    }

    #[test]
    fn a_wrong_hash_is_not_repeated() {
        for wrong in ["sconce_secret", "", &"A".repeat(64)] {
            let entry = serde_json::json!({"id": "a", "scopes": ["admin"], "hash": wrong});
            let error = serde_json::from_value::<KeyEntry>(entry).unwrap_err().to_string();
            assert!(
                error.contains("64 lower-case") && !error.contains("secret"),
                "{error}"
            );
        }
    }

    #[test]
    fn ids_are_plain() {
        for good in ["a", "ann.v2_x-1", &"x".repeat(64)] {
            assert_eq!(good.parse::<KeyId>().unwrap().as_str(), good);
        }
        for bad in ["", "a b", "a/b", "ä", "a\n", &"x".repeat(65)] {
            assert!(bad.parse::<KeyId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn numbers_have_ranges() {
        let check = |rate: Option<f64>, burst: Option<u32>, expected: Option<&str>| {
            let entry = KeyEntry {
                id: "ann".parse().unwrap(),
                scopes: vec![Scope::Predict],
                hash: KeyHash::of(b"x"),
                requests_per_second: rate,
                burst,
            };
            let text = entry.check().err();
            let fits = match (&text, expected) {
                (Some(text), Some(part)) => text.contains(part) && text.contains("ann"),
                (None, None) => true,
                _ => false,
            };
            assert!(fits, "{rate:?} {burst:?}: {text:?}");
        };
        check(None, None, None);
        check(Some(0.001), Some(1), None);
        check(Some(1e6), Some(1_000_000), None);
        check(Some(0.0), None, Some("requests_per_second"));
        check(Some(f64::NAN), None, Some("requests_per_second"));
        check(Some(1e7), None, Some("requests_per_second"));
        check(Some(1.0), Some(0), Some("burst: 1 to"));
        check(Some(1.0), Some(1_000_001), Some("burst: 1 to"));
        check(None, Some(1), Some("without requests_per_second"));
    }
}
