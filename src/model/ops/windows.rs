//! Pools composed of candle's own operators, for devices without a kernel of ours.

use candle_core::{Result, Tensor};

use super::{output_size, widened};
use crate::model::graph::Pool;

/// Largest of each window.
pub(super) fn max_pool2d(x: &Tensor, pool: Pool) -> Result<Tensor> {
    let reaches_in = |axis| pool.padding[axis] < pool.kernel[axis];
    if !x.track_op() && reaches_in(0) && reaches_in(1) {
        return forward_max(x, pool);
    }
    // Lower than any finite activation, yet finite: a gradient of −∞ · 0 would be NaN.
    windows(x, pool, f64::from(f32::MIN))?.max(0)
}

/// Mean of each window, padding counted.
pub(super) fn avg_pool2d(x: &Tensor, pool: Pool) -> Result<Tensor> {
    if x.track_op() {
        windows(x, pool, 0.0)?.mean(0)
    } else {
        widened(x, |x| forward_mean(x, pool))
    }
}

/// A window that reaches into the image sees the border's pixel itself, so that it may see it again in place of padding.
#[expect(
    clippy::disallowed_methods,
    reason = "candle's forward pass is right, and no gradient is asked for"
)]
fn forward_max(x: &Tensor, pool: Pool) -> Result<Tensor> {
    let [rows, columns] = pool.padding;
    x.pad_with_same(2, rows, rows)?
        .pad_with_same(3, columns, columns)?
        .max_pool2d_with_stride(sides(pool.kernel), sides(pool.stride))
}

#[expect(
    clippy::disallowed_methods,
    reason = "candle's forward pass is right, and no gradient is asked for"
)]
fn forward_mean(x: &Tensor, pool: Pool) -> Result<Tensor> {
    let [rows, columns] = pool.padding;
    x.pad_with_zeros(2, rows, rows)?
        .pad_with_zeros(3, columns, columns)?
        .avg_pool2d_with_stride(sides(pool.kernel), sides(pool.stride))
}

fn sides([rows, columns]: [usize; 2]) -> (usize, usize) {
    (rows, columns)
}

/// kh·kw × N×C×H'×W': each window's elements along the first dimension.
fn windows(x: &Tensor, pool: Pool, fill: f64) -> Result<Tensor> {
    let (_, _, height, width) = x.dims4()?;
    let padded = pad(&pad(x, 2, pool.padding[0], fill)?, 3, pool.padding[1], fill)?;
    let rows = output_size(height, pool.kernel[0], pool.stride[0], pool.padding[0])?;
    let columns = output_size(width, pool.kernel[1], pool.stride[1], pool.padding[1])?;
    let mut parts = Vec::with_capacity(pool.kernel[0] * pool.kernel[1]);
    for top in 0..pool.kernel[0] {
        for left in 0..pool.kernel[1] {
            let part = padded.index_select(&steps(top, pool.stride[0], rows, x)?, 2)?;
            parts.push(part.index_select(&steps(left, pool.stride[1], columns, x)?, 3)?);
        }
    }
    Tensor::stack(&parts, 0)
}

fn steps(first: usize, stride: usize, count: usize, like: &Tensor) -> Result<Tensor> {
    let indices: Vec<u32> = (0..count).map(|i| (first + i * stride) as u32).collect();
    Tensor::new(indices, like.device())
}

fn pad(x: &Tensor, axis: usize, border: usize, fill: f64) -> Result<Tensor> {
    if border == 0 {
        return Ok(x.clone());
    }
    let mut shape = x.dims().to_vec();
    shape[axis] = border;
    let edge = Tensor::full(fill, shape, x.device())?.to_dtype(x.dtype())?;
    Tensor::cat(&[&edge, x, &edge], axis)
}

#[cfg(test)]
mod tests {
    use super::super::{gradient, pool};
    use super::*;

    /// Both with and without a gradient to give.
    #[test]
    fn the_composition_equals_the_kernels() {
        for (kernel, stride, padding) in [(2, 2, 0), (3, 2, 1), (3, 1, 0), (2, 3, 1)] {
            let window = Pool {
                kernel: [kernel; 2],
                stride: [stride; 2],
                padding: [padding; 2],
            };
            let x = gradient::random(&[2, 3, 7, 6], 5);
            let tracked = candle_core::Var::from_tensor(&x).unwrap();
            for (composed, kernel) in [
                (max_pool2d(&x, window), pool::max_pool2d(&x, window)),
                (max_pool2d(&tracked, window), pool::max_pool2d(&x, window)),
                (avg_pool2d(&x, window), pool::avg_pool2d(&x, window)),
                (avg_pool2d(&tracked, window), pool::avg_pool2d(&x, window)),
            ] {
                let off = (composed.unwrap() - kernel.unwrap())
                    .unwrap()
                    .abs()
                    .unwrap()
                    .max_all()
                    .unwrap();
                assert!(off.to_scalar::<f64>().unwrap() < 1e-12, "{window:?}");
            }
            gradient::check("composed max-pool", std::slice::from_ref(&x), |x| {
                max_pool2d(&x[0], window)
            });
            gradient::check("composed avg-pool", &[x], |x| avg_pool2d(&x[0], window));
        }
    }
}
