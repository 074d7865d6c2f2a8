//! How good a model is, through the serving engine.

use serde::Serialize;

use crate::dataset::Dataset;
use crate::engine::{EngineError, Plan};

/// Every figure of one evaluation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Images.
    pub n: usize,
    /// Share whose most probable class is right.
    pub accuracy: f64,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// Rows, labels or names do not match.
    #[error("evaluation: {0}")]
    Shape(String),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Probabilities (rows of one per class) of `indices` of a dataset, by the plan that would serve.
pub fn probabilities(_plan: &Plan, _data: &Dataset, _indices: &[usize]) -> Result<Vec<f64>, EvaluateError> {
    todo!()
}

/// The report of `labels.len()` rows of probabilities.
pub fn report(_probabilities: &[f64], _labels: &[u32], _names: &[String]) -> Result<Report, EvaluateError> {
    todo!()
}

impl Report {
    /// For a terminal.
    pub fn text(&self) -> String {
        todo!()
    }

    /// One page without links to anything: tables and plots.
    pub fn html(&self, _title: &str) -> String {
        todo!()
    }
}
