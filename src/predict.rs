//! The hot path: bytes of images to predictions.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::batcher::{Batcher, ItemError, Timing};
use crate::model::{ModelName, Spec, Version};
use crate::postprocess::{Detail, Prediction};
use crate::preprocess::pool::Pool;
use crate::preprocess::{ImageError, Limits, Pixels};
use crate::telemetry::ModelMetrics;

/// One version in service: its queue and all that turns an image into its answer.
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
}

/// A model's place in service.
#[derive(Debug)]
pub struct ServedModel {
    /// The version that answers requests which name none.
    pub champion: Version,
    /// Every version in service, ascending.
    pub versions: Vec<Arc<Served>>,
}

/// The inference pipeline of every served model.
#[derive(Debug)]
pub struct Predictor {
    _pool: Pool,
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

/// What the caller wants.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How much of the prediction.
    pub detail: Detail,
    /// When the answer is worth nothing any more.
    pub deadline: Instant,
}

/// One image's answer.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The prediction or this item's own failure.
    pub result: Result<Prediction, Failure>,
    /// Where its time went.
    pub timing: Timing,
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

impl Predictor {
    /// A pipeline over `models` (not empty); `default` is one of them.
    pub fn new(
        _models: Vec<(ModelName, ServedModel)>,
        _default: ModelName,
        pool: Pool,
        _limits: Limits,
    ) -> Arc<Self> {
        let _pool = pool;
        todo!()
    }

    /// The model of requests that name none.
    pub fn default_model(&self) -> &ModelName {
        todo!()
    }

    /// Every model in service, by name.
    pub fn models(&self) -> impl Iterator<Item = (&ModelName, &ServedModel)> {
        std::iter::empty()
    }

    /// The version that answers: the default model's or the named one's champion, or the version asked for.
    pub fn find(
        &self,
        _model: Option<&ModelName>,
        _version: Option<Version>,
    ) -> Result<&Arc<Served>, NotServed> {
        todo!()
    }

    /// One outcome per picture, in order. Each is decoded, preprocessed, queued and answered on its own; dropping the
    /// future gives up those not yet answered.
    pub async fn predict(
        &self,
        _served: &Arc<Served>,
        _pictures: Vec<Picture>,
        _options: Options,
    ) -> Vec<Outcome> {
        todo!()
    }
}
