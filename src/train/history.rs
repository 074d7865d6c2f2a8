//! What each epoch brought.

use serde::{Deserialize, Serialize};

/// Mean loss and accuracy over some images.
///
/// f32, because JSON gives back every f32 exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Score {
    /// Cross-entropy in nats.
    pub loss: f32,
    /// Share of right answers, 0 to 1.
    pub accuracy: f32,
}

/// One epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochRecord {
    /// From 1.
    pub epoch: usize,
    /// Mean over the epoch's steps, as trained: smoothed labels, augmented images, dropout at work.
    pub train: Score,
    /// On the validation images after the epoch, as served; `None` where there are none.
    pub valid: Option<Score>,
    /// Learning rate of the last step.
    pub learning_rate: f32,
    /// Wall-clock time of the epoch with its validation.
    pub seconds: f32,
}

/// All epochs of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct History {
    /// In order; epoch n is at n − 1.
    pub epochs: Vec<EpochRecord>,
}

/// Running sums of a [`Score`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    loss: f64,
    right: usize,
    images: usize,
}

impl Tally {
    /// Adds a batch of `images` with this mean loss and count of right answers.
    pub fn add(&mut self, loss: f32, right: usize, images: usize) {
        self.loss += f64::from(loss) * images as f64;
        self.right += right;
        self.images += images;
    }

    /// The means; `None` before the first image.
    pub fn score(&self) -> Option<Score> {
        (self.images > 0).then(|| Score {
            loss: (self.loss / self.images as f64) as f32,
            accuracy: (self.right as f64 / self.images as f64) as f32,
        })
    }
}

impl History {
    /// `history.json`.
    pub fn json(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).expect("numbers and options always have a JSON form");
        text.push(b'\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn batches_weigh_by_their_images() {
        let mut tally = Tally::default();
        assert_eq!(tally.score(), None);
        tally.add(1.0, 3, 3);
        tally.add(5.0, 0, 1);
        assert_eq!(
            tally.score(),
            Some(Score {
                loss: 2.0,
                accuracy: 0.75
            })
        );
    }

    proptest! {
        #[test]
        fn json_gives_back_every_number(loss in any::<f32>(), accuracy in 0.0f32..1.0, seconds in 0.0f32..1e6) {
            prop_assume!(loss.is_finite());
            let score = Score { loss, accuracy };
            let record = EpochRecord { epoch: 1, train: score, valid: Some(score), learning_rate: accuracy, seconds };
            let history = History { epochs: vec![record] };
            prop_assert_eq!(serde_json::from_slice::<History>(&history.json()).unwrap(), history);
        }
    }
}
