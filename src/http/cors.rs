//! Which pages of other origins may ask (CORS, <https://fetch.spec.whatwg.org/#http-cors-protocol>): none unless listed.

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HOST, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

/// Pages of other origins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Their origins, `scheme://host[:port]`, or `*` alone for all; empty: none.
    pub origins: Vec<String>,
}

/// The rule of a running server.
#[derive(Debug)]
pub(super) struct Cors {
    any: bool,
    origins: Vec<HeaderValue>,
}

/// Each request's `Origin` is held against all of them.
const MAX_ORIGINS: usize = 100;
const ANY: &str = "*";
/// How long a browser may remember the answer to a preflight, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE");
/// What requests may carry.
const HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, idempotency-key, last-event-id, priority, traceparent, x-api-key, x-request-id, x-request-timeout-ms",
);
/// What pages may read of answers.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "location, ratelimit, ratelimit-policy, retry-after, server-timing, traceparent, www-authenticate, x-request-id",
);

impl Config {
    /// Checks every origin; the text names the key.
    pub fn check(&self) -> Result<(), String> {
        let count = self.origins.len();
        if count > MAX_ORIGINS {
            return Err(format!("origins: {count}; at most {MAX_ORIGINS} are possible"));
        }
        let is_any = |origin: &String| origin == ANY;
        if self.origins.iter().any(is_any) && count > 1 {
            return Err("origins: \"*\" stands alone".to_owned());
        }
        match self
            .origins
            .iter()
            .find(|origin| !is_any(origin) && !is_origin(origin))
        {
            Some(_) => Err(
                "origins: each is scheme://host[:port] in lower case, such as https://app.example.org"
                    .to_owned(),
            ),
            None => Ok(()),
        }
    }
}

/// As browsers write it: RFC 6454, 6.2.
fn is_origin(text: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_graphic() && !byte.is_ascii_uppercase() && !b"/?#@,\\".contains(&byte);
    let Some((scheme, rest)) = text.split_once("://") else {
        return false;
    };
    let is_scheme = !scheme.is_empty()
        && scheme
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b"0123456789+-.".contains(&b));
    is_scheme && !rest.is_empty() && rest.bytes().all(plain)
}

impl Cors {
    /// As configured, which is checked.
    pub(super) fn new(config: &Config) -> Self {
        let value = |origin: &String| HeaderValue::try_from(origin).ok();
        Self {
            any: config.origins.iter().any(|origin| origin == ANY),
            origins: config.origins.iter().filter_map(value).collect(),
        }
    }

    /// What the answer to a request with these headers names as the origin that may read it.
    pub(super) fn allowed(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(ORIGIN)?;
        if self.any {
            return Some(HeaderValue::from_static(ANY));
        }
        self.origins.contains(origin).then(|| origin.clone())
    }

    /// The answer to a browser that asks whether a page of an allowed origin may ask; `None` where it is another request.
    pub(super) fn preflight(&self, method: &Method, headers: &HeaderMap) -> Option<Response> {
        if method != Method::OPTIONS || !headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
            return None;
        }
        self.allowed(headers)?;
        let fields = [
            (ACCESS_CONTROL_ALLOW_METHODS, METHODS),
            (ACCESS_CONTROL_ALLOW_HEADERS, HEADERS),
            (ACCESS_CONTROL_MAX_AGE, MAX_AGE),
        ];
        Some((StatusCode::NO_CONTENT, fields).into_response())
    }

    /// Marks an answer: whether a page may read it, and that this depends on which.
    pub(super) fn mark(&self, allowed: Option<HeaderValue>, headers: &mut HeaderMap) {
        if !self.any && !self.origins.is_empty() {
            headers.append(VARY, HeaderValue::from_static("origin"));
        }
        if let Some(origin) = allowed {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }

    /// Whether a browser sends this for a page of another origin, which is not listed.
    pub(super) fn is_foreign(&self, headers: &HeaderMap) -> bool {
        let Some(origin) = headers.get(ORIGIN) else {
            return false;
        };
        let own = headers.get(HOST).map(HeaderValue::as_bytes);
        let place = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        let is_own = place.is_some_and(|(_, place)| Some(place.as_bytes()) == own);
        !is_own && self.allowed(headers).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(origins: &[&str]) -> Config {
        Config {
            origins: origins.iter().map(|&origin| origin.to_owned()).collect(),
        }
    }

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            let name = axum::http::HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        };
        fields.iter().map(field).collect()
    }

    #[test]
    fn origins_are_written_as_browsers_write_them() {
        for good in [
            &[][..],
            &["*"],
            &[
                "https://app.example.org",
                "http://localhost:3000",
                "http://[::1]:3000",
            ],
            &["chrome-extension://abc"],
        ] {
            assert_eq!(config(good).check(), Ok(()), "{good:?}");
        }
        for bad in [
            &["*", "https://a"][..],
            &["app.example.org"],
            &["https://"],
            &["https://a/"],
            &["https://A"],
            &["https://a b"],
            &["https://u@a"],
            &["null"],
            &[""],
        ] {
            assert!(
                config(bad).check().unwrap_err().starts_with("origins: "),
                "{bad:?}"
            );
        }
        assert!(config(&["https://a"; 101]).check().is_err());
    }

    #[test]
    fn a_page_reads_what_its_origin_is_listed_for() {
        let check = |origins: &[&str], origin: &'static str, expected: Option<&str>| {
            let cors = Cors::new(&config(origins));
            let allowed = cors.allowed(&headers(&[("origin", origin)]));
            assert_eq!(
                allowed.as_ref().map(|value| value.to_str().unwrap()),
                expected,
                "{origin}"
            );
        };
        let listed = &["https://a.org", "http://b:1"];
        check(listed, "https://a.org", Some("https://a.org"));
        check(listed, "http://b:1", Some("http://b:1"));
        for other in [
            "http://a.org",
            "https://a.org:443",
            "https://A.org",
            "https://a.org.evil",
            "null",
            "*",
        ] {
            check(listed, other, None);
        }
        check(&["*"], "https://any", Some("*"));
        check(&[], "https://a.org", None);
        assert_eq!(Cors::new(&config(&["*"])).allowed(&HeaderMap::new()), None);
    }

    #[test]
    fn another_site_is_told_from_the_own_one() {
        let cors = Cors::new(&config(&["https://a.org"]));
        let check = |fields: &[(&'static str, &'static str)], expected: bool| {
            assert_eq!(cors.is_foreign(&headers(fields)), expected, "{fields:?}");
        };
        check(&[("host", "127.0.0.1:8080")], false);
        check(
            &[("host", "127.0.0.1:8080"), ("origin", "http://127.0.0.1:8080")],
            false,
        );
        check(&[("host", "127.0.0.1:8080"), ("origin", "https://a.org")], false);
        check(
            &[("host", "127.0.0.1:8080"), ("origin", "http://127.0.0.1:9090")],
            true,
        );
        check(&[("host", "127.0.0.1:8080"), ("origin", "null")], true);
        check(&[("origin", "http://")], true);
    }
}
