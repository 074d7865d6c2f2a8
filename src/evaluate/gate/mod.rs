//! Whether a challenger may take the champion's place: paired tests on the same images, each with its numbers.

use serde::{Deserialize, Serialize};

use super::scores::{Scores, top_1};
use super::{BINS, EvaluateError, Interval, calibration};

mod checks;
mod coverage;
mod html;
pub mod intake;
mod pairs;
mod pinned;
mod plots;
mod significance;
mod text;

pub(crate) use checks::p_text;
pub use checks::{Calibration, Harm, Latency, NonInferiority, Superiority};
pub use coverage::Coverage;
pub use intake::{DataReport, DataRules};
pub use pairs::Pairs;
pub use pinned::{Missed, Pinned, pinned};

/// What the gate asks. The defaults' error rates are those that this module's tests simulate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// Accuracy that the challenger may lack at most, as a share; the lower 95 % bound must lie above.
    pub margin: f64,
    /// Images at least: with fewer, too little is known.
    pub min_images: usize,
    /// Chance of each family of tests to find what is not there.
    pub alpha: f64,
    /// Recall that a class may lose at most, as a share, where the loss is significant.
    pub max_class_drop: f64,
    /// How much the expected calibration error may rise.
    pub max_ece_rise: f64,
    /// How many times the champion's 99th percentile of one image's time the challenger may take.
    pub max_latency_ratio: f64,
    /// Verdicts on the same images from which on one warns that they wear out.
    pub max_uses: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            margin: 0.005,
            min_images: 1_000,
            alpha: 0.05,
            max_class_drop: 0.02,
            max_ece_rise: 0.01,
            max_latency_ratio: 1.2,
            max_uses: 20,
        }
    }
}

impl Rules {
    /// Tells, as `key: problem`, which value is out of its range.
    pub fn check(&self) -> Result<(), String> {
        let shares = [
            ("margin", self.margin),
            ("alpha", self.alpha),
            ("max_class_drop", self.max_class_drop),
            ("max_ece_rise", self.max_ece_rise),
        ];
        for (key, value) in shares {
            if !(0.0..=1.0).contains(&value) {
                return Err(format!("{key}: 0 to 1 is possible"));
            }
        }
        if !(1..=10_000_000).contains(&self.min_images) {
            return Err("min_images: 1 to 10000000 is possible".to_owned());
        }
        if !(1.0..=1000.0).contains(&self.max_latency_ratio) {
            return Err("max_latency_ratio: 1 to 1000 is possible".to_owned());
        }
        if !(1..=10_000_000).contains(&self.max_uses) {
            return Err("max_uses: 1 to 10000000 is possible".to_owned());
        }
        Ok(())
    }
}

/// Images on which the challenger is to be better: what the new training was for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// What they are called, such as `feedback`.
    pub name: String,
    /// Rows of the compared images.
    pub rows: Vec<usize>,
}

/// The answers of both models to the same images, rows of one probability per class in the order of `labels`.
#[derive(Clone, Copy, Debug)]
pub struct Answers<'a> {
    /// Of the model that serves.
    pub champion: &'a [f64],
    /// Of the one that is to.
    pub challenger: &'a [f64],
    /// The right class of each image.
    pub labels: &'a [u32],
    /// The classes' names.
    pub names: &'a [String],
}

/// What the gate found, with every number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether the challenger may be promoted.
    pub blessed: bool,
    /// Why not: a sentence for each check that failed, in their order.
    pub reasons: Vec<String>,
    /// What a person should know, though it refuses nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What was asked.
    pub rules: Rules,
    /// Are the new examples fit to learn from? Absent where there were none, or nobody looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_examples: Option<DataReport>,
    /// Are the pinned images answered right? Absent where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<Pinned>,
    /// Verdicts on these images so far, this one among them; absent where nobody counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<usize>,
    /// Images.
    pub n: usize,
    /// The champion's accuracy.
    pub champion: Share,
    /// The challenger's.
    pub challenger: Share,
    /// Is it not worse?
    pub non_inferiority: NonInferiority,
    /// Is it better where that was wanted?
    pub superiority: Vec<Superiority>,
    /// Does a class lose? In the network's order.
    pub harm: Vec<Harm>,
    /// Do its probabilities still mean what they say?
    pub calibration: Calibration,
    /// Do sets of classes keep their promise where it matters?
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub coverage: Vec<Coverage>,
    /// Is it as quick? Absent where it was not timed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
}

/// A share of images with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// The share.
    pub value: f64,
    /// Its 95 % Wilson interval.
    pub interval: Interval,
}

impl Share {
    fn of(hits: usize, n: usize) -> Self {
        Self {
            value: hits as f64 / n as f64,
            interval: Interval::wilson(hits, n),
        }
    }
}

