//! `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers): a limit, and what is left of it.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// A limit on what may be on its way at once, as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Its name, of letters.
    pub policy: &'static str,
    /// How much it allows.
    pub quota: usize,
    /// How much of it is free.
    pub left: usize,
    /// Until more is.
    pub reset: Duration,
}

impl RateLimit {
    /// Adds both fields.
    pub(super) fn write(&self, headers: &mut HeaderMap) {
        let Self {
            policy, quota, left, ..
        } = self;
        let seconds = whole_seconds(self.reset);
        for (name, text) in [
            (
                POLICY,
                format!("\"{policy}\";q={quota};qu=\"concurrent-requests\""),
            ),
            (LIMIT, format!("\"{policy}\";r={left};t={seconds}")),
        ] {
            let value = HeaderValue::try_from(text).expect("letters and digits are valid in a header");
            headers.append(name, value);
        }
    }
}

/// A wait as headers have it: rounded up, at least 1.
pub(super) fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_structured() {
        let mut headers = HeaderMap::new();
        let limit = RateLimit {
            policy: "queue",
            quota: 1024,
            left: 0,
            reset: Duration::from_millis(1200),
        };
        limit.write(&mut headers);
        assert_eq!(
            headers["ratelimit-policy"],
            "\"queue\";q=1024;qu=\"concurrent-requests\""
        );
        assert_eq!(headers["ratelimit"], "\"queue\";r=0;t=2");
        assert_eq!(whole_seconds(Duration::ZERO), 1);
    }
}
