//! One step of a plan.

use candle_core::{DType, Device, Result, Tensor};

use crate::model::graph::{Activation, Pool, Shape};
use crate::model::ops::{self, ConvGeometry};

/// Computes one value from earlier ones.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// The layers it stands for, the first of them by name.
    pub(super) name: String,
    pub(super) kernel: Kernel,
    /// Whether the last of `inputs` is added to the kernel's result.
    pub(super) adds: bool,
    /// Written over the result.
    pub(super) then: Option<Activation>,
    pub(super) inputs: Vec<Source>,
    /// The result, for one image.
    pub(super) shape: Shape,
    /// Floating-point operations for one image, as [`crate::model::Graph::flops_of`] counts them.
    pub(super) flops: u64,
}

/// A value that a step reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    /// Its place among the values.
    pub(super) value: usize,
    /// Whether nothing reads it afterwards, so that it is freed.
    pub(super) last: bool,
}

/// What a step computes; weights included.
#[derive(Clone, Debug)]
pub(super) enum Kernel {
    Conv2d {
        /// Output × input/groups × kh × kw.
        weight: Tensor,
        bias: Option<Tensor>,
        geometry: ConvGeometry,
    },
    Linear {
        /// Out × in.
        weight: Tensor,
        bias: Option<Tensor>,
    },
    /// x·scale + shift, both 1×C×1×1.
    Affine {
        scale: Tensor,
        shift: Tensor,
    },
    /// Over the channels of each place; γ and β hold C numbers.
    LayerNorm {
        weight: Tensor,
        bias: Tensor,
        eps: f64,
    },
    MaxPool(Pool),
    AvgPool(Pool),
    GlobalAvgPool,
    Flatten,
    Add,
    Mul,
    Concat,
    Pad([usize; 4]),
    /// A value of its own, for an activation that must not be written over its input.
    Copy,
}

impl Kernel {
    /// Whether its result may still share storage with its input, where nothing may be written over it.
    pub(super) fn gives_view(&self) -> bool {
        matches!(self, Self::Flatten | Self::Concat | Self::Pad(_))
    }

    /// With its weights on `device`, in `dtype` but for those of a layer-norm, which computes in f32.
    pub(super) fn on(self, device: &Device, dtype: DType) -> Result<Self> {
        let place = |t: Tensor| t.to_dtype(dtype)?.to_device(device)?.contiguous();
        let place_wide = |t: Tensor| t.to_device(device)?.contiguous();
        Ok(match self {
            Self::Conv2d {
                weight,
                bias,
                geometry,
            } => Self::Conv2d {
                weight: place(weight)?,
                bias: bias.map(place).transpose()?,
                geometry,
            },
            Self::Linear { weight, bias } => Self::Linear {
                weight: place(weight)?,
                bias: bias.map(place).transpose()?,
            },
            Self::Affine { scale, shift } => Self::Affine {
                scale: place(scale)?,
                shift: place(shift)?,
            },
            Self::LayerNorm { weight, bias, eps } => Self::LayerNorm {
                weight: place_wide(weight)?,
                bias: place_wide(bias)?,
                eps,
            },
            other => other,
        })
    }
}

impl Step {
    /// Whether another value may be added to its result.
    pub(super) fn can_add(&self) -> bool {
        matches!(self.kernel, Kernel::Conv2d { .. } | Kernel::Linear { .. })
            && !self.adds
            && self.then.is_none()
    }

    /// Numbers for one image in the result, or in the windows that candle copies out for a convolution.
    pub(super) fn most_numbers(&self) -> usize {
        let result = self.shape.len();
        let windows = match (&self.kernel, self.shape) {
            (Kernel::Conv2d { weight, geometry, .. }, Shape::Map { channels, .. })
                if geometry.groups == 1 =>
            {
                result / channels * (weight.elem_count() / channels)
            }
            _ => 0,
        };
        result.max(windows)
    }

    /// The step's value; of `values`, those read for the last time are taken out.
    pub(super) fn run(&self, values: &mut [Option<Tensor>]) -> Result<Tensor> {
        let mut inputs = self
            .inputs
            .iter()
            .map(|source| source.read(values))
            .collect::<Result<Vec<_>>>()?;
        let added = if self.adds { inputs.pop() } else { None };
        let y = self.kernel.run(&inputs)?;
        let y = match added {
            Some(added) => (y + added)?,
            None => y,
        };
        match self.then {
            Some(function) => ops::activate(&y, function),
            None => Ok(y),
        }
    }
}

impl Kernel {
    fn run(&self, inputs: &[Tensor]) -> Result<Tensor> {
        let Some(x) = inputs.first() else {
            return nothing();
        };
        let second = || inputs.get(1).map_or_else(nothing, |y| Ok(y.clone()));
        match self {
            Self::Conv2d {
                weight,
                bias,
                geometry,
            } => ops::conv2d(x, weight, bias.as_ref(), *geometry),
            Self::Linear { weight, bias } => ops::linear(x, weight, bias.as_ref(), false),
            Self::Affine { scale, shift } => x.broadcast_mul(scale)?.broadcast_add(shift),
            Self::LayerNorm { weight, bias, eps } => ops::layer_norm(x, weight, bias, *eps),
            Self::MaxPool(pool) => ops::max_pool2d(x, *pool),
            Self::AvgPool(pool) => ops::avg_pool2d(x, *pool),
            Self::GlobalAvgPool => ops::global_avg_pool2d(x),
            Self::Flatten => x.flatten_from(1),
            Self::Add => x.add(&second()?),
            Self::Mul => x.broadcast_mul(&second()?),
            Self::Concat => Tensor::cat(inputs, 1),
            Self::Pad([top, bottom, left, right]) => x
                .pad_with_zeros(2, *top, *bottom)?
                .pad_with_zeros(3, *left, *right),
            Self::Copy => x.copy(),
        }
    }
}

impl Source {
    fn read(self, values: &mut [Option<Tensor>]) -> Result<Tensor> {
        let value = &mut values[self.value];
        let read = if self.last { value.take() } else { value.clone() };
        read.map_or_else(nothing, Ok)
    }
}

/// A checked graph gives every step its inputs, so this is a fault of the compilation.
fn nothing() -> Result<Tensor> {
    candle_core::bail!("a step of the plan has no input")
}
