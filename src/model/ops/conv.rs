//! Two-dimensional convolution: a direct kernel for thin inputs, im2col with a matrix product for the rest.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, WithDType, bail};

use super::im2col::{self, Sizes};
use super::{by_type, contiguous};

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

/// Outputs computed together by the direct kernel: what 16 SSE registers hold of f32 beside the operands.
const LANES: usize = 16;
/// Up to this many taps per output the direct kernel wins over the matrix product.
const MAX_DIRECT_TAPS: usize = 32;
const WHOLE: &str = "the slice was cut to this length";

/// Cross-correlation: x N×C×H×W, weight O×C/g×kh×kw, bias O → N×O×H'×W'; f32 and f64 on the CPU.
pub fn conv2d(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, geometry: ConvGeometry) -> Result<Tensor> {
    let (outputs, per_group, ..) = weight.dims4()?;
    let (_, channels, ..) = x.dims4()?;
    let ConvGeometry { groups, .. } = geometry;
    if groups == 0 || channels != per_group * groups || !outputs.is_multiple_of(groups) {
        bail!(
            "{channels} channels do not meet weights {:?} in {groups} groups",
            weight.dims()
        );
    }
    if !x.device().is_cpu() || geometry.stride[0] == 0 || geometry.stride[1] == 0 {
        return on_other_device(x, weight, bias, geometry);
    }
    let zero = || Tensor::zeros(outputs, x.dtype(), x.device());
    let bias = bias.map_or_else(zero, Tensor::contiguous)?;
    if groups == 1 {
        return one_group(x, weight, &bias, geometry);
    }
    let parts = (0..groups).map(|group| {
        let x = x.narrow(1, group * per_group, per_group)?;
        let out = outputs / groups;
        let (weight, bias) = (
            weight.narrow(0, group * out, out)?,
            bias.narrow(0, group * out, out)?,
        );
        one_group(&x, &weight, &bias, geometry)
    });
    Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 1)
}

fn one_group(x: &Tensor, weight: &Tensor, bias: &Tensor, geometry: ConvGeometry) -> Result<Tensor> {
    let (_, _, kh, kw) = weight.dims4()?;
    let sizes = Sizes::new(x.shape(), [kh, kw], geometry)?;
    x.contiguous()?
        .apply_op3(&weight.contiguous()?, &bias.contiguous()?, Convolution(sizes))
}

/// candle's own operator, whose convolution gradients are right; square geometries only.
fn on_other_device(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, g: ConvGeometry) -> Result<Tensor> {
    let [(padding, p), (stride, s), (dilation, d)] = [g.padding, g.stride, g.dilation].map(|[a, b]| (a, b));
    if (padding, stride, dilation) != (p, s, d) || stride == 0 {
        bail!("this device computes convolutions of square geometry only, not {g:?}");
    }
    let y = x.conv2d(weight, padding, stride, dilation, g.groups)?;
    match bias {
        Some(bias) => y.broadcast_add(&bias.reshape((1, (), 1, 1))?),
        None => Ok(y),
    }
}

struct Convolution(Sizes);

/// Gradients of weight and bias by the direct kernel, joined: O×(taps + 1).
struct DirectGradient(Sizes);

impl Sizes {
    fn is_direct(&self) -> bool {
        let ConvGeometry { stride, dilation, .. } = self.geometry;
        stride == [1, 1] && dilation == [1, 1] && self.taps() <= MAX_DIRECT_TAPS
    }

    /// Columns of the padded image, with room for whole groups of [`LANES`].
    fn padded_width(&self) -> usize {
        self.padded_output() + self.kernel[1]
    }

    fn padded_output(&self) -> usize {
        self.output[1].next_multiple_of(LANES)
    }

    fn padded_height(&self) -> usize {
        self.height + 2 * self.geometry.padding[0]
    }
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
            Shape::from((self.0.images, bias_layout.shape().elem_count(), height, width)),
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
        let sizes = self.0;
        let (outputs, taps) = (weight.dim(0)?, sizes.taps());
        let gradient = gradient.contiguous()?;
        let rows = gradient.reshape((sizes.images, outputs, sizes.pixels()))?;
        let (dw, db) = if sizes.is_direct() {
            let joined = x.apply_op2_no_bwd(&gradient, &DirectGradient(sizes))?;
            (
                joined.narrow(1, 0, taps)?.contiguous()?,
                joined.narrow(1, taps, 1)?.flatten_all()?,
            )
        } else {
            let dw = rows
                .matmul(&im2col::columns(x, sizes)?.transpose(1, 2)?)?
                .sum(0)?;
            (dw, rows.sum((0, 2))?)
        };
        let dx = if self.0.geometry.input_gradient {
            let flat = weight.reshape((outputs, taps))?.t()?.contiguous()?;
            let flat = flat.unsqueeze(0)?.expand((sizes.images, taps, outputs))?;
            Some(im2col::image(&flat.matmul(&rows)?, sizes)?)
        } else {
            None
        };
        Ok((dx, Some(dw.reshape(weight.shape())?), Some(db)))
    }
}

