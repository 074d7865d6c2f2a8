//! Whether what came in may be learnt from at all: checks that look at no new model.

use std::collections::HashSet;

use crate::evaluate::EvaluateError;
use crate::evaluate::gate::intake::{DataReport, DataRules, Golden, NewExample, check_data};

use super::{Incoming, MAX_SUSPECTS, Progress};

/// What the serving model says: of the images that came in, and of images whose labels are trusted.
pub(super) struct Opinion<'a> {
    /// Of each image that came in a row of one probability per class.
    pub(super) incoming: &'a [f64],
    /// The same of trusted images.
    pub(super) trusted: &'a [f64],
    /// Their classes.
    pub(super) labels: &'a [u32],
}

/// Looks at what came in, and takes away what is not to be learnt from.
pub(super) fn screen(
    incoming: &mut Incoming,
    opinion: &Opinion<'_>,
    rules: &DataRules,
) -> Result<DataReport, EvaluateError> {
    let classes = incoming.data.classes;
    let golden = Golden::of(opinion.trusted, opinion.labels, classes)?;
    let held_out: HashSet<usize> = incoming.split.hold_out.iter().copied().collect();
    let names: Vec<String> = incoming.examples.iter().map(|e| e.sha256.to_string()).collect();
    let rows = opinion.incoming.chunks_exact(classes);
    let examples = incoming.examples.iter().zip(rows).enumerate();
    let examples: Vec<NewExample<'_>> = examples
        .map(|(place, (example, probabilities))| NewExample {
            sha256: &names[place],
            label: example.label,
            source: example.source.as_str(),
            dhash: incoming.looks[place],
            probabilities,
            hold_out: held_out.contains(&place),
        })
        .collect();
    let check = check_data(&examples, &golden, rules)?;
    incoming.leave_out(&check.leave_out);
    Ok(check.report)
}

/// Where nobody can say what the labels are worth: whether they are enough.
pub(super) fn enough(incoming: &Incoming, rules: &DataRules) -> Option<String> {
    let new = incoming.examples.len();
    let text = |new| {
        format!(
            "new examples: {new}, fewer than the {} that a new training needs",
            rules.min_new
        )
    };
    (new < rules.min_new).then(|| text(new))
}

/// The event that names the labels to look at, where there are any.
pub(super) fn suspects(report: &DataReport) -> Option<Progress> {
    let mut suspects = report.suspects.ranked.clone();
    suspects.truncate(MAX_SUSPECTS);
    (!suspects.is_empty()).then_some(Progress::Suspects { suspects })
}

/// The event that tells of a report.
pub(super) fn told(report: &DataReport) -> Progress {
    let text = match report.reasons.is_empty() {
        true => format!(
            "{} of {} new examples are learnt from",
            report.kept, report.examples
        ),
        false => report.reasons.join("; "),
    };
    Progress::Check {
        check: "labels".to_owned(),
        passed: report.passed,
        text,
    }
}
