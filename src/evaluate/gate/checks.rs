//! The gate's checks, one after another.

use serde::{Deserialize, Serialize};

use super::pairs::Pairs;
use super::significance::{holm, lower_bound, sign_test};
use super::{Answers, EvaluateError, Rules, Slice};

/// Φ⁻¹(0.95): a normal variable lies below with a chance of 95 %.
const Z: f64 = 1.644_853_626_951_472_7;
/// Discordant images below which the normal approximation is not trusted alone.
const FEW: usize = 25;

/// Is the challenger's accuracy at most a margin lower?
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct NonInferiority {
    /// The images.
    pub pairs: Pairs,
    /// The challenger's accuracy less the champion's.
    pub difference: f64,
    /// Standard error of that difference.
    pub standard_error: f64,
    /// One-sided 95 % bound below it; where few images are discordant, the lower of the normal and the exact bound.
    pub lower_bound: f64,
    /// What may be lacking.
    pub margin: f64,
    /// Whether the bound lies above.
    pub passed: bool,
}

impl NonInferiority {
    pub(super) fn test(pairs: Pairs, rules: &Rules) -> Self {
        let (difference, standard_error) = (pairs.difference(), pairs.standard_error());
        let mut bound = difference - Z * standard_error;
        let discordant = pairs.discordant();
        if discordant < FEW {
            let share = lower_bound(pairs.won, discordant, 0.05);
            bound = bound.min(discordant as f64 * (2.0 * share - 1.0) / pairs.n().max(1) as f64);
        }
        Self {
            pairs,
            difference,
            standard_error,
            lower_bound: bound,
            margin: rules.margin,
            passed: bound > -rules.margin,
        }
    }

    pub(super) fn failure(&self) -> Option<String> {
        let (low, margin) = (points(-self.lower_bound), points(self.margin));
        (!self.passed)
            .then(|| format!("its accuracy may be {low} points lower (95 % bound), {margin} are allowed"))
    }
}

/// Is the challenger better on some images?
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Superiority {
    /// What the images are called.
    pub slice: String,
    /// The images.
    pub pairs: Pairs,
    /// One-sided exact p-value: that the challenger would win so many of the discordant ones, were both alike.
    pub p: f64,
    /// The same by Holm's correction for the number of slices.
    pub p_holm: f64,
    /// Whether that is below alpha.
    pub passed: bool,
}

/// A family of tests: the p-value of each, whose `side` of the discordant images is counted, and the same by Holm's correction.
pub(super) fn sign_tests(all: &[Pairs], side: impl Fn(&Pairs) -> usize) -> Vec<[f64; 2]> {
    let test = |pairs: &Pairs| sign_test(side(pairs), pairs.discordant());
    let p_values: Vec<f64> = all.iter().map(test).collect();
    let adjusted = holm(&p_values);
    let both = p_values.into_iter().zip(adjusted);
    both.map(|(p, p_holm)| [p, p_holm]).collect()
}

/// One test for each slice.
pub(super) fn superiority(
    outcomes: &[[bool; 2]],
    slices: &[Slice],
    rules: &Rules,
) -> Result<Vec<Superiority>, EvaluateError> {
    let pairs = |slice: &Slice| {
        let outcome = |&row: &usize| {
            outcomes.get(row).copied().ok_or_else(|| {
                let problem = format!("slice {} names row {row} of {}", slice.name, outcomes.len());
                EvaluateError::Shape(problem)
            })
        };
        let chosen: Result<Vec<_>, _> = slice.rows.iter().map(outcome).collect();
        Ok(Pairs::of(chosen?.into_iter()))
    };
    let all: Vec<Pairs> = slices.iter().map(pairs).collect::<Result<_, EvaluateError>>()?;
    let tests = sign_tests(&all, |pairs| pairs.won);
    let figures = slices.iter().zip(all).zip(tests);
    let of = |((slice, pairs), [p, p_holm]): ((&Slice, Pairs), [f64; 2])| Superiority {
        slice: slice.name.clone(),
        pairs,
        p,
        p_holm,
        passed: p_holm < rules.alpha,
    };
    Ok(figures.map(of).collect())
}

/// The sentence where no slice is better, though some was to be.
pub(super) fn nowhere_better(all: &[Superiority], rules: &Rules) -> Option<String> {
    if all.is_empty() || all.iter().any(|one| one.passed) {
        return None;
    }
    let one = |one: &Superiority| {
        let Pairs { won, lost, .. } = one.pairs;
        format!("{} ({won} won, {lost} lost, {})", one.slice, p_text(one.p_holm))
    };
    let slices: Vec<String> = all.iter().map(one).collect();
    Some(format!(
        "it is not shown to be better on {} (p < {} is needed)",
        slices.join(" nor on "),
        rules.alpha
    ))
}

/// Does a class lose?
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Harm {
    /// The class.
    pub label: String,
    /// Its images.
    pub pairs: Pairs,
    /// Recall that it loses, as a share; below 0 where it gains.
    pub drop: f64,
    /// One-sided exact p-value: that the challenger would lose so many of the discordant ones, were both alike.
    pub p: f64,
    /// The same by Holm's correction for the number of classes.
    pub p_holm: f64,
    /// The smallest drop that the test could have found among so many images; none where not even the loss of all
    /// would be significant.
    pub smallest_drop_seen: Option<f64>,
    /// Whether the drop is significant and more than is allowed.
    pub blocked: bool,
}

