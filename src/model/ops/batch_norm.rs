//! Batch-norm by a batch's own statistics (Ioffe, Szegedy, arXiv 1502.03167), with the activation that follows it.

use candle_core::{CpuStorage, CustomOp3, DType, Layout, Result, Shape, Tensor, bail};

use super::{Real, by_type, contiguous, read, sum};

/// Numbers summed in their own type before the sum goes on in f64.
const RUN: usize = 4096;
/// Sums kept apart, so that the compiler may add in vectors.
const LANES: usize = 8;

/// What a batch says of each channel.
#[derive(Debug)]
struct Moments {
    mean: Vec<f64>,
    /// Mean squared distance from the mean.
    variance: Vec<f64>,
}

/// What a value is clamped to; outside there is no gradient.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clamp {
    /// Least value.
    pub low: f64,
    /// Largest value.
    pub high: f64,
}

impl Clamp {
    /// Leaves every value as it is.
    pub const NONE: Self = Self {
        low: f64::NEG_INFINITY,
        high: f64::INFINITY,
    };
    /// max(x, 0)
    pub const RELU: Self = Self {
        low: 0.0,
        high: f64::INFINITY,
    };
    /// min(max(x, 0), 6)
    pub const RELU6: Self = Self { low: 0.0, high: 6.0 };

    /// NaN stays NaN.
    #[inline(always)]
    fn of<T: Real>([low, high]: [T; 2], value: T) -> T {
        let value = if value < low { low } else { value };
        if value > high { high } else { value }
    }

    fn bounds<T: Real>(self) -> [T; 2] {
        [self.low, self.high].map(T::from_f64)
    }
}

/// clamp((x − mean)/√(variance + ε)·γ + β) of x N×C×H×W, γ and β C, with [mean, biased variance] of the batch, C each.
/// The gradient goes through the statistics too; those that are given back have none.
pub fn batch_norm(
    x: &Tensor,
    [weight, bias]: [&Tensor; 2],
    eps: f64,
    clamp: Clamp,
) -> Result<(Tensor, [Tensor; 2])> {
    let channels = x.dim(1)?;
    if [weight.elem_count(), bias.elem_count()] != [channels; 2] {
        bail!("batch-norm by {:?} does not fit {:?}", weight.dims(), x.dims());
    }
    if !x.device().is_cpu() {
        return composed(x, [weight, bias], eps, clamp);
    }
    let x = x.contiguous()?;
    let moments = moments(&x)?;
    let tensor = |values: &[f64]| Tensor::new(values, x.device())?.to_dtype(x.dtype());
    let statistics = [tensor(&moments.mean)?, tensor(&moments.variance)?];
    let norm = BatchNorm { moments, eps, clamp };
    let y = x.apply_op3(&weight.contiguous()?, &bias.contiguous()?, norm)?;
    Ok((y, statistics))
}

/// The same of candle's own operators.
fn composed(
    x: &Tensor,
    [weight, bias]: [&Tensor; 2],
    eps: f64,
    clamp: Clamp,
) -> Result<(Tensor, [Tensor; 2])> {
    let mean_of = |x: &Tensor| x.mean_keepdim(3)?.mean_keepdim(2)?.mean_keepdim(0);
    let mean = mean_of(x)?;
    let from_mean = x.broadcast_sub(&mean)?;
    let variance = mean_of(&from_mean.sqr()?)?;
    let statistics = [mean.detach().flatten_all()?, variance.detach().flatten_all()?];
    let scale = weight
        .reshape((1, (), 1, 1))?
        .broadcast_div(&(variance + eps)?.sqrt()?)?;
    let y = from_mean
        .broadcast_mul(&scale)?
        .broadcast_add(&bias.reshape((1, (), 1, 1))?)?;
    let y = match clamp {
        Clamp::NONE => y,
        Clamp::RELU => y.relu()?,
        Clamp { low, high } => y.clamp(low, high)?,
    };
    Ok((y, statistics))
}

/// The moments of x N×C×H×W. Two passes, so that a large mean does not swallow the variance.
fn moments(x: &Tensor) -> Result<Moments> {
    let (_, channels, height, width) = x.dims4()?;
    let plane = height * width;
    match x.dtype() {
        DType::F32 => read::<f32, _>(x, |x| moments_of(x, channels, plane)),
        DType::F64 => read::<f64, _>(x, |x| moments_of(x, channels, plane)),
        other => bail!("batch-norm is not computed in {other:?}"),
    }
}

