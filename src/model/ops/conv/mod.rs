//! Two-dimensional convolution with its gradients.
//!
//! On the CPU, in f32 and f64, three ways lead to the same sums: a direct kernel for thin inputs, one for depthwise convolutions, and the
//! matrix product over the windows of an image for the rest.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};

use super::columns::Sizes;
use super::{Real, by_type, contiguous, ours, sum};

mod composed;
mod depthwise;
mod direct;
mod product;

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

/// Cross-correlation: x N×C×H×W, weight O×C/g×kh×kw, bias O → N×O×H'×W'.
pub fn conv2d(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, geometry: ConvGeometry) -> Result<Tensor> {
    let (outputs, per_group, kh, kw) = weight.dims4()?;
    let (_, channels, ..) = x.dims4()?;
    let ConvGeometry { groups, .. } = geometry;
    if groups == 0 || channels != per_group * groups || !outputs.is_multiple_of(groups) {
        bail!(
            "{channels} channels do not meet weights {:?} in {groups} groups",
            weight.dims()
        );
    }
    if geometry.stride.contains(&0) {
        bail!("a convolution with stride 0");
    }
    if !ours(x) {
        return composed::conv2d(x, weight, bias, geometry);
    }
    let zero = || Tensor::zeros(outputs, x.dtype(), x.device());
    let bias = bias.map_or_else(zero, Tensor::contiguous)?;
    let sizes = Sizes::new(x.shape(), (outputs, [kh, kw]), geometry)?;
    x.contiguous()?
        .apply_op3(&weight.contiguous()?, &bias, Convolution(sizes))
}

struct Convolution(Sizes);

/// What a kernel computes from.
struct Operands<'a, T> {
    x: &'a [T],
    weight: &'a [T],
    bias: &'a [T],
}

/// Gradients of a convolution's operands, flat; `x` where it is asked for.
struct Gradients<T> {
    x: Option<Vec<T>>,
    weight: Vec<T>,
    bias: Vec<T>,
}

impl CustomOp3 for Convolution {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (weight, bias) = ((weight, weight_layout), (bias, bias_layout));
        let storage = by_type!(x, forward(&self.0, (x, x_layout), weight, bias))?;
        let [height, width] = self.0.output;
        Ok((
            storage,
            Shape::from((self.0.images, self.0.outputs, height, width)),
        ))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _bias: &Tensor,
        _y: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        match x.dtype() {
            candle_core::DType::F32 => backward::<f32>(&self.0, x, weight, &gradient),
            _ => backward::<f64>(&self.0, x, weight, &gradient),
        }
    }
}

type Operand<'a> = (&'a CpuStorage, &'a Layout);

fn forward<T: Real>(
    sizes: &Sizes,
    x: Operand<'_>,
    weight: Operand<'_>,
    bias: Operand<'_>,
) -> Result<CpuStorage> {
    let operands = Operands {
        x: contiguous::<T>(x.0, x.1)?,
        weight: contiguous::<T>(weight.0, weight.1)?,
        bias: contiguous::<T>(bias.0, bias.1)?,
    };
    let y = if depthwise::applies(sizes) {
        depthwise::forward(sizes, &operands)
    } else if direct::applies(sizes) {
        direct::forward(sizes, &operands)
    } else {
        product::forward(sizes, &operands)?
    };
    Ok(T::to_cpu_storage_owned(y))
}

fn backward<T: Real>(
    sizes: &Sizes,
    x: &Tensor,
    weight: &Tensor,
    gradient: &Tensor,
) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
    let gradients = if depthwise::applies(sizes) {
        depthwise::backward::<T>(sizes, x, weight, gradient)?
    } else if direct::applies(sizes) && !sizes.geometry.input_gradient {
        direct::backward::<T>(sizes, x, gradient)?
    } else {
        product::backward::<T>(sizes, x, weight, gradient)?
    };
    let tensor = |values: Vec<T>, like: &Tensor| Tensor::from_vec(values, like.shape(), like.device());
    Ok((
        gradients.x.map(|values| tensor(values, x)).transpose()?,
        Some(tensor(gradients.weight, weight)?),
        Some(Tensor::from_vec(gradients.bias, sizes.outputs, x.device())?),
    ))
}

/// Sum of the gradient over images and pixels, one per output.
fn bias_gradient<T: Real>(sizes: &Sizes, gradient: &[T]) -> Vec<T> {
    let mut sums = vec![T::ZERO; sizes.outputs];
    for (index, plane) in gradient.chunks_exact(sizes.pixels()).enumerate() {
        sums[index % sizes.outputs] += sum(plane);
    }
    sums
}

#[cfg(test)]
mod tests;
