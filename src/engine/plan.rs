//! A version of a model compiled for a device.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::compile::compile;
use super::cpu::Cpu;
use super::device::{Device, Target};
use super::explain::LayerCost;
use super::operators::{GPU_INSTANCES, Operators};
use super::{EngineError, Precision, available_cores};
use crate::model::{Graph, Input, Version, Weights};

/// A loaded model version, compiled for a device; shared by its instances.
#[derive(Debug)]
pub struct Plan {
    version: Version,
    input: Input,
    classes: usize,
    pub(super) backend: Backend,
}

/// What executes the program.
#[derive(Debug)]
pub(super) enum Backend {
    /// Our kernels.
    Cpu(Box<Cpu>),
    /// candle's operators, step by step.
    Candle(Operators),
}

impl Plan {
    /// Compiles a version for a device (in f32) or a [`Target`]: batch-norm folded, dropout gone.
    pub fn compile(
        version: Version,
        graph: &Graph,
        weights: &Weights,
        target: impl Into<Target>,
    ) -> Result<Arc<Self>, EngineError> {
        let target = target.into();
        let program = compile(graph, weights, &Device::Cpu)?;
        let backend = match (target.device.is_cpu(), target.precision) {
            (true, Precision::F32) => {
                Backend::Cpu(Box::new(Cpu::lower(&program, graph.input, &target.options)?))
            }
            (true, precision) => return Err(EngineError::Precision(precision)),
            (false, _) => Backend::Candle(Operators::new(program, graph.input, target)?),
        };
        Ok(Arc::new(Self {
            version,
            input: graph.input,
            classes: graph.classes(),
            backend,
        }))
    }

    /// The version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Numbers per input.
    pub fn input_len(&self) -> usize {
        self.input.channels * self.input.height * self.input.width
    }

    /// Numbers per answer.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Answers `items` inputs laid end to end; writes `items · classes` logits over `logits`. Panics are caught and
    /// are [`EngineError::Panicked`].
    pub fn run(&self, inputs: &[f32], items: usize, logits: &mut Vec<f32>) -> Result<(), EngineError> {
        // Nothing outlives a panic but `logits`, which the next run overwrites.
        catch_unwind(AssertUnwindSafe(|| self.run_uncaught(inputs, items, logits)))
            .unwrap_or(Err(EngineError::Panicked))
    }

    /// [`Plan::run`] for callers with a panic boundary of their own.
    pub(crate) fn run_uncaught(
        &self,
        inputs: &[f32],
        items: usize,
        logits: &mut Vec<f32>,
    ) -> Result<(), EngineError> {
        logits.clear();
        let input = self.input_len();
        if items.checked_mul(input) != Some(inputs.len()) {
            return Err(EngineError::Shape {
                items,
                input,
                found: inputs.len(),
            });
        }
        #[cfg(feature = "failpoints")]
        fail_as_planned(inputs, input)?;
        if items > 0 {
            match &self.backend {
                Backend::Cpu(cpu) => {
                    logits.resize(items * self.classes, 0.0);
                    cpu.run(inputs, items, logits);
                }
                Backend::Candle(operators) => operators.run(inputs, logits)?,
            }
        }
        Ok(())
    }

    /// The vector instructions of the kernels; none where candle's operators run the plan.
    pub fn instructions(&self) -> Option<String> {
        match &self.backend {
            Backend::Cpu(cpu) => Some(cpu.isa().to_string()),
            Backend::Candle(_) => None,
        }
    }

    /// What each layer costs for one image of a batch of `items`, with its median time over `rounds` runs on this thread.
    /// Empty where candle's operators run the plan.
    pub fn explain(&self, items: usize, rounds: usize) -> Vec<LayerCost> {
        match &self.backend {
            Backend::Cpu(cpu) => cpu.explain(&self.pattern(items), items, rounds),
            Backend::Candle(_) => Vec::new(),
        }
    }

    /// [`Plan::warm_up_instances`] of one.
    pub fn warm_up(&self, max_batch: usize) -> Result<(), EngineError> {
        self.warm_up_instances(1, max_batch)
    }

    /// Puts everything in place that as many instances at once need for batches of up to `max_batch`, so that the first
    /// requests find it, and answers an image, on a GPU also a batch, in each way that requests will be. An output that is
    /// not finite is [`EngineError::NonFinite`].
    pub fn warm_up_instances(&self, instances: usize, max_batch: usize) -> Result<(), EngineError> {
        match &self.backend {
            Backend::Cpu(cpu) => {
                // A batch is computed as an image is; only its memory must be there.
                cpu.reserve(instances, max_batch.max(1));
                self.is_finite(1)
            }
            Backend::Candle(operators) => {
                let held: Result<Vec<_>, _> = (0..instances).map(|_| operators.take()).collect();
                for instance in held? {
                    operators.give(instance);
                    self.is_finite(1)?;
                    self.is_finite(max_batch.max(1))?;
                }
                Ok(())
            }
        }
    }

    /// Whether it still computes, told by an input that it computed when it was warmed up. May panic.
    pub(crate) fn answers(&self) -> bool {
        let mut logits = Vec::new();
        let run = self.run_uncaught(&self.pattern(1), 1, &mut logits);
        run.is_ok() && logits.iter().all(|logit| logit.is_finite())
    }

    fn is_finite(&self, items: usize) -> Result<(), EngineError> {
        let mut logits = Vec::new();
        self.run(&self.pattern(items), items, &mut logits)?;
        if logits.iter().all(|logit| logit.is_finite()) {
            Ok(())
        } else {
            Err(EngineError::NonFinite)
        }
    }

    /// How many instances to run at once: as `configured`, or with 0 as many as the cores have room for, and two on a GPU.
    pub fn instances(&self, configured: usize) -> usize {
        match (&self.backend, configured) {
            (Backend::Cpu(cpu), 0) => (available_cores() / cpu.threads()).max(1),
            (Backend::Candle(_), 0) => GPU_INSTANCES,
            (_, configured) => configured,
        }
    }

    /// Levels of 0 to 1 in a pattern that no layer sees as blank.
    pub(crate) fn pattern(&self, items: usize) -> Vec<f32> {
        (0..items * self.input_len())
            .map(|i| (i % 17) as f32 / 16.0)
            .collect()
    }
}

#[cfg(feature = "failpoints")]
fn fail_as_planned(inputs: &[f32], input: usize) -> Result<(), EngineError> {
    use crate::failpoints::{Place, fails};
    let blank = |image: &[f32]| image.windows(2).all(|pair| pair[0] == pair[1]);
    let poisoned = inputs.chunks(input.max(1)).any(blank) && fails(Place::EngineBlank);
    if poisoned || fails(Place::Engine) {
        return Err(candle_core::Error::Msg("as planned".to_owned()).into());
    }
    Ok(())
}