/// A batch-norm whose statistics are known.
struct BatchNorm {
    /// Of its input.
    moments: Moments,
    eps: f64,
    clamp: Clamp,
}

impl BatchNorm {
    /// 1/√(variance + ε) of a channel.
    fn inverse(&self, channel: usize) -> f64 {
        1.0 / (self.moments.variance[channel] + self.eps).sqrt()
    }
}

impl CustomOp3 for BatchNorm {
    fn name(&self) -> &'static str {
        "batch-norm"
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
        let parameters = [(weight, weight_layout), (bias, bias_layout)];
        Ok((
            by_type!(x, forward(self, (x, x_layout), parameters))?,
            x_layout.shape().clone(),
        ))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _bias: &Tensor,
        y: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        match x.dtype() {
            DType::F32 => backward::<f32>(self, [x, y, &gradient], weight),
            _ => backward::<f64>(self, [x, y, &gradient], weight),
        }
    }
}

fn forward<T: Real>(
    norm: &BatchNorm,
    (x, x_layout): (&CpuStorage, &Layout),
    parameters: [(&CpuStorage, &Layout); 2],
) -> Result<CpuStorage> {
    let (_, channels, height, width) = x_layout.shape().dims4()?;
    let x = contiguous::<T>(x, x_layout)?;
    let weight = contiguous::<T>(parameters[0].0, parameters[0].1)?;
    let bias = contiguous::<T>(parameters[1].0, parameters[1].1)?;
    let bounds = norm.clamp.bounds::<T>();
    let mut y = Vec::with_capacity(x.len());
    for (index, plane) in x.chunks_exact(height * width).enumerate() {
        let channel = index % channels;
        let scale = T::from_f64(weight[channel].to_f64() * norm.inverse(channel));
        let (mean, offset) = (T::from_f64(norm.moments.mean[channel]), bias[channel]);
        y.extend(
            plane
                .iter()
                .map(|&x| Clamp::of(bounds, (x - mean) * scale + offset)),
        );
    }
    Ok(T::to_cpu_storage_owned(y))
}

/// With m numbers per channel, x̂ = (x − mean)·inverse, and g the gradient where the clamp lets it through:
/// dβ = Σg, dγ = Σg·x̂, dx = γ·inverse·(g − dβ/m − x̂·dγ/m).
fn backward<T: Real>(
    norm: &BatchNorm,
    [x, y, gradient]: [&Tensor; 3],
    weight: &Tensor,
) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
    let (images, channels, height, width) = x.dims4()?;
    let plane = height * width;
    let gammas = read::<T, _>(weight, <[T]>::to_vec)?;
    let (dx, [dw, db]) = read::<T, _>(x, |x| {
        read::<T, _>(y, |y| {
            read::<T, _>(gradient, |g| {
                let planes = Planes {
                    x,
                    y,
                    g,
                    plane,
                    channels,
                    bounds: norm.clamp.bounds(),
                };
                let sums: Vec<[f64; 2]> = (0..channels)
                    .map(|channel| planes.sums(channel, norm.moments.mean[channel]))
                    .collect();
                let count = (images * plane) as f64;
                let slopes = |(channel, [g, gx]): (usize, &[f64; 2])| {
                    let inverse = norm.inverse(channel);
                    let scale = gammas[channel].to_f64() * inverse;
                    let slope = -scale * inverse * inverse * gx / count;
                    [scale, slope, -scale * g / count, norm.moments.mean[channel]].map(T::from_f64)
                };
                let slopes: Vec<[T; 4]> = sums.iter().enumerate().map(slopes).collect();
                (planes.input_gradient(&slopes), parameter_gradients(norm, &sums))
            })
        })
    })???;
    let flat = |values: Vec<T>| Tensor::from_vec(values, channels, x.device()).map(Some);
    Ok((
        Some(Tensor::from_vec(dx, x.shape(), x.device())?),
        flat(dw)?,
        flat(db)?,
    ))
}

