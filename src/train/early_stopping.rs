//! When more epochs no longer help.

use serde::{Deserialize, Serialize};

use super::history::{EpochRecord, Score};

/// Stops after `patience` epochs in a row without a better validation figure, and keeps the best epoch's weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlyStopping {
    /// Epochs without a better figure that are waited for, from 1.
    pub patience: usize,
    /// The figure.
    pub watch: Watch,
}

/// A validation figure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Watch {
    /// Lower is better.
    #[default]
    Loss,
    /// Higher is better.
    Accuracy,
}

/// What one more epoch means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The best so far.
    Best,
    /// Not better, but patience is left.
    Wait,
    /// Not better, and patience is spent.
    Stop,
}

/// The epochs seen so far.
#[derive(Clone, Debug)]
pub struct Tracker {
    rule: EarlyStopping,
    /// The best figure, turned so that higher is better.
    best: Option<f32>,
    /// Epochs since then.
    waited: usize,
}

impl Tracker {
    /// After the epochs of `records`.
    pub fn new(rule: EarlyStopping, records: &[EpochRecord]) -> Self {
        let mut tracker = Self {
            rule,
            best: None,
            waited: 0,
        };
        for valid in records.iter().filter_map(|record| record.valid) {
            tracker.observe(valid);
        }
        tracker
    }

    /// Whether patience is spent.
    pub fn is_spent(&self) -> bool {
        self.waited >= self.rule.patience
    }

    /// Takes one more epoch's validation score. An equal figure is not a better one; NaN never is.
    pub fn observe(&mut self, valid: Score) -> Verdict {
        let figure = match self.rule.watch {
            Watch::Loss => -valid.loss,
            Watch::Accuracy => valid.accuracy,
        };
        if !figure.is_nan() && self.best.is_none_or(|best| figure > best) {
            self.best = Some(figure);
            self.waited = 0;
            return Verdict::Best;
        }
        self.waited += 1;
        if self.is_spent() {
            Verdict::Stop
        } else {
            Verdict::Wait
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Verdict::{Best, Stop, Wait};
    use super::*;

    fn check(patience: usize, watch: Watch, figures: &[f32], expected: &[Verdict]) {
        let score = |&figure: &f32| match watch {
            Watch::Loss => Score {
                loss: figure,
                accuracy: 0.5,
            },
            Watch::Accuracy => Score {
                loss: 1.0,
                accuracy: figure,
            },
        };
        let rule = EarlyStopping { patience, watch };
        let mut tracker = Tracker::new(rule, &[]);
        let verdicts: Vec<_> = figures.iter().map(|f| tracker.observe(score(f))).collect();
        assert_eq!(verdicts, expected);

        // Replaying the first two epochs leaves a tracker where it was.
        let record = |(epoch, figure)| EpochRecord {
            epoch,
            train: score(&0.0),
            valid: Some(score(figure)),
            learning_rate: 0.1,
            seconds: 1.0,
        };
        let seen: Vec<_> = (1..).zip(&figures[..2]).map(record).collect();
        let mut resumed = Tracker::new(rule, &seen);
        let rest: Vec<_> = figures[2..].iter().map(|f| resumed.observe(score(f))).collect();
        assert_eq!(rest, expected[2..]);
    }

    #[test]
    fn patience_is_spent_by_epochs_in_a_row() {
        check(
            2,
            Watch::Loss,
            &[1.0, 0.5, 0.6, 0.4, 0.4, 0.5],
            &[Best, Best, Wait, Best, Wait, Stop],
        );
        check(
            1,
            Watch::Accuracy,
            &[0.5, 0.6, 0.7, 0.7],
            &[Best, Best, Best, Stop],
        );
        check(2, Watch::Loss, &[f32::NAN, 2.0, f32::NAN], &[Wait, Best, Wait]);
    }
}
