//! The serving executor: graph + weights → a plan that answers batches, one instance per thread.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::{Graph, Version, Weights};

pub mod device;
pub mod slot;

pub use device::DeviceChoice;
pub use slot::Slot;

/// The engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `auto`, `cpu` or `cuda:N`.
    pub device: DeviceChoice,
    /// Instances per model, each one thread; 0 means one per core this process may use.
    pub instances: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            device: DeviceChoice::Auto,
            instances: 0,
        }
    }
}

/// Why the engine could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The device asked for is not there; the text says what is missing and what to do.
    #[error("device {device}: {problem}")]
    Device {
        /// As asked for.
        device: String,
        /// Why not.
        problem: String,
    },
    /// candle refused.
    #[error("inference failed: {0}")]
    Inference(#[from] candle_core::Error),
    /// A batch panicked.
    #[error("inference panicked")]
    Panicked,
    /// The batch is not n whole inputs.
    #[error("a batch of {found} numbers is not {items} inputs of {input}")]
    Shape {
        /// Items said.
        items: usize,
        /// Numbers per input.
        input: usize,
        /// Numbers given.
        found: usize,
    },
}

/// A loaded model version, compiled for a device; shared by its instances.
#[derive(Debug)]
pub struct Plan {
    version: Version,
    input_len: usize,
    classes: usize,
}

impl Plan {
    /// Compiles a version for a device: batch-norm folded, dropout gone.
    pub fn compile(
        _version: Version,
        _graph: &Graph,
        _weights: &Weights,
        _device: &device::Device,
    ) -> Result<Arc<Self>, EngineError> {
        todo!()
    }

    /// The version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Numbers per input.
    pub fn input_len(&self) -> usize {
        self.input_len
    }

    /// Numbers per answer.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Answers `items` inputs laid end to end; writes `items · classes` logits over `logits`. Panics are caught and
    /// are [`EngineError::Panicked`].
    pub fn run(&self, _inputs: &[f32], _items: usize, _logits: &mut Vec<f32>) -> Result<(), EngineError> {
        todo!()
    }

    /// Runs batches of 1 and `max_batch` so that the first request finds everything in place; an output that is not
    /// finite is an error.
    pub fn warm_up(&self, _max_batch: usize) -> Result<(), EngineError> {
        todo!()
    }
}

/// Makes this thread treat subnormal numbers as 0 and keeps candle to one thread. Call once on each inference thread.
pub fn prepare_thread() {
    todo!()
}

/// Cores this process may use: the cgroup's quota and the affinity mask, at least 1.
pub fn available_cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