/// Those of γ and β.
fn parameter_gradients<T: Real>(norm: &BatchNorm, sums: &[[f64; 2]]) -> [Vec<T>; 2] {
    let scaled = sums
        .iter()
        .enumerate()
        .map(|(channel, [_, gx])| T::from_f64(gx * norm.inverse(channel)));
    [
        scaled.collect(),
        sums.iter().map(|[g, _]| T::from_f64(*g)).collect(),
    ]
}

/// Input, result and the result's gradient, plane by plane.
struct Planes<'a, T> {
    x: &'a [T],
    y: &'a [T],
    g: &'a [T],
    /// Numbers of one plane.
    plane: usize,
    channels: usize,
    /// What lies on them or outside has no gradient.
    bounds: [T; 2],
}

impl<T: Real> Planes<'_, T> {
    /// Σg and Σg·(x − mean) of a channel.
    fn sums(&self, channel: usize, mean: f64) -> [f64; 2] {
        let mean = T::from_f64(mean);
        let step = self.plane * self.channels;
        let starts = (channel * self.plane..self.x.len()).step_by(step);
        let mut totals = [0.0; 2];
        for start in starts {
            let cut = |values| <[T]>::chunks(&<[T]>::split_at(values, start).1[..self.plane], RUN);
            for ((x, y), g) in cut(self.x).zip(cut(self.y)).zip(cut(self.g)) {
                let sums = self.run(mean, x, y, g);
                totals[0] += sums[0].to_f64();
                totals[1] += sums[1].to_f64();
            }
        }
        totals
    }

    /// Σg and Σg·(x − mean) of at most [`RUN`] numbers.
    fn run(&self, mean: T, x: &[T], y: &[T], g: &[T]) -> [T; 2] {
        let (mut sums, mut products) = ([T::ZERO; LANES], [T::ZERO; LANES]);
        let (x_blocks, x) = x.as_chunks::<LANES>();
        let (y_blocks, y) = y.as_chunks::<LANES>();
        let (g_blocks, g) = g.as_chunks::<LANES>();
        for ((x, y), g) in x_blocks.iter().zip(y_blocks).zip(g_blocks) {
            for lane in 0..LANES {
                let g = self.through(y[lane], g[lane]);
                sums[lane] += g;
                products[lane] += g * (x[lane] - mean);
            }
        }
        for ((&x, &y), &g) in x.iter().zip(y).zip(g) {
            let g = self.through(y, g);
            sums[0] += g;
            products[0] += g * (x - mean);
        }
        [sum(&sums), sum(&products)]
    }

    /// dx = scale·g + slope·(x − mean) + offset, with [scale, slope, offset, mean] of each channel.
    fn input_gradient(&self, slopes: &[[T; 4]]) -> Vec<T> {
        let mut dx = Vec::with_capacity(self.x.len());
        let cut = |values| <[T]>::chunks_exact(values, self.plane);
        let planes = cut(self.x).zip(cut(self.y)).zip(cut(self.g));
        for (index, ((x, y), g)) in planes.enumerate() {
            let [scale, slope, offset, mean] = slopes[index % self.channels];
            let values = x.iter().zip(y).zip(g);
            dx.extend(values.map(|((&x, &y), &g)| scale * self.through(y, g) + slope * (x - mean) + offset));
        }
        dx
    }

    /// The gradient before the clamp.
    #[inline(always)]
    fn through(&self, y: T, g: T) -> T {
        // Not `&&`: the compiler makes a mask of this and a branch of that.
        if (y > self.bounds[0]) & (y < self.bounds[1]) {
            g
        } else {
            T::ZERO
        }
    }
}

fn moments_of<T: Real>(x: &[T], channels: usize, plane: usize) -> Moments {
    let count = (x.len() / channels.max(1)).max(1) as f64;
    let of = |channel: usize, term: &dyn Fn(&[T]) -> T| -> f64 {
        let starts = (channel * plane..x.len()).step_by((plane * channels).max(1));
        let runs = starts.flat_map(|start| x[start..start + plane].chunks(RUN));
        runs.map(|run| term(run).to_f64()).sum::<f64>() / count
    };
    let mean: Vec<f64> = (0..channels).map(|channel| of(channel, &sum)).collect();
    let spread = |(channel, &mean): (usize, &f64)| {
        let mean = T::from_f64(mean);
        of(channel, &|run| square_distances(run, mean))
    };
    Moments {
        variance: mean.iter().enumerate().map(spread).collect(),
        mean,
    }
}

