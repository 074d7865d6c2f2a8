//! Depthwise convolution: each channel by itself, a row of outputs at a time.
//!
//! A channel is laid out with its border of zeros, its columns sorted by their place within a step of the stride. So the
//! pixels of a row of outputs under one tap lie side by side whatever the stride.

use candle_core::{Result, Tensor};

use super::super::columns::Sizes;
use super::super::{Real, dot, read};
use super::{ConvGeometry, Gradients, Operands, bias_gradient};

/// Whether every output sees one channel only.
pub(super) fn applies(sizes: &Sizes) -> bool {
    sizes.geometry.groups > 1 && sizes.group_channels() == 1
}

/// N×O×H'×W', flat.
pub(super) fn forward<T: Real>(sizes: &Sizes, operands: &Operands<'_, T>) -> Vec<T> {
    let plan = Plan::new(sizes);
    let mut padded = vec![T::ZERO; plan.len()];
    let mut y = vec![T::ZERO; sizes.images * sizes.outputs * sizes.pixels()];
    let many = sizes.outputs / sizes.channels;
    let channels = operands.x.chunks_exact(sizes.plane());
    for (index, (x, y)) in channels
        .zip(y.chunks_exact_mut(many * sizes.pixels()))
        .enumerate()
    {
        plan.spread(x, &mut padded);
        for (nth, y) in y.chunks_exact_mut(sizes.pixels()).enumerate() {
            let output = index % sizes.channels * many + nth;
            let weight = &operands.weight[output * sizes.taps()..][..sizes.taps()];
            y.fill(operands.bias[output]);
            for (row, y) in y.chunks_exact_mut(sizes.output[1]).enumerate() {
                for (&w, &offset) in weight.iter().zip(&plan.offsets) {
                    add_scaled(y, w, &padded[plan.at(row, offset)..]);
                }
            }
        }
    }
    y
}

/// All gradients from that of the result.
pub(super) fn backward<T: Real>(
    sizes: &Sizes,
    x: &Tensor,
    weight: &Tensor,
    gradient: &Tensor,
) -> Result<Gradients<T>> {
    read::<T, _>(x, |x| {
        read::<T, _>(weight, |weight| {
            read::<T, _>(gradient, |gradient| gradients(sizes, x, weight, gradient))
        })
    })??
}

fn gradients<T: Real>(sizes: &Sizes, x: &[T], weight: &[T], gradient: &[T]) -> Gradients<T> {
    let (plan, many, taps) = (Plan::new(sizes), sizes.outputs / sizes.channels, sizes.taps());
    let (mut padded, mut spread) = (vec![T::ZERO; plan.len()], vec![T::ZERO; plan.len()]);
    let wants_x = sizes.geometry.input_gradient;
    let mut dx = vec![T::ZERO; if wants_x { x.len() } else { 0 }];
    let mut dw = vec![T::ZERO; weight.len()];
    for (index, x) in x.chunks_exact(sizes.plane()).enumerate() {
        plan.spread(x, &mut padded);
        spread.fill(T::ZERO);
        for nth in 0..many {
            let output = index % sizes.channels * many + nth;
            let rows = gradient[(index * many + nth) * sizes.pixels()..][..sizes.pixels()]
                .chunks_exact(sizes.output[1]);
            let (weight, dw) = (&weight[output * taps..][..taps], &mut dw[output * taps..][..taps]);
            for (row, g) in rows.enumerate() {
                for ((&w, dw), &offset) in weight.iter().zip(dw.iter_mut()).zip(&plan.offsets) {
                    let at = plan.at(row, offset);
                    *dw += dot(g, &padded[at..at + g.len()]);
                    if wants_x {
                        add_scaled(&mut spread[at..at + g.len()], w, g);
                    }
                }
            }
        }
        if wants_x {
            plan.collect(&spread, &mut dx[index * sizes.plane()..][..sizes.plane()]);
        }
    }
    Gradients {
        x: wants_x.then_some(dx),
        weight: dw,
        bias: bias_gradient(sizes, gradient),
    }
}

/// y += w·x over the length of y.
fn add_scaled<T: Real>(y: &mut [T], w: T, x: &[T]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y += w * x;
    }
}

/// Where a channel's pixels lie once it is spread out.
struct Plan {
    sizes: Sizes,
    /// Columns of one place within the step.
    wide: usize,
    /// Rows, border included.
    high: usize,
    /// Of output (0, 0) under each tap.
    offsets: Vec<usize>,
}

impl Plan {
    fn new(sizes: &Sizes) -> Self {
        let ConvGeometry {
            stride,
            padding,
            dilation,
            ..
        } = sizes.geometry;
        let step = stride[1];
        let wide = (sizes.width + 2 * padding[1]).div_ceil(step);
        let [kh, kw] = sizes.kernel;
        let offset = |tap: usize| {
            let (row, column) = (tap / kw * dilation[0], tap % kw * dilation[1]);
            (row * step + column % step) * wide + column / step
        };
        Self {
            sizes: *sizes,
            wide,
            high: sizes.height + 2 * padding[0],
            offsets: (0..kh * kw).map(offset).collect(),
        }
    }

    fn len(&self) -> usize {
        self.high * self.sizes.geometry.stride[1] * self.wide
    }

    /// Of the first output of `row` under the tap at `offset`.
    fn at(&self, row: usize, offset: usize) -> usize {
        let [down, across] = self.sizes.geometry.stride;
        row * down * across * self.wide + offset
    }

    /// Place of the first pixel of a row whose column has the given place within the step, and that column.
    fn runs(&self, row: usize) -> impl Iterator<Item = (usize, usize)> {
        let [top, left] = self.sizes.geometry.padding;
        let (step, wide) = (self.sizes.geometry.stride[1], self.wide);
        (0..step.min(self.sizes.width)).map(move |column| {
            let place = column + left;
            (
                (row + top) * step * wide + place % step * wide + place / step,
                column,
            )
        })
    }

    /// Writes a channel into its places; the border stays as it is.
    fn spread<T: Real>(&self, x: &[T], padded: &mut [T]) {
        let step = self.sizes.geometry.stride[1];
        for (row, x) in x.chunks_exact(self.sizes.width).enumerate() {
            if step == 1 {
                let (at, _) = self.runs(row).next().unwrap_or_default();
                padded[at..at + x.len()].copy_from_slice(x);
                continue;
            }
            for (at, column) in self.runs(row) {
                for (to, &x) in padded[at..].iter_mut().zip(x[column..].iter().step_by(step)) {
                    *to = x;
                }
            }
        }
    }

    /// The way back of [`Plan::spread`].
    fn collect<T: Real>(&self, padded: &[T], x: &mut [T]) {
        let step = self.sizes.geometry.stride[1];
        for (row, x) in x.chunks_exact_mut(self.sizes.width).enumerate() {
            for (at, column) in self.runs(row) {
                for (to, &from) in x[column..].iter_mut().step_by(step).zip(&padded[at..]) {
                    *to = from;
                }
            }
        }
    }
}
