//! How learning rate and momentum move over the steps of a run.

use serde::{Deserialize, Serialize};

/// A course of the learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// The same at every step.
    Constant,
    /// Up and down once by cosines, momentum the other way, with the defaults of torch's `OneCycleLR`
    /// (Smith, Topin, arXiv 1708.07120): the first 30 % of the steps rise from 1/25 of the highest rate, the rest
    /// falls to 1/250,000 of it; momentum (β₁ of Adam) goes 0.95, 0.85, 0.95.
    OneCycle,
}

/// What one step of the optimiser is given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Learning rate.
    pub learning_rate: f64,
    /// Momentum, or β₁, where the schedule moves it.
    pub momentum: Option<f64>,
}

const RISING_SHARE: f64 = 0.3;
const START_DIVISOR: f64 = 25.0;
const END_DIVISOR: f64 = 1e4;
const MOMENTUM: (f64, f64) = (0.95, 0.85);

impl Schedule {
    /// The pace of `step` (from 0) out of `steps`, for a highest learning rate of `peak`.
    pub fn pace(self, step: usize, steps: usize, peak: f64) -> Pace {
        match self {
            Self::Constant => Pace {
                learning_rate: peak,
                momentum: None,
            },
            Self::OneCycle => one_cycle(step as f64, steps as f64, peak),
        }
    }
}

fn one_cycle(step: f64, steps: f64, peak: f64) -> Pace {
    let start = peak / START_DIVISOR;
    let end = start / END_DIVISOR;
    let (high, low) = MOMENTUM;
    let top = RISING_SHARE * steps - 1.0;
    let last = steps - 1.0;
    // A run of so few steps that none of them rises has its top before step 0.
    let (learning_rate, momentum) = if step <= top && top > 0.0 {
        let share = step / top;
        (cosine(start, peak, share), cosine(high, low, share))
    } else {
        let share = (step - top) / (last - top);
        (cosine(peak, end, share), cosine(low, high, share))
    };
    Pace {
        learning_rate,
        momentum: Some(momentum),
    }
}

/// From `start` (share 0) to `end` (share 1) along half a cosine.
fn cosine(start: f64, end: f64, share: f64) -> f64 {
    end + (start - end) / 2.0 * (1.0 + (std::f64::consts::PI * share).cos())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn one_cycle_is_torchs() {
        let golden: Value =
            serde_json::from_str(include_str!("../../tests/golden/train_torch.json")).unwrap();
        for cycle in golden["one_cycle"].as_array().unwrap() {
            let steps = cycle["steps"].as_u64().unwrap() as usize;
            let peak = cycle["peak"].as_f64().unwrap();
            let paces = cycle["paces"].as_array().unwrap();
            assert_eq!(paces.len(), steps);
            for (step, expected) in paces.iter().enumerate() {
                let pace = Schedule::OneCycle.pace(step, steps, peak);
                let rate = expected[0].as_f64().unwrap();
                let momentum = expected[1].as_f64().unwrap();
                assert!(
                    (pace.learning_rate / rate - 1.0).abs() < 1e-9,
                    "{step} of {steps}"
                );
                assert!(
                    (pace.momentum.unwrap() - momentum).abs() < 1e-12,
                    "{step} of {steps}"
                );
            }
        }
    }

    #[test]
    fn constant_moves_nothing() {
        let expected = Pace {
            learning_rate: 0.1,
            momentum: None,
        };
        assert!((0..5).all(|step| Schedule::Constant.pace(step, 5, 0.1) == expected));
    }

    proptest! {
        #[test]
        fn one_cycle_stays_within_its_bounds(steps in 1usize..5000, at in 0.0f64..1.0) {
            let step = (at * steps as f64) as usize;
            let Pace { learning_rate, momentum } = Schedule::OneCycle.pace(step, steps, 1.0);
            let momentum = momentum.unwrap();
            prop_assert!(learning_rate > 0.0 && learning_rate <= 1.0);
            prop_assert!((0.85 - 1e-12..=0.95 + 1e-12).contains(&momentum));
        }
    }
}
