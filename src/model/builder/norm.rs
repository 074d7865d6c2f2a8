//! Layers that normalise or scale channels.

use super::super::graph::{GraphError, NodeId, Op, ParamKind};
use super::GraphBuilder;

/// Options of a batch-norm; the defaults are torch's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchNormOptions {
    /// Added to the variance.
    pub eps: f64,
    /// Share of the new batch in the running statistics (torch's meaning).
    pub momentum: f64,
}

impl Default for BatchNormOptions {
    fn default() -> Self {
        Self {
            eps: 1e-5,
            momentum: 0.1,
        }
    }
}

impl GraphBuilder {
    /// A batch-norm with torch's eps 1e-5 and momentum 0.1; parameters `weight bias running_mean running_var`.
    pub fn batch_norm(&mut self, name: &str, x: NodeId) -> Result<NodeId, GraphError> {
        self.batch_norm_with(name, x, BatchNormOptions::default())
    }

    /// [`GraphBuilder::batch_norm`] with other options.
    pub fn batch_norm_with(
        &mut self,
        name: &str,
        x: NodeId,
        BatchNormOptions { eps, momentum }: BatchNormOptions,
    ) -> Result<NodeId, GraphError> {
        let [channels, ..] = self.map(name, x)?;
        let op = Op::BatchNorm {
            weight: self.param(name, "weight", &[channels], ParamKind::Scale),
            bias: self.param(name, "bias", &[channels], ParamKind::Offset),
            running_mean: self.param(name, "running_mean", &[channels], ParamKind::RunningMean),
            running_var: self.param(name, "running_var", &[channels], ParamKind::RunningVar),
            eps,
            momentum,
        };
        self.push(name, op, vec![x], self.shape(x))
    }

    /// A layer-norm over the channels of each place; parameters `<name>.weight` and `<name>.bias`.
    pub fn layer_norm(&mut self, name: &str, x: NodeId, eps: f64) -> Result<NodeId, GraphError> {
        let [channels, ..] = self.map(name, x)?;
        let op = Op::LayerNorm {
            weight: self.param(name, "weight", &[channels], ParamKind::Scale),
            bias: self.param(name, "bias", &[channels], ParamKind::Offset),
            eps,
        };
        self.push(name, op, vec![x], self.shape(x))
    }

    /// A trained factor for each channel; parameter `<name>.layer_scale`, C×1×1.
    pub fn layer_scale(&mut self, name: &str, x: NodeId) -> Result<NodeId, GraphError> {
        let [channels, ..] = self.map(name, x)?;
        let weight = self.param(name, "layer_scale", &[channels, 1, 1], ParamKind::LayerScale);
        self.push(name, Op::Scale { weight }, vec![x], self.shape(x))
    }
}
