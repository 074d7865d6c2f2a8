//! Names of models and numbers of versions, checked when they are made.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A model's name: `[a-z0-9][a-z0-9._-]{0,63}` without `..`, so that it is safe as a folder, a URL segment and a label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModelName(Arc<str>);

/// A version's number within its model, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Version(u32);

/// Why a text is no name or version.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NameError {
    /// The text is not a model name.
    #[error(
        "a model name is 1 to 64 of a-z, 0-9, '.', '_' and '-', starts with a letter or digit and has no '..'"
    )]
    Model,
    /// The text is not a version.
    #[error("a version is a whole number from 1, written without leading zeros")]
    Version,
}

impl ModelName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Version {
    /// The first version of a model.
    pub const FIRST: Self = Self(1);

    /// The number, from 1.
    pub fn number(self) -> u32 {
        self.0
    }

    /// The version after this one; `None` past `u32::MAX`.
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

impl FromStr for ModelName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = text.as_bytes();
        let fits = (1..=64).contains(&bytes.len())
            && plain(bytes[0])
            && bytes.iter().all(|&b| plain(b) || matches!(b, b'.' | b'_' | b'-'))
            && !text.contains("..");
        if fits {
            Ok(Self(text.into()))
        } else {
            Err(NameError::Model)
        }
    }
}

impl FromStr for Version {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let digits = !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
        let number = if digits { text.parse().ok() } else { None };
        number.map(Self).ok_or(NameError::Version)
    }
}

impl TryFrom<String> for ModelName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<ModelName> for String {
    fn from(name: ModelName) -> Self {
        name.as_str().to_owned()
    }
}

impl TryFrom<u32> for Version {
    type Error = NameError;

    fn try_from(number: u32) -> Result<Self, NameError> {
        if number == 0 {
            Err(NameError::Version)
        } else {
            Ok(Self(number))
        }
    }
}

impl From<Version> for u32 {
    fn from(version: Version) -> Self {
        version.0
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_as_folders_and_labels() {
        for good in ["mnist", "a", "0", "fashion-mnist", "v1.2_x", &"a".repeat(64)] {
            assert_eq!(
                good.parse::<ModelName>().map(|n| n.to_string()),
                Ok(good.to_owned()),
                "{good}"
            );
        }
        for bad in [
            "",
            ".",
            "..",
            "a..b",
            "-a",
            "A",
            "a/b",
            "a\\b",
            "a b",
            "ä",
            "a\0",
            "%2e",
            &"a".repeat(65),
        ] {
            assert_eq!(bad.parse::<ModelName>(), Err(NameError::Model), "{bad:?}");
        }
    }

    #[test]
    fn versions_are_numbers_from_one() {
        for (text, number) in [("1", 1), ("42", 42), ("4294967295", u32::MAX)] {
            assert_eq!(text.parse::<Version>().map(Version::number), Ok(number));
        }
        for bad in ["", "0", "01", "-1", "+1", "1.0", "4294967296", "one", " 1"] {
            assert_eq!(bad.parse::<Version>(), Err(NameError::Version), "{bad:?}");
        }
    }
}
