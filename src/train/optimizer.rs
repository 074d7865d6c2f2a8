//! From gradients to new weights: SGD with momentum, Adam, AdamW.
//!
//! Works on host memory, so that one implementation gives the same bits whatever device computed the gradients.

use serde::{Deserialize, Serialize};

use super::TrainError;
use super::config::{is_weight, require};
use super::schedule::Pace;

/// How a gradient becomes a step; formulas and defaults are torch's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Rule {
    /// v ← μ·v + g; w ← w − η·v, with Nesterov w ← w − η·(g + μ·v).
    Sgd {
        /// μ, 0 ≤ μ < 1.
        momentum: f64,
        /// Whether the step looks ahead; needs momentum.
        nesterov: bool,
    },
    /// Kingma, Ba, arXiv 1412.6980.
    Adam {
        /// Decay of the mean gradient.
        beta1: f64,
        /// Decay of the mean squared gradient.
        beta2: f64,
        /// Added to the root of the latter.
        eps: f64,
    },
    /// Adam with decoupled decay (Loshchilov, Hutter, arXiv 1711.05101): before each step w ← w·(1 − η·λ), weights
    /// only: biases and batch-norms do not decay.
    #[serde(rename = "adamw")]
    AdamW {
        /// Decay of the mean gradient.
        beta1: f64,
        /// Decay of the mean squared gradient.
        beta2: f64,
        /// Added to the root of the latter.
        eps: f64,
        /// λ.
        weight_decay: f64,
    },
}

/// A rule with its memory of earlier gradients.
#[derive(Clone, Debug, PartialEq)]
pub struct Optimizer {
    rule: Rule,
    /// Steps taken.
    steps: u32,
    slots: Vec<Slot>,
}

/// Memory of one parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    /// Whether decay takes hold of it.
    pub decays: bool,
    /// Momentum, or the mean gradient.
    pub first: Vec<f32>,
    /// Mean squared gradient; empty for SGD.
    pub second: Vec<f32>,
}

impl Rule {
    /// Adam with torch's defaults.
    pub fn adam() -> Self {
        Self::Adam {
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
        }
    }

    /// AdamW with torch's defaults but for the decay.
    pub fn adam_w(weight_decay: f64) -> Self {
        Self::AdamW {
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay,
        }
    }

    /// Whether every value is in its range.
    pub fn check(&self) -> Result<(), TrainError> {
        let share = |value: f64| (0.0..1.0).contains(&value);
        match *self {
            Self::Sgd { momentum, nesterov } => {
                require(share(momentum), "optimizer.momentum", "from 0, below 1")?;
                let ahead = !nesterov || momentum > 0.0;
                require(ahead, "optimizer.nesterov", "false where momentum is 0")
            }
            Self::Adam { beta1, beta2, eps }
            | Self::AdamW {
                beta1, beta2, eps, ..
            } => {
                require(share(beta1), "optimizer.beta1", "from 0, below 1")?;
                require(share(beta2), "optimizer.beta2", "from 0, below 1")?;
                let above = eps.is_finite() && eps > 0.0;
                require(above, "optimizer.eps", "a number above 0")?;
                let decay = is_weight(self.weight_decay());
                require(decay, "optimizer.weight_decay", "a number from 0")
            }
        }
    }

    fn weight_decay(&self) -> f64 {
        match self {
            Self::AdamW { weight_decay, .. } => *weight_decay,
            Self::Sgd { .. } | Self::Adam { .. } => 0.0,
        }
    }
}

impl Optimizer {
    /// Without memory, for parameters of these lengths; the flag says whether one decays.
    pub fn new(rule: Rule, parameters: &[(usize, bool)]) -> Self {
        let has_second = !matches!(rule, Rule::Sgd { .. });
        let slot = |&(length, decays): &(usize, bool)| Slot {
            decays,
            first: vec![0.0; length],
            second: vec![0.0; if has_second { length } else { 0 }],
        };
        Self {
            rule,
            steps: 0,
            slots: parameters.iter().map(slot).collect(),
        }
    }

    /// Steps taken.
    pub fn steps(&self) -> u32 {
        self.steps
    }

