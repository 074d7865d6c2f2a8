//! The edge's configuration.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{ForwardedHeader, Networks, cors, tls};

/// The server's edge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address and port; port 0 picks a free one and prints it.
    pub listen: SocketAddr,
    /// Whether requests may change what is served.
    pub management: Management,
    /// Proxies that are believed whom they name as their clients.
    pub trusted_proxies: Networks,
    /// Where they name them.
    pub forwarded_header: ForwardedHeader,
    /// Network threads; 0 means one per two cores this process may use, at least one.
    pub threads: usize,
    /// Largest request body.
    pub max_body_bytes: usize,
    /// Bytes of all bodies that are held at once; those of few bytes aside.
    pub max_bodies_bytes: usize,
    /// Largest request head: line and headers.
    pub max_head_bytes: usize,
    /// Most images in one request, whatever its form.
    pub max_images: usize,
    /// Most entries of feedback in one request.
    pub max_feedback: usize,
    /// Most open connections; further ones wait to be accepted.
    pub max_connections: usize,
    /// A request's head must arrive within this.
    pub header_timeout_ms: u64,
    /// A request's body must arrive within this.
    pub body_timeout_ms: u64,
    /// A connection closes when it has been silent for this long between two requests, or its peer has taken nothing
    /// of an answer for this long.
    pub idle_timeout_ms: u64,
    /// Deadline of a request that sets none.
    pub request_timeout_ms: u64,
    /// Largest deadline that a request may set.
    pub max_request_timeout_ms: u64,
    /// Whether balancers that ask are told how loaded the server is.
    pub load_report: bool,
    /// Length of `top_k` where the request does not say.
    pub default_top_k: usize,
    /// After SIGTERM: not ready, but serving, for this long.
    pub drain_delay_ms: u64,
    /// Then: time for what is in flight.
    pub drain_timeout_ms: u64,
    /// How often the files of keys and certificates are looked at; 0 never.
    pub poll_ms: u64,
    /// Pages of other origins.
    pub cors: cors::Config,
    /// TLS.
    pub tls: tls::Config,
}

/// Whether requests may change what is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Management {
    /// Where the address is of this machine alone, and where callers need keys.
    Auto,
    /// As well, and a start where neither holds is refused.
    On,
    /// Nowhere.
    Off,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            management: Management::Auto,
            trusted_proxies: Networks::default(),
            forwarded_header: ForwardedHeader::XForwardedFor,
            threads: 0,
            max_body_bytes: 36 << 20,
            max_bodies_bytes: 40 << 20,
            max_head_bytes: 64 << 10,
            max_images: 64,
            max_feedback: 1000,
            max_connections: 4096,
            header_timeout_ms: 10_000,
            body_timeout_ms: 30_000,
            idle_timeout_ms: 75_000,
            request_timeout_ms: 10_000,
            max_request_timeout_ms: 60_000,
            load_report: true,
            default_top_k: 3,
            drain_delay_ms: 5_000,
            drain_timeout_ms: 20_000,
            poll_ms: 1_000,
            cors: cors::Config::default(),
            tls: tls::Config::default(),
        }
    }
}

