//! Convolutions composed of candle's operators, for devices and number types without a loop of ours.

use candle_core::{Result, Tensor, bail};

use super::super::{output_size, product, widened};
use super::ConvGeometry;

/// Cross-correlation by the way that asks least of candle: a matrix product for 1×1, maps times taps for depthwise, else
/// candle's own convolution, whose gradients are right and whose stride and dilation are the same on both axes.
pub(super) fn conv2d(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, g: ConvGeometry) -> Result<Tensor> {
    let (outputs, per_group, kh, kw) = weight.dims4()?;
    let y = if g.groups > 1 && per_group == 1 && outputs == g.groups {
        widened(x, |x| depthwise(x, &weight.to_dtype(x.dtype())?, g))?
    } else if g.groups == 1 && [kh, kw] == [1; 2] && g.stride == [1; 2] && g.padding == [0; 2] {
        pointwise(x, weight)?
    } else {
        general(x, weight, g)?
    };
    match bias {
        Some(bias) => y.broadcast_add(&bias.reshape((1, (), 1, 1))?),
        None => Ok(y),
    }
}

/// W · x for each image: no window is copied out, and nothing is transposed.
fn pointwise(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (images, channels, height, width) = x.dims4()?;
    let outputs = weight.dim(0)?;
    let weight = weight
        .reshape((1, outputs, channels))?
        .broadcast_as((images, outputs, channels))?;
    let pixels = x.reshape((images, channels, height * width))?;
    product(&weight, &pixels, Tensor::matmul)?.reshape((images, outputs, height, width))
}

/// Σ over taps of the tap times the pixels it meets: candle takes a depthwise convolution channel by channel, which is
/// hundreds of small operators.
fn depthwise(x: &Tensor, weight: &Tensor, g: ConvGeometry) -> Result<Tensor> {
    let (images, channels, height, width) = x.dims4()?;
    let (.., kh, kw) = weight.dims4()?;
    let rows = Axis::new(height, kh, [g.stride[0], g.padding[0], g.dilation[0]])?;
    let columns = Axis::new(width, kw, [g.stride[1], g.padding[1], g.dilation[1]])?;
    let phases = x
        .pad_with_zeros(2, rows.padding, rows.behind)?
        .pad_with_zeros(3, columns.padding, columns.behind)?
        .reshape((
            images,
            channels,
            rows.steps,
            rows.stride,
            columns.steps,
            columns.stride,
        ))?;
    let mut sum: Option<Tensor> = None;
    for row in 0..kh {
        let met = rows.met(&phases, 2, row)?;
        for column in 0..kw {
            let met = columns.met(&met, 4, column)?.squeeze(5)?.squeeze(3)?;
            let tap = weight.narrow(2, row, 1)?.narrow(3, column, 1)?;
            let product = met.broadcast_mul(&tap.reshape((1, channels, 1, 1))?)?;
            sum = Some(match sum {
                Some(sum) => (sum + product)?,
                None => product,
            });
        }
    }
    match sum {
        Some(sum) => Ok(sum),
        None => bail!("a convolution without taps"),
    }
}

/// Rows or columns of an image, cut into whole strides: pixel p is number p % stride of step p / stride.
struct Axis {
    stride: usize,
    dilation: usize,
    padding: usize,
    /// Zeros behind the image, so that the last step is whole.
    behind: usize,
    steps: usize,
    outputs: usize,
}

impl Axis {
    fn new(size: usize, kernel: usize, [stride, padding, dilation]: [usize; 3]) -> Result<Self> {
        let reach = kernel.saturating_sub(1) * dilation + 1;
        let outputs = output_size(size, reach, stride, padding)?;
        let steps = (size + 2 * padding).div_ceil(stride);
        Ok(Self {
            stride,
            dilation,
            padding,
            behind: steps * stride - size - padding,
            steps,
            outputs,
        })
    }

    /// What tap number `tap` meets: a view of `phases` with the steps on `axis` and their pixels on the next.
    fn met(&self, phases: &Tensor, axis: usize, tap: usize) -> Result<Tensor> {
        let first = tap * self.dilation;
        phases
            .narrow(axis, first / self.stride, self.outputs)?
            .narrow(axis + 1, first % self.stride, 1)
    }
}

