//! Batch-norm with fixed statistics as a scale and a shift, alone or inside the convolution before it.

use candle_core::{Device, Result, Tensor};

/// Per channel: y = x·scale + shift.
pub(super) struct Affine {
    scale: Tensor,
    shift: Tensor,
}

/// The trained and tracked values of a batch-norm, one per channel.
pub(super) struct Statistics<'a> {
    pub(super) weight: &'a Tensor,
    pub(super) bias: &'a Tensor,
    pub(super) running_mean: &'a Tensor,
    pub(super) running_var: &'a Tensor,
    pub(super) eps: f64,
}

impl Affine {
    /// scale = γ/√(σ² + ε), shift = β − μ·scale (Ioffe, Szegedy, arXiv 1502.03167, algorithm 2), computed in f64: the
    /// difference may cancel.
    pub(super) fn of(batch_norm: &Statistics<'_>) -> Result<Self> {
        let values = |t: &Tensor| t.to_dtype(candle_core::DType::F64)?.to_vec1::<f64>();
        let (weight, bias) = (values(batch_norm.weight)?, values(batch_norm.bias)?);
        let (mean, variance) = (values(batch_norm.running_mean)?, values(batch_norm.running_var)?);
        let scale: Vec<f64> = weight
            .iter()
            .zip(&variance)
            .map(|(w, v)| w / (v + batch_norm.eps).sqrt())
            .collect();
        let shift = bias.iter().zip(&mean).zip(&scale).map(|((b, m), s)| b - m * s);
        let tensor = |values: Vec<f32>| Tensor::new(values, &Device::Cpu);
        Ok(Self {
            shift: tensor(shift.map(|v| v as f32).collect())?,
            scale: tensor(scale.iter().map(|&v| v as f32).collect())?,
        })
    }

    /// Factors alone: C numbers, in any shape.
    pub(super) fn scale(factors: &Tensor) -> Result<Self> {
        let scale = factors.flatten_all()?;
        Ok(Self {
            shift: scale.zeros_like()?,
            scale,
        })
    }

    /// Weight and bias of the convolution that does this after itself: weight O×C×kh×kw, bias O.
    pub(super) fn into_convolution(self, weight: &Tensor, bias: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let weight = weight.broadcast_mul(&self.scale.reshape(((), 1, 1, 1))?)?;
        let bias = match bias {
            Some(bias) => ((bias * self.scale)? + self.shift)?,
            None => self.shift,
        };
        Ok((weight, bias))
    }

    /// Scale and shift as 1×C×1×1.
    pub(super) fn into_maps(self) -> Result<(Tensor, Tensor)> {
        Ok((
            self.scale.reshape((1, (), 1, 1))?,
            self.shift.reshape((1, (), 1, 1))?,
        ))
    }
}
