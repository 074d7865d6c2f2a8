//! From a version's folder to a version that can serve: read, checked, compiled, warmed up, held against its definition.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::swap::wanted;
use super::tune::{Tuned, tune};
use super::{ServiceError, Setup, Versions};
use crate::batcher::{self, Batcher};
use crate::engine::tune::{Choice, Split};
use crate::engine::{EngineError, Plan, Slot, Target, check_golden};
use crate::model::{ModelName, Version};
use crate::predict::{Served, ServedModel};
use crate::registry::{Entry, Loaded};
use crate::telemetry::ModelMetrics;

/// Images that are timed together before a version serves.
const FEW: usize = 4;

/// Makes versions ready, on the thread that asks. What serves meanwhile shares nothing with it but the machine.
pub(super) struct Loader {
    setup: Setup,
    target: Target,
}

impl Loader {
    /// Opens the device.
    pub(super) fn new(setup: Setup) -> Result<Self, ServiceError> {
        let target = setup.engine.open().map_err(ServiceError::Device)?;
        Ok(Self { setup, target })
    }

    /// Every version of a model that should serve; asks before each whether to stop.
    pub(super) fn model(
        &self,
        entry: &Entry,
        policy: Versions,
        stopping: impl Fn() -> bool,
    ) -> Result<ServedModel, ServiceError> {
        let champion = self.champion(entry)?;
        let mut versions = Vec::new();
        for version in wanted(entry, policy) {
            if stopping() {
                return Err(ServiceError::Stopping);
            }
            versions.push(self.version(&entry.name, version)?);
        }
        Ok(ServedModel { champion, versions })
    }

    /// One version, its workers waiting for requests. It was read whole: what becomes of its files is nothing to it.
    pub(super) fn version(&self, name: &ModelName, version: Version) -> Result<Arc<Served>, ServiceError> {
        let begun = Instant::now();
        let loaded = self.setup.registry.load(name, version)?;
        // What is left half made by a panic is dropped; what serves has no part in it.
        let proved = catch_unwind(AssertUnwindSafe(|| self.proved(&loaded)));
        let tuned = proved.unwrap_or(Err(EngineError::Panicked));
        let (tuned, timings) = tuned.map_err(|source| ServiceError::Engine {
            name: name.clone(),
            version,
            source,
        })?;
        let metrics = self.setup.metrics.model(name, version);
        let batcher = self.batcher(&loaded, &tuned, &metrics)?;
        batcher.seed(&timings);
        told(&loaded, &tuned, begun.elapsed().as_secs_f64());
        let spec = Arc::new(loaded.spec);
        let served = Served::new(
            name.clone(),
            version,
            spec,
            (batcher, metrics),
            self.setup.answers,
        );
        Ok(Arc::new(served))
    }

    /// A plan that is warm and computes what its network is defined to, and how long batches took.
    fn proved(&self, loaded: &Loaded) -> Result<(Tuned, Vec<(usize, Duration)>), EngineError> {
        let tuned = tune(&self.setup, loaded, &self.target)?;
        let Loaded { graph, weights, .. } = loaded;
        check_golden(&tuned.plan, graph, weights, self.target.precision)?;
        let timings = timings(&tuned.plan, tuned.choice.max_batch_size)?;
        Ok((tuned, timings))
    }

    /// The version's queue, each of its workers on a thread of its own.
    fn batcher(
        &self,
        loaded: &Loaded,
        tuned: &Tuned,
        metrics: &Arc<ModelMetrics>,
    ) -> Result<Batcher, ServiceError> {
        let slot = Arc::new(Slot::new(Arc::clone(&tuned.plan)));
        let queue = batcher::Config {
            max_batch_size: tuned.choice.max_batch_size,
            ..self.setup.batcher
        };
        let instances = tuned.choice.split.instances;
        let (batcher, workers) = Batcher::new(queue, &slot, instances, Arc::clone(metrics));
        let Loaded { name, version, .. } = loaded;
        for (number, worker) in workers.into_iter().enumerate() {
            let spawned = (self.setup.spawn)(&format!("infer-{name}-{version}-{number}"), worker);
            // Those that have a thread already end with their queue.
            spawned.inspect_err(|_| batcher.close())?;
        }
        Ok(batcher)
    }

    /// The version that answers where none is named; what to do where there is none.
    fn champion(&self, entry: &Entry) -> Result<Version, ServiceError> {
        let name = &entry.name;
        let Some(last) = entry.versions.last() else {
            let folder = self.setup.registry.root().join(name.as_str());
            return Err(ServiceError::Nothing(format!(
                "{} has no version: train one (`sconce train`) or move the folder away",
                folder.display()
            )));
        };
        entry.champion().map_err(|error| {
            let command = format!("`sconce models alias {name} champion {last}`");
            ServiceError::Nothing(format!("{error}: {command} names one"))
        })
    }
}

/// What an image and a few take before anything is asked, so that the first burst meets a queue which knows how long it takes.
fn timings(plan: &Plan, max_batch: usize) -> Result<Vec<(usize, Duration)>, EngineError> {
    let mut logits = Vec::new();
    let mut time = |items: usize| {
        let images = plan.pattern(items);
        let begun = Instant::now();
        plan.run(&images, items, &mut logits)?;
        Ok((items, begun.elapsed()))
    };
    [1, FEW.min(max_batch.max(1))]
        .into_iter()
        .map(&mut time)
        .collect()
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