impl Config {
    /// Checks every value; the text names the key.
    pub fn check(&self) -> Result<(), String> {
        let whole = |number: usize| number as u64;
        let least = MIN_HEAD_BYTES;
        for (key, value, range) in [
            ("max_body_bytes", whole(self.max_body_bytes), 1..=MAX_BYTES),
            (
                "max_bodies_bytes",
                whole(self.max_bodies_bytes),
                1..=MAX_ALL_BYTES,
            ),
            ("max_head_bytes", whole(self.max_head_bytes), least..=MAX_BYTES),
            ("max_images", whole(self.max_images), 1..=MAX_COUNT),
            ("max_feedback", whole(self.max_feedback), 1..=MAX_COUNT),
            ("max_connections", whole(self.max_connections), 1..=MAX_COUNT),
            ("threads", whole(self.threads), 0..=MAX_THREADS),
            ("header_timeout_ms", self.header_timeout_ms, 1..=MAX_MS),
            ("body_timeout_ms", self.body_timeout_ms, 1..=MAX_MS),
            ("idle_timeout_ms", self.idle_timeout_ms, 1..=MAX_MS),
            ("request_timeout_ms", self.request_timeout_ms, 1..=MAX_MS),
            ("max_request_timeout_ms", self.max_request_timeout_ms, 1..=MAX_MS),
            ("default_top_k", whole(self.default_top_k), 1..=MAX_COUNT),
            ("drain_delay_ms", self.drain_delay_ms, 0..=MAX_MS),
            ("drain_timeout_ms", self.drain_timeout_ms, 0..=MAX_MS),
            ("poll_ms", self.poll_ms, 0..=MAX_MS),
        ] {
            if !range.contains(&value) {
                let (from, to) = range.into_inner();
                return Err(format!("http.{key}: {value}; {from} to {to} is possible"));
            }
        }
        self.cors.check().map_err(|text| format!("http.cors.{text}"))?;
        self.tls.check().map_err(|text| format!("http.tls.{text}"))?;
        let (default, max) = (self.request_timeout_ms, self.max_request_timeout_ms);
        if default > max {
            return Err(format!(
                "http.request_timeout_ms: {default}; it cannot be over http.max_request_timeout_ms, {max}"
            ));
        }
        Ok(())
    }
}

/// hyper reads at least this much at once.
const MIN_HEAD_BYTES: u64 = 8192;
const MAX_BYTES: u64 = 1 << 30;
const MAX_ALL_BYTES: u64 = 1 << 40;
const MAX_COUNT: u64 = 1_000_000;
const MAX_THREADS: u64 = 1024;
/// A day.
const MAX_MS: u64 = 86_400_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_possible() {
        assert_eq!(Config::default().check(), Ok(()));
    }

    #[test]
    fn an_impossible_value_is_refused_by_its_key() {
        let check = |change: fn(&mut Config), expected: &str| {
            let mut config = Config::default();
            change(&mut config);
            let error = config.check().unwrap_err();
            assert!(error.starts_with(&format!("http.{expected}")), "{error}");
        };
        check(|c| c.max_body_bytes = 0, "max_body_bytes: 0; 1 to 1073741824");
        check(|c| c.max_bodies_bytes = 0, "max_bodies_bytes: 0; 1 to");
        check(|c| c.max_head_bytes = 8191, "max_head_bytes: 8191; 8192 to");
        check(|c| c.max_images = 0, "max_images: 0");
        check(|c| c.max_feedback = 0, "max_feedback: 0");
        check(|c| c.max_connections = 0, "max_connections: 0");
        check(|c| c.max_connections = usize::MAX, "max_connections: ");
        check(|c| c.threads = 1025, "threads: 1025; 0 to 1024");
        check(|c| c.header_timeout_ms = 0, "header_timeout_ms: 0");
        check(|c| c.body_timeout_ms = 0, "body_timeout_ms: 0");
        check(|c| c.idle_timeout_ms = 0, "idle_timeout_ms: 0");
        check(|c| c.request_timeout_ms = 0, "request_timeout_ms: 0");
        check(
            |c| c.max_request_timeout_ms = u64::MAX,
            "max_request_timeout_ms: ",
        );
        check(|c| c.default_top_k = 0, "default_top_k: 0");
        check(|c| c.drain_delay_ms = u64::MAX, "drain_delay_ms: ");
        check(|c| c.drain_timeout_ms = u64::MAX, "drain_timeout_ms: ");
        check(|c| c.poll_ms = u64::MAX, "poll_ms: ");
        check(|c| c.tls.key = "a".into(), "tls.certificate: a key needs");
        check(|c| c.tls.certificate = "a".into(), "tls.key: a certificate needs");
        check(|c| c.tls.client_ca = "a".into(), "tls.client_ca: without");
        check(|c| c.cors.origins.push("a".to_owned()), "cors.origins: each is");
        check(
            |c| c.max_request_timeout_ms = 9_999,
            "request_timeout_ms: 10000; it cannot be over http.max_request_timeout_ms, 9999",
        );
    }
}