/// Compares both models. `slices` say where the challenger must be better (on one of them at least); with none, nowhere.
/// `latency` is each model's 99th percentile of one image's time in seconds, champion first, where it was measured.
pub fn compare(
    answers: Answers<'_>,
    slices: &[Slice],
    latency: Option<[f64; 2]>,
    rules: &Rules,
) -> Result<Verdict, EvaluateError> {
    let classes = answers.names.len();
    let both = [answers.champion, answers.challenger].map(|rows| Scores::new(rows, answers.labels, classes));
    let [champion, challenger] = both;
    let (champion, challenger) = (champion?, challenger?);
    let n = champion.len();
    let outcomes: Vec<[bool; 2]> = champion
        .rows()
        .zip(challenger.rows())
        .map(|((a, label), (b, _))| [top_1(a) == label, top_1(b) == label])
        .collect();
    let all = Pairs::of(outcomes.iter().copied());
    let ece = [&champion, &challenger].map(|scores| calibration::ece(&calibration::bins(scores)));
    let superiority = checks::superiority(&outcomes, slices, rules)?;
    let verdict = Verdict {
        blessed: false,
        reasons: Vec::new(),
        warnings: Vec::new(),
        rules: *rules,
        new_examples: None,
        pinned: None,
        uses: None,
        n,
        champion: Share::of(all.champion_hits(), n),
        challenger: Share::of(all.challenger_hits(), n),
        non_inferiority: NonInferiority::test(all, rules),
        superiority,
        harm: checks::harm(&outcomes, &answers, rules),
        calibration: Calibration::test(ece, rules),
        coverage: coverage::coverage([&champion, &challenger], slices, rules),
        latency: latency.map(|seconds| Latency::test(seconds, rules)),
    };
    Ok(verdict.decided())
}

impl Verdict {
    /// With what was found among the new examples.
    pub fn with_new_examples(self, report: DataReport) -> Self {
        Self {
            new_examples: Some(report),
            ..self
        }
        .decided()
    }

    /// With what became of the pinned images; none where the model has none.
    pub fn with_pinned(self, pinned: Option<Pinned>) -> Self {
        Self { pinned, ..self }.decided()
    }

    /// With the number of verdicts on the same images so far, this one among them.
    pub fn with_uses(self, uses: usize) -> Self {
        Self {
            uses: Some(uses),
            ..self
        }
        .decided()
    }

    /// Why the challenger may or may not be promoted, in one line: `blessed: false, because …`.
    pub fn headline(&self) -> String {
        match self.reasons.as_slice() {
            [] => "blessed: the challenger may be promoted".to_owned(),
            [reason] => format!("blessed: false, because {reason}"),
            [reason, rest @ ..] => format!("blessed: false, because {reason} (and {} more)", rest.len()),
        }
    }

    /// For a terminal.
    pub fn text(&self) -> String {
        text::text(self)
    }

    /// One page without links to anything: every number in tables, plots where they help, light or dark as the reader's
    /// system asks.
    pub fn html(&self, title: &str) -> String {
        html::page(self, title)
    }

    /// Draws the conclusion from what is there.
    fn decided(self) -> Self {
        let reasons = self.failures();
        Self {
            blessed: reasons.is_empty(),
            reasons,
            warnings: self.worn_out().into_iter().collect(),
            ..self
        }
    }

    /// A sentence for each check that failed.
    fn failures(&self) -> Vec<String> {
        let few = (self.n < self.rules.min_images).then(|| {
            format!(
                "{} images are fewer than the {} that a verdict needs",
                self.n, self.rules.min_images
            )
        });
        let data = self.new_examples.iter().flat_map(|data| data.reasons.clone());
        let pinned = self.pinned.as_ref().and_then(Pinned::failure);
        let better = checks::nowhere_better(&self.superiority, &self.rules);
        let quality = [pinned, few, self.non_inferiority.failure(), better];
        let harm = self.harm.iter().filter_map(Harm::failure);
        let coverage = self.coverage.iter().filter_map(Coverage::failure);
        let latency = self.latency.as_ref().and_then(Latency::failure);
        data.chain(quality.into_iter().flatten())
            .chain(harm)
            .chain(self.calibration.failure(BINS))
            .chain(coverage)
            .chain(latency)
            .collect()
    }

    fn worn_out(&self) -> Option<String> {
        let uses = self.uses.filter(|&uses| uses >= self.rules.max_uses)?;
        Some(format!(
            "{uses} verdicts were given on these images: what is chosen by them again and again fits them by chance; \
             let fresh ones in"
        ))
    }
}

#[cfg(test)]
mod tests;
