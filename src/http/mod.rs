//! The HTTP interface; nobody else knows axum or status codes.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The server's edge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address and port; port 0 picks a free one and prints it.
    pub listen: SocketAddr,
    /// Largest request body.
    pub max_body_bytes: usize,
    /// Most images in one request, whatever its form.
    pub max_images: usize,
    /// Most open connections; further ones wait to be accepted.
    pub max_connections: usize,
    /// A request's head must arrive within this.
    pub header_timeout_ms: u64,
    /// A request's body must arrive within this.
    pub body_timeout_ms: u64,
    /// Deadline of a request that sets none.
    pub request_timeout_ms: u64,
    /// Largest deadline that a request may set.
    pub max_request_timeout_ms: u64,
    /// Length of `top_k` where the request does not say.
    pub default_top_k: usize,
    /// After SIGTERM: not ready, but serving, for this long.
    pub drain_delay_ms: u64,
    /// Then: time for what is in flight.
    pub drain_timeout_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            max_body_bytes: 4 << 20,
            max_images: 64,
            max_connections: 4096,
            header_timeout_ms: 10_000,
            body_timeout_ms: 30_000,
            request_timeout_ms: 10_000,
            max_request_timeout_ms: 60_000,
            default_top_k: 3,
            drain_delay_ms: 5_000,
            drain_timeout_ms: 20_000,
        }
    }
}
