//! The plan on candle's operators: instances, each with its own copy of the weights and its own lane to the device.

use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Result, Tensor};

use super::compile::Program;
use super::device::Target;
use super::lane::Lane;
use crate::model::Input;

#[cfg(test)]
mod tests;

/// Instances worth running at once on a GPU: one computes while the other copies.
pub(super) const GPU_INSTANCES: usize = 2;
/// Most numbers in one value, or in the windows that candle copies out for a convolution: 4 GiB in f32. On a GPU candle counts
/// them in 32 bits, and past those it computes something else without a word.
const MOST_NUMBERS: usize = 1 << 30;

/// A program that candle's operators run, shared by the threads that run it.
#[derive(Debug)]
pub(super) struct Operators {
    /// In host memory, in f32: what instances are made of.
    program: Program,
    input: Input,
    target: Target,
    /// Larger batches are computed in parts.
    most_items: usize,
    /// Instances that compute nothing now. One is taken for each batch and given back, so that there are as many as ever
    /// ran at once.
    spare: Mutex<Vec<Instance>>,
}

/// What computes one batch at a time. Candle joins no tensors of two device handles, so each has weights of its own.
#[derive(Debug)]
pub(super) struct Instance {
    /// Released before the lane whose stream it was made on.
    program: Program,
    lane: Lane,
}

impl Operators {
    /// With a first instance, so that a device that cannot take the weights is known at once. `program` is in host memory.
    pub(super) fn new(program: Program, input: Input, target: Target) -> Result<Self> {
        let operators = Self {
            most_items: (MOST_NUMBERS / program.most_numbers().max(1)).max(1),
            program,
            input,
            target,
            spare: Mutex::new(Vec::new()),
        };
        operators.give(operators.make()?);
        Ok(operators)
    }

    /// Answers whole images laid end to end, channels first; appends a row of `logits` for each. An instance that fails or
    /// panics is released.
    pub(super) fn run(&self, images: &[f32], logits: &mut Vec<f32>) -> Result<()> {
        let mut instance = self.take()?;
        for part in images.chunks(self.most_items * self.input.len()) {
            instance.run(part, self.input, self.target.precision.dtype(), logits)?;
        }
        self.give(instance);
        Ok(())
    }

    /// Another thread's batch finds the instance that was given last.
    pub(super) fn give(&self, instance: Instance) {
        self.spares().push(instance);
    }

    /// A spare instance, or a new one.
    pub(super) fn take(&self) -> Result<Instance> {
        let spare = self.spares().pop();
        spare.map_or_else(|| self.make(), Ok)
    }

    fn make(&self) -> Result<Instance> {
        let lane = Lane::open(&self.target.device)?;
        Ok(Instance {
            program: self.program.on(lane.device(), self.target.precision.dtype())?,
            lane,
        })
    }

    /// No panic can leave the list half changed.
    pub(super) fn spares(&self) -> MutexGuard<'_, Vec<Instance>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Instance {
    fn run(&mut self, images: &[f32], input: Input, dtype: DType, logits: &mut Vec<f32>) -> Result<()> {
        let Input {
            channels,
            height,
            width,
        } = input;
        let items = images.len() / input.len();
        let images: Tensor = self.lane.upload(images, (items, channels, height, width))?;
        let output = self.program.run(images.to_dtype(dtype)?)?;
        let output = output.to_dtype(DType::F32)?.contiguous()?;
        self.lane.download(&output, logits)
    }
}
