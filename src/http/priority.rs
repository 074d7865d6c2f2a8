//! The `Priority` field (RFC 9218): how urgently an answer is wanted.

use axum::http::{HeaderMap, HeaderName};

use crate::queueing::Urgency;

const HEADER: HeaderName = HeaderName::from_static("priority");

/// The urgency that a request asks for. As RFC 9218 has it, whatever is not understood counts as not said.
pub(super) fn urgency(headers: &HeaderMap) -> Urgency {
    let lines = headers
        .get_all(HEADER)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let ends = |rest: &&str| rest.is_empty() || rest.starts_with(['=', ';']);
    let said = lines
        .flat_map(members)
        .filter_map(|member| member.trim().strip_prefix('u').filter(ends));
    // A key that is said twice is what was said last.
    said.last().and_then(level).unwrap_or_default()
}

/// Of what stands after the key: `=5`, perhaps with parameters.
fn level(rest: &str) -> Option<Urgency> {
    let value = rest.strip_prefix('=')?;
    let value = value.split_once(';').map_or(value, |(value, _)| value);
    // The grammar of an integer is stricter than that of `parse`.
    let digits = value.trim_end();
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    Urgency::new(digits.parse().ok().filter(|_| plain)?)
}

/// The members of a dictionary; a comma in a string parts none.
fn members(line: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    line.split(move |character| {
        let comma = character == ',' && !quoted;
        match character {
            '"' if !escaped => quoted = !quoted,
            '\\' if quoted && !escaped => {
                escaped = true;
                return false;
            }
            _ => {}
        }
        escaped = false;
        comma
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_urgency_is_what_the_field_says_last() {
        let check = |lines: &[&str], expected: u8| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(HEADER, line.parse().unwrap());
            }
            assert_eq!(urgency(&headers), Urgency::new(expected).unwrap(), "{lines:?}");
        };
        check(&[], 3);
        check(&["u=0"], 0);
        check(&["u=7, i"], 7);
        check(&["i=?1,u=5"], 5);
        check(&["u=5;x=1"], 5);
        check(&["u=1, u=2"], 2);
        check(&["u=1", "u=6"], 6);
        check(&["u=1, urgent=2, up"], 1);
        check(&["u=1, u"], 3);
        check(&["a=\"b, u=1\", i"], 3);
        check(&["a=\"\\\", u=1\", u=4"], 4);
        for nothing in [
            "", "u", "u=8", "u=-1", "u=+1", "u=1.5", "u=\"1\"", "u=?1", "u=", "U=1", "urgent=1", "u =1",
        ] {
            check(&[nothing], 3);
        }
    }
}