/// One test for each class.
pub(super) fn harm(outcomes: &[[bool; 2]], answers: &Answers<'_>, rules: &Rules) -> Vec<Harm> {
    let classes = answers.names.len();
    let mut by_class = vec![Vec::new(); classes];
    for (outcome, &label) in outcomes.iter().zip(answers.labels) {
        by_class[label as usize].push(*outcome);
    }
    let all: Vec<Pairs> = by_class
        .into_iter()
        .map(|outcomes| Pairs::of(outcomes.into_iter()))
        .collect();
    let tests = sign_tests(&all, |pairs| pairs.lost);
    let figures = answers.names.iter().zip(all).zip(tests);
    let of = |((label, pairs), [p, p_holm]): ((&String, Pairs), [f64; 2])| {
        let drop = -pairs.difference();
        Harm {
            label: label.clone(),
            pairs,
            drop,
            p,
            p_holm,
            smallest_drop_seen: smallest_drop(pairs.n(), classes, rules),
            // A hair below the limit is the limit: shares of images are not exact in binary.
            blocked: p_holm < rules.alpha && drop > rules.max_class_drop - 1e-9,
        }
    };
    figures.map(of).collect()
}

/// The smallest drop that blocks in a class of `n` images whose p-value is the least of `classes`, if nothing is won.
fn smallest_drop(n: usize, classes: usize, rules: &Rules) -> Option<f64> {
    let enough = |&lost: &usize| {
        let significant = sign_test(lost, lost) * (classes as f64) < rules.alpha;
        significant && lost as f64 / n as f64 > rules.max_class_drop - 1e-9
    };
    (1..=n).find(enough).map(|lost| lost as f64 / n as f64)
}

impl Harm {
    pub(super) fn failure(&self) -> Option<String> {
        self.blocked.then(|| {
            format!(
                "recall of class {} fell {} points ({}, n = {})",
                self.label,
                points(self.drop),
                p_text(self.p_holm),
                self.pairs.n()
            )
        })
    }
}

/// Do probabilities still mean what they say?
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// The champion's expected calibration error.
    pub champion_ece: f64,
    /// The challenger's.
    pub challenger_ece: f64,
    /// How much it may rise.
    pub max_rise: f64,
    /// Whether it rises no more.
    pub passed: bool,
}

impl Calibration {
    pub(super) fn test([champion_ece, challenger_ece]: [f64; 2], rules: &Rules) -> Self {
        Self {
            champion_ece,
            challenger_ece,
            max_rise: rules.max_ece_rise,
            passed: challenger_ece <= champion_ece + rules.max_ece_rise,
        }
    }

    pub(super) fn failure(&self, bins: usize) -> Option<String> {
        (!self.passed).then(|| {
            format!(
                "its calibration error is {:.4}, the champion's {:.4} (top-1, {bins} bins), {} more is allowed",
                self.challenger_ece, self.champion_ece, self.max_rise
            )
        })
    }
}

/// Is it as quick? The 99th percentile of one image's time, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// The champion's.
    pub champion_p99: f64,
    /// The challenger's.
    pub challenger_p99: f64,
    /// How many times the champion's it may take.
    pub max_ratio: f64,
    /// Whether it takes no more.
    pub passed: bool,
}

impl Latency {
    pub(super) fn test([champion_p99, challenger_p99]: [f64; 2], rules: &Rules) -> Self {
        Self {
            champion_p99,
            challenger_p99,
            max_ratio: rules.max_latency_ratio,
            passed: challenger_p99 <= rules.max_latency_ratio * champion_p99,
        }
    }

    pub(super) fn failure(&self) -> Option<String> {
        (!self.passed).then(|| {
            format!(
                "one image takes {:.3} ms at the 99th percentile, {:.2} times the champion's; {} times is allowed",
                self.challenger_p99 * 1e3,
                self.challenger_p99 / self.champion_p99,
                self.max_ratio
            )
        })
    }
}

/// Smaller p-values are not told: below some 1e-308 they underflow.
const LEAST_P: f64 = 1e-300;

/// A share in points of a hundred.
pub(super) fn points(share: f64) -> String {
    format!("{:.2}", share * 100.0)
}

/// A p-value in a sentence: `p = 0.002`.
pub(crate) fn p_text(p: f64) -> String {
    let relation = if p < LEAST_P { "" } else { "= " };
    format!("p {relation}{}", p_value(p))
}

/// A p-value in a table, as papers print it; one that is too small for a number to hold, which is not 0, by its bound.
pub(super) fn p_value(p: f64) -> String {
    if p < LEAST_P {
        format!("≤ {LEAST_P:e}")
    } else if p < 0.001 {
        format!("{p:.1e}")
    } else {
        format!("{p:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_p_value_is_never_told_as_0() {
        let check = |p: f64, cell: &str, text: &str| {
            assert_eq!((&*p_value(p), &*p_text(p)), (cell, text));
        };
        check(0.25, "0.250", "p = 0.250");
        check(0.0012, "0.001", "p = 0.001");
        check(0.00012, "1.2e-4", "p = 1.2e-4");
        check(1.1e-300, "1.1e-300", "p = 1.1e-300");
        check(0.9e-300, "≤ 1e-300", "p ≤ 1e-300");
        check(0.0, "≤ 1e-300", "p ≤ 1e-300");
    }
}
