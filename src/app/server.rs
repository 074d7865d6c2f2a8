//! The running server: from a bound port over ready and draining to its last thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::collect::{Collector, Worker};
use crate::config::Config;
use crate::http::{self, Entrance, Phase, State};
use crate::predict::{Predictor, Served};
use crate::preprocess::pool::Pool;
use crate::registry::Registry;
use crate::service::{self, Keeper, Orders, ServiceError, Setup};
use crate::telemetry::{Metrics, ModelMetrics, Outcome};

use super::jobs;
use super::keeping::{self, Keeping};
use super::reload::{self, Guards, Reload};
use super::signals::Signals;
use super::threads::Threads;
use super::{AppError, io, threads_of};

/// After the drain's time: answers that say so must still be written.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// A batch, a decode or the loading of one version takes far less.
const THREADS_END: Duration = Duration::from_secs(10);
pub(super) const BUILD: [(&str, &str); 4] = [
    ("version", env!("CARGO_PKG_VERSION")),
    ("arch", std::env::consts::ARCH),
    ("os", std::env::consts::OS),
    ("features", FEATURES),
];
const FEATURES: &str = match (cfg!(feature = "cuda"), cfg!(feature = "cudnn")) {
    _ if cfg!(feature = "failpoints") => "failpoints",
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
    /// Once loading has begun.
    pool: Option<Pool>,
    keeper: service::Handle,
    /// Taken by the keeper.
    orders: Option<Orders>,
    /// Until there is a store to write to.
    collecting: Option<Worker>,
    /// Once ready, where there is a store.
    keeping: Option<Keeping>,
    /// Tells the worker of jobs to stop; dropping it does so too.
    jobs: Option<watch::Sender<bool>>,
    /// Dropping it ends its thread; `None` where no file may change.
    reload: Option<Reload>,
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
    /// Answers on `listeners` at once; nothing is loaded yet, so it says that it starts.
    pub(super) fn start(
        config: &Config,
        metrics: &Arc<Metrics>,
        guards: Guards,
        listeners: Vec<(TcpListener, Entrance)>,
    ) -> Result<Self, AppError> {
        let (phase, watched) = watch::channel(Phase::Starting);
        let (collector, worker) = Collector::new(&config.store, metrics);
        let threads = Threads::new();
        let poll = Duration::from_millis(config.http.poll_ms);
        let reload = reload::start(&guards, poll, &threads)?;
        let state = Arc::new(State {
            models: config.models.clone(),
            auth: guards.auth,
            tls: guards.tls,
            collector,
            ..State::new(config.http.clone(), metrics, watched)
        });
        let (keeper, orders) = service::channel(&config.service);
        Ok(Self {
            config: config.clone(),
            edge: Edge(Some(tokio::spawn(http::serve(listeners, Arc::clone(&state))))),
            state,
            phase,
            threads,
            reload,
            pool: None,
            keeper,
            orders: Some(orders),
            collecting: Some(worker),
            keeping: None,
            jobs: None,
        })
    }

    /// Loads the models, then serves until a signal; an error is what else ended it.
    pub(super) async fn serve(&mut self, signals: &mut Signals, started: Instant) -> Result<(), AppError> {
        let loading = self.load()?;
        let config = self.config.clone();
        let loading = async {
            let predictor = loading
                .await
                .map_err(|_| AppError::Thread("'models' panicked".to_owned()))??;
            let store = keeping::open(&config, predictor.table().models.values()).await?;
            Ok::<_, AppError>((predictor, store))
        };
        // Whatever ends the wait ends the server, so cancelled waits need nothing back. The drain tells the keeper that its
        // work is not wanted any more.
        let (predictor, store) = tokio::select! {
            biased;
            () = signals.next() => return Ok(()),
            ended = self.edge.ended() => return Err(ended),
            loaded = loading => loaded?,
        };
        if let (Some(store), Some(worker)) = (store, self.collecting.take()) {
            let State {
                collector, metrics, ..
            } = &*self.state;
            self.keeping = Some(Keeping::start(store, collector, worker, metrics));
        }
        self.jobs = jobs::start(&self.config, &self.state, &self.threads)?;
        self.ready(predictor, started);
        tokio::select! {
            biased;
            () = signals.next() => Ok(()),
            ended = self.edge.ended() => Err(ended),
            name = self.threads.loss() => Err(AppError::Thread(format!("'{name}' ended though the server runs"))),
        }
    }

    /// Loads on the keeper's thread, so that health is answered meanwhile. The thread stays: it keeps what is in service.
    fn load(&mut self) -> Result<oneshot::Receiver<Result<Arc<Predictor>, ServiceError>>, AppError> {
        let registry = Registry::open(&self.config.models).map_err(AppError::Folder)?;
        let (sender, receiver) = oneshot::channel();
        let Some(orders) = self.orders.take() else {
            return Ok(receiver);
        };
        let (setup, pool, limits) = (self.setup(registry), self.decode()?, self.config.images);
        self.threads.spawn_ending("models", move || {
            let open = Keeper::open(setup, orders, |table| Predictor::new(table, pool, limits));
            // Nobody waits any more where a signal came meanwhile; the keeper then finds that it is closed.
            match open {
                Ok(keeper) => {
                    let _ = sender.send(Ok(keeper.predictor()));
                    keeper.run();
                }
                Err(error) => drop(sender.send(Err(error))),
            }
        })?;
        Ok(receiver)
    }

    fn setup(&self, registry: Registry) -> Setup {
        let config = &self.config;
        let spawner = self.threads.spawner();
        Setup {
            registry,
            default_model: config.default_model.clone(),
            config: config.service,
            engine: config.engine.clone(),
            batcher: config.batcher,
            answers: config.answers,
            asked: config.asked(),
            metrics: Arc::clone(&self.state.metrics),
            spawn: Box::new(move |name, worker| {
                // An engine that stays lost ends the server: a new process may find its device again.
                let body = move || {
                    worker
                        .run()
                        .inspect_err(|error| tracing::error!(%error, "a worker gives up"))
                };
                spawner.start(name, move || body().is_ok())
            }),
        }
    }

    /// The decode pool, each of its workers on a thread.
    fn decode(&mut self) -> Result<Pool, AppError> {
        let decode = &self.config.decode;
        let (pool, workers) = Pool::new(
            decode,
            threads_of(decode.threads),
            Arc::clone(&self.state.metrics),
        );
        self.pool = Some(pool.clone());
        for (number, worker) in workers.into_iter().enumerate() {
            self.threads
                .spawn(&format!("decode-{number}"), move || worker.run())?;
        }
        Ok(pool)
    }

    /// Opens the door.
    fn ready(&self, predictor: Arc<Predictor>, started: Instant) {
        let names: Vec<String> = predictor.table().models.keys().map(ToString::to_string).collect();
        self.state.predictor.get_or_init(|| predictor);
        self.state.service.get_or_init(|| self.keeper.clone());
        let seconds = started.elapsed().as_secs_f64();
        let metrics = &self.state.metrics;
        metrics.startup_seconds.set(seconds);
        metrics.ready.set(1);
        self.phase.send_replace(Phase::Ready);
        tracing::info!(models = names.join(" "), seconds, "ready");
    }

    /// Not ready, but serving, for the delay; then no more connections, and those open finish; then the threads. Each
    /// further signal ends the wait that is on.
    pub(super) async fn drain(mut self, signals: &mut Signals) -> Result<(), AppError> {
        // What is in service now: a version that leaves meanwhile is still counted.
        let series: Vec<_> = self
            .served()
            .iter()
            .map(|served| Arc::clone(&served.metrics))
            .collect();
        let before = Tally::of(&series);
        self.state.metrics.ready.set(0);
        // Before anything is waited for: its child takes as long as the disk to end.
        drop(self.jobs.take());
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
        if let Some(keeping) = self.keeping.take() {
            keeping.end(THREADS_END).await;
        }
        self.threads.stop();
        drop(self.reload.take());
        // Its end closes the queue of each version.
        self.keeper.close();
        self.pool.iter().for_each(Pool::close);
        let after = Tally::of(&series);
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
        for served in self.served() {
            served.batcher.abort();
        }
        // Dropped at the end of its time, the edge cuts the connections that are left.
        let _ = tokio::time::timeout(LAST_ANSWERS, self.edge.closed()).await;
        self.edge.cut();
    }

    /// Every version in service.
    fn served(&self) -> Vec<Arc<Served>> {
        let table = self.state.predictor.get().map(|predictor| predictor.table());
        let models = table.iter().flat_map(|table| table.models.values());
        models.flat_map(|model| model.versions.iter().cloned()).collect()
    }
}

impl Tally {
    fn of(series: &[Arc<ModelMetrics>]) -> Self {
        let mut tally = Self {
            answered: 0,
            dropped: 0,
        };
        for metrics in series {
            let ended = |outcome| metrics.ended(outcome);
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
