//! The serving executor: graph + weights → a plan that answers batches, one instance per thread.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

mod compile;
mod cpu;
pub mod device;
mod explain;
mod flush;
mod fold;
mod golden;
mod lane;
pub mod machine;
mod operators;
mod options;
mod plan;
mod precision;
mod reference;
pub mod slot;
mod step;
#[cfg(feature = "cuda")]
mod stream;
pub mod timing;
#[cfg(test)]
mod tests;
pub mod tune;

pub use device::{DeviceChoice, Target};
pub use explain::LayerCost;
pub use golden::check_golden;
pub use options::{Instructions, Options};
pub use plan::Plan;
pub use precision::Precision;
pub use reference::Reference;
pub use slot::Slot;

/// The engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `auto`, `cpu` or `cuda:N`.
    pub device: DeviceChoice,
    /// What a GPU computes in.
    pub precision: Precision,
    /// Instances per model, each with `threads` threads; 0 means as many as the cores this process may use have room for,
    /// or two on a GPU.
    pub instances: usize,
    /// Threads that share each batch of an instance; 0 means as kept timings say, else 1.
    pub threads: usize,
    /// Folder of kept timings; empty keeps none.
    pub cache: PathBuf,
    /// How long a start may time a version whose timings are not kept, in milliseconds; 0 never does.
    pub tune_ms: u64,
    /// `auto`, or the vector instructions of the CPU's kernels.
    pub instructions: Instructions,
    /// Whether 3×3 convolutions may take Winograd's way.
    pub winograd: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            device: DeviceChoice::Auto,
            precision: Precision::F32,
            instances: 0,
            threads: 0,
            cache: PathBuf::from("cache"),
            tune_ms: 0,
            instructions: Instructions::Auto,
            winograd: true,
        }
    }
}

impl Config {
    /// Tells, as `key: problem`, which values do not go together.
    pub fn check(&self) -> Result<(), String> {
        if self.device == DeviceChoice::Cpu && self.precision != Precision::F32 {
            return Err(EngineError::Precision(self.precision).to_string());
        }
        Ok(())
    }

    /// Opens the device. Where `auto` fell back to the CPU, another precision than f32 is given up with a warning.
    pub fn open(&self) -> Result<Target, EngineError> {
        let options = Options {
            instructions: self.instructions,
            winograd: self.winograd,
            threads: self.threads.max(1),
        };
        Target::open(self.device, self.precision, options)
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
    /// The CPU was asked for with a precision that it does not compute in.
    #[error(
        "engine.precision: the CPU computes in f32, not {0}: set f32, or engine.device to cuda:N or auto"
    )]
    Precision(Precision),
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
    /// The plan does not compute the network that it was compiled from.
    #[error("the plan's answers are off their definition's by {off}, and {allowed} is allowed")]
    Golden {
        /// The largest difference of a logit.
        off: f32,
        /// What rounding may make.
        allowed: f32,
    },
    /// The system gives no thread.
    #[error("a thread: {0}")]
    Thread(std::io::Error),
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