    /// The memory, in the parameters' order.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Takes over the memory of an earlier run; false, and nothing is changed, where its lengths are others.
    #[must_use]
    pub fn restore(&mut self, steps: u32, memory: Vec<(Vec<f32>, Vec<f32>)>) -> bool {
        let pairs = || self.slots.iter().zip(&memory);
        let fits = memory.len() == self.slots.len()
            && pairs().all(|(slot, (first, second))| {
                (slot.first.len(), slot.second.len()) == (first.len(), second.len())
            });
        if fits {
            self.steps = steps;
            for (slot, (first, second)) in self.slots.iter_mut().zip(memory) {
                (slot.first, slot.second) = (first, second);
            }
        }
        fits
    }

    /// One step over all parameters, in the order given to [`Optimizer::new`].
    pub fn step(&mut self, weights: &mut [Vec<f32>], gradients: &[Vec<f32>], pace: Pace) {
        self.steps += 1;
        for ((slot, w), g) in self.slots.iter_mut().zip(weights).zip(gradients) {
            match self.rule {
                Rule::Sgd { momentum, nesterov } => {
                    slot.sgd(w, g, nesterov, pace.with_default(momentum));
                }
                Rule::Adam { beta1, beta2, eps } => {
                    let moments = Moments::new([pace.with_default(beta1).1, beta2], eps, self.steps);
                    slot.adam(w, g, pace.learning_rate, moments);
                }
                Rule::AdamW {
                    beta1,
                    beta2,
                    eps,
                    weight_decay,
                } => {
                    if slot.decays {
                        let kept = (1.0 - pace.learning_rate * weight_decay) as f32;
                        w.iter_mut().for_each(|w| *w *= kept);
                    }
                    let moments = Moments::new([pace.with_default(beta1).1, beta2], eps, self.steps);
                    slot.adam(w, g, pace.learning_rate, moments);
                }
            }
        }
    }
}

impl Pace {
    /// (learning rate, momentum): the schedule's momentum, else the rule's own.
    fn with_default(self, momentum: f64) -> (f64, f64) {
        (self.learning_rate, self.momentum.unwrap_or(momentum))
    }
}

/// Constants of one Adam step.
#[derive(Clone, Copy)]
struct Moments {
    beta1: f32,
    beta2: f32,
    /// 1 − β, rounded after the subtraction as torch does.
    new1: f32,
    new2: f32,
    eps: f32,
    /// 1 − β₁ᵗ
    correction1: f64,
    /// √(1 − β₂ᵗ)
    correction2: f32,
}

impl Moments {
    fn new([beta1, beta2]: [f64; 2], eps: f64, step: u32) -> Self {
        let t = f64::from(step);
        Self {
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            new1: (1.0 - beta1) as f32,
            new2: (1.0 - beta2) as f32,
            eps: eps as f32,
            correction1: 1.0 - beta1.powf(t),
            correction2: (1.0 - beta2.powf(t)).sqrt() as f32,
        }
    }
}

impl Slot {
    fn sgd(&mut self, weights: &mut [f32], gradient: &[f32], nesterov: bool, (rate, momentum): (f64, f64)) {
        let (rate, momentum) = (rate as f32, momentum as f32);
        for ((w, &g), v) in weights.iter_mut().zip(gradient).zip(&mut self.first) {
            *v = momentum * *v + g;
            *w -= rate * if nesterov { g + momentum * *v } else { *v };
        }
    }

