//! A trained network becomes a version: evaluated as it will serve, with a manifest.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::dataset::Dataset;
use crate::engine::Plan;
use crate::evaluate::{self, Report};
use crate::model::{Version, Weights};
use crate::registry::{Manifest, WeightsFile};
use crate::train::Fitted;

use super::super::models;
use super::CliError;
use super::subject::Subject;

/// Largest batch the plan is tried with before it is evaluated.
const WARM_UP_BATCH: usize = 64;

/// Evaluates and publishes; returns what to tell at the terminal.
pub(super) fn publish(subject: &Subject, fitted: &Fitted, command: &str) -> Result<String, CliError> {
    let reports = evaluate(subject, &fitted.weights)?;
    let manifest = manifest(subject, fitted, command, &reports)?;
    let (registry, name) = (&subject.registry, subject.name());
    registry.keep_champion(name).map_err(failed)?;
    let version = registry
        .publish(name, &fitted.weights, manifest)
        .map_err(failed)?;
    models::refresh_cards(registry, name)?;
    Ok(text(subject, fitted, version, &reports))
}

/// Reports by part: `test` where the data have one, `hold_out` where images were held out.
fn evaluate(subject: &Subject, weights: &Weights) -> Result<Vec<(&'static str, Report)>, CliError> {
    // The version's number is not known before it is published, and plays no part in the answers.
    let plan = Plan::compile(Version::FIRST, &subject.graph, weights, &subject.target).map_err(failed)?;
    plan.warm_up(WARM_UP_BATCH).map_err(failed)?;
    let report = |data: &Dataset, indices: &[usize]| {
        let probabilities = evaluate::probabilities(&plan, data, indices).map_err(failed)?;
        let labels: Vec<u32> = indices.iter().map(|&index| data.labels[index]).collect();
        evaluate::report(&probabilities, &labels, &subject.entry.spec.labels).map_err(failed)
    };
    let mut reports = Vec::new();
    if let Some(test) = &subject.test {
        let all: Vec<usize> = (0..test.len()).collect();
        reports.push(("test", report(test, &all)?));
    }
    if !subject.split.hold_out.is_empty() {
        reports.push(("hold_out", report(&subject.data, &subject.split.hold_out)?));
    }
    Ok(reports)
}

/// Holds nothing that changes from one run of `command` to the next.
fn manifest(
    subject: &Subject,
    fitted: &Fitted,
    command: &str,
    reports: &[(&'static str, Report)],
) -> Result<Manifest, CliError> {
    // By way of text, in which an f32 of 0.3 is 0.3.
    let config = serde_json::to_string(&subject.config).map_err(failed)?;
    let mut training: Map<String, Value> = serde_json::from_str(&config).map_err(failed)?;
    training.insert("recipe".to_owned(), json!(subject.recipe));
    training.insert("epochs_run".to_owned(), json!(fitted.history.epochs.len()));
    training.insert("kept_epoch".to_owned(), json!(fitted.kept_epoch));
    let mut evaluation = Map::new();
    for (part, report) in reports {
        evaluation.insert((*part).to_owned(), serde_json::to_value(report).map_err(failed)?);
    }
    Ok(Manifest {
        format: Manifest::FORMAT,
        weights: WeightsFile::default(),
        architecture: subject.entry.spec.architecture.clone(),
        parameters: subject.graph.parameters(),
        parent: subject.parent,
        sconce: env!("CARGO_PKG_VERSION").to_owned(),
        command: command.to_owned(),
        seed: subject.config.seed,
        data: data(subject),
        training: Value::Object(training),
        evaluation: Value::Object(evaluation),
    })
}

fn data(subject: &Subject) -> Value {
    let test = |test: &Dataset| json!({"images": test.len(), "sha256": test.sha256()});
    json!({
        "name": subject.data_name,
        "sha256": subject.data.sha256(),
        "images": subject.data.len(),
        "trained_on": subject.split.train.len(),
        "hold_out": subject.split.hold_out.len(),
        "test": subject.test.as_ref().map(test),
    })
}

fn text(subject: &Subject, fitted: &Fitted, version: Version, reports: &[(&'static str, Report)]) -> String {
    let name = subject.name();
    let mut text = format!("{name} version {version}, epoch {}", fitted.kept_epoch);
    for (part, report) in reports {
        let part = part.replace('_', "-");
        let _ = write!(
            text,
            "; {:.2} % of {} {part} images",
            report.accuracy * 100.0,
            report.n
        );
    }
    text.push('\n');
    if version == Version::FIRST {
        text += "It is the only version, so it answers.\n";
    } else {
        // Where the data have no test part, the hold-out is what training has not seen.
        let sample = if subject.test.is_some() { "" } else { " --hold-out" };
        let data = format!("{}{sample}", subject.data_path.display());
        let how = models::promotion(subject.registry.root(), name, version, &data);
        let _ = writeln!(text, "To let it answer: {how}");
    }
    text
}

#[expect(clippy::needless_pass_by_value, reason = "map_err hands the error over")]
fn failed(error: impl ToString) -> CliError {
    CliError::Failed(error.to_string())
}
