//! The running server: from a bound port over ready and draining to its last thread.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::batcher::Batcher;
use crate::config::Config;
use crate::http::{self, Phase, State};
use crate::predict::Predictor;
use crate::preprocess::pool::Pool;
use crate::telemetry::{Metrics, Outcome};

use super::load::{Models, load, threads};
use super::signals::Signals;
use super::threads::Threads;
use super::{AppError, io};

/// After the drain's time: answers that say so must still be written.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// A batch, a decode or the loading of one version takes far less.
const THREADS_END: Duration = Duration::from_secs(10);
const BUILD: [(&str, &str); 4] = [
    ("version", env!("CARGO_PKG_VERSION")),
    ("arch", std::env::consts::ARCH),
    ("os", std::env::consts::OS),
    ("features", FEATURES),
];
const FEATURES: &str = match (cfg!(feature = "cuda"), cfg!(feature = "cudnn")) {
    (_, true) => "cuda cudnn",
    (true, false) => "cuda",
    (false, false) => "",
};

/// Owns everything that lives as long as the server.
pub(super) struct Server {
    config: Config,
    state: Arc<State>,
    phase: watch::Sender<Phase>,
    edge: Edge,
    threads: Threads,
    /// Once ready.
    pool: Option<Pool>,
}

/// The task that answers connections.
struct Edge(Option<JoinHandle<std::io::Result<()>>>);

/// How images ended, over all models.
#[derive(Clone, Copy)]
struct Tally {
    answered: u64,
    dropped: u64,
}

impl Server {
    /// Answers on `listener` at once; nothing is loaded yet, so it says that it starts.
    pub(super) fn start(config: &Config, listener: TcpListener) -> Self {
        let (phase, watched) = watch::channel(Phase::Starting);
        let state = Arc::new(State {
            config: config.http.clone(),
            metrics: Metrics::new(&BUILD),
            predictor: OnceLock::new(),
            phase: watched,
        });
        Self {
            config: config.clone(),
            edge: Edge(Some(tokio::spawn(http::serve(listener, Arc::clone(&state))))),
            state,
            phase,
            threads: Threads::new(),
            pool: None,
        }
    }

    /// Loads the models, then serves until a signal; an error is what else ended it.
    pub(super) async fn serve(&mut self, signals: &mut Signals, started: Instant) -> Result<(), AppError> {
        let loading = self.load()?;
        // Whatever ends the wait ends the server, so cancelled waits need nothing back. Dropping `loading` tells the
        // loader that its work is not wanted any more.
        let models = tokio::select! {
            biased;
            () = signals.next() => return Ok(()),
            ended = self.edge.ended() => return Err(ended),
            models = loading => models.map_err(|_| AppError::Thread("'load' panicked".to_owned()))??,
        };
        self.ready(models, started)?;
        tokio::select! {
            biased;
            () = signals.next() => Ok(()),
            ended = self.edge.ended() => Err(ended),
            name = self.threads.loss() => Err(AppError::Thread(format!("'{name}' ended though the server runs"))),
        }
    }

    /// Loads on a thread of its own, so that health is answered meanwhile.
    fn load(&mut self) -> Result<oneshot::Receiver<Result<Models, AppError>>, AppError> {
        let (sender, receiver) = oneshot::channel();
        let (config, metrics) = (self.config.clone(), Arc::clone(&self.state.metrics));
        self.threads.spawn_once("load", move || {
            let models = load(&config, &metrics, || !sender.is_closed());
            // Nobody waits any more where a signal came meanwhile.
            let _ = sender.send(models);
        })?;
        Ok(receiver)
    }

    /// Gives every worker its thread, then opens the door.
    fn ready(&mut self, models: Models, started: Instant) -> Result<(), AppError> {
        let metrics = &self.state.metrics;
        for (name, worker) in models.workers {
            self.threads.spawn(&name, move || worker.run())?;
        }
        let decode = &self.config.decode;
        let (pool, workers) = Pool::new(decode, threads(decode.threads), Arc::clone(metrics));
        self.pool = Some(pool.clone());
        for (number, worker) in workers.into_iter().enumerate() {
            self.threads
                .spawn(&format!("decode-{number}"), move || worker.run())?;
        }
        let names: Vec<String> = models.served.iter().map(|(name, _)| name.to_string()).collect();
        let predictor = Predictor::new(models.served, models.default, pool, self.config.images);
        self.state.predictor.get_or_init(|| predictor);
        let seconds = started.elapsed().as_secs_f64();
        metrics.startup_seconds.set(seconds);
        metrics.ready.set(1);
        self.phase.send_replace(Phase::Ready);
        tracing::info!(models = names.join(" "), seconds, "ready");
        Ok(())
    }