    fn adam(&mut self, weights: &mut [f32], gradient: &[f32], rate: f64, with: Moments) {
        let size = (rate / with.correction1) as f32;
        let moments = self.first.iter_mut().zip(&mut self.second);
        for ((w, &g), (m, v)) in weights.iter_mut().zip(gradient).zip(moments) {
            *m = with.beta1 * *m + with.new1 * g;
            *v = with.beta2 * *v + with.new2 * g * g;
            *w -= size * *m / (v.sqrt() / with.correction2 + with.eps);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const TENTH: Pace = Pace {
        learning_rate: 0.1,
        momentum: None,
    };

    /// The weight after each step from 1, for these gradients.
    fn course(rule: Rule, pace: Pace, gradients: &[f32]) -> Vec<f32> {
        let mut optimizer = Optimizer::new(rule, &[(1, true)]);
        let mut weights = [vec![1.0]];
        let step = |&g: &f32| {
            optimizer.step(&mut weights, &[vec![g]], pace);
            weights[0][0]
        };
        gradients.iter().map(step).collect()
    }

    fn check(rule: Rule, gradients: &[f32], expected: &[f32]) {
        let found = course(rule, TENTH, gradients);
        let near = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-6;
        assert!(
            found.iter().zip(expected).all(near),
            "{rule:?}: {found:?} is not {expected:?}"
        );
    }

    #[test]
    fn steps_have_their_closed_forms() {
        let sgd = |momentum, nesterov| Rule::Sgd { momentum, nesterov };
        check(sgd(0.0, false), &[1.0, -2.0], &[0.9, 1.1]);
        // v = 1, then 0.5 + 2.
        check(sgd(0.5, false), &[1.0, 2.0], &[0.9, 0.65]);
        // 1 + 0.5, then 2 + 0.5·2.5.
        check(sgd(0.5, true), &[1.0, 2.0], &[0.85, 0.525]);
        // The first step of Adam is the learning rate, whatever the gradient's size; equal gradients keep it.
        check(Rule::adam(), &[0.5, 0.5], &[0.9, 0.8]);
        check(Rule::adam(), &[-500.0], &[1.1]);
        // Decay comes first: 1·(1 − 0.1·0.5) − 0.1.
        check(Rule::adam_w(0.5), &[3.0], &[0.85]);
    }

    #[test]
    fn the_schedule_moves_momentum() {
        let pace = Pace {
            momentum: Some(0.5),
            ..TENTH
        };
        let fixed = Rule::Sgd {
            momentum: 0.5,
            nesterov: false,
        };
        let moved = Rule::Sgd {
            momentum: 0.0,
            nesterov: false,
        };
        assert_eq!(
            course(moved, pace, &[1.0, 2.0]),
            course(fixed, TENTH, &[1.0, 2.0])
        );
    }

    #[test]
    fn only_weights_decay() {
        let mut optimizer = Optimizer::new(Rule::adam_w(0.5), &[(1, true), (1, false)]);
        let mut weights = [vec![1.0], vec![1.0]];
        optimizer.step(&mut weights, &[vec![0.0], vec![0.0]], TENTH);
        assert_eq!(weights, [vec![0.95], vec![1.0]]);
    }

    #[test]
    fn trajectories_are_torchs() {
        let golden: Value =
            serde_json::from_str(include_str!("../../tests/golden/train_torch.json")).unwrap();
        let start: Vec<f32> = serde_json::from_value(golden["start"].clone()).unwrap();
        let gradients: Vec<Vec<f32>> = serde_json::from_value(golden["gradients"].clone()).unwrap();
        for run in golden["optimizers"].as_array().unwrap() {
            let rule: Rule = serde_json::from_value(run["rule"].clone()).unwrap();
            let paces: Vec<(f64, Option<f64>)> = serde_json::from_value(run["paces"].clone()).unwrap();
            let expected: Vec<Vec<f64>> = serde_json::from_value(run["weights"].clone()).unwrap();
            let mut optimizer = Optimizer::new(rule, &[(start.len(), true)]);
            let mut weights = [start.clone()];
            for (step, ((gradient, pace), expected)) in gradients.iter().zip(paces).zip(&expected).enumerate()
            {
                let pace = Pace {
                    learning_rate: pace.0,
                    momentum: pace.1,
                };
                optimizer.step(&mut weights, std::slice::from_ref(gradient), pace);
                for (found, expected) in weights[0].iter().zip(expected) {
                    let off = (f64::from(*found) - expected).abs();
                    assert!(
                        off < 1e-5 * expected.abs().max(0.1),
                        "{rule:?} step {step}: {found}, torch {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn memory_of_another_shape_is_refused() {
        let memory = |lengths: &[(usize, usize)]| -> Vec<_> {
            lengths
                .iter()
                .map(|&(a, b)| (vec![1.0; a], vec![2.0; b]))
                .collect()
        };
        let mut optimizer = Optimizer::new(Rule::adam(), &[(2, true), (3, false)]);
        let before = optimizer.clone();
        for wrong in [
            &[(2, 2)][..],
            &[(2, 2), (3, 2)],
            &[(3, 3), (2, 2)],
            &[(2, 0), (3, 0)],
        ] {
            assert!(!optimizer.restore(9, memory(wrong)));
            assert_eq!(optimizer, before);
        }
        assert!(optimizer.restore(9, memory(&[(2, 2), (3, 3)])));
        assert_eq!(
            (optimizer.steps(), &*optimizer.slots()[1].second),
            (9, &[2.0; 3][..])
        );
    }
}
