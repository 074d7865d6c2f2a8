//! The composition root: builds the rooms, spawns the threads, drains.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::config::Config;
use crate::engine::available_cores;
use crate::http::Entrance;
use crate::http::auth::{Auth, AuthError};
use crate::http::tls::{Tls, TlsError};
use crate::preprocess::pool::quiet_decoder_panics;
use crate::registry::RegistryError;
use crate::service::ServiceError;
use crate::telemetry::Metrics;

mod jobs;
mod keeping;
mod reload;
mod server;
mod signals;
mod threads;

use reload::Guards;
use server::Server;
use signals::Signals;

/// Why the server did not start or stop cleanly.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// There is no folder of models.
    #[error("{0}; --models DIR names the folder of models")]
    Folder(#[source] RegistryError),
    /// A model cannot be served.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The keys are not right.
    #[error("configuration: {0}")]
    Auth(#[from] AuthError),
    /// The certificates are not right.
    #[error("configuration: {0}")]
    Tls(#[from] TlsError),
    /// A port, thread or signal handler.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: String,
        /// The system's word.
        source: std::io::Error,
    },
    /// The store, where predictions are to be kept.
    #[error("the store: {0}; store.folder names its place, and with sampling rates of 0 it may be missing")]
    Store(#[from] crate::store::StoreError),
    /// A worker that cannot be.
    #[error(transparent)]
    Jobs(#[from] crate::jobs::JobsError),
    /// A thread ended, or did not end, against the plan.
    #[error("thread {0}")]
    Thread(String),
}

/// Serves until SIGTERM or SIGINT, then drains. `started` is when the program began. Once the port is bound, writes
/// `listening on http://ADDRESS` (`https` with TLS) to standard output, and `admin on http://ADDRESS` where that is another.
pub fn serve(config: &Config, started: Instant) -> Result<(), AppError> {
    #[cfg(feature = "failpoints")]
    if let Some(plan) = crate::config::environment::failpoints() {
        crate::failpoints::follow(plan);
    }
    quiet_decoder_panics();
    let runtime = runtime(config.http.threads)?;
    let served = runtime.block_on(run(config, started));
    // Connections that outlived the drain are cut here; nothing else is left to wait for.
    runtime.shutdown_background();
    served
}

async fn run(config: &Config, started: Instant) -> Result<(), AppError> {
    // Before anything slow, so that no signal finds the process without a handler.
    let mut signals = Signals::listen()?;
    // Before a port is bound: who has keys does not mean to be open for a moment.
    let metrics = Metrics::new(&server::BUILD);
    let auth = Auth::load(&config.auth, &metrics)?;
    let tls = Tls::load(&config.http.tls, &metrics)?;
    let entrances = Entrance::all(&config.http, &config.admin);
    for entrance in &entrances {
        entrance.check(config.http.management, &auth)?;
    }
    let mut listeners = Vec::with_capacity(entrances.len());
    for entrance in entrances {
        listeners.push((bind(&entrance).await?, entrance));
    }
    let url = |(listener, entrance): &(TcpListener, Entrance)| {
        let scheme = if entrance.has_tls { "https" } else { "http" };
        listener
            .local_addr()
            .map(|address| format!("{scheme}://{address}"))
    };
    let urls: Result<Vec<String>, _> = listeners.iter().map(url).collect();
    let urls = urls.map_err(io("the server's address"))?;
    let mut server = Server::start(config, &metrics, Guards { auth, tls }, listeners)?;
    tracing::info!(url = urls[0], admin = urls.get(1), "listening");
    let served = match announce(&urls) {
        Ok(()) => server.serve(&mut signals, started).await,
        Err(error) => Err(error),
    };
    if let Err(error) = &served {
        tracing::error!(%error, "the server stops");
    }
    let drained = server.drain(&mut signals).await;
    served.and(drained)
}

/// Runs retraining jobs until SIGTERM or SIGINT, without serving: `sconce worker`.
pub fn work(config: &Config) -> Result<(), AppError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(io("the worker's runtime"))?;
    runtime.block_on(jobs::work(config))
}

/// The network's threads.
fn runtime(threads: usize) -> Result<Runtime, AppError> {
    let threads = if threads == 0 {
        available_cores() / 2
    } else {
        threads
    };
    let number = AtomicUsize::new(0);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.max(1))
        .thread_name_fn(move || format!("http-{}", number.fetch_add(1, Ordering::Relaxed)))
        .enable_all()
        .build()
        .map_err(io("the network's threads"))
}

async fn bind(entrance: &Entrance) -> Result<TcpListener, AppError> {
    let Entrance { address, key, .. } = entrance;
    let bound = TcpListener::bind(address).await;
    bound.map_err(io(&format!("cannot listen on {address} ({key})")))
}

/// Scripts that start the server with port 0 read these lines.
fn announce(urls: &[String]) -> Result<(), AppError> {
    let mut out = std::io::stdout().lock();
    let mut lines = ["listening", "admin"].into_iter().zip(urls);
    let written = lines.try_for_each(|(what, url)| writeln!(out, "{what} on {url}"));
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(io("standard output")),
    }
}

/// A number of threads from the configuration, where 0 means one per core.
fn threads_of(configured: usize) -> usize {
    if configured == 0 {
        available_cores()
    } else {
        configured
    }
}

fn io(what: &str) -> impl FnOnce(std::io::Error) -> AppError {
    let what = what.to_owned();
    |source| AppError::Io { what, source }
}
