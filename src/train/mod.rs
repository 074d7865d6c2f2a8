//! Training: epochs over a dataset, from initial weights to the best ones.

use std::path::PathBuf;

use crate::model::WeightsError;

pub mod checkpoint;
pub mod config;
pub mod cross_validation;
pub mod curves;
pub mod early_stopping;
pub mod fit;
pub mod history;
pub mod identity;
pub mod loss;
pub mod optimizer;
mod parameters;
pub mod regularise;
pub mod schedule;
pub mod tensorboard;

pub use checkpoint::Checkpoint;
pub use config::{Config, Recipe};
pub use fit::{Event, Fitted, Task, fit};
pub use history::{EpochRecord, History, Score};

#[cfg(test)]
mod worked_example;

/// Why there are no trained weights.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A hyper-parameter outside its range.
    #[error("training: {key}: {problem}")]
    Config {
        /// The key, dotted.
        key: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// The images do not make a training set for this network.
    #[error("training: {0}")]
    Data(String),
    /// The loss became NaN or infinite: the run is over and its weights are lost.
    #[error(
        "training: the loss is no longer finite in epoch {epoch}, step {step}: \
         a smaller learning rate or a gradient clip may help"
    )]
    NotFinite {
        /// Epoch, from 1.
        epoch: usize,
        /// Step within the epoch, from 1.
        step: usize,
    },
    /// The listener broke the run off.
    #[error("training: stopped after {0} epochs")]
    Stopped(usize),
    /// A checkpoint that is broken or of another run.
    #[error("checkpoint {path}: {problem}")]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The disk said no.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// The learning curves could not be drawn.
    #[error("learning curves: {0}")]
    Curves(String),
    /// The trained weights are not ones that may be served.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// candle refused.
    #[error("training failed: {0}")]
    Tensor(#[from] candle_core::Error),
}
