//! The name of one request, in and out.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::HeaderMap;

/// A request's name: the caller's own where it sent a usable one, else a fresh one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(pub Arc<str>);

/// The header that carries it, both ways.
pub(super) const HEADER: &str = "x-request-id";

/// Makes fresh ids: unique in this process, and not to be met in another but by a chance of about 2⁻⁶⁴ per pair.
#[derive(Debug)]
pub(super) struct Ids {
    process: u64,
    next: AtomicU64,
}

impl RequestId {
    /// The caller's id where it is `[A-Za-z0-9._-]{1,128}`, else a fresh one.
    pub(super) fn of(headers: &HeaderMap, ids: &Ids) -> Self {
        let given = headers.get(HEADER).and_then(|value| value.to_str().ok());
        match given.filter(|text| is_usable(text)) {
            Some(text) => Self(text.into()),
            None => ids.request(),
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Ids {
    /// Seeded from the operating system.
    pub(super) fn new() -> Self {
        Self {
            process: RandomState::new().hash_one("process"),
            next: AtomicU64::new(RandomState::new().hash_one("next")),
        }
    }

    /// 32 hexadecimal digits: 16 of the process, then 16 that differ at each call.
    fn request(&self) -> RequestId {
        let mut text = [0; 32];
        text[..16].copy_from_slice(&hex(self.process));
        text[16..].copy_from_slice(&self.span());
        RequestId(ascii(&text).into())
    }

    /// 16 hexadecimal digits that differ at each call and are not all 0, as W3C wants of a span.
    pub(super) fn span(&self) -> [u8; 16] {
        loop {
            let number = mix(self.next.fetch_add(1, Ordering::Relaxed));
            if number != 0 {
                return hex(number);
            }
        }
    }
}

/// The text of digits made here.
pub(super) fn ascii(digits: &[u8]) -> &str {
    std::str::from_utf8(digits).expect("hexadecimal digits are ASCII")
}

fn is_usable(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=128).contains(&text.len()) && text.bytes().all(plain)
}

/// SplitMix64's finaliser (Steele, Lea and Flood 2014): a bijection, so that different inputs stay different.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn hex(number: u64) -> [u8; 16] {
    let digit = |place: usize| b"0123456789abcdef"[(number >> (60 - 4 * place)) as usize & 15];
    std::array::from_fn(digit)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn of(given: &str) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, HeaderValue::from_bytes(given.as_bytes()).unwrap());
        RequestId::of(&headers, &Ids::new()).to_string()
    }

    #[test]
    fn a_usable_id_is_honoured_and_any_other_replaced() {
        for good in ["a", "A-b_c.9", &"x".repeat(128)] {
            assert_eq!(of(good), good);
        }
        for bad in ["", "a b", "a/b", "ä", "{\"a\":1}", "a\tb", &"x".repeat(129)] {
            let fresh = of(bad);
            assert!(fresh != bad && fresh.len() == 32, "{bad:?} gave {fresh}");
        }
    }

    #[test]
    fn fresh_ids_are_hexadecimal_and_differ() {
        let ids = Ids::new();
        let some: HashSet<_> = (0..10_000).map(|_| ids.request().to_string()).collect();
        assert_eq!(some.len(), 10_000);
        assert!(
            some.iter()
                .all(|id| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()))
        );
        assert_ne!(Ids::new().request(), Ids::new().request());
    }

    proptest! {
        #[test]
        fn digits_are_the_number(number: u64) {
            let digits = hex(number);
            prop_assert_eq!(ascii(&digits), format!("{number:016x}"));
        }

        #[test]
        fn whatever_is_sent_the_id_is_usable(given in proptest::collection::vec(32u8..=255, 0..200)) {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_bytes(&given) {
                headers.insert(HEADER, value);
            }
            prop_assert!(is_usable(&RequestId::of(&headers, &Ids::new()).0));
        }
    }
}
