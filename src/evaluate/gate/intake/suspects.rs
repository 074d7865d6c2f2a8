//! Labels that the champion contradicts: how many, and which first.

use serde::{Deserialize, Serialize};

use super::super::super::numbers::percent;
use super::super::super::scores::{Scores, top_1};
use super::super::significance::{binomial_test, lower_bound, upper_bound};
use super::super::{EvaluateError, checks::p_text};
use super::{DataRules, NewExample};

/// Most suspects that a report lists.
const MAX_LISTED: usize = 200;
/// Of honest labels that a champion disagrees with, it contradicts half at most, as far as was measured where it still
/// answers well.
const EXPECTED: f64 = 0.5;

/// How the champion answers images whose labels are trusted, against which its doubt of new labels is held.
///
/// A label is contradicted where its probability lies below the mean that images of its class give it, and another class
/// has one above its own mean: the off-diagonal of confident learning's joint (Northcutt, Jiang and Chuang, "Confident
/// Learning: Estimating Uncertainty in Dataset Labels", 2021). The means are those of trusted images, not of the new ones:
/// among new ones that are hard, they would be low, and honest labels would be contradicted.
#[derive(Clone, Debug, PartialEq)]
pub struct Golden {
    /// Per class, the mean probability of it among its images; none without images.
    thresholds: Vec<Option<f64>>,
    errors: usize,
    contradicted: usize,
}

/// What the champion says of one label.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Opinion {
    /// Its probability of the label.
    confidence: f64,
    /// The class it would give.
    answer: usize,
    /// Whether that is another one.
    pub(super) disagrees: bool,
    /// Whether it contradicts.
    pub(super) contradicts: bool,
}

/// A label that the champion contradicts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Suspect {
    /// The image, in lower-case hex.
    pub sha256: String,
    /// Who gave the label.
    pub source: String,
    /// The label.
    pub label: u32,
    /// The class that the champion sees.
    pub champion: u32,
    /// The champion's probability of the label.
    pub confidence: f64,
}

/// All of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Suspects {
    /// Labels that were judged: of classes that the champion knows.
    pub judged: usize,
    /// Those with which it disagrees.
    pub disagreements: usize,
    /// Those of them that it contradicts.
    pub contradicted: usize,
    /// Lower 95 % bound of their share among the judged.
    pub share_at_least: f64,
    /// Of the champion's mistakes on trusted images, how many contradict a right label.
    pub golden_contradicted: usize,
    /// Its mistakes on trusted images.
    pub golden_errors: usize,
    /// Upper 95 % bound of that share, at most one half: so many contradictions are to be expected among honest labels that it disagrees with.
    pub expected_at_most: f64,
    /// One-sided exact p-value: that as many disagreements would be contradictions, were all labels honest.
    pub p: f64,
    /// Whether there are so many that a person should look.
    pub held: bool,
    /// The likeliest first: by the champion's probability of the label, ascending; at most 200.
    pub ranked: Vec<Suspect>,
}

impl Golden {
    /// Of the champion's answers to trusted images, rows of one probability per class in the order of `labels`.
    pub fn of(probabilities: &[f64], labels: &[u32], classes: usize) -> Result<Self, EvaluateError> {
        let scores = Scores::new(probabilities, labels, classes)?;
        let mut sums = vec![(0.0, 0usize); classes];
        for (row, label) in scores.rows() {
            sums[label].0 += row[label];
            sums[label].1 += 1;
        }
        let mean = |(sum, n): (f64, usize)| (n > 0).then(|| sum / n as f64);
        let mut golden = Self {
            thresholds: sums.into_iter().map(mean).collect(),
            errors: 0,
            contradicted: 0,
        };
        for (row, label) in scores.rows() {
            golden.errors += usize::from(top_1(row) != label);
            golden.contradicted += usize::from(golden.contradicts(row, label));
        }
        Ok(golden)
    }

    pub(super) fn fits(&self, examples: &[NewExample<'_>]) -> Result<(), EvaluateError> {
        let classes = self.thresholds.len();
        let wrong = |example: &NewExample<'_>| example.probabilities.len() != classes;
        match examples.iter().position(wrong) {
            None => Ok(()),
            Some(row) => Err(EvaluateError::Row {
                row,
                problem: format!("it has no {classes} probabilities"),
            }),
        }
    }

    /// None of a class that the champion does not know.
    pub(super) fn opinion(&self, example: &NewExample<'_>) -> Option<Opinion> {
        let label = example.label as usize;
        let confidence = *example.probabilities.get(label)?;
        let answer = top_1(example.probabilities);
        Some(Opinion {
            confidence,
            answer,
            disagrees: answer != label,
            contradicts: self.contradicts(example.probabilities, label),
        })
    }

    fn contradicts(&self, row: &[f64], label: usize) -> bool {
        let reaches = |class: usize| self.thresholds[class].is_some_and(|mean| row[class] >= mean);
        let doubted = self.thresholds[label].is_some_and(|mean| row[label] < mean);
        // Only its answer can be right, and a mean that another class reaches says nothing against the label then.
        doubted && top_1(row) != label && (0..row.len()).any(|class| class != label && reaches(class))
    }

    /// Upper 95 % bound of the share of contradictions among its mistakes; at most [`EXPECTED`], of a champion with few
    /// mistakes to tell by.
    pub(super) fn expected(&self) -> f64 {
        upper_bound(self.contradicted, self.errors, 0.05).min(EXPECTED)
    }
}

impl Suspects {
    pub(super) fn of(
        examples: &[NewExample<'_>],
        opinions: &[Option<Opinion>],
        chosen: &[usize],
        (golden, rules): (&Golden, &DataRules),
    ) -> Self {
        let judged: Vec<(usize, Opinion)> = chosen
            .iter()
            .filter_map(|&place| Some((place, opinions[place]?)))
            .collect();
        let count = |is: fn(&Opinion) -> bool| judged.iter().filter(|(_, opinion)| is(opinion)).count();
        let (disagreements, contradicted) = (count(|o| o.disagrees), count(|o| o.contradicts));
        let (share_at_least, expected_at_most) =
            (lower_bound(contradicted, judged.len(), 0.05), golden.expected());
        let p = binomial_test(contradicted, disagreements, expected_at_most);
        Self {
            judged: judged.len(),
            disagreements,
            contradicted,
            share_at_least,
            golden_contradicted: golden.contradicted,
            golden_errors: golden.errors,
            expected_at_most,
            p,
            held: share_at_least > rules.max_suspects && p < rules.alpha,
            ranked: ranked(examples, judged),
        }
    }

    pub(super) fn failure(&self, rules: &DataRules) -> Option<String> {
        self.held.then(|| {
            format!(
                "{} of {} labels contradict what the champion is sure of ({}, {} are allowed; {}): they wait for a \
                 person",
                self.contradicted,
                self.judged,
                percent(self.contradicted as f64 / self.judged.max(1) as f64),
                percent(rules.max_suspects),
                p_text(self.p)
            )
        })
    }
}

fn ranked(examples: &[NewExample<'_>], mut judged: Vec<(usize, Opinion)>) -> Vec<Suspect> {
    judged.retain(|(_, opinion)| opinion.contradicts);
    judged.sort_by(|(_, a), (_, b)| a.confidence.total_cmp(&b.confidence));
    let suspect = |(place, opinion): (usize, Opinion)| Suspect {
        sha256: examples[place].sha256.to_owned(),
        source: examples[place].source.to_owned(),
        label: examples[place].label,
        champion: opinion.answer as u32,
        confidence: opinion.confidence,
    };
    judged.into_iter().take(MAX_LISTED).map(suspect).collect()
}