    /// Not ready, but serving, for the delay; then no more connections, and those open finish; then the threads. Each
    /// further signal ends the wait that is on.
    pub(super) async fn drain(mut self, signals: &mut Signals) -> Result<(), AppError> {
        let before = self.tally();
        self.state.metrics.ready.set(0);
        let was_ready = self.state.predictor.get().is_some();
        if was_ready && self.edge.runs() {
            self.phase.send_replace(Phase::Draining);
            let delay = Duration::from_millis(self.config.http.drain_delay_ms);
            tracing::info!(?delay, "draining");
            elapse(delay, signals).await;
        }
        self.phase.send_replace(Phase::Closing);
        tracing::info!("closing");
        self.finish(signals).await;
        self.threads.stop();
        self.batchers().for_each(Batcher::close);
        self.pool.iter().for_each(Pool::close);
        let after = self.tally();
        let ended = self.threads.join(THREADS_END).await;
        let (answered, dropped) = (after.answered - before.answered, after.dropped - before.dropped);
        tracing::info!(answered, dropped, "stopped");
        ended
    }

    /// Waits for the open connections, at most for the drain's time; then answers whatever still waits for a batch.
    async fn finish(&mut self, signals: &mut Signals) {
        let limit = Duration::from_millis(self.config.http.drain_timeout_ms);
        // The end of the connections wins: where it has come, nothing needs to be given up.
        tokio::select! {
            biased;
            () = self.edge.closed() => return,
            () = elapse(limit, signals) => {}
        }
        tracing::warn!("requests in flight are given up");
        for batcher in self.batchers() {
            batcher.close();
            batcher.abort();
        }
        // Dropped at the end of its time, the edge cuts the connections that are left.
        let _ = tokio::time::timeout(LAST_ANSWERS, self.edge.closed()).await;
        self.edge.cut();
    }

    fn batchers(&self) -> impl Iterator<Item = &Batcher> {
        let predictor = self.state.predictor.get().into_iter();
        let served = predictor.flat_map(|predictor| predictor.models());
        served.flat_map(|(_, model)| model.versions.iter().map(|served| &served.batcher))
    }

    fn tally(&self) -> Tally {
        let predictor = self.state.predictor.get().into_iter();
        let models = predictor.flat_map(|predictor| predictor.models());
        let mut tally = Tally {
            answered: 0,
            dropped: 0,
        };
        for served in models.flat_map(|(_, model)| &model.versions) {
            let ended = |outcome| served.metrics.ended(outcome);
            tally.answered += ended(Outcome::Ok) + ended(Outcome::Failed) + ended(Outcome::Rejected);
            tally.dropped += ended(Outcome::Dropped);
        }
        tally
    }
}

/// Waits for `time` or the next signal.
async fn elapse(time: Duration, signals: &mut Signals) {
    tokio::select! {
        () = tokio::time::sleep(time) => {}
        () = signals.next() => tracing::info!("another signal: the wait ends"),
    }
}

impl Edge {
    fn runs(&self) -> bool {
        self.0.is_some()
    }

    /// The end of the edge while nobody asked for it.
    async fn ended(&mut self) -> AppError {
        let what = "the network's edge ended";
        match self.end().await {
            Ok(()) => io(what)(std::io::Error::other("it was not told to")),
            Err(error) => io(what)(error),
        }
    }

    /// The end of the edge that was asked for.
    async fn closed(&mut self) {
        if let Err(error) = self.end().await {
            tracing::error!(%error, "the network's edge failed");
        }
    }

    /// Cancelling loses nothing; after the end it returns at once.
    async fn end(&mut self) -> std::io::Result<()> {
        let Some(task) = &mut self.0 else {
            return Ok(());
        };
        let ended = task.await;
        self.0 = None;
        ended.unwrap_or_else(|error| Err(error.into()))
    }

    fn cut(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
    }
}
