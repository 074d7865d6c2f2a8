//! Logits to a prediction: probabilities, the best classes, the margin.

use std::sync::Arc;

use serde::Serialize;

/// Class names in the network's order.
pub type Labels = Arc<[Arc<str>]>;

/// One class with its probability.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ranked {
    /// Class name.
    pub label: Arc<str>,
    /// Class number.
    pub index: usize,
    /// 0…1.
    pub probability: f64,
}

/// What the model says of one image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// The most probable class's name.
    pub label: Arc<str>,
    /// Its number.
    pub index: usize,
    /// Its probability, 0…1.
    pub probability: f64,
    /// Its probability less the second's, 0…1.
    pub margin: f64,
    /// The most probable classes, best first; ties in order of their numbers.
    pub top_k: Vec<Ranked>,
    /// Every class's probability in the network's order, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probabilities: Option<Vec<f64>>,
}

/// What the caller wants of a prediction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detail {
    /// Length of `top_k`; more than the classes means all of them.
    pub top_k: usize,
    /// Whether all probabilities are listed.
    pub probabilities: bool,
}

/// A logit is NaN or infinite, so there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the model gave a number that is not finite")]
pub struct NonFinite;

/// exp(x − max) / Σ, in f64.
pub fn softmax(_logits: &[f32]) -> Result<Vec<f64>, NonFinite> {
    todo!()
}

/// The prediction of one row of logits, as long as `labels`.
pub fn predict(_logits: &[f32], _labels: &Labels, _detail: Detail) -> Result<Prediction, NonFinite> {
    todo!()
}