impl candle_core::CustomOp2 for DirectGradient {
    fn name(&self) -> &'static str {
        "conv2d-gradient"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (_, outputs, ..) = gradient_layout.shape().dims4()?;
        let storage = by_type!(
            x,
            direct_gradient(&self.0, outputs, (x, x_layout), (gradient, gradient_layout))
        )?;
        Ok((storage, Shape::from((outputs, self.0.taps() + 1))))
    }
}

type Operand<'a> = (&'a CpuStorage, &'a Layout);

fn forward<T: WithDType>(
    sizes: &Sizes,
    x: Operand<'_>,
    weight: Operand<'_>,
    bias: Operand<'_>,
) -> Result<CpuStorage> {
    let (x, weight) = (contiguous::<T>(x.0, x.1)?, contiguous::<T>(weight.0, weight.1)?);
    let bias = contiguous::<T>(bias.0, bias.1)?;
    let image = sizes.channels * sizes.height * sizes.width;
    let mut y = vec![T::from_f64(0.0); sizes.images * bias.len() * sizes.pixels()];
    let per_image = x
        .chunks_exact(image)
        .zip(y.chunks_exact_mut(bias.len() * sizes.pixels()));
    if sizes.is_direct() {
        let mut padded = Padded::new(sizes);
        for (x, y) in per_image {
            padded.fill(sizes, x);
            direct(sizes, &padded.values, (weight, bias), y);
        }
        return Ok(T::to_cpu_storage_owned(y));
    }
    let device = &candle_core::Device::Cpu;
    let weight = Tensor::from_slice(weight, (bias.len(), sizes.taps()), device)?;
    // One image at a time: its columns stay in the cache between their making and the product.
    let one = Sizes { images: 1, ..*sizes };
    for (x, y) in per_image {
        let x = Tensor::from_slice(x, (1, sizes.channels, sizes.height, sizes.width), device)?;
        let product = weight
            .matmul(&im2col::columns(&x, one)?.squeeze(0)?)?
            .flatten_all()?
            .to_vec1::<T>()?;
        let rows = y
            .chunks_exact_mut(sizes.pixels())
            .zip(product.chunks_exact(sizes.pixels()));
        for ((y, product), &bias) in rows.zip(bias) {
            y.iter_mut().zip(product).for_each(|(y, &p)| *y = p + bias);
        }
    }
    Ok(T::to_cpu_storage_owned(y))
}

/// One image with its border of zeros, each row as wide as [`Sizes::padded_width`].
struct Padded<T> {
    values: Vec<T>,
}

impl<T: WithDType> Padded<T> {
    fn new(sizes: &Sizes) -> Self {
        let count = sizes.channels * sizes.padded_height() * sizes.padded_width();
        Self {
            values: vec![T::from_f64(0.0); count],
        }
    }

    fn fill(&mut self, sizes: &Sizes, x: &[T]) {
        let [top, left] = sizes.geometry.padding;
        let (wide, high) = (sizes.padded_width(), sizes.padded_height());
        // A row may be longer than its windows reach; what lies beyond is never read.
        let count = sizes.width.min(wide - left.min(wide));
        for (index, row) in x.chunks_exact(sizes.width).enumerate() {
            let (channel, row_index) = (index / sizes.height, index % sizes.height);
            let start = (channel * high + row_index + top) * wide + left;
            self.values[start..start + count].copy_from_slice(&row[..count]);
        }
    }
}

