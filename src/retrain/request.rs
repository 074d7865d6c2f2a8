//! What is asked of a run, held against its ranges before anything starts.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::model::ModelName;
use crate::train::Recipe;

use super::Parent;

/// What to learn from, from where, and for how long. As JSON every key but `model` may be left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Whose new version it becomes.
    pub model: ModelName,
    /// Whether to learn from feedback and samples in the store.
    #[serde(default = "yes")]
    pub feedback: bool,
    /// A dataset to learn from or, beside feedback, to replay, in the configured folder of datasets; unset: the one that
    /// the parent learnt from, where it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<DatasetName>,
    /// Replayed images of the dataset for each image of feedback, 0 to 100.
    #[serde(default = "replay_ratio")]
    pub replay_ratio: f64,
    /// Learn from feedback without replay, knowing that what is not in it is forgotten.
    #[serde(default)]
    pub without_replay: bool,
    /// The version to begin from; unset: the champion. The gate compares with the model's own champion in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// The model of which that is a version, where it is not the model itself: one with the same network but for the last
    /// layer, which begins from fresh weights where the classes are others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_model: Option<ModelName>,
    /// Layers with weights, counted from the input, that stay as the parent has them.
    #[serde(default)]
    pub freeze: usize,
    /// Begin from fresh weights in the last layer: for classes that mean something else than the parent's.
    #[serde(default)]
    pub new_head: bool,
    /// The hyper-parameters to train with; unset: those that are configured for going on with a model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<Recipe>,
    /// Passes over the images, 1 to 1,000; unset: the recipe's, or the configured number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<usize>,
    /// Training ends with the first epoch that ends after so many minutes, above 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minutes: Option<f64>,
    /// Highest learning rate, above 0; unset: the recipe's, or the configured one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// Seed of order, augmentation and dropout.
    #[serde(default)]
    pub seed: u64,
    /// Whether a version that the gate blesses becomes the champion.
    #[serde(default = "yes")]
    pub promote: bool,
    /// Read and check everything, say what would be done, and train nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// Replayed images for each new one: with 4 to 1 a model keeps what it knew (docs/decisions/0012-replay.md).
const REPLAY_RATIO: f64 = 4.0;

/// The name of a folder of datasets: 1 to 64 of `a-z`, `0-9`, `.`, `_` and `-`, a letter or digit first. A key: it is looked
/// up in a listing and never joined into a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DatasetName(String);

/// What is wrong with a request; the text begins with the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct RequestError {
    /// The key.
    pub key: &'static str,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl Request {
    /// Everything at its default.
    pub fn new(model: ModelName) -> Self {
        Self {
            model,
            feedback: true,
            dataset: None,
            replay_ratio: REPLAY_RATIO,
            without_replay: false,
            parent: None,
            parent_model: None,
            freeze: 0,
            new_head: false,
            recipe: None,
            epochs: None,
            minutes: None,
            learning_rate: None,
            seed: 0,
            promote: true,
            dry_run: false,
        }
    }

    /// Holds the values against their ranges and each other; nothing is read for it.
    pub fn check(&self) -> Result<(), RequestError> {
        let positive = |value: Option<f64>| value.is_none_or(|value| value.is_finite() && value > 0.0);
        let ratio = (0.0..=100.0).contains(&self.replay_ratio);
        require(ratio, "replay_ratio", "must be 0 to 100")?;
        let epochs = self.epochs.is_none_or(|epochs| (1..=1_000).contains(&epochs));
        require(epochs, "epochs", "must be 1 to 1000")?;
        require(positive(self.minutes), "minutes", "must be a number above 0")?;
        require(
            positive(self.learning_rate),
            "learning_rate",
            "must be a number above 0",
        )?;
        let something = self.feedback || self.dataset.is_some();
        require(something, "dataset", "must be named where feedback is false")?;
        let alone = self.feedback && self.replay_ratio == 0.0 && !self.without_replay;
        require(
            !alone,
            "replay_ratio",
            "must be above 0: what is not replayed is forgotten (\"without_replay\": true insists)",
        )?;
        let both = self.without_replay && (self.dataset.is_some() || !self.feedback);
        require(
            !both,
            "without_replay",
            "must be false where a dataset is named or feedback is false",
        )
    }
}

fn yes() -> bool {
    true
}

fn replay_ratio() -> f64 {
    REPLAY_RATIO
}

fn require(holds: bool, key: &'static str, problem: &str) -> Result<(), RequestError> {
    if holds {
        return Ok(());
    }
    Err(RequestError {
        key,
        problem: problem.to_owned(),
    })
}

impl DatasetName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DatasetName {
    type Err = RequestError;

    fn from_str(text: &str) -> Result<Self, RequestError> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let starts = text.bytes().next().is_some_and(plain);
        let rest = text.bytes().all(|b| plain(b) || matches!(b, b'.' | b'_' | b'-'));
        let fits = starts && rest && text.len() <= 64 && !text.contains("..");
        require(
            fits,
            "dataset",
            "must be 1 to 64 of a-z, 0-9, '.', '_' and '-', a letter or digit first",
        )?;
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for DatasetName {
    type Error = RequestError;

    fn try_from(text: String) -> Result<Self, RequestError> {
        text.parse()
    }
}

impl From<DatasetName> for String {
    fn from(name: DatasetName) -> Self {
        name.0
    }
}

impl fmt::Display for DatasetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_left_out_is_the_default() {
        let name: ModelName = "digits".parse().unwrap();
        let read: Request = serde_json::from_value(json!({"model": "digits"})).unwrap();
        assert_eq!(read, Request::new(name));
        read.check().unwrap();
        let text = serde_json::to_string(&read).unwrap();
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), read);
        for wrong in [
            json!({}),
            json!({"model": "digits", "epoch": 1}),
            json!({"model": "../x"}),
        ] {
            assert!(serde_json::from_value::<Request>(wrong).is_err());
        }
    }

    #[test]
    fn what_is_not_possible_is_named() {
        let check = |value: serde_json::Value, key: Option<&str>| {
            let mut whole = json!({"model": "digits"});
            whole
                .as_object_mut()
                .unwrap()
                .extend(value.as_object().unwrap().clone());
            let request: Request = serde_json::from_value(whole).unwrap();
            let found = request.check().err().map(|error| error.key);
            assert_eq!(found, key, "{value}");
        };
        check(json!({"replay_ratio": 100.5}), Some("replay_ratio"));
        check(json!({"replay_ratio": -1}), Some("replay_ratio"));
        check(json!({"replay_ratio": 0}), Some("replay_ratio"));
        check(json!({"replay_ratio": 0, "without_replay": true}), None);
        check(json!({"without_replay": true}), None);
        check(
            json!({"without_replay": true, "dataset": "mnist"}),
            Some("without_replay"),
        );
        check(json!({"epochs": 0}), Some("epochs"));
        check(json!({"epochs": 1001}), Some("epochs"));
        check(json!({"minutes": 0}), Some("minutes"));
        check(json!({"learning_rate": -0.1}), Some("learning_rate"));
        check(json!({"feedback": false}), Some("dataset"));
        check(json!({"feedback": false, "dataset": "mnist"}), None);
    }

    #[test]
    fn a_dataset_is_a_plain_name() {
        let check =
            |text: &str, fits: bool| assert_eq!(text.parse::<DatasetName>().is_ok(), fits, "{text:?}");
        check("mnist", true);
        check("fashion-mnist_2.1", true);
        check("", false);
        check(".hidden", false);
        check("a..b", false);
        check("a/b", false);
        check("Mnist", false);
        check(&"a".repeat(65), false);
    }
}
