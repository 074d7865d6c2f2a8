//! The HTTP interface; nobody else knows axum or status codes.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::predict::Predictor;
use crate::telemetry::Metrics;

mod forms;
pub mod problem;
mod request_id;
pub mod routes;

pub use request_id::RequestId;

/// The server's edge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address and port; port 0 picks a free one and prints it.
    pub listen: SocketAddr,
    /// Network threads; 0 means one per two cores this process may use, at least one.
    pub threads: usize,
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
            threads: 0,
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

/// Where the server stands between start and exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Models are being loaded: alive, not ready.
    Starting,
    /// Takes requests.
    Ready,
    /// Not ready any more, but still answering whatever arrives (`drain_delay`).
    Draining,
    /// No new connections; open ones finish their request and close (`drain_timeout`).
    Closing,
}

/// What every handler sees. Owned by `app`, which moves the phase and sets the predictor once.
#[derive(Debug)]
pub struct State {
    /// The edge's configuration.
    pub config: Config,
    /// Every series.
    pub metrics: Arc<Metrics>,
    /// The served models; empty while starting.
    pub predictor: OnceLock<Arc<Predictor>>,
    /// The phase, moved by `app` alone.
    pub phase: watch::Receiver<Phase>,
}

/// Answers connections until the phase is [`Phase::Closing`] and the last of them has finished.
pub async fn serve(_listener: TcpListener, _state: Arc<State>) -> std::io::Result<()> {
    todo!()
}
