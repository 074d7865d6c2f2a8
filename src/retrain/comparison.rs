//! Champion and challenger on the same images, through the engine that serves.

use std::time::SystemTime;

use serde::Serialize;
use serde_json::Value;

use crate::dataset::Dataset;
use crate::engine::Plan;
use crate::evaluate::gate::{self, Answers, Rules, Slice, Verdict, p_text};
use crate::evaluate::{self, latencies};
use crate::model::{ModelName, Version};
use crate::registry::rfc3339;

use super::{Progress, RetrainError};

/// How often both models are timed at most.
const MEASUREMENTS: usize = 5;

/// A verdict with what it is about.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// The model.
    pub model: ModelName,
    /// The version that serves.
    pub champion_version: Version,
    /// The version that is to.
    pub challenger_version: Version,
    /// The images.
    pub data: Value,
    /// What the gate found.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// The images of a comparison.
pub struct Compared<'a> {
    /// All of them are compared.
    pub data: &'a Dataset,
    /// Where the challenger is to be better.
    pub slices: Vec<Slice>,
    /// The classes' names.
    pub names: &'a [String],
}

/// Asks the gate; the champion is first in `plans`.
pub fn compare(plans: [&Plan; 2], images: &Compared<'_>, rules: &Rules) -> Result<Verdict, RetrainError> {
    let all: Vec<usize> = (0..images.data.len()).collect();
    let answers = |plan| evaluate::probabilities(plan, images.data, &all);
    let (champion, challenger) = (answers(plans[0])?, answers(plans[1])?);
    let answers = Answers {
        champion: &champion,
        challenger: &challenger,
        labels: &images.data.labels,
        names: images.names,
    };
    let seconds = seconds(plans, rules)?;
    Ok(gate::compare(answers, &images.slices, Some(seconds), rules)?)
}

/// Both models' times, champion first. What else the machine does meanwhile makes a percentile longer and never shorter, so
/// what would be refused is measured again, and the shortest of each holds.
fn seconds(plans: [&Plan; 2], rules: &Rules) -> Result<[f64; 2], RetrainError> {
    let mut both = latencies(plans)?;
    for _ in 1..MEASUREMENTS {
        if both[1] <= rules.max_latency_ratio * both[0] {
            break;
        }
        let again = latencies(plans)?;
        both = [both[0].min(again[0]), both[1].min(again[1])];
    }
    Ok(both)
}

/// A comparison, however its images are told, as it is kept with the version: with its moment.
pub fn kept(comparison: &impl Serialize, at: SystemTime) -> serde_json::Result<Value> {
    let mut value = serde_json::to_value(comparison)?;
    value["at"] = rfc3339(at).into();
    Ok(value)
}

impl Comparison {
    /// For a terminal.
    pub fn text(&self) -> String {
        format!("{}\n\n{}", self.title(), self.verdict.text())
    }

    /// As a page.
    pub fn html(&self) -> String {
        self.verdict.html(&self.title())
    }

    fn title(&self) -> String {
        let (challenger, champion) = (self.challenger_version, self.champion_version);
        format!(
            "{}: version {challenger} as challenger of version {champion}",
            self.model
        )
    }

    /// An event for each check.
    pub(super) fn checks(&self) -> Vec<Progress> {
        let verdict = &self.verdict;
        let points = |share: f64| format!("{:+.2}", share * 100.0);
        let mut checks = vec![
            check(
                "images",
                verdict.n >= verdict.rules.min_images,
                format!("{} images, {} are needed", verdict.n, verdict.rules.min_images),
            ),
            check(
                "non_inferiority",
                verdict.non_inferiority.passed,
                format!(
                    "{} points, lower 95 % bound {}, −{:.2} is allowed",
                    points(verdict.non_inferiority.difference),
                    points(verdict.non_inferiority.lower_bound),
                    verdict.non_inferiority.margin * 100.0
                ),
            ),
        ];
        checks.extend(verdict.superiority.iter().map(|one| {
            let text = format!(
                "on {}: {} won, {} lost, p = {}",
                one.slice,
                one.pairs.won,
                one.pairs.lost,
                p_text(one.p_holm)
            );
            check("superiority", one.passed, text)
        }));
        checks.extend(verdict.harm.iter().map(|class| {
            let text = format!(
                "class {}: recall {} points, p = {}, n = {}",
                class.label,
                points(-class.drop),
                p_text(class.p_holm),
                class.pairs.n()
            );
            check("class_harm", !class.blocked, text)
        }));
        checks.extend(verdict.pinned.iter().map(|pinned| {
            let text = format!(
                "{} of {} pinned images are answered wrong",
                pinned.wrong.len(),
                pinned.n
            );
            check("pinned", pinned.wrong.is_empty(), text)
        }));
        let trust = &verdict.calibration;
        let text = format!(
            "calibration error {:.4}, the champion's {:.4}, {} more is allowed",
            trust.challenger_ece, trust.champion_ece, trust.max_rise
        );
        checks.push(check("calibration", trust.passed, text));
        checks.extend(verdict.latency.iter().map(|time| {
            let text = format!(
                "{:.3} ms at the 99th percentile, the champion {:.3} ms, {} times is allowed",
                time.challenger_p99 * 1e3,
                time.champion_p99 * 1e3,
                time.max_ratio
            );
            check("latency", time.passed, text)
        }));
        checks
    }
}

fn check(name: &str, passed: bool, text: String) -> Progress {
    Progress::Check {
        check: name.to_owned(),
        passed,
        text,
    }
}
