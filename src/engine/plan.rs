//! A version of a model compiled for a device.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use candle_core::Tensor;

use super::EngineError;
use super::compile::{Program, compile};
use super::cpu::Cpu;
use super::device::Device;
use super::explain::LayerCost;
use super::options::Options;
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
    Candle { program: Program, device: Device },
}

impl Plan {
    /// Compiles a version for a device: batch-norm folded, dropout gone.
    pub fn compile(
        version: Version,
        graph: &Graph,
        weights: &Weights,
        device: &Device,
        options: &Options,
    ) -> Result<Arc<Self>, EngineError> {
        let program = compile(graph, weights, device)?;
        let backend = if device.is_cpu() {
            Backend::Cpu(Box::new(Cpu::lower(&program, graph.input, options)?))
        } else {
            Backend::Candle {
                program,
                device: device.clone(),
            }
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
        if items > 0 {
            match &self.backend {
                Backend::Cpu(cpu) => {
                    logits.resize(items * self.classes, 0.0);
                    cpu.run(inputs, items, logits);
                }
                Backend::Candle { program, device } => {
                    let images = self.images(inputs, items, device)?;
                    let output = program.run(images)?;
                    logits.extend(output.flatten_all()?.to_vec1::<f32>()?);
                }
            }
        }
        Ok(())
    }

    /// The vector instructions of the kernels; none where candle's operators run the plan.
    pub fn instructions(&self) -> Option<String> {
        match &self.backend {
            Backend::Cpu(cpu) => Some(cpu.isa().to_string()),
            Backend::Candle { .. } => None,
        }
    }

    /// What each layer costs for one image of a batch of `items`, with its median time over `rounds` runs on this thread.
    /// Empty where candle's operators run the plan.
    pub fn explain(&self, items: usize, rounds: usize) -> Vec<LayerCost> {
        match &self.backend {
            Backend::Cpu(cpu) => cpu.explain(&self.pattern(items), items, rounds),
            Backend::Candle { .. } => Vec::new(),
        }
    }

    /// Runs batches of 1 and `max_batch` so that the first request finds everything in place; an output that is not
    /// finite is [`EngineError::NonFinite`].
    pub fn warm_up(&self, max_batch: usize) -> Result<(), EngineError> {
        let mut logits = Vec::new();
        for items in [1, max_batch.max(1)] {
            self.run(&self.pattern(items), items, &mut logits)?;
            if !logits.iter().all(|logit| logit.is_finite()) {
                return Err(EngineError::NonFinite);
            }
        }
        Ok(())
    }

    /// Levels of 0 to 1 in a pattern that no layer sees as blank.
    pub(crate) fn pattern(&self, items: usize) -> Vec<f32> {
        (0..items * self.input_len())
            .map(|i| (i % 17) as f32 / 16.0)
            .collect()
    }

    fn images(&self, inputs: &[f32], items: usize, device: &Device) -> candle_core::Result<Tensor> {
        let Input {
            channels,
            height,
            width,
        } = self.input;
        Tensor::from_slice(inputs, (items, channels, height, width), device)
    }
}
