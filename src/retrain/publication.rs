//! What a version's manifest tells: how it was trained, on what, and how good it is.

use serde_json::{Map, Value, json};

use crate::dataset::Dataset;
use crate::engine::Plan;
use crate::evaluate::{self, EvaluateError, Report};
use crate::model::{Graph, ModelName, Spec, Version};
use crate::registry::{Manifest, WeightsFile};
use crate::train::{self, Fitted};

/// A trained network with all that its manifest tells but its quality.
pub struct Trained<'a> {
    /// The model.
    pub spec: &'a Spec,
    /// Its network.
    pub graph: &'a Graph,
    /// What came of the training.
    pub fitted: &'a Fitted,
    /// How it was trained.
    pub config: &'a train::Config,
    /// The version that training began from.
    pub parent: Option<Version>,
    /// The model of that version, where it is another.
    pub parent_model: Option<ModelName>,
    /// The command, to be run again.
    pub command: &'a str,
    /// The images.
    pub data: Value,
    /// Further entries of the manifest's `training`.
    pub further: Vec<(&'static str, Value)>,
}

/// Images that a version is judged on, as its manifest names them.
pub struct Judged<'a> {
    /// `test`, `hold_out` or `feedback`.
    pub name: &'static str,
    /// Among these.
    pub data: &'a Dataset,
    /// These.
    pub indices: Vec<usize>,
}

/// A report for each part, through the plan that would serve.
pub fn reports(
    plan: &Plan,
    parts: &[Judged<'_>],
    labels: &[String],
) -> Result<Vec<(&'static str, Report)>, EvaluateError> {
    let report = |part: &Judged<'_>| {
        let probabilities = evaluate::probabilities(plan, part.data, &part.indices)?;
        let right: Vec<u32> = part.indices.iter().map(|&i| part.data.labels[i]).collect();
        Ok((part.name, evaluate::report(&probabilities, &right, labels)?))
    };
    parts.iter().map(report).collect()
}

impl Trained<'_> {
    /// Holds nothing that changes from one run of the command to the next but what `further` brings.
    pub fn manifest(self, reports: &[(&'static str, Report)]) -> Manifest {
        let plain = "it has string keys and plain values";
        // By way of text, in which an f32 of 0.3 is 0.3.
        let config = serde_json::to_string(self.config).expect(plain);
        let mut training: Map<String, Value> = serde_json::from_str(&config).expect(plain);
        let further = self.further.into_iter();
        training.extend(further.map(|(key, value)| (key.to_owned(), value)));
        training.insert("epochs_run".to_owned(), json!(self.fitted.history.epochs.len()));
        training.insert("kept_epoch".to_owned(), json!(self.fitted.kept_epoch));
        let mut evaluation = Map::new();
        for (part, report) in reports {
            let report = serde_json::to_value(report).expect(plain);
            evaluation.insert((*part).to_owned(), report);
        }
        Manifest {
            format: Manifest::FORMAT,
            weights: WeightsFile::default(),
            architecture: self.spec.architecture.clone(),
            parameters: self.graph.parameters(),
            parent: self.parent,
            parent_model: self.parent_model,
            sconce: env!("CARGO_PKG_VERSION").to_owned(),
            command: self.command.to_owned(),
            seed: self.config.seed,
            data: self.data,
            training: Value::Object(training),
            evaluation: Value::Object(evaluation),
        }
    }
}
