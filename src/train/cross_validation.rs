//! k-fold cross-validation: how good a recipe is, and how much that varies with the images.

use serde::Serialize;

use crate::dataset::Split;
use crate::model::rng::{Rng, Stream};

use super::fit::{Listener, Task, fit};
use super::{Score, TrainError};

/// The folds' validation scores at their kept epochs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CrossValidation {
    /// One per fold.
    pub folds: Vec<Score>,
    /// Of the accuracies.
    pub accuracy: Spread,
    /// Of the losses.
    pub loss: Spread,
}

/// Mean and sample standard deviation (n − 1).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub deviation: f64,
}

/// Trains once per fold, from the same initial weights, on the task's training images alone: its hold-out stays unseen.
/// `started` is called with each fold's number, from 1, before it begins. No checkpoints are written.
pub fn cross_validate(
    task: Task<'_>,
    folds: usize,
    started: &mut dyn FnMut(usize),
    listener: &mut Listener<'_>,
) -> Result<CrossValidation, TrainError> {
    let images = &task.split.train;
    if folds < 2 || folds > images.len() {
        return Err(TrainError::Config {
            key: "folds",
            problem: format!("must be 2 to the number of images, {}", images.len()),
        });
    }
    let mut scores = Vec::with_capacity(folds);
    for (number, split) in (1..).zip(split(images, folds, task.config.seed)) {
        started(number);
        let fold = Task {
            split: &split,
            checkpoint: None,
            ..task
        };
        let fitted = fit(fold, listener)?;
        let kept = fitted.history.epochs.get(fitted.kept_epoch - 1);
        scores.extend(kept.and_then(|record| record.valid));
    }
    Ok(CrossValidation {
        accuracy: Spread::of(scores.iter().map(|score| score.accuracy)),
        loss: Spread::of(scores.iter().map(|score| score.loss)),
        folds: scores,
    })
}

/// `count` splits of `indices`: each index validates in one of them; sizes differ by at most one; by seed.
pub fn split(indices: &[usize], count: usize, seed: u64) -> Vec<Split> {
    let mut shuffled = indices.to_vec();
    Rng::new(seed, Stream::Folds, 0).shuffle(&mut shuffled);
    let part = |fold: usize| {
        let (mut train, mut hold_out) = (Vec::new(), Vec::new());
        for (place, &index) in shuffled.iter().enumerate() {
            let side = if place % count == fold {
                &mut hold_out
            } else {
                &mut train
            };
            side.push(index);
        }
        train.sort_unstable();
        hold_out.sort_unstable();
        Split { train, hold_out }
    };
    (0..count).map(part).collect()
}

impl Spread {
    fn of(values: impl Iterator<Item = f32>) -> Self {
        let values: Vec<f64> = values.map(f64::from).collect();
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
        Self {
            mean,
            deviation: (squares / (n - 1.0)).sqrt(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spread_is_mean_and_sample_deviation() {
        let spread = Spread::of([1.0, 2.0, 3.0, 6.0].into_iter());
        assert_eq!(spread.mean, 3.0);
        assert!((spread.deviation - (14.0f64 / 3.0).sqrt()).abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn every_image_validates_once(count in 2usize..8, extra in 0usize..40, seed in 0u64..5) {
            let indices: Vec<usize> = (0..count + extra).map(|i| 3 * i + 1).collect();
            let splits = split(&indices, count, seed);
            prop_assert_eq!(splits.len(), count);
            let mut validated: Vec<usize> = Vec::new();
            for part in &splits {
                let size = part.hold_out.len();
                prop_assert!(size == indices.len() / count || size == indices.len().div_ceil(count));
                let mut all = [&part.train[..], &part.hold_out].concat();
                prop_assert!(part.train.is_sorted() && part.hold_out.is_sorted());
                all.sort_unstable();
                prop_assert_eq!(&all, &indices);
                validated.extend(&part.hold_out);
            }
            validated.sort_unstable();
            prop_assert_eq!(validated, indices);
        }
    }

    #[test]
    fn folds_follow_the_seed() {
        let indices: Vec<usize> = (0..50).collect();
        assert_eq!(split(&indices, 5, 1), split(&indices, 5, 1));
        assert_ne!(split(&indices, 5, 1), split(&indices, 5, 2));
    }
}
