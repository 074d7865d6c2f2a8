//! Retraining jobs: where they are asked for, and the thread that runs them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;

use crate::config::{Config, environment};
use crate::http::{self, State};
use crate::jobs::{Desk, JobsError, Launch, Setup, Worker};
use crate::model::ModelName;
use crate::registry::{Registry, RegistryError};
use crate::retrain::{
    Beginning, DatasetName, Request, RequestError, RetrainError, beginning, check_replay, has_dataset,
};
use crate::store::Store;
use crate::telemetry::Metrics;

use super::signals::Signals;
use super::threads::Threads;
use super::{AppError, io};

/// A worker's job is killed and reaped within this.
const WORKER_ENDS: std::time::Duration = std::time::Duration::from_secs(10);

/// Opens the desk at the store that predictions are kept in and, where it is configured, gives the worker its thread, `jobs`; the
/// sender stops it. Without a store there are no jobs.
pub(super) fn start(
    config: &Config,
    state: &State,
    threads: &Threads,
) -> Result<Option<watch::Sender<bool>>, AppError> {
    let Some(store) = state.collector.store() else {
        return Ok(None);
    };
    let models = config.models.clone();
    let datasets = config.retrain.datasets.clone();
    let known = Box::new(move |request: &Request| known(&models, &datasets, request));
    let desk = Desk::new(Arc::clone(store), &config.jobs, known);
    state.jobs.get_or_init(|| desk);
    if !config.jobs.enabled {
        return Ok(None);
    }
    let (worker, stop) = worker(config, Arc::clone(&state.metrics))?;
    threads.spawn_ending("jobs", move || {
        // One that fails ends the retraining, not the server; the panic was told by its hook.
        if catch_unwind(AssertUnwindSafe(|| worker.run())).is_err() {
            tracing::error!("no job runs here any more until the next start");
        }
    })?;
    Ok(Some(stop))
}

/// Runs jobs and nothing else until a signal.
pub(super) async fn work(config: &Config) -> Result<(), AppError> {
    let mut signals = Signals::listen()?;
    if config.store.folder.as_os_str().is_empty() {
        let problem = std::io::Error::other("a folder is expected: jobs lie in it");
        return Err(io("store.folder")(problem));
    }
    // A worker that can do nothing ends at once.
    Store::open(&config.store).await?.close().await;
    let mut threads = Threads::new();
    let (worker, stop) = worker(config, Metrics::new(&[]))?;
    threads.spawn("jobs", move || worker.run())?;
    tracing::info!(store = %config.store.folder.display(), "takes jobs");
    let ended = tokio::select! {
        biased;
        () = signals.next() => Ok(()),
        name = threads.loss() => Err(AppError::Thread(format!("'{name}' ended though the worker runs"))),
    };
    threads.stop();
    drop(stop);
    let joined = threads.join(WORKER_ENDS).await;
    tracing::info!("stopped");
    ended.and(joined)
}

/// A worker that has no thread yet, and what stops it.
fn worker(config: &Config, metrics: Arc<Metrics>) -> Result<(Worker, watch::Sender<bool>), AppError> {
    let models = config.models.clone();
    let setup = Setup {
        store: config.store.clone(),
        config: config.jobs.clone(),
        launch: launch(config)?,
        metrics,
        models: Box::new(move || names(&models)),
    };
    let (stop, stops) = watch::channel(false);
    let worker = Worker::new(setup, stops)?;
    Ok((worker, stop))
}

/// This program again, with the configuration that holds here.
fn launch(config: &Config) -> Result<Launch, AppError> {
    // It answers nobody, so it needs no keys.
    let config = Config {
        auth: http::auth::Config::default(),
        ..config.clone()
    };
    let configuration = toml::to_string(&config).map_err(std::io::Error::other);
    Ok(Launch {
        program: std::env::current_exe().map_err(io("the program's own file"))?,
        arguments: ["retrain", "--lines"].map(Into::into).to_vec(),
        configuration: configuration.map_err(io("the configuration for jobs"))?,
        unset: environment::own_variables(),
    })
}

/// Holds a request against the folder of models and that of datasets.
fn known(models: &Path, datasets: &Path, request: &Request) -> Result<(), JobsError> {
    let registry = Registry::open(models).map_err(unreadable)?;
    let entry = registry.entry(&request.model).map_err(|error| match error {
        RegistryError::NoModel(name) => JobsError::Model(name.to_string()),
        error => unreadable(error),
    })?;
    let wrong = |key: &'static str, problem: String| Err(JobsError::Request(RequestError { key, problem }));
    let missing = |name: &&DatasetName| !has_dataset(datasets, name);
    if let Some(name) = request.dataset.as_ref().filter(missing) {
        return wrong("dataset", format!("there is no dataset '{name}'"));
    }
    let replays =
        |parent: Option<Beginning>| check_replay((&registry, datasets), request, &entry, parent.as_ref());
    match beginning(&registry, request, &entry).and_then(replays) {
        Ok(()) => Ok(()),
        Err(RetrainError::Request(error)) => Err(error.into()),
        Err(RetrainError::Registry(error @ RegistryError::NoChampion(_))) => {
            wrong("parent", format!("must be named: {error}"))
        }
        Err(RetrainError::Registry(error @ RegistryError::NoVersion(..))) => {
            wrong("parent", error.to_string())
        }
        Err(error) => Err(unreadable(error)),
    }
}

fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> JobsError {
    JobsError::Io {
        what: "the folder of models".to_owned(),
        source: std::io::Error::other(error),
    }
}

/// The models that triggers watch; none where the folder cannot be read, which the log tells.
fn names(models: &Path) -> Vec<ModelName> {
    match Registry::open(models).and_then(|registry| registry.list()) {
        Ok(entries) => entries.into_iter().map(|entry| entry.name).collect(),
        Err(error) => {
            tracing::warn!(%error, "no trigger is looked at: the models cannot be listed");
            Vec::new()
        }
    }
}
