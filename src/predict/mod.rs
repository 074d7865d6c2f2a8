//! The hot path: bytes of images to predictions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;

use crate::batcher::{Batcher, ItemError, Timing};
use crate::model::{ModelName, Spec, Version};
use crate::postprocess::{Detail, Labels, Prediction};
use crate::preprocess::pool::Pool;
use crate::preprocess::{ImageError, Limits, Pixels, Preprocessor};
use crate::queueing::Asker;
use crate::telemetry::ModelMetrics;

mod cache;
#[cfg(test)]
pub(crate) mod fixture;
mod flight;
mod item;
#[cfg(test)]
mod sharing;
#[cfg(test)]
mod tests;
mod verify;

use cache::Cache;
use flight::Flights;
use item::Waiting;

pub use cache::Sha256Bytes;

/// Answers that cost no inference of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Whether images that are the same and on their way at once are decoded and computed once.
    pub share: bool,
    /// Bytes of answers that are kept of each version in service, by the sha256 of the image; 0 keeps none.
    pub cache_bytes: usize,
}

/// One version in service: its queue and all that turns an image into its answer. Made by [`Served::new`]. A request
/// holds it from its begin to its end; when the last holder lets go, the queue closes by itself.
#[derive(Debug)]
pub struct Served {
    /// The model.
    pub name: ModelName,
    /// The version.
    pub version: Version,
    /// What a person said of the model.
    pub spec: Arc<Spec>,
    /// Its queue.
    pub batcher: Batcher,
    /// Its series.
    pub metrics: Arc<ModelMetrics>,
    preprocessor: Preprocessor,
    labels: Labels,
    /// Where images on their way are shared.
    flights: Option<Flights>,
    /// Where answers are kept.
    cache: Option<Cache>,
}

/// A model's place in service.
#[derive(Clone, Debug)]
pub struct ServedModel {
    /// The version that answers requests which name none.
    pub champion: Version,
    /// Every version in service, ascending.
    pub versions: Vec<Arc<Served>>,
}

/// Every model in service at one moment.
#[derive(Clone, Debug)]
pub struct Table {
    /// By name.
    pub models: BTreeMap<ModelName, ServedModel>,
    /// The model of requests that name none.
    pub default: ModelName,
}

/// The inference pipeline of every served model.
#[derive(Debug)]
pub struct Predictor {
    table: ArcSwap<Table>,
    pool: Pool,
    limits: Limits,
}

/// One image as the caller gave it.
#[derive(Clone, Debug)]
pub enum Picture {
    /// A file's bytes.
    Encoded(Bytes),
    /// Pixel levels.
    Pixels(Pixels),
    /// Already refused while the request was read, so that its neighbours are still answered.
    Refused(ImageError),
}

/// What pictures were given to take memory: held until none of them does, given back when the last holder lets go.
#[derive(Clone, Debug, Default)]
pub struct Room {
    #[expect(dead_code, reason = "it is there to be dropped")]
    permit: Option<Arc<OwnedSemaphorePermit>>,
}

/// What the caller wants.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How much of the prediction.
    pub detail: Detail,
    /// Who asks, and how urgently.
    pub asker: Asker,
    /// When the answer is worth nothing any more.
    pub deadline: Instant,
}

/// One image's answer.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The prediction or this item's own failure.
    pub result: Result<Prediction, Failure>,
    /// Where its time went until the logits were there; zero for a failure.
    pub timing: Timing,
    /// Logits to prediction; zero for a failure.
    pub postprocess: Duration,
}

/// Why one image has no prediction. The texts are for the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The image is at fault.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Load, deadline, engine.
    #[error(transparent)]
    Item(#[from] ItemError),
}

/// Why no version answers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotServed {
    /// No such model in service.
    #[error("no model '{0}' is served")]
    Model(ModelName),
    /// No such version in service.
    #[error("model '{0}' has no version {1} in service")]
    Version(ModelName, Version),
}

impl From<OwnedSemaphorePermit> for Room {
    fn from(permit: OwnedSemaphorePermit) -> Self {
        let permit = Some(Arc::new(permit));
        Self { permit }
    }
}

impl Served {
    /// Makes what the hot path needs of a version once: the level tables of its preprocessing and its shared labels.
    pub fn new(
        name: ModelName,
        version: Version,
        spec: Arc<Spec>,
        (batcher, metrics): (Batcher, Arc<ModelMetrics>),
        config: Config,
    ) -> Self {
        Self {
            flights: config.share.then(Flights::default),
            cache: Cache::new(config.cache_bytes, spec.labels.len()),
            name,
            version,
            preprocessor: Preprocessor::new(Arc::clone(&spec)),
            labels: spec
                .labels
                .iter()
                .map(|label| Arc::from(label.as_str()))
                .collect(),
            spec,
            batcher,
            metrics,
        }
    }
}

