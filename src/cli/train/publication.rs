//! A trained network becomes a version: evaluated as it will serve, with a manifest.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::dataset::Dataset;
use crate::engine::Plan;
use crate::evaluate::Report;
use crate::model::{Version, Weights};
use crate::retrain::{Judged, Trained, reports};
use crate::train::Fitted;

use super::super::models;
use super::CliError;
use super::subject::Subject;

/// Largest batch the plan is tried with before it is evaluated.
const WARM_UP_BATCH: usize = 64;

/// Evaluates and publishes; returns what to tell at the terminal.
pub(super) fn publish(subject: &Subject, fitted: &Fitted, command: &str) -> Result<String, CliError> {
    let reports = evaluate(subject, &fitted.weights)?;
    let manifest = trained(subject, fitted, command).manifest(&reports);
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
    let test = subject.test.as_ref().map(|data| Judged {
        name: "test",
        data,
        indices: (0..data.len()).collect(),
    });
    let held_out = &subject.split.hold_out;
    let hold_out = (!held_out.is_empty()).then(|| Judged {
        name: "hold_out",
        data: &subject.data,
        indices: held_out.clone(),
    });
    let parts: Vec<Judged<'_>> = test.into_iter().chain(hold_out).collect();
    reports(&plan, &parts, &subject.entry.spec.labels).map_err(failed)
}

fn trained<'a>(subject: &'a Subject, fitted: &'a Fitted, command: &'a str) -> Trained<'a> {
    Trained {
        spec: &subject.entry.spec,
        graph: &subject.graph,
        fitted,
        config: &subject.config,
        parent: subject.parent,
        parent_model: None,
        command,
        data: data(subject),
        further: vec![("recipe", json!(subject.recipe))],
    }
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
