//! The figures of classes, their averages, and the losses of the probabilities.

use std::collections::BTreeMap;

use super::confusion::Counts;
use super::interval::Interval;
use super::scores::Scores;
use super::{Average, ClassReport};

/// Largest k of [`super::Report::top_k`].
pub const MAX_TOP_K: usize = 5;

pub(super) fn per_class(counts: &Counts, names: &[String]) -> Vec<ClassReport> {
    let class = |(index, label): (usize, &String)| {
        let (hits, support, predicted) = (counts.hits[index], counts.support[index], counts.predicted[index]);
        ClassReport {
            label: label.clone(),
            precision: share(hits, predicted),
            recall: share(hits, support),
            f1: share(2 * hits, support + predicted),
            support,
            precision_interval: Interval::wilson(hits, predicted),
            recall_interval: Interval::wilson(hits, support),
        }
    };
    names.iter().enumerate().map(class).collect()
}

/// 0 of nothing: scikit-learn's `zero_division=0`.
fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

/// The mean over classes by `weight`, whose sum is above 0.
pub(super) fn average(classes: &[ClassReport], weight: impl Fn(&ClassReport) -> f64) -> Average {
    let total: f64 = classes.iter().map(&weight).sum();
    let mean = |value: fn(&ClassReport) -> f64| {
        classes
            .iter()
            .map(|class| value(class) * weight(class))
            .sum::<f64>()
            / total
    };
    Average {
        precision: mean(|class| class.precision),
        recall: mean(|class| class.recall),
        f1: mean(|class| class.f1),
    }
}

/// Clipped by the dtype's epsilon, as scikit-learn's `log_loss` of f64.
pub(super) fn nll(scores: &Scores) -> f64 {
    let loss = |(row, label): (&[f64], usize)| -row[label].clamp(f64::EPSILON, 1.0 - f64::EPSILON).ln();
    scores.rows().map(loss).sum::<f64>() / scores.len() as f64
}

pub(super) fn brier(scores: &Scores) -> f64 {
    let square = |(row, label): (&[f64], usize)| -> f64 {
        let truth = |class| if class == label { 1.0 } else { 0.0 };
        row.iter()
            .enumerate()
            .map(|(class, p)| (p - truth(class)).powi(2))
            .sum()
    };
    scores.rows().map(square).sum::<f64>() / scores.len() as f64
}

pub(super) fn top_k(scores: &Scores) -> BTreeMap<usize, f64> {
    // With k = classes every image hits, which says nothing.
    let most = MAX_TOP_K.min(scores.classes() - 1);
    let mut at_rank = vec![0; most];
    for (row, label) in scores.rows() {
        if let Some(images) = at_rank.get_mut(rank(row, label)) {
            *images += 1;
        }
    }
    let mut hits = 0;
    let within = |(rank, images): (usize, &usize)| {
        hits += images;
        (rank + 1, hits as f64 / scores.len() as f64)
    };
    at_rank.iter().enumerate().map(within).collect()
}

/// Classes that come before `label`: the more probable ones, and the equal ones of a higher number (scikit-learn turns
/// an ascending stable sort round).
fn rank(row: &[f64], label: usize) -> usize {
    let before = |&(class, &p): &(usize, &f64)| p > row[label] || (p == row[label] && class > label);
    row.iter().enumerate().filter(before).count()
}
