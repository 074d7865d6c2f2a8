//! The training executor: runs a graph through candle's autograd.

use std::collections::BTreeMap;

use candle_core::{Device, Result, Tensor, Var};

use super::rng::Rng;
use super::{Graph, Weights};

/// How a forward pass treats dropout and batch-norm.
#[derive(Debug)]
pub enum Mode<'a> {
    /// Dropout draws from the generator with probability `dropout` in place of the graph's own where given; batch-norm
    /// uses the batch's statistics and updates the running ones.
    Train {
        /// Source of the masks.
        rng: &'a mut Rng,
        /// Overrides every dropout node's probability.
        dropout: Option<f32>,
    },
    /// Dropout is nothing; batch-norm uses the running statistics.
    Eval,
}

/// A graph with trainable weights on a device.
#[derive(Debug)]
pub struct Network {
    graph: Graph,
    vars: BTreeMap<String, Var>,
}

impl Network {
    /// Copies `weights` into variables on `device`.
    pub fn new(_graph: Graph, _weights: &Weights, _device: &Device) -> Result<Self> {
        todo!()
    }

    /// The graph it runs.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Logits N×classes of images N×C×H×W.
    pub fn forward(&self, _images: &Tensor, _mode: &mut Mode<'_>) -> Result<Tensor> {
        todo!()
    }

    /// The trained parameters by name, in alphabetical order; running statistics are not among them.
    pub fn trained(&self) -> Vec<(&str, &Var)> {
        todo!()
    }

    /// A copy of all parameters as they are now.
    pub fn weights(&self) -> Result<Weights> {
        todo!()
    }

    /// Overwrites all parameters.
    pub fn set_weights(&self, _weights: &Weights) -> Result<()> {
        let _ = &self.vars;
        todo!()
    }
}
