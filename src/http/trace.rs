//! W3C Trace Context: the caller's trace, and this server's span in it.

use axum::http::{HeaderMap, HeaderValue};

use super::request_id::{Ids, ascii};

/// The header that carries it, both ways.
pub(super) const HEADER: &str = "traceparent";

/// A request's place in its caller's trace.
#[derive(Clone, Debug)]
pub(super) struct Trace {
    /// The caller's header, checked.
    parent: HeaderValue,
    /// This server's span.
    span: [u8; 16],
}

impl Trace {
    /// What the headers say; `None` where they say nothing, or not as <https://www.w3.org/TR/trace-context/> has it.
    pub(super) fn of(headers: &HeaderMap, ids: &Ids) -> Option<Self> {
        let mut values = headers.get_all(HEADER).iter();
        let parent = values.next().filter(|value| is_valid(value.as_bytes()))?;
        // Two of them belong to no trace.
        if values.next().is_some() {
            return None;
        }
        Some(Self {
            parent: parent.clone(),
            span: ids.span(),
        })
    }

    /// 32 hexadecimal digits.
    pub(super) fn trace_id(&self) -> &str {
        ascii(&self.parent.as_bytes()[3..35])
    }

    /// The caller's span: 16 hexadecimal digits.
    pub(super) fn parent_id(&self) -> &str {
        ascii(&self.parent.as_bytes()[36..52])
    }

    /// This server's span: 16 hexadecimal digits.
    pub(super) fn span_id(&self) -> &str {
        ascii(&self.span)
    }

    /// The header of the answer: the same trace and flags, this server's span.
    pub(super) fn header(&self) -> HeaderValue {
        let flags = ascii(&self.parent.as_bytes()[53..55]);
        let text = format!("00-{}-{}-{flags}", self.trace_id(), self.span_id());
        HeaderValue::try_from(text).expect("hexadecimal digits and '-' make a header")
    }
}

/// `version-trace-parent-flags` in lower-case hexadecimal; a version after 00 may add more behind another `-`.
fn is_valid(text: &[u8]) -> bool {
    let Some((known, more)) = text.split_at_checked(55) else {
        return false;
    };
    let in_place = |(place, &byte): (usize, &u8)| match place {
        2 | 35 | 52 => byte == b'-',
        _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
    };
    let all_zero = |digits: &[u8]| digits.iter().all(|&digit| digit == b'0');
    let fits = match &known[..2] {
        b"00" => more.is_empty(),
        b"ff" => false,
        _ => more.first().is_none_or(|&byte| byte == b'-'),
    };
    fits && known.iter().enumerate().all(in_place) && !all_zero(&known[3..35]) && !all_zero(&known[36..52])
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn of(values: &[&str]) -> Option<Trace> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, HeaderValue::from_str(value).unwrap());
        }
        Trace::of(&headers, &Ids::new())
    }

    #[test]
    fn a_valid_parent_is_taken_apart() {
        let trace = of(&[GOOD]).unwrap();
        assert_eq!(trace.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(trace.parent_id(), "00f067aa0ba902b7");
        let answer = trace.header();
        assert!(is_valid(answer.as_bytes()));
        let expected = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01", trace.span_id());
        assert_eq!(answer, expected.as_str());
        assert_ne!(trace.span_id(), trace.parent_id());
    }

    #[test]
    fn a_later_version_may_say_more() {
        let trace = of(&[&format!("cc{}-more", &GOOD[2..])]).unwrap();
        assert!(trace.header().as_bytes().starts_with(b"00-4bf9"));
        assert!(of(&[&format!("cc{}", &GOOD[2..])]).is_some());
    }

    #[test]
    fn an_invalid_one_is_ignored() {
        let zero_trace = GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32));
        let zero_parent = GOOD.replace("00f067aa0ba902b7", &"0".repeat(16));
        for bad in [
            "",
            "00",
            &GOOD[..54],
            &format!("{GOOD}-more"),
            &format!("ff{}", &GOOD[2..]),
            &format!("cc{}more", &GOOD[2..]),
            &GOOD.to_uppercase(),
            &GOOD.replace('-', "_"),
            &zero_trace,
            &zero_parent,
        ] {
            assert!(of(&[bad]).is_none(), "{bad:?}");
        }
        assert!(of(&[]).is_none());
        assert!(of(&[GOOD, GOOD]).is_none());
    }
}
