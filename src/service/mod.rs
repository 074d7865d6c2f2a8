//! Which versions serve: each loaded and proved beside what runs, swapped between two batches, given back when unused.

use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::batcher::{self, Worker};
use crate::engine::tune::Asked;
use crate::engine::{self, Slot};
use crate::model::{ModelName, Version};
use crate::predict;
use crate::registry::Registry;
use crate::telemetry::Metrics;

mod change;
mod error;
#[cfg(test)]
mod gone;
mod handle;
mod keeper;
mod load;
mod swap;
#[cfg(test)]
mod tests;
mod tune;

pub use crate::registry::{Alias, Change};
pub use change::{Ask, Step};
pub use error::{Cause, ServiceError};
pub use handle::{Handle, Orders, channel};
pub use keeper::Keeper;

/// The versions in service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Which versions of each model serve.
    pub versions: Versions,
    /// How often the folder of models is looked at, in milliseconds; 0 never.
    pub poll_ms: u64,
    /// Most changes waiting, from 1.
    pub max_queue: usize,
}

/// Which versions of each model serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Versions {
    /// Those that an alias names, and those asked for.
    Aliases,
    /// Every version of the folder, but for those that were unloaded.
    All,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            versions: Versions::Aliases,
            poll_ms: 1_000,
            max_queue: 16,
        }
    }
}

/// What a keeper works with.
pub struct Setup {
    /// The folder of models.
    pub registry: Registry,
    /// The model of requests that name none, where the configuration names one.
    pub default_model: Option<ModelName>,
    /// Which versions serve.
    pub config: Config,
    /// How they are compiled.
    pub engine: engine::Config,
    /// Their queues.
    pub batcher: batcher::Config,
    /// Their answers that cost no inference.
    pub answers: predict::Config,
    /// What is set of how the cores are shared out.
    pub asked: Asked,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
    /// Gives a worker its thread.
    pub spawn: Spawn,
}

/// Gives a worker a thread of this name, which ends with the worker.
pub type Spawn = Box<dyn Fn(&str, Worker<Slot>) -> io::Result<()> + Send>;

/// A model's place in service, as it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InService {
    /// The model.
    pub name: ModelName,
    /// The version that answers requests which name none.
    pub champion: Version,
    /// Every version in service, ascending.
    pub versions: Vec<Version>,
}

/// A change of the aliases that is made and served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// As the history has it.
    pub change: Change,
    /// What serves now.
    pub model: InService,
}