/// One image, stride 1: LANES outputs of a row at a time, kept in registers over all taps.
fn direct<T: WithDType>(sizes: &Sizes, x: &[T], (weight, bias): (&[T], &[T]), y: &mut [T]) {
    let [rows, columns] = sizes.output;
    let (taps, wide, high) = (sizes.taps(), sizes.padded_width(), sizes.padded_height());
    let offsets = tap_offsets(sizes, wide, high);
    for ((weight, &bias), y) in weight
        .chunks_exact(taps)
        .zip(bias)
        .zip(y.chunks_exact_mut(rows * columns))
    {
        for (row, y) in y.chunks_exact_mut(columns).enumerate() {
            let from = &x[row * wide..];
            for (block, y) in y.chunks_mut(LANES).enumerate() {
                let mut sums = [bias; LANES];
                for (&w, &offset) in weight.iter().zip(&offsets) {
                    let start = offset + block * LANES;
                    let x: &[T; LANES] = from[start..start + LANES].try_into().expect(WHOLE);
                    sums = std::array::from_fn(|lane| sums[lane] + w * x[lane]);
                }
                y.copy_from_slice(&sums[..y.len()]);
            }
        }
    }
}

/// Where each tap's value of output (0, 0) lies in the padded image.
fn tap_offsets(sizes: &Sizes, wide: usize, high: usize) -> Vec<usize> {
    let [kh, kw] = sizes.kernel;
    let tap = |t: usize| ((t / (kh * kw)) * high + t / kw % kh) * wide + t % kw;
    (0..sizes.taps()).map(tap).collect()
}

fn direct_gradient<T: WithDType>(
    sizes: &Sizes,
    outputs: usize,
    x: Operand<'_>,
    gradient: Operand<'_>,
) -> Result<CpuStorage> {
    let (x, gradient) = (
        contiguous::<T>(x.0, x.1)?,
        contiguous::<T>(gradient.0, gradient.1)?,
    );
    let zero = T::from_f64(0.0);
    let [rows, columns] = sizes.output;
    let (taps, wide, lanes_wide) = (sizes.taps(), sizes.padded_width(), sizes.padded_output());
    let offsets = tap_offsets(sizes, wide, sizes.padded_height());
    let mut padded = Padded::new(sizes);
    let mut plane = vec![zero; rows * lanes_wide];
    let mut sums = vec![[zero; LANES]; outputs * (taps + 1)];
    let image = sizes.channels * sizes.height * sizes.width;
    for (x, gradient) in x
        .chunks_exact(image)
        .zip(gradient.chunks_exact(outputs * rows * columns))
    {
        padded.fill(sizes, x);
        for (g, sums) in gradient
            .chunks_exact(rows * columns)
            .zip(sums.chunks_exact_mut(taps + 1))
        {
            for (wide_row, row) in plane.chunks_exact_mut(lanes_wide).zip(g.chunks_exact(columns)) {
                wide_row[..columns].copy_from_slice(row);
            }
            for (&offset, sum) in offsets.iter().zip(sums.iter_mut()) {
                correlate(&plane, &padded.values[offset..], (lanes_wide, wide), sum);
            }
            for block in plane.chunks_exact(LANES) {
                sums[taps].iter_mut().zip(block).for_each(|(s, &g)| *s += g);
            }
        }
    }
    let totals = sums
        .iter()
        .map(|lanes| lanes.iter().fold(zero, |total, &lane| total + lane));
    Ok(T::to_cpu_storage_owned(totals.collect()))
}

/// Adds Σ g·x to `sum`, lane by lane, over planes of rows `wide.0` and `wide.1` apart.
fn correlate<T: WithDType>(g: &[T], x: &[T], wide: (usize, usize), sum: &mut [T; LANES]) {
    let mut lanes = *sum;
    for (row, g) in g.chunks_exact(wide.0).enumerate() {
        let from = &x[row * wide.1..][..wide.0];
        for (g, x) in g.as_chunks::<LANES>().0.iter().zip(from.as_chunks::<LANES>().0) {
            lanes = std::array::from_fn(|lane| lanes[lane] + g[lane] * x[lane]);
        }
    }
    *sum = lanes;
}

#[cfg(test)]
mod tests {
    use super::super::gradient;
    use super::*;

    const PLAIN: ConvGeometry = ConvGeometry {
        stride: [1; 2],
        padding: [0; 2],
        dilation: [1; 2],
        groups: 1,
        input_gradient: true,
    };

