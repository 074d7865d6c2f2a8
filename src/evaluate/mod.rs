//! How good a model is, through the serving engine.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::engine::EngineError;

mod calibration;
mod confusion;
pub mod gate;
mod html;
mod interval;
mod metrics;
mod numbers;
mod plots;
mod scores;
mod serving;
mod text;

pub use calibration::{BINS, Bin};
pub use confusion::{Confusion, MAX_MATRIX_CLASSES};
pub use interval::Interval;
pub use metrics::MAX_TOP_K;
pub use plots::escape;
pub use serving::{latencies, probabilities};

use confusion::Counts;
use scores::Scores;

/// Every figure of one evaluation. Conventions are scikit-learn's, with `zero_division=0` and every class of the model
/// as `labels`; its JSON keys are the field's terms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Images.
    pub n: usize,
    /// Share whose most probable class is right; the lower number wins between equal ones.
    pub accuracy: f64,
    /// 95 % Wilson interval of the accuracy.
    pub accuracy_interval: Interval,
    /// Mean negative log-likelihood in nats, probabilities kept within 2⁻⁵² of 0 and 1.
    pub nll: f64,
    /// Mean over images of Σ (p − y)² over classes: 0 (sure and right) to 2 (sure and wrong). Brier 1950, not halved.
    pub brier: f64,
    /// Expected calibration error of the top-1 confidence over [`BINS`] bins of equal width (Guo et al., arXiv
    /// 1706.04599).
    pub ece: f64,
    /// Share whose class is among the k most probable, by k: 1 to [`MAX_TOP_K`], below the number of classes. Between
    /// equal ones the higher number comes first, as in scikit-learn.
    pub top_k: BTreeMap<usize, f64>,
    /// Mean over classes, each counting the same; a class without images counts as 0.
    #[serde(rename = "macro")]
    pub macro_average: Average,
    /// Mean over classes weighted by support.
    pub weighted: Average,
    /// In the network's order.
    pub per_class: Vec<ClassReport>,
    /// The pairs that are mistaken most often, at most 20: by count, then by class numbers.
    pub most_confused: Vec<Confusion>,
    /// Images by true class (row) and predicted class (column); absent above [`MAX_MATRIX_CLASSES`] classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confusion_matrix: Option<Vec<Vec<usize>>>,
    /// The bins of the reliability diagram that hold images, by rising confidence.
    pub reliability: Vec<Bin>,
}

/// One class's figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassReport {
    /// Its name.
    pub label: String,
    /// Of those predicted to be of this class, the share that are; 0 where none is predicted.
    pub precision: f64,
    /// Of those of this class, the share predicted to be; 0 where there are none.
    pub recall: f64,
    /// Harmonic mean of the two; 0 where both are.
    pub f1: f64,
    /// Images of this class.
    pub support: usize,
    /// 95 % Wilson interval of the precision.
    pub precision_interval: Interval,
    /// 95 % Wilson interval of the recall.
    pub recall_interval: Interval,
}

/// A mean over classes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Average {
    /// Of the precisions.
    pub precision: f64,
    /// Of the recalls.
    pub recall: f64,
    /// Of the F1 scores.
    pub f1: f64,
}

/// Why there is no report. Rows and images count from 0.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// Nothing to judge by.
    #[error("evaluation: there are no images")]
    Empty,
    /// Rows, labels or names do not match.
    #[error("evaluation: {0}")]
    Shape(String),
    /// A label that is no class.
    #[error("evaluation: row {row} has the label {label}; there are {classes} classes")]
    Label {
        /// Which row.
        row: usize,
        /// Its label.
        label: u32,
        /// Classes.
        classes: usize,
    },
    /// A row that is no distribution.
    #[error("evaluation: row {row}: {problem}")]
    Row {
        /// Which row.
        row: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// The model has no answer for an image.
    #[error("evaluation: the model gave a number that is not finite for image {image}")]
    NonFinite {
        /// Its index in the dataset.
        image: usize,
    },
    /// A pinned image cannot be asked for.
    #[error("evaluation: {path}: {problem}")]
    Pinned {
        /// The image or its folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The system gave no thread.
    #[error("evaluation: no thread: {0}")]
    Thread(#[source] std::io::Error),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// The report of `labels.len()` rows of probabilities, one number per name in each. Every row must lie in 0…1 and sum
/// to 1 within 1e-6.
pub fn report(probabilities: &[f64], labels: &[u32], names: &[String]) -> Result<Report, EvaluateError> {
    let scores = Scores::new(probabilities, labels, names.len())?;
    let counts = Counts::of(&scores);
    let per_class = metrics::per_class(&counts, names);
    let reliability = calibration::bins(&scores);
    let (n, hits) = (scores.len(), counts.hits.iter().sum());
    Ok(Report {
        n,
        accuracy: hits as f64 / n as f64,
        accuracy_interval: Interval::wilson(hits, n),
        nll: metrics::nll(&scores),
        brier: metrics::brier(&scores),
        ece: calibration::ece(&reliability),
        top_k: metrics::top_k(&scores),
        macro_average: metrics::average(&per_class, |_| 1.0),
        weighted: metrics::average(&per_class, |class| class.support as f64),
        per_class,
        most_confused: counts.most_confused(),
        confusion_matrix: counts.matrix(),
        reliability,
    })
}

impl Report {
    /// For a terminal: a table of the classes, then the other figures.
    pub fn text(&self) -> String {
        text::text(self)
    }

    /// One page without links to anything: figures, plots and tables, light or dark as the reader's system asks.
    pub fn html(&self, title: &str) -> String {
        html::page(self, title)
    }
}

#[cfg(test)]
mod tests;