/// Σ(x − mean)² of at most [`RUN`] numbers.
fn square_distances<T: Real>(x: &[T], mean: T) -> T {
    let mut sums = [T::ZERO; LANES];
    let (blocks, rest) = x.as_chunks::<LANES>();
    for block in blocks {
        for (sum, &x) in sums.iter_mut().zip(block) {
            *sum += (x - mean) * (x - mean);
        }
    }
    for &x in rest {
        sums[0] += (x - mean) * (x - mean);
    }
    sum(&sums)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::super::gradient;
    use super::*;

    fn normed(x: &Tensor, weight: &Tensor, bias: &Tensor, clamp: Clamp) -> Result<Tensor> {
        batch_norm(x, [weight, bias], 1e-5, clamp).map(|(y, _)| y)
    }

    #[test]
    fn gradients_are_right() {
        for (clamp, plane) in [
            (Clamp::NONE, [3, 3]),
            (Clamp::RELU, [3, 5]),
            (Clamp { low: -0.5, high: 0.5 }, [4, 5]),
        ] {
            let shapes = [vec![2, 3, plane[0], plane[1]], vec![3], vec![3]];
            let inputs: Vec<Tensor> = (1..)
                .zip(&shapes)
                .map(|(seed, shape)| gradient::random(shape, seed))
                .collect();
            gradient::check(&format!("batch-norm {clamp:?}"), &inputs, |t| {
                normed(&t[0], &t[1], &t[2], clamp)
            });
        }
    }

    #[test]
    fn moments_are_those_of_each_channel() {
        let values = [1.0f32, 2.0, 10.0, 10.0, 3.0, 6.0, 10.0, 14.0];
        let x = Tensor::from_slice(&values, (2, 2, 1, 2), &Device::Cpu).unwrap();
        let found = moments(&x).unwrap();
        assert_eq!(found.mean, [3.0, 11.0]);
        assert_eq!(found.variance, [3.5, 3.0]);
    }

    #[test]
    fn a_large_mean_does_not_swallow_the_variance() {
        let values: Vec<f32> = (0..9000).map(|i| 30_000.0 + (i % 3) as f32).collect();
        let x = Tensor::from_vec(values, (3, 1, 50, 60), &Device::Cpu).unwrap();
        let found = moments(&x).unwrap();
        assert!((found.mean[0] - 30_001.0).abs() < 1e-2, "{found:?}");
        assert!((found.variance[0] - 2.0 / 3.0).abs() < 1e-3, "{found:?}");
    }

    #[test]
    fn the_clamp_is_the_activation() {
        let x = gradient::random(&[4, 2, 5, 5], 3);
        let (weight, bias) = (gradient::random(&[2], 1), gradient::random(&[2], 2));
        let plain = normed(&x, &weight, &bias, Clamp::NONE).unwrap();
        let values = |t: Tensor| t.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        assert_eq!(
            values(normed(&x, &weight, &bias, Clamp::RELU).unwrap()),
            values(plain.relu().unwrap())
        );
    }

    #[test]
    fn the_composition_equals_the_kernel() {
        let x = gradient::random(&[4, 2, 5, 3], 3);
        let (weight, bias) = (gradient::random(&[2], 1), gradient::random(&[2], 2));
        for clamp in [Clamp::NONE, Clamp::RELU, Clamp::RELU6] {
            let (y, [mean, variance]) = batch_norm(&x, [&weight, &bias], 1e-5, clamp).unwrap();
            let (other, of) = composed(&x, [&weight, &bias], 1e-5, clamp).unwrap();
            for (a, b) in [(&y, &other), (&mean, &of[0]), (&variance, &of[1])] {
                let off = (a - b).unwrap().abs().unwrap().max_all().unwrap();
                assert!(off.to_scalar::<f64>().unwrap() < 1e-12, "{clamp:?}");
            }
        }
    }

    #[test]
    fn channels_that_do_not_meet_are_an_error() {
        let x = gradient::random(&[2, 3, 2, 2], 1);
        let two = gradient::random(&[2], 1);
        assert!(normed(&x, &two, &two, Clamp::NONE).is_err());
    }
}