    /// Channels, outputs, kernel and geometry of convolutions of every kind.
    fn cases() -> Vec<(usize, usize, [usize; 2], ConvGeometry)> {
        vec![
            (1, 3, [3, 3], PLAIN),
            (
                2,
                3,
                [3, 3],
                ConvGeometry {
                    padding: [1; 2],
                    ..PLAIN
                },
            ),
            (3, 2, [1, 1], PLAIN),
            (
                2,
                2,
                [7, 7],
                ConvGeometry {
                    padding: [3; 2],
                    ..PLAIN
                },
            ),
            (
                4,
                4,
                [3, 3],
                ConvGeometry {
                    padding: [1; 2],
                    ..PLAIN
                },
            ),
            (
                2,
                3,
                [3, 3],
                ConvGeometry {
                    stride: [2; 2],
                    padding: [1; 2],
                    ..PLAIN
                },
            ),
            (
                2,
                3,
                [3, 2],
                ConvGeometry {
                    stride: [2, 1],
                    padding: [0, 1],
                    ..PLAIN
                },
            ),
            (
                2,
                3,
                [3, 3],
                ConvGeometry {
                    dilation: [2; 2],
                    padding: [2; 2],
                    ..PLAIN
                },
            ),
            (
                4,
                6,
                [3, 3],
                ConvGeometry {
                    groups: 2,
                    padding: [1; 2],
                    ..PLAIN
                },
            ),
            (
                4,
                4,
                [3, 3],
                ConvGeometry {
                    groups: 4,
                    padding: [1; 2],
                    stride: [2; 2],
                    ..PLAIN
                },
            ),
        ]
    }

    fn operands(channels: usize, outputs: usize, kernel: [usize; 2], groups: usize) -> Vec<Tensor> {
        let [kh, kw] = kernel;
        let shapes = [
            vec![2, channels, 8, 9],
            vec![outputs, channels / groups, kh, kw],
            vec![outputs],
        ];
        (1..)
            .zip(shapes)
            .map(|(seed, shape)| gradient::random(&shape, seed))
            .collect()
    }

    #[test]
    fn gradients_of_input_weight_and_bias_are_right() {
        for (channels, outputs, kernel, geometry) in cases() {
            let operands = operands(channels, outputs, kernel, geometry.groups);
            let name = format!("conv {channels}→{outputs} {kernel:?} {geometry:?}");
            gradient::check(&name, &operands, |t| conv2d(&t[0], &t[1], Some(&t[2]), geometry));
            gradient::check(&name, &operands[..2], |t| conv2d(&t[0], &t[1], None, geometry));
        }
    }

    #[test]
    fn values_are_candles() {
        for (channels, outputs, kernel, geometry) in cases() {
            let [padding, stride, dilation] = [geometry.padding, geometry.stride, geometry.dilation];
            if [padding, stride, dilation].iter().any(|[a, b]| a != b) {
                continue;
            }
            for width in [8, 16, 17, 40] {
                let mut operands = operands(channels, outputs, kernel, geometry.groups);
                operands[0] = gradient::random(&[2, channels, 9, width], 4);
                let ours = conv2d(&operands[0], &operands[1], None, geometry).unwrap();
                let candles =
                    operands[0].conv2d(&operands[1], padding[0], stride[0], dilation[0], geometry.groups);
                let off = (ours - candles.unwrap())
                    .unwrap()
                    .abs()
                    .unwrap()
                    .max_all()
                    .unwrap();
                assert!(
                    off.to_scalar::<f64>().unwrap() < 1e-10,
                    "{channels}→{outputs} {kernel:?} {geometry:?}"
                );
            }
        }
    }

    #[test]
    fn the_first_layer_is_spared_its_input_gradient() {
        let operands = operands(1, 2, [3, 3], 1);
        let x = candle_core::Var::from_tensor(&operands[0]).unwrap();
        let geometry = ConvGeometry {
            input_gradient: false,
            ..PLAIN
        };
        let loss = conv2d(&x, &operands[1], None, geometry)
            .unwrap()
            .sum_all()
            .unwrap();
        assert!(loss.backward().unwrap().get(&x).is_none());
    }

    #[test]
    fn what_does_not_meet_is_an_error() {
        let operands = operands(2, 3, [3, 3], 1);
        let check = |geometry| conv2d(&operands[0], &operands[1], None, geometry).is_err();
        assert!(check(ConvGeometry { groups: 2, ..PLAIN }));
        assert!(check(ConvGeometry {
            stride: [0, 1],
            ..PLAIN
        }));
        assert!(check(ConvGeometry {
            dilation: [9, 9],
            ..PLAIN
        }));
    }
}
