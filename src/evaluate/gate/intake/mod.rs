//! What the gate asks of new examples before anything is trained on them.

use serde::{Deserialize, Serialize};

use super::super::numbers::{counted, percent};
use super::EvaluateError;

mod duplicates;
mod sources;
mod suspects;

pub use duplicates::NearDuplicates;
pub use sources::Source;
pub use suspects::{Golden, Suspect, Suspects};

/// What is asked of new examples. The defaults' error rates are in `docs/gate.md`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataRules {
    /// New examples at least.
    pub min_new: usize,
    /// Of a class with fewer new examples than this, they are left out until there are more.
    pub min_per_class: usize,
    /// Share of the examples that one source may give; 1 where one source is all there is.
    pub max_source_share: f64,
    /// A source is suspicious whose suspect labels are more often than this many times the others'.
    pub suspicious_ratio: f64,
    /// Suspect labels that may be among the examples, as a share.
    pub max_suspects: f64,
    /// Chance of each family of tests to find what is not there.
    pub alpha: f64,
    /// Whether near duplicates are left out but for one of them. For photographs; digits of 28×28 look alike to the hash.
    pub leave_out_near_duplicates: bool,
}

impl Default for DataRules {
    fn default() -> Self {
        Self {
            min_new: 200,
            min_per_class: 5,
            max_source_share: 0.25,
            suspicious_ratio: 3.0,
            max_suspects: 0.05,
            alpha: 0.05,
            leave_out_near_duplicates: false,
        }
    }
}

impl DataRules {
    /// Tells, as `key: problem`, which value is out of its range.
    pub fn check(&self) -> Result<(), String> {
        let shares = [
            ("max_source_share", self.max_source_share),
            ("max_suspects", self.max_suspects),
            ("alpha", self.alpha),
        ];
        for (key, value) in shares {
            if !(0.0..=1.0).contains(&value) {
                return Err(format!("{key}: 0 to 1 is possible"));
            }
        }
        for (key, value) in [("min_new", self.min_new), ("min_per_class", self.min_per_class)] {
            if !(1..=1_000_000).contains(&value) {
                return Err(format!("{key}: 1 to 1000000 is possible"));
            }
        }
        if !(1.0..=1000.0).contains(&self.suspicious_ratio) {
            return Err("suspicious_ratio: 1 to 1000 is possible".to_owned());
        }
        Ok(())
    }
}

/// A new example.
#[derive(Clone, Copy, Debug)]
pub struct NewExample<'a> {
    /// Its image, in lower-case hex.
    pub sha256: &'a str,
    /// The class it was given.
    pub label: u32,
    /// Who gave it.
    pub source: &'a str,
    /// [`crate::preprocess::dhash`] of the image.
    pub dhash: u64,
    /// The champion's answer: one probability per class it knows.
    pub probabilities: &'a [f64],
    /// Whether it is held out, never to be trained on.
    pub hold_out: bool,
}

/// What was found among new examples, with every number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataReport {
    /// Whether they may be trained on, but for those that are left out.
    pub passed: bool,
    /// Why not: a sentence for each.
    pub reasons: Vec<String>,
    /// What was left out and why: a sentence for each.
    pub notes: Vec<String>,
    /// What was asked.
    pub rules: DataRules,
    /// Examples that were looked at.
    pub examples: usize,
    /// Those that are left.
    pub kept: usize,
    /// Those of them that are held out.
    pub hold_out: usize,
    /// Kept examples by class, where there are any: class and count.
    pub classes: Vec<(u32, usize)>,
    /// By name.
    pub sources: Vec<Source>,
    /// Images that look alike.
    pub near_duplicates: NearDuplicates,
    /// Labels that the champion contradicts, of all sources that are not suspicious.
    pub suspects: Suspects,
}

/// [`DataReport`] with what to do.
#[derive(Clone, Debug, PartialEq)]
pub struct DataCheck {
    /// The report.
    pub report: DataReport,
    /// Places of the examples to leave out, ascending.
    pub leave_out: Vec<usize>,
}

/// Looks at new examples of a model. `golden` is how the champion answers images whose labels are trusted.
pub fn check_data(
    examples: &[NewExample<'_>],
    golden: &Golden,
    rules: &DataRules,
) -> Result<DataCheck, EvaluateError> {
    golden.fits(examples)?;
    let opinions: Vec<_> = examples.iter().map(|example| golden.opinion(example)).collect();
    let sources = sources::of(examples, &opinions, golden, rules);
    let mut kept = vec![true; examples.len()];
    let mut notes = sources::quarantine(examples, &sources, &mut kept);
    let near_duplicates = duplicates::find(examples, &kept);
    notes.extend(near_duplicates.1.note(rules));
    if rules.leave_out_near_duplicates {
        near_duplicates.0.iter().for_each(|&place| kept[place] = false);
    }
    notes.extend(leave_out_small_classes(examples, &mut kept, rules));
    let chosen: Vec<usize> = (0..examples.len()).filter(|&place| kept[place]).collect();
    let report = DataReport {
        passed: false,
        reasons: Vec::new(),
        notes,
        rules: *rules,
        examples: examples.len(),
        kept: chosen.len(),
        hold_out: chosen.iter().filter(|&&place| examples[place].hold_out).count(),
        classes: classes(examples, &kept),
        sources: sources::with_shares(sources, examples, &kept),
        near_duplicates: near_duplicates.1,
        suspects: Suspects::of(examples, &opinions, &chosen, (golden, rules)),
    };
    let reasons = report.failures();
    Ok(DataCheck {
        report: DataReport {
            passed: reasons.is_empty(),
            reasons,
            ..report
        },
        leave_out: (0..examples.len()).filter(|&place| !kept[place]).collect(),
    })
}

/// Kept examples of each class that has any.
fn classes(examples: &[NewExample<'_>], kept: &[bool]) -> Vec<(u32, usize)> {
    let mut counts = std::collections::BTreeMap::new();
    for (example, _) in examples.iter().zip(kept).filter(|&(_, &kept)| kept) {
        *counts.entry(example.label).or_insert(0) += 1;
    }
    counts.into_iter().collect()
}

fn leave_out_small_classes(examples: &[NewExample<'_>], kept: &mut [bool], rules: &DataRules) -> Vec<String> {
    let mut small = classes(examples, kept);
    small.retain(|&(_, count)| count < rules.min_per_class);
    for (example, kept) in examples.iter().zip(kept) {
        *kept &= small.iter().all(|&(class, _)| class != example.label);
    }
    let note = |(class, count): (u32, usize)| {
        format!(
            "class number {class} has {}, fewer than {}: left out until there are more",
            counted(count, "new example", "new examples"),
            rules.min_per_class
        )
    };
    small.into_iter().map(note).collect()
}

impl DataReport {
    fn failures(&self) -> Vec<String> {
        let few = (self.kept < self.rules.min_new).then(|| {
            format!(
                "{} fewer than the {} that a new training needs",
                match self.kept {
                    1 => "1 new example is".to_owned(),
                    kept => format!("{kept} new examples are"),
                },
                self.rules.min_new
            )
        });
        let largest = self
            .sources
            .iter()
            .filter(|source| self.rules.max_source_share < source.share);
        let too_much = largest.map(|source| {
            format!(
                "source {} gave {} of the new examples, {} is allowed (intake.max_source_share = 1 where one source is \
                 all there is)",
                source.name,
                percent(source.share),
                percent(self.rules.max_source_share)
            )
        });
        let suspects = self.suspects.failure(&self.rules);
        few.into_iter().chain(too_much).chain(suspects).collect()
    }
}

#[cfg(test)]
mod tests;
