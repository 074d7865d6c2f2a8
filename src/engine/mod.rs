//! The serving executor: graph + weights → a plan that answers batches, one instance per thread.

use serde::{Deserialize, Serialize};

mod compile;
mod cpu;
pub mod device;
mod explain;
mod flush;
mod fold;
mod options;
mod plan;
mod reference;
pub mod slot;
mod step;
#[cfg(test)]
mod tests;

pub use device::DeviceChoice;
pub use explain::LayerCost;
pub use options::{Instructions, Options};
pub use plan::Plan;
pub use reference::Reference;
pub use slot::Slot;

/// The engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `auto`, `cpu` or `cuda:N`.
    pub device: DeviceChoice,
    /// Instances per model, each with `threads` threads; 0 means as many as the cores this process may use have room for.
    pub instances: usize,
    /// Threads that share each batch of an instance.
    pub threads: usize,
    /// `auto`, or the vector instructions of the CPU's kernels.
    pub instructions: Instructions,
    /// Whether 3×3 convolutions may take Winograd's way.
    pub winograd: bool,
}

impl Config {
    /// How plans are compiled.
    pub fn options(&self) -> Options {
        Options {
            instructions: self.instructions,
            winograd: self.winograd,
            threads: self.threads.max(1),
        }
    }

    /// Instances per model.
    pub fn instances(&self) -> usize {
        match self.instances {
            0 => (available_cores() / self.threads.max(1)).max(1),
            instances => instances,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            device: DeviceChoice::Auto,
            instances: 0,
            threads: 1,
            instructions: Instructions::Auto,
            winograd: true,
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
    #[error("inference failed: {}", first_line(.0))]
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
    /// NaN or infinity from a warm-up.
    #[error("the model gives numbers that are not finite")]
    NonFinite,
}

/// Makes this thread treat subnormal numbers as 0. Call once on each inference thread.
pub fn prepare_thread() {
    flush::flush_subnormals();
}

/// Cores this process may use, at least 1: the least of the affinity mask and, on Linux, the processor quota of cgroup
/// v2 or v1, rounded down (`std::thread::available_parallelism`).
pub fn available_cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// candle's message without the backtrace that may follow it.
fn first_line(error: &candle_core::Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}
