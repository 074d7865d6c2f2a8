//! Every hyper-parameter of a training run.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::model::spec::Augment;

use super::TrainError;
use super::early_stopping::EarlyStopping;
use super::optimizer::Rule;
use super::schedule::Schedule;

/// What, beside images, network and initial weights, decides the trained weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Seed of initial weights, order, augmentation and dropout.
    pub seed: u64,
    /// Passes over the training images, 1 to 10,000.
    pub epochs: usize,
    /// Images per step, 1 to 65,536.
    pub batch_size: usize,
    /// Highest learning rate of the schedule, above 0.
    pub learning_rate: f64,
    /// How the learning rate moves.
    pub schedule: Schedule,
    /// How a gradient becomes a step.
    pub optimizer: Rule,
    /// λ of λ·Σ|w| added to the loss, over weights (not biases, not batch-norms).
    pub l1: f64,
    /// λ of λ/2·Σw² added to the loss, over weights; `Rule::AdamW` has its own decoupled decay beside it.
    pub l2: f64,
    /// Longest gradient, as the Euclidean norm over all parameters; longer ones are scaled to it.
    pub clip_norm: Option<f64>,
    /// Probability of every dropout node in place of the graph's own, 0 ≤ p < 1.
    pub dropout: Option<f32>,
    /// Share of the target spread evenly over all classes (Szegedy et al., arXiv 1512.00567), 0 ≤ ε < 1.
    pub label_smoothing: f32,
    /// Random changes of the images.
    pub augment: Augment,
    /// When to stop before the last epoch.
    pub early_stopping: Option<EarlyStopping>,
    /// Layers, counted from the input, that stay as they are: see [`Graph::freeze`](crate::model::Graph::freeze).
    #[serde(default, skip_serializing_if = "trains_all")]
    pub freeze: usize,
}

/// Named starting points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Recipe {
    /// The article's: Adam at 1e-3, batches of 64, 5 epochs, the graph's own dropout, no augmentation.
    Seed,
    /// One cycle of AdamW up to 4e-3 (Smith, Topin, arXiv 1708.07120), batches of 128, 8 epochs, dropout 0.3.
    #[default]
    Fast,
}

impl Recipe {
    /// Its hyper-parameters; `augment` is what the model says keeps a label, used by [`Recipe::Fast`] alone.
    pub fn config(self, augment: Augment, seed: u64) -> Config {
        let plain = Config {
            seed,
            epochs: 5,
            batch_size: 64,
            learning_rate: 1e-3,
            schedule: Schedule::Constant,
            optimizer: Rule::adam(),
            l1: 0.0,
            l2: 0.0,
            clip_norm: None,
            dropout: None,
            label_smoothing: 0.0,
            augment: Augment::default(),
            early_stopping: None,
            freeze: 0,
        };
        match self {
            Self::Seed => plain,
            Self::Fast => Config {
                epochs: 8,
                batch_size: 128,
                learning_rate: 4e-3,
                schedule: Schedule::OneCycle,
                optimizer: Rule::adam_w(0.02),
                dropout: Some(0.3),
                augment,
                ..plain
            },
        }
    }
}

impl FromStr for Recipe {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "seed" => Ok(Self::Seed),
            "fast" => Ok(Self::Fast),
            _ => Err(format!("'{text}' is not a recipe: seed or fast")),
        }
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Seed => "seed",
            Self::Fast => "fast",
        })
    }
}

