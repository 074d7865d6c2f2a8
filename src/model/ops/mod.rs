//! Layers that train: candle custom operators whose gradients are right and quick on the CPU.
//!
//! candle 0.11.1's own pools have wrong backward passes, and its convolution's is slow.

use candle_core::{Result, Tensor};

use super::graph::Pool;

/// Geometry of a convolution.
#[derive(Clone, Copy, Debug)]
pub struct ConvGeometry {
    /// Step, rows first.
    pub stride: [usize; 2],
    /// Zeros on each side, rows first.
    pub padding: [usize; 2],
    /// Distance between taps, rows first.
    pub dilation: [usize; 2],
    /// Channel groups.
    pub groups: usize,
    /// Whether the gradient of the input is wanted; false for the first layer saves its cost.
    pub input_gradient: bool,
}

/// Cross-correlation: x N×C×H×W, weight O×C/g×kh×kw → N×O×H'×W'; f32 and f64.
pub fn conv2d(_x: &Tensor, _weight: &Tensor, _geometry: ConvGeometry) -> Result<Tensor> {
    todo!()
}

/// Largest of each window; ties give the gradient to the first in row order, as torch does.
pub fn max_pool2d(_x: &Tensor, _pool: Pool) -> Result<Tensor> {
    todo!()
}

/// Mean of each window, padding counted, as torch's default.
pub fn avg_pool2d(_x: &Tensor, _pool: Pool) -> Result<Tensor> {
    todo!()
}
