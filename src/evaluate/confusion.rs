//! Which classes are taken for which.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::scores::{Scores, top_1};

/// Most classes of a report with a whole matrix; beyond, its square of counts is mostly zeros and fills memory.
pub const MAX_MATRIX_CLASSES: usize = 1_000;

/// Length of [`super::Report::most_confused`].
const MOST_CONFUSED: usize = 20;

/// Images of one class that were predicted to be of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion {
    /// The true class's number.
    pub actual: usize,
    /// The predicted class's number.
    pub predicted: usize,
    /// Images.
    pub count: usize,
}

/// Images by true and by predicted class.
pub(super) struct Counts {
    /// Per class, images of it.
    pub(super) support: Vec<usize>,
    /// Per class, images predicted to be of it.
    pub(super) predicted: Vec<usize>,
    /// Per class, images of it that are predicted to be.
    pub(super) hits: Vec<usize>,
    /// (true, predicted) to images; only what occurs.
    pairs: BTreeMap<(usize, usize), usize>,
}

impl Counts {
    pub(super) fn of(scores: &Scores) -> Self {
        let none = vec![0; scores.classes()];
        let mut counts = Self {
            support: none.clone(),
            predicted: none.clone(),
            hits: none,
            pairs: BTreeMap::new(),
        };
        for (row, actual) in scores.rows() {
            let predicted = top_1(row);
            counts.support[actual] += 1;
            counts.predicted[predicted] += 1;
            counts.hits[actual] += usize::from(actual == predicted);
            *counts.pairs.entry((actual, predicted)).or_default() += 1;
        }
        counts
    }

    /// Rows are true classes, columns predicted ones.
    pub(super) fn matrix(&self) -> Option<Vec<Vec<usize>>> {
        let classes = self.support.len();
        let mut matrix = (classes <= MAX_MATRIX_CLASSES).then(|| vec![vec![0; classes]; classes])?;
        for (&(actual, predicted), &count) in &self.pairs {
            matrix[actual][predicted] = count;
        }
        Some(matrix)
    }

    pub(super) fn most_confused(&self) -> Vec<Confusion> {
        let mistaken = self
            .pairs
            .iter()
            .filter(|((actual, predicted), _)| actual != predicted);
        let confusion = |(&(actual, predicted), &count): (&(usize, usize), &usize)| Confusion {
            actual,
            predicted,
            count,
        };
        let mut confusions: Vec<Confusion> = mistaken.map(confusion).collect();
        // Stable, so pairs of one count stay in order of their numbers.
        confusions.sort_by_key(|confusion| Reverse(confusion.count));
        confusions.truncate(MOST_CONFUSED);
        confusions
    }
}
