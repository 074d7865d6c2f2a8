//! From a folder of models to versions that can serve: read, checked, compiled, warmed up.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use crate::batcher::{self, Batcher};
use crate::config::Config;
use crate::engine::tune::{Choice, Split};
use crate::engine::{self, Slot, Target};
use crate::model::{ModelName, Version};
use crate::predict::{Served, ServedModel};
use crate::registry::{Entry, Loaded, Registry};
use crate::telemetry::{Metrics, ModelMetrics};

use super::AppError;
use super::tune::{Tuned, tune};

/// Everything that will serve; its workers still need threads.
pub(super) struct Models {
    /// By name, at least one.
    pub(super) served: Vec<(ModelName, ServedModel)>,
    /// Answers where a request names none.
    pub(super) default: ModelName,
    pub(super) workers: Vec<NamedWorker>,
}

/// A worker and its thread's name: `infer-<model>-<n>`.
pub(super) type NamedWorker = (String, batcher::Worker<Slot>);

/// What loading needs and fills.
struct Loader<'a> {
    config: &'a Config,
    metrics: &'a Arc<Metrics>,
    target: Target,
    workers: Vec<NamedWorker>,
    /// Workers made so far, by model.
    numbers: HashMap<ModelName, usize>,
}

/// Loads every version of every model. Takes seconds, so it asks before each version whether it is still `wanted`.
pub(super) fn load(
    config: &Config,
    metrics: &Arc<Metrics>,
    wanted: impl Fn() -> bool,
) -> Result<Models, AppError> {
    // Warm-up runs on this thread as inference will on others.
    engine::prepare_thread();
    let registry = Registry::open(&config.models)
        .map_err(|error| AppError::Models(format!("{error}; --models DIR names the folder of models")))?;
    let default = registry.default_model(config.default_model.as_ref())?;
    let mut loader = Loader {
        config,
        metrics,
        target: config.engine.open()?,
        workers: Vec::new(),
        numbers: HashMap::new(),
    };
    let mut served = Vec::new();
    for entry in registry.list()? {
        let model = loader.model(&registry, &entry, &wanted)?;
        served.push((entry.name, model));
    }
    let workers = loader.workers;
    Ok(Models {
        served,
        default,
        workers,
    })
}

impl Loader<'_> {
    fn model(
        &mut self,
        registry: &Registry,
        entry: &Entry,
        wanted: impl Fn() -> bool,
    ) -> Result<ServedModel, AppError> {
        let champion = champion(registry, entry)?;
        let mut versions = Vec::new();
        for &version in &entry.versions {
            if !wanted() {
                return Err(AppError::Models("the server stops".to_owned()));
            }
            versions.push(Arc::new(self.version(registry, &entry.name, version)?));
        }
        Ok(ServedModel { champion, versions })
    }

    fn version(
        &mut self,
        registry: &Registry,
        name: &ModelName,
        version: Version,
    ) -> Result<Served, AppError> {
        let begun = Instant::now();
        let loaded = registry.load(name, version)?;
        let tuned = tune(self.config, &loaded, &self.target).map_err(|source| AppError::Model {
            name: name.clone(),
            version,
            source,
        })?;
        let metrics = self.metrics.model(name, version);
        let batcher = self.batcher(&loaded, &tuned, &metrics);
        let seconds = begun.elapsed().as_secs_f64();
        told(&loaded, &tuned, seconds);
        Ok(Served::new(
            name.clone(),
            version,
            Arc::new(loaded.spec),
            batcher,
            metrics,
        ))
    }

    /// The version's queue; its workers are kept for when threads are made.
    fn batcher(&mut self, loaded: &Loaded, tuned: &Tuned, metrics: &Arc<ModelMetrics>) -> Batcher {
        let slot = Arc::new(Slot::new(Arc::clone(&tuned.plan)));
        let queue = batcher::Config {
            max_batch_size: tuned.choice.max_batch_size,
            ..self.config.batcher
        };
        let instances = tuned.choice.split.instances;
        let (batcher, workers) = Batcher::new(queue, &slot, instances, Arc::clone(metrics));
        for worker in workers {
            let number = self.numbers.entry(loaded.name.clone()).or_insert(0);
            self.workers
                .push((format!("infer-{}-{number}", loaded.name), worker));
            *number += 1;
        }
        batcher
    }
}

/// Logs how a version is served, and what that rests on.
fn told(loaded: &Loaded, tuned: &Tuned, seconds: f64) {
    let Choice {
        split: Split { instances, threads },
        max_batch_size,
        ref why,
    } = tuned.choice;
    tracing::info!(
        model = %loaded.name,
        version = %loaded.version,
        seconds,
        instances,
        threads,
        max_batch_size,
        choice = %tuned.source,
        why = why.join(" "),
        "loaded"
    );
}

/// The version that answers where none is named; what to do where there is none.
fn champion(registry: &Registry, entry: &Entry) -> Result<Version, AppError> {
    let folder = registry.root().join(entry.name.as_str());
    let folder = folder.display();
    if entry.versions.is_empty() {
        let text = format!("{folder} has no version: train one (`sconce train`) or move the folder away");
        return Err(AppError::Models(text));
    }
    entry.champion().map_err(|error| {
        let last = entry.versions[entry.versions.len() - 1];
        AppError::Models(format!(
            "{error}: name it in {folder}/aliases.json, such as {{\"champion\": {last}}}"
        ))
    })
}

/// A number of threads from the configuration, where 0 means one per core.
pub(super) fn threads(configured: usize) -> usize {
    if configured == 0 {
        engine::available_cores()
    } else {
        configured
    }
}