impl Predictor {
    /// A pipeline over these models. An image for which the pool has no room is over the limits.
    pub fn new(table: Table, pool: Pool, limits: Limits) -> Arc<Self> {
        let max_alloc_bytes = limits.max_alloc_bytes.min(pool.largest());
        Arc::new(Self {
            table: ArcSwap::from_pointee(table),
            pool,
            limits: Limits {
                max_alloc_bytes,
                ..limits
            },
        })
    }

    /// What is in service now.
    pub fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// Requests that begin after this find what `table` holds; those on their way keep what they found.
    pub fn put(&self, table: Table) {
        self.table.store(Arc::new(table));
    }

    /// As [`Table::find`] of what is in service now. The caller holds the version until its answer is there.
    pub fn find(
        &self,
        model: Option<&ModelName>,
        version: Option<Version>,
    ) -> Result<Arc<Served>, NotServed> {
        self.table.load().find(model, version).cloned()
    }

    /// Whether every model's champion has an engine that computes.
    pub fn is_well(&self) -> bool {
        let table = self.table.load();
        let champion = |model: &ServedModel| {
            model
                .get(model.champion)
                .is_none_or(|served| !served.batcher.is_lost())
        };
        table.models.values().all(champion)
    }

    /// Drops the answers that are kept to an image.
    pub fn erase(&self, sha256: &Sha256Bytes) {
        for served in self.table.load().versions() {
            if let Some(cache) = &served.cache {
                cache.erase(sha256);
                served.metrics.sharing.entries.set(cache.len() as i64);
            }
        }
    }

    /// Whether an image could be answered by its deadline, asked before anything is read of it: the refusal of a request
    /// should cost nothing. One that is refused is counted as an image that was.
    ///
    /// # Errors
    ///
    /// As [`Batcher::admit`], of an image that is decoded in no time.
    pub fn door(&self, served: &Arc<Served>, asker: Asker, deadline: Instant) -> Result<(), Failure> {
        let asked = served.batcher.would_admit(&item::ask(self, asker, (0, deadline)));
        asked.map_err(|error| item::turned_away(served, error))
    }

    /// One outcome per picture, in order. Each is decoded, preprocessed, queued and answered on its own; dropping the
    /// future gives up those not yet answered.
    pub async fn predict(
        &self,
        served: &Arc<Served>,
        pictures: Vec<Picture>,
        options: Options,
    ) -> Vec<Outcome> {
        self.predict_in(&Room::default(), served, pictures, options).await
    }

    /// As [`Predictor::predict`]; `room` is given back when the last of the pictures needs it no more.
    pub async fn predict_in(
        &self,
        room: &Room,
        served: &Arc<Served>,
        pictures: Vec<Picture>,
        options: Options,
    ) -> Vec<Outcome> {
        // All are on their way before the first is awaited, so that they can share a batch.
        let waiting: Vec<Waiting> = pictures
            .into_iter()
            .map(|picture| Waiting::begin(self, served, (picture, room.clone()), options))
            .collect();
        let mut outcomes = Vec::with_capacity(waiting.len());
        for item in waiting {
            outcomes.push(item.outcome(served, options).await);
        }
        outcomes
    }
}

impl Table {
    /// The version that answers: the default model's or the named one's champion, or the version asked for.
    pub fn find(
        &self,
        model: Option<&ModelName>,
        version: Option<Version>,
    ) -> Result<&Arc<Served>, NotServed> {
        let name = model.unwrap_or(&self.default);
        let model = self
            .models
            .get(name)
            .ok_or_else(|| NotServed::Model(name.clone()))?;
        let version = version.unwrap_or(model.champion);
        model
            .get(version)
            .ok_or_else(|| NotServed::Version(name.clone(), version))
    }

    /// Every version in service.
    pub fn versions(&self) -> impl Iterator<Item = &Arc<Served>> {
        self.models.values().flat_map(|model| &model.versions)
    }
}

impl ServedModel {
    /// The version, where it is in service.
    pub fn get(&self, version: Version) -> Option<&Arc<Served>> {
        self.versions.iter().find(|served| served.version == version)
    }
}

impl Drop for Served {
    /// Nobody can submit any more: what waits is answered, and the workers end.
    fn drop(&mut self) {
        self.batcher.close();
    }
}
