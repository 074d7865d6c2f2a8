//! The HTTP interface; nobody else knows axum or status codes.

use std::sync::{Arc, OnceLock};

use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::predict::Predictor;
use crate::telemetry::Metrics;

mod config;
mod forms;
pub mod problem;
mod request_id;
pub mod routes;

pub use config::Config;
pub use request_id::RequestId;

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
