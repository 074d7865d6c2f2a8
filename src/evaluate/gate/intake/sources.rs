//! Sources whose labels the champion contradicts far more often than the others'.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::super::numbers::counted;
use super::super::checks::p_text;
use super::super::significance::{binomial_test, holm};
use super::suspects::Opinion;
use super::{DataRules, Golden, NewExample};

/// Contradictions that are taken for granted in any source, as a share: of others that have fewer, the ratio says little.
const USUAL: f64 = 0.01;

/// Who gave new examples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// Its examples.
    pub examples: usize,
    /// Its share of the examples that are kept.
    pub share: f64,
    /// Labels with which the champion disagrees.
    pub disagreements: usize,
    /// Those of them that the champion contradicts.
    pub contradicted: usize,
    /// Share that the champion contradicts of the other sources' labels.
    pub others: f64,
    /// One-sided p-value by Holm's correction for the number of sources: that so many are contradicted, were its labels as
    /// honest as the others'. Of a source without others 1: there is nothing to hold it against.
    pub p_holm: f64,
    /// Whether all it gave is left out.
    pub suspicious: bool,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    examples: usize,
    disagreements: usize,
    contradicted: usize,
}

/// By name; without shares, which depend on what is kept.
pub(super) fn of(
    examples: &[NewExample<'_>],
    opinions: &[Option<Opinion>],
    golden: &Golden,
    rules: &DataRules,
) -> Vec<Source> {
    let mut by_name: BTreeMap<&str, Counts> = BTreeMap::new();
    let mut all = Counts::default();
    for (example, opinion) in examples.iter().zip(opinions) {
        for counts in [by_name.entry(example.source).or_default(), &mut all] {
            counts.examples += 1;
            counts.disagreements += usize::from(opinion.is_some_and(|opinion| opinion.disagrees));
            counts.contradicted += usize::from(opinion.is_some_and(|opinion| opinion.contradicts));
        }
    }
    let p_values: Vec<f64> = by_name
        .values()
        .map(|counts| p_value(counts, &all, golden.expected(), rules))
        .collect();
    let source = |((&name, counts), p_holm): ((&&str, &Counts), f64)| Source {
        name: name.to_owned(),
        examples: counts.examples,
        share: 0.0,
        disagreements: counts.disagreements,
        contradicted: counts.contradicted,
        others: others(counts, &all),
        p_holm,
        suspicious: p_holm < rules.alpha,
    };
    by_name.iter().zip(holm(&p_values)).map(source).collect()
}

fn others(counts: &Counts, all: &Counts) -> f64 {
    (all.contradicted - counts.contradicted) as f64 / (all.examples - counts.examples).max(1) as f64
}

/// Both must be improbable: so many contradictions among its examples, beside the others', and so many among its
/// disagreements, beside the champion's known mistakes. The second alone tells hard images from wrong labels.
fn p_value(counts: &Counts, all: &Counts, expected: f64, rules: &DataRules) -> f64 {
    if counts.examples == all.examples {
        return 1.0;
    }
    let allowed = rules.suspicious_ratio * others(counts, all).max(USUAL);
    let among_all = binomial_test(counts.contradicted, counts.examples, allowed);
    among_all.max(binomial_test(counts.contradicted, counts.disagreements, expected))
}

/// Leaves out what suspicious sources gave, and says so.
pub(super) fn quarantine(examples: &[NewExample<'_>], sources: &[Source], kept: &mut [bool]) -> Vec<String> {
    let suspicious: Vec<&Source> = sources.iter().filter(|source| source.suspicious).collect();
    for (example, kept) in examples.iter().zip(kept) {
        *kept &= suspicious.iter().all(|source| source.name != example.source);
    }
    let note = |source: &Source| {
        format!(
            "source {}: the champion contradicts {} of {} labels, {:.1} % of the other sources' ({}); all it gave \
             is left out",
            source.name,
            source.contradicted,
            counted(source.examples, "example", "examples"),
            source.others * 100.0,
            p_text(source.p_holm)
        )
    };
    suspicious.into_iter().map(note).collect()
}

/// With the share of each among the kept examples.
pub(super) fn with_shares(
    mut sources: Vec<Source>,
    examples: &[NewExample<'_>],
    kept: &[bool],
) -> Vec<Source> {
    let all = kept.iter().filter(|&&kept| kept).count().max(1);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (example, _) in examples.iter().zip(kept).filter(|&(_, &kept)| kept) {
        *counts.entry(example.source).or_default() += 1;
    }
    for source in &mut sources {
        let given = counts.get(source.name.as_str()).copied().unwrap_or(0);
        source.share = given as f64 / all as f64;
    }
    sources
}
