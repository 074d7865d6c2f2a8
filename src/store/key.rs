//! The texts that rows are found by, checked when they are made.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::StoreError;

/// A prediction's id or a source's name: 1 to 136 visible ASCII characters, a request's id of 128 and a place in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

/// The sha256 of an image's bytes as they came; as text, 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

const MAX_LENGTH: usize = 136;

impl Key {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Digest {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Its 32 bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for Key {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let visible = text.bytes().all(|b| b.is_ascii_graphic());
        if visible && (1..=MAX_LENGTH).contains(&text.len()) {
            return Ok(Self(text.into()));
        }
        let rule = "an id and a source's name are 1 to 136 visible ASCII characters";
        Err(StoreError::Invalid(rule.to_owned()))
    }
}

impl FromStr for Digest {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let invalid = || StoreError::Invalid("a sha256 is 64 lower-case hexadecimal digits".to_owned());
        let digits = text.as_bytes();
        let lower = |b: &u8| b.is_ascii_digit() || (b'a'..=b'f').contains(b);
        if digits.len() != 64 || !digits.iter().all(lower) {
            return Err(invalid());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let pair = str::from_utf8(pair).map_err(|_| invalid())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| invalid())?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// Whether the prediction `id` is kept at this `rate` of 0 to 1: by its hash alone, so that every process decides alike.
/// What is kept at a rate is kept at every higher one.
pub fn sampled(id: &Key, rate: f64) -> bool {
    let Digest([a, b, c, d, e, f, g, h, ..]) = Digest::of(id.as_str().as_bytes());
    // 53 bits, as many as f64 holds exactly: below 1 for certain.
    let bits = u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 11;
    (bits as f64) / ((1_u64 << 53) as f64) < rate
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_digest_is_its_text() {
        // FIPS 180-4's example.
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::of(b"abc").to_string(), text);
        assert_eq!(text.parse::<Digest>().unwrap(), Digest::of(b"abc"));
        for wrong in [
            "",
            "ba78",
            &text.to_uppercase(),
            &format!("{text}0"),
            &text.replace('b', "g"),
        ] {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_key_is_visible_and_short() {
        let check = |text: &str, fits: bool| assert_eq!(text.parse::<Key>().is_ok(), fits, "{text:?}");
        check("a", true);
        check("key:3f/A~", true);
        check(&"x".repeat(136), true);
        check(&"x".repeat(137), false);
        check("", false);
        check("a b", false);
        check("a\n", false);
        check("ä", false);
    }

    #[test]
    fn a_tenth_is_about_a_tenth() {
        let ids = (0..10_000).map(|n| format!("id-{n}").parse::<Key>().unwrap());
        let kept = ids.filter(|id| sampled(id, 0.1)).count();
        // Six standard deviations of a binomial count; the ids are fixed, so this holds always or never.
        assert!((820..=1180).contains(&kept), "{kept}");
    }

    proptest! {
        #[test]
        fn sampling_is_monotone_and_its_ends_are_exact(id in "[!-~]{1,40}", low in 0.0..1.0, more in 0.0..1.0) {
            let id: Key = id.parse().unwrap();
            prop_assert!(!sampled(&id, 0.0));
            prop_assert!(sampled(&id, 1.0));
            prop_assert!(!sampled(&id, low) || sampled(&id, f64::max(low, more)));
        }
    }
}