impl Config {
    /// Whether every value is in its range; the first that is not is the error.
    pub fn check(&self) -> Result<(), TrainError> {
        require((1..=10_000).contains(&self.epochs), "epochs", "1 to 10,000")?;
        require(
            (1..=65_536).contains(&self.batch_size),
            "batch_size",
            "1 to 65,536",
        )?;
        let positive = self.learning_rate.is_finite() && self.learning_rate > 0.0;
        require(positive, "learning_rate", "a number above 0")?;
        require(is_weight(self.l1), "l1", "a number from 0")?;
        require(is_weight(self.l2), "l2", "a number from 0")?;
        let clips = self.clip_norm.is_none_or(|norm| norm.is_finite() && norm > 0.0);
        require(clips, "clip_norm", "a number above 0")?;
        let dropout = self.dropout.is_none_or(|p| (0.0..1.0).contains(&p));
        require(dropout, "dropout", "from 0, below 1")?;
        let smoothing = (0.0..1.0).contains(&self.label_smoothing);
        require(smoothing, "label_smoothing", "from 0, below 1")?;
        require(
            (0.0..=180.0).contains(&self.augment.rotate),
            "augment.rotate",
            "0 to 180 degrees",
        )?;
        require(
            (0.0..=1.0).contains(&self.augment.erase),
            "augment.erase",
            "0 to 1",
        )?;
        let patience = self.early_stopping.is_none_or(|stop| stop.patience > 0);
        require(patience, "early_stopping.patience", "1 or more epochs")?;
        self.optimizer.check()
    }
}

/// Whether `freeze` has nothing to say.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn trains_all(freeze: &usize) -> bool {
    *freeze == 0
}

/// Whether `value` can weigh a penalty or a decay.
pub(super) fn is_weight(value: f64) -> bool {
    value.is_finite() && value >= 0.0
}

pub(super) fn require(holds: bool, key: &'static str, range: &str) -> Result<(), TrainError> {
    if holds {
        return Ok(());
    }
    Err(TrainError::Config {
        key,
        problem: format!("must be {range}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::early_stopping::Watch;

    #[test]
    fn recipes_are_in_range_and_survive_json() {
        let shifted = Augment {
            shift: 1,
            ..Augment::default()
        };
        for recipe in [Recipe::Seed, Recipe::Fast] {
            let config = recipe.config(shifted, 7);
            config.check().unwrap();
            let text = serde_json::to_string(&config).unwrap();
            assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), config);
            assert_eq!(recipe.to_string().parse(), Ok(recipe));
        }
        assert_eq!(Recipe::Seed.config(shifted, 1).augment, Augment::default());
        assert_eq!(Recipe::Fast.config(shifted, 1).augment, shifted);
    }

    #[test]
    fn values_outside_their_range_are_named() {
        let check = |key: &str, change: fn(&mut Config)| {
            let mut config = Recipe::Fast.config(Augment::default(), 1);
            change(&mut config);
            match config.check() {
                Err(TrainError::Config { key: found, .. }) => assert_eq!(found, key),
                other => panic!("{key}: {other:?}"),
            }
        };
        check("epochs", |c| c.epochs = 0);
        check("batch_size", |c| c.batch_size = 65_537);
        check("learning_rate", |c| c.learning_rate = 0.0);
        check("learning_rate", |c| c.learning_rate = f64::NAN);
        check("l1", |c| c.l1 = -1.0);
        check("l2", |c| c.l2 = f64::INFINITY);
        check("clip_norm", |c| c.clip_norm = Some(0.0));
        check("dropout", |c| c.dropout = Some(1.0));
        check("label_smoothing", |c| c.label_smoothing = f32::NAN);
        check("augment.rotate", |c| c.augment.rotate = 181.0);
        check("augment.erase", |c| c.augment.erase = -0.1);
        check("early_stopping.patience", |c| {
            c.early_stopping = Some(EarlyStopping {
                patience: 0,
                watch: Watch::Loss,
            });
        });
        check("optimizer.weight_decay", |c| c.optimizer = Rule::adam_w(-0.1));
        check("optimizer.momentum", |c| {
            c.optimizer = Rule::Sgd {
                momentum: 1.0,
                nesterov: false,
            };
        });
        check("optimizer.nesterov", |c| {
            c.optimizer = Rule::Sgd {
                momentum: 0.0,
                nesterov: true,
            };
        });
    }
}