fn general(x: &Tensor, weight: &Tensor, g: ConvGeometry) -> Result<Tensor> {
    let ([stride, s], [dilation, d]) = (g.stride, g.dilation);
    if stride != s || dilation != d || stride == 0 {
        bail!("this device computes convolutions with one stride and one dilation, not {g:?}");
    }
    let [rows, columns] = g.padding;
    let (padded, padding) = if rows == columns {
        (x.clone(), rows)
    } else {
        let padded = x
            .pad_with_zeros(2, rows, rows)?
            .pad_with_zeros(3, columns, columns)?;
        (padded, 0)
    };
    product(&padded, weight, |x, weight| {
        x.conv2d(weight, padding, stride, dilation, g.groups)
    })
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::super::super::gradient;
    use super::super::conv2d as on_the_cpu;
    use super::*;

    /// Largest difference, as a share of the largest result, in f64: another order of summing.
    const TOLERANCE: f64 = 1e-12;

    struct Case {
        channels: usize,
        weight: [usize; 4],
        geometry: ConvGeometry,
    }

    fn case(channels: usize, weight: [usize; 4], [stride, padding, dilation]: [[usize; 2]; 3]) -> Case {
        let geometry = ConvGeometry {
            stride,
            padding,
            dilation,
            groups: channels / weight[1],
            input_gradient: true,
        };
        Case {
            channels,
            weight,
            geometry,
        }
    }

    fn cases() -> Vec<Case> {
        let same = |stride, padding, dilation| [[stride; 2], [padding; 2], [dilation; 2]];
        vec![
            case(6, [4, 6, 1, 1], same(1, 0, 1)),
            case(6, [4, 6, 1, 1], same(2, 0, 1)),
            case(6, [4, 6, 3, 3], same(2, 1, 1)),
            case(6, [4, 3, 3, 2], [[1; 2], [1, 0], [2; 2]]),
            case(5, [5, 1, 3, 3], same(1, 1, 1)),
            case(5, [5, 1, 5, 5], same(2, 2, 1)),
            case(5, [5, 1, 3, 5], [[3, 2], [0, 4], [1, 2]]),
            case(4, [8, 1, 3, 3], same(1, 1, 1)),
        ]
    }

    #[test]
    fn each_way_is_the_loops_of_the_cpu() {
        for (seed, case) in (0..).zip(cases()) {
            let x = gradient::random(&[2, case.channels, 9, 10], seed);
            let weight = gradient::random(&case.weight, seed + 100);
            let bias = gradient::random(&case.weight[..1], seed + 200);
            let composed = conv2d(&x, &weight, Some(&bias), case.geometry).unwrap();
            let expected = on_the_cpu(&x, &weight, Some(&bias), case.geometry).unwrap();
            let largest = |t: &Tensor| t.abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
            let off = largest(&(composed - &expected).unwrap());
            assert!(
                off <= TOLERANCE * largest(&expected),
                "{:?}: {off}",
                case.geometry
            );
        }
    }

    #[test]
    fn gradients_are_right() {
        let is_square = |case: &Case| case.weight[1] == 1 || case.weight[2] == case.weight[3];
        for case in cases().into_iter().filter(is_square) {
            let operands = [
                gradient::random(&[1, case.channels, 5, 5], 1),
                gradient::random(&case.weight, 2),
            ];
            let name = format!("{:?}", case.geometry);
            gradient::check(&name, &operands, |t| conv2d(&t[0], &t[1], None, case.geometry));
        }
    }

    #[test]
    fn half_precision_is_summed_in_single() {
        // 4096 + 1 − 4096 is 0 where f16 or bf16 sums and 1 where f32 does.
        let geometry = case(2, [2, 1, 1, 3], [[1; 2], [0; 2], [1; 2]]).geometry;
        for dtype in [DType::F16, DType::BF16] {
            let tensor = |values: &[f32], shape: &[usize]| {
                let tensor = Tensor::from_slice(values, shape, &candle_core::Device::Cpu).unwrap();
                tensor.to_dtype(dtype).unwrap()
            };
            let x = tensor(&[4096.0, 1.0, -4096.0].repeat(2), &[1, 2, 1, 3]);
            let ones = tensor(&[1.0; 6], &[2, 1, 1, 3]);
            let y = conv2d(&x, &ones, None, geometry).unwrap();
            assert_eq!(y.dtype(), dtype);
            let y = y.to_dtype(DType::F32).unwrap().flatten_all().unwrap();
            assert_eq!(y.to_vec1::<f32>().unwrap(), [1.0; 2], "{dtype:?}");
        }
    }
}
