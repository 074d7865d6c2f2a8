//! Champion and challenger on the same images, through the engine that serves.

use std::time::SystemTime;

use serde::Serialize;
use serde_json::Value;

use crate::dataset::Dataset;
use crate::engine::Plan;
use crate::evaluate::gate::{self, Answers, Rules, Slice, Verdict, p_text};
use crate::evaluate::{self, latencies};
use crate::model::{ModelName, Spec, Version};
use crate::preprocess::Limits;
use crate::registry::{Registry, RegistryError, rfc3339};

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
    /// The images in a few words.
    #[serde(skip)]
    pub images: String,
}

/// The images of a comparison.
pub struct Compared<'a> {
    /// Where they are.
    pub data: &'a Dataset,
    /// Which of them are compared.
    pub indices: &'a [usize],
    /// Where, among those, the challenger is to be better.
    pub slices: Vec<Slice>,
    /// For programs: what tells them from others.
    pub told: Value,
    /// For people: the same in a few words.
    pub text: String,
}

/// What both versions have in common.
#[derive(Clone, Copy)]
pub struct Common<'a> {
    /// Where they are.
    pub registry: &'a Registry,
    /// Whose they are.
    pub model: &'a ModelName,
    /// What a person says of the model.
    pub spec: &'a Spec,
    /// What the gate asks.
    pub rules: &'a Rules,
    /// What an image may cost.
    pub limits: &'a Limits,
}

/// Asks the gate; the champion is first in `plans`.
pub fn compare(
    common: Common<'_>,
    plans: [&Plan; 2],
    images: Compared<'_>,
) -> Result<Comparison, RetrainError> {
    let Compared { data, indices, .. } = images;
    let answers = |plan| evaluate::probabilities(plan, data, indices);
    let (champion, challenger) = (answers(plans[0])?, answers(plans[1])?);
    let labels: Vec<u32> = indices.iter().map(|&index| data.labels[index]).collect();
    let answers = Answers {
        champion: &champion,
        challenger: &challenger,
        labels: &labels,
        names: &common.spec.labels,
    };
    let seconds = seconds(plans, common.rules)?;
    let verdict = gate::compare(answers, &images.slices, Some(seconds), common.rules)?;
    let folder = common.registry.pinned(common.model)?;
    let pinned = gate::pinned(plans[1], common.spec, &folder, common.limits)?;
    let uses = common.registry.uses_of(common.model, &images.told)? + 1;
    Ok(Comparison {
        model: common.model.clone(),
        champion_version: plans[0].version(),
        challenger_version: plans[1].version(),
        data: images.told,
        verdict: verdict.with_pinned(pinned).with_uses(uses),
        images: images.text,
    })
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
        format!(
            "{}: version {} as challenger of version {} on {}",
            self.model, self.challenger_version, self.champion_version, self.images
        )
    }

    /// Keeps it with the challenger, for programs with its moment and for people as a page.
    pub fn keep(&self, registry: &Registry, at: SystemTime) -> Result<(), RegistryError> {
        let (name, version) = (&self.model, self.challenger_version);
        let mut value = serde_json::to_value(self).expect("a verdict has string keys and plain values");
        value["at"] = rfc3339(at).into();
        registry.keep_verdict(name, version, &value)?;
        registry.keep_verdict_page(name, version, &self.html())
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
                "on {}: {} won, {} lost, {}",
                one.slice,
                one.pairs.won,
                one.pairs.lost,
                p_text(one.p_holm)
            );
            check("superiority", one.passed, text)
        }));
        checks.extend(verdict.harm.iter().map(|class| {
            let text = format!(
                "class {}: recall {} points, {}, n = {}",
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
