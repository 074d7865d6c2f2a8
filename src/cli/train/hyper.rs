//! Flags that change a recipe's hyper-parameters.

use clap::ValueEnum;

use crate::model::spec::Augment;
use crate::train::early_stopping::{EarlyStopping, Watch};
use crate::train::optimizer::Rule;
use crate::train::schedule::Schedule;
use crate::train::{Config, Recipe};

use super::CliError;

/// What is not given is the recipe's.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Hyper-parameters")]
pub(super) struct Flags {
    /// seed (Adam, 5 epochs) or fast (one cycle of AdamW, 8 epochs)
    #[arg(long, default_value_t)]
    pub(super) recipe: Recipe,
    /// Seed of everything random: the same seed, data and flags give the same bits
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) seed: u64,
    /// Passes over the images
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// Images per step
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,
    /// Highest learning rate
    #[arg(long, value_name = "X")]
    learning_rate: Option<f64>,
    /// How the learning rate moves
    #[arg(long, value_enum)]
    schedule: Option<ScheduleName>,
    /// How a gradient becomes a step
    #[arg(long, value_enum)]
    optimizer: Option<OptimizerName>,
    /// Momentum of sgd [default: 0.9]
    #[arg(long, value_name = "X")]
    momentum: Option<f64>,
    /// Let sgd look ahead
    #[arg(long)]
    nesterov: bool,
    /// Decoupled decay of adamw [default: the recipe's, or 0.01]
    #[arg(long, value_name = "X")]
    weight_decay: Option<f64>,
    /// Weight of the sum of |w| in the loss
    #[arg(long, value_name = "X")]
    l1: Option<f64>,
    /// Weight of half the sum of w² in the loss
    #[arg(long, value_name = "X")]
    l2: Option<f64>,
    /// Longest gradient
    #[arg(long, value_name = "X")]
    clip_norm: Option<f64>,
    /// Probability of every dropout layer
    #[arg(long, value_name = "P")]
    dropout: Option<f32>,
    /// Share of the target spread over all classes
    #[arg(long, value_name = "X")]
    label_smoothing: Option<f32>,
    /// Largest random shift in pixels
    #[arg(long, value_name = "N")]
    augment_shift: Option<usize>,
    /// Mirror at random
    #[arg(long)]
    augment_flip: bool,
    /// Largest random rotation in degrees
    #[arg(long, value_name = "X")]
    augment_rotate: Option<f32>,
    /// Probability of blanking a random rectangle
    #[arg(long, value_name = "P")]
    augment_erase: Option<f32>,
    /// No augmentation, whatever recipe and model say
    #[arg(
        long,
        conflicts_with_all = ["augment_shift", "augment_flip", "augment_rotate", "augment_erase"]
    )]
    no_augment: bool,
    /// Stop after N epochs without a better hold-out figure, and keep the best epoch
    #[arg(long, value_name = "N")]
    early_stopping: Option<usize>,
    /// That figure [default: loss]
    #[arg(long, value_enum, requires = "early_stopping")]
    watch: Option<WatchName>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ScheduleName {
    Constant,
    OneCycle,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OptimizerName {
    Sgd,
    Adam,
    Adamw,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum WatchName {
    Loss,
    Accuracy,
}

/// torch's default, where no recipe says otherwise.
const WEIGHT_DECAY: f64 = 0.01;
const MOMENTUM: f64 = 0.9;

impl Flags {
    /// The recipe with these changes, checked; `augment` is what the model says keeps a label.
    pub(super) fn config(&self, augment: Augment) -> Result<Config, CliError> {
        let recipe = self.recipe.config(augment, self.seed);
        let schedule = self.schedule.map(|schedule| match schedule {
            ScheduleName::Constant => Schedule::Constant,
            ScheduleName::OneCycle => Schedule::OneCycle,
        });
        let config = Config {
            seed: self.seed,
            epochs: self.epochs.unwrap_or(recipe.epochs),
            batch_size: self.batch_size.unwrap_or(recipe.batch_size),
            learning_rate: self.learning_rate.unwrap_or(recipe.learning_rate),
            schedule: schedule.unwrap_or(recipe.schedule),
            optimizer: self.rule(recipe.optimizer)?,
            l1: self.l1.unwrap_or(recipe.l1),
            l2: self.l2.unwrap_or(recipe.l2),
            clip_norm: self.clip_norm.or(recipe.clip_norm),
            dropout: self.dropout.or(recipe.dropout),
            label_smoothing: self.label_smoothing.unwrap_or(recipe.label_smoothing),
            augment: self.augment(recipe.augment),
            early_stopping: self.early_stopping().or(recipe.early_stopping),
            freeze: recipe.freeze,
        };
        config.check().map_err(super::failed)?;
        Ok(config)
    }

    fn rule(&self, recipe: Rule) -> Result<Rule, CliError> {
        let mut rule = match self.optimizer {
            None => recipe,
            Some(OptimizerName::Sgd) => Rule::Sgd {
                momentum: MOMENTUM,
                nesterov: false,
            },
            Some(OptimizerName::Adam) => Rule::adam(),
            Some(OptimizerName::Adamw) if matches!(recipe, Rule::AdamW { .. }) => recipe,
            Some(OptimizerName::Adamw) => Rule::adam_w(WEIGHT_DECAY),
        };
        let misplaced =
            |flag: &str, owner: &str| Err(CliError::Usage(format!("{flag} is for --optimizer {owner}")));
        match (&mut rule, self.weight_decay) {
            (Rule::AdamW { weight_decay, .. }, Some(given)) => *weight_decay = given,
            (_, Some(_)) => return misplaced("--weight-decay", "adamw (--l2 is for all)"),
            (_, None) => {}
        }
        match &mut rule {
            Rule::Sgd { momentum, nesterov } => {
                *momentum = self.momentum.unwrap_or(*momentum);
                *nesterov = self.nesterov;
            }
            _ if self.momentum.is_some() => return misplaced("--momentum", "sgd"),
            _ if self.nesterov => return misplaced("--nesterov", "sgd"),
            _ => {}
        }
        Ok(rule)
    }

    fn augment(&self, recipe: Augment) -> Augment {
        if self.no_augment {
            return Augment::default();
        }
        Augment {
            shift: self.augment_shift.unwrap_or(recipe.shift),
            flip: self.augment_flip || recipe.flip,
            rotate: self.augment_rotate.unwrap_or(recipe.rotate),
            erase: self.augment_erase.unwrap_or(recipe.erase),
        }
    }

    fn early_stopping(&self) -> Option<EarlyStopping> {
        let watch = match self.watch {
            None | Some(WatchName::Loss) => Watch::Loss,
            Some(WatchName::Accuracy) => Watch::Accuracy,
        };
        self.early_stopping
            .map(|patience| EarlyStopping { patience, watch })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::{Value, json};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: Flags,
    }

    const SHIFTED: Augment = Augment {
        shift: 1,
        flip: false,
        rotate: 0.0,
        erase: 0.0,
    };

    fn config(line: &str) -> Result<Config, CliError> {
        let words = std::iter::once("train").chain(line.split_whitespace());
        Line::try_parse_from(words).unwrap().flags.config(SHIFTED)
    }

    /// What differs from the recipe `line` names.
    fn check(line: &str, recipe: Recipe, expected: &Value) {
        let plain = serde_json::to_value(recipe.config(SHIFTED, 1)).unwrap();
        let mut changed = serde_json::to_value(config(line).unwrap()).unwrap();
        let changes = changed.as_object_mut().unwrap();
        changes.retain(|key, value| plain[key] != *value);
        assert_eq!(changed, *expected, "{line}");
    }

    #[test]
    fn flags_change_the_recipe() {
        use Recipe::{Fast, Seed};
        check("", Fast, &json!({}));
        check("--recipe seed", Seed, &json!({}));
        check("--seed 9 --epochs 2", Fast, &json!({"seed": 9, "epochs": 2}));
        check(
            "--batch-size 32 --learning-rate 0.01 --schedule constant",
            Fast,
            &json!({"batch_size": 32, "learning_rate": 0.01, "schedule": "constant"}),
        );
        check(
            "--optimizer sgd --momentum 0.5 --nesterov",
            Fast,
            &json!({"optimizer": {"kind": "sgd", "momentum": 0.5, "nesterov": true}}),
        );
        check("--optimizer adamw", Fast, &json!({}));
        let adamw = |decay: f64| {
            json!({"optimizer":
                {"kind": "adamw", "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": decay}})
        };
        check("--recipe seed --optimizer adamw", Seed, &adamw(0.01));
        check("--weight-decay 0.5", Fast, &adamw(0.5));
        check("--l1 0.5 --l2 0.25", Fast, &json!({"l1": 0.5, "l2": 0.25}));
        check(
            "--clip-norm 2 --dropout 0",
            Fast,
            &json!({"clip_norm": 2.0, "dropout": 0.0}),
        );
        check("--label-smoothing 0.5", Fast, &json!({"label_smoothing": 0.5}));
        let augment = |shift: usize, flip: bool, rotate: f64| json!({"augment": {"shift": shift, "flip": flip, "rotate": rotate, "erase": 0.0}});
        check("--augment-flip --augment-rotate 8", Fast, &augment(1, true, 8.0));
        check("--augment-shift 3", Fast, &augment(3, false, 0.0));
        check("--no-augment", Fast, &augment(0, false, 0.0));
        check(
            "--early-stopping 3 --watch accuracy",
            Fast,
            &json!({"early_stopping": {"patience": 3, "watch": "accuracy"}}),
        );
    }

    #[test]
    fn flags_that_do_not_fit_are_refused() {
        let check = |line: &str, expected: &str| match config(line) {
            Err(CliError::Usage(text)) => assert!(text.contains(expected), "{text}"),
            other => panic!("{line}: {other:?}"),
        };
        check(
            "--recipe seed --weight-decay 0.1",
            "--weight-decay is for --optimizer adamw",
        );
        check("--momentum 0.5", "--momentum is for --optimizer sgd");
        check("--nesterov", "--nesterov is for --optimizer sgd");
        check("--epochs 0", "epochs: must be 1 to 10,000");
        check("--dropout 1", "dropout: must be from 0, below 1");
    }
}
