//! The HTTP interface; nobody else knows axum or status codes.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::watch;

use crate::collect::Collector;
use crate::jobs::Desk;
use crate::predict::Predictor;
use crate::telemetry::Metrics;
use crate::{service, store};
use auth::Auth;
use problem::{Kind, Problem};
use tls::Tls;

mod activity;
mod audit;
pub mod auth;
mod client;
mod config;
mod connection;
pub mod cors;
mod door;
mod forms;
mod keeping;
mod networks;
mod observe;
mod orca;
mod priority;
pub mod problem;
mod rate_limit;
mod request_id;
pub mod routes;
mod serve;
mod stamp;
mod stream;
pub mod tls;
mod trace;

pub use client::{Clients, ForwardedHeader};
pub use config::Config;
pub use door::{Admin, Door, Entrance};
pub use forms::{Bodies, pictures_of};
pub use networks::Networks;
pub use orca::Reporter;
pub use rate_limit::RateLimit;
pub use request_id::RequestId;
pub use routes::{OPENAPI, ROUTES, router};
use routes::{act, need};
pub use serve::serve;

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
    /// The folder of models, of which versions' cards are told.
    pub models: PathBuf,
    /// Who may do what.
    pub auth: Arc<Auth>,
    /// Certificates, where there is TLS.
    pub tls: Option<Arc<Tls>>,
    /// How bodies are read, and the room for them.
    pub bodies: Bodies,
    /// Every series.
    pub metrics: Arc<Metrics>,
    /// The served models; empty while starting.
    pub predictor: OnceLock<Arc<Predictor>>,
    /// Changes what is served; empty while starting.
    pub service: OnceLock<service::Handle>,
    /// What is kept of predictions; it has a store once `app` has opened one.
    pub collector: Arc<Collector>,
    /// Where retraining jobs are asked for; empty where there is no store.
    pub jobs: OnceLock<Desk>,
    /// The phase, moved by `app` alone.
    pub phase: watch::Receiver<Phase>,
    /// Whom a request comes from.
    pub clients: Clients,
    /// How loaded the server is.
    pub reporter: Reporter,
}

impl State {
    /// Nothing is loaded, nothing is kept, there is no folder of models, no key is needed, and there is no TLS. What else there
    /// is goes over it.
    pub fn new(config: Config, metrics: &Arc<Metrics>, phase: watch::Receiver<Phase>) -> Self {
        Self {
            clients: Clients::new(&config),
            bodies: Bodies::new(&config),
            reporter: Reporter::new(),
            config,
            models: PathBuf::new(),
            auth: Auth::open(metrics),
            tls: None,
            metrics: Arc::clone(metrics),
            predictor: OnceLock::new(),
            service: OnceLock::new(),
            jobs: OnceLock::new(),
            collector: Collector::new(&store::Config::default(), metrics).0,
            phase,
        }
    }

    /// The phase now.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// What changes the served models, or the problem that there are none yet.
    pub fn service(&self) -> Result<&service::Handle, Problem> {
        self.service.get().ok_or_else(starting)
    }

    /// The served models, or the problem that there are none yet.
    pub fn predictor(&self) -> Result<&Arc<Predictor>, Problem> {
        self.predictor.get().ok_or_else(starting)
    }
}

fn starting() -> Problem {
    Problem::new(Kind::Starting, "models are being loaded").retry_after(RETRY_AFTER)
}

fn draining() -> Problem {
    Problem::new(Kind::Draining, "the server is shutting down").retry_after(RETRY_AFTER)
}

/// Loading a model or moving to another replica takes about this long.
const RETRY_AFTER: Duration = Duration::from_secs(1);
