//! Convolution of thin inputs: all taps of an output summed in registers.

use candle_core::{Result, Tensor};

use super::super::columns::Sizes;
use super::super::{Real, read};
use super::{ConvGeometry, Gradients, Operands};

/// Outputs computed together: what 16 SSE registers hold of f32 beside the operands.
const LANES: usize = 16;
/// Up to this many taps per output it wins over the matrix product.
const MAX_TAPS: usize = 32;
const WHOLE: &str = "the slice was cut to this length";

/// Whether this kernel is the one for these sizes.
pub(super) fn applies(sizes: &Sizes) -> bool {
    let ConvGeometry {
        stride,
        dilation,
        groups,
        ..
    } = sizes.geometry;
    let is_plain = stride == [1, 1] && dilation == [1, 1] && groups == 1;
    is_plain && !sizes.is_pointwise() && sizes.taps() <= MAX_TAPS
}

/// N×O×H'×W', flat.
pub(super) fn forward<T: Real>(sizes: &Sizes, operands: &Operands<'_, T>) -> Vec<T> {
    let results = sizes.outputs * sizes.pixels();
    let mut y = vec![T::ZERO; sizes.images * results];
    let mut padded = Padded::new(sizes);
    let images = operands.x.chunks_exact(sizes.image());
    for (x, y) in images.zip(y.chunks_exact_mut(results)) {
        padded.fill(sizes, x);
        direct(sizes, &padded.values, (operands.weight, operands.bias), y);
    }
    y
}

/// Gradients of weight and bias; the input's is not computed.
pub(super) fn backward<T: Real>(sizes: &Sizes, x: &Tensor, gradient: &Tensor) -> Result<Gradients<T>> {
    read::<T, _>(x, |x| read::<T, _>(gradient, |g| gradients(sizes, x, g)))?
}

impl Sizes {
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

/// One image with its border of zeros, each row as wide as [`Sizes::padded_width`].
struct Padded<T> {
    values: Vec<T>,
}

impl<T: Real> Padded<T> {
    fn new(sizes: &Sizes) -> Self {
        let count = sizes.channels * sizes.padded_height() * sizes.padded_width();
        Self {
            values: vec![T::ZERO; count],
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
fn direct<T: Real>(sizes: &Sizes, x: &[T], (weight, bias): (&[T], &[T]), y: &mut [T]) {
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
                    multiply_add(&mut sums, w, x);
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

fn gradients<T: Real>(sizes: &Sizes, x: &[T], gradient: &[T]) -> Gradients<T> {
    let outputs = sizes.outputs;
    let [rows, columns] = sizes.output;
    let (taps, wide, lanes_wide) = (sizes.taps(), sizes.padded_width(), sizes.padded_output());
    let offsets = tap_offsets(sizes, wide, sizes.padded_height());
    let mut padded = Padded::new(sizes);
    let mut plane = vec![T::ZERO; rows * lanes_wide];
    let mut sums = vec![[T::ZERO; LANES]; outputs * (taps + 1)];
    for (x, gradient) in x
        .chunks_exact(sizes.image())
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
    let mut split = Gradients {
        x: None,
        weight: Vec::with_capacity(outputs * taps),
        bias: Vec::with_capacity(outputs),
    };
    for sums in sums.chunks_exact(taps + 1) {
        let mut totals = sums.iter().map(total);
        split.weight.extend(totals.by_ref().take(taps));
        split.bias.extend(totals);
    }
    split
}

fn total<T: Real>(lanes: &[T; LANES]) -> T {
    lanes.iter().fold(T::ZERO, |total, &lane| total + lane)
}

/// Adds Σ g·x to `sum`, lane by lane, over planes of rows `wide.0` and `wide.1` apart.
fn correlate<T: Real>(g: &[T], x: &[T], wide: (usize, usize), sum: &mut [T; LANES]) {
    let mut lanes = *sum;
    for (row, g) in g.chunks_exact(wide.0).enumerate() {
        let from = &x[row * wide.1..][..wide.0];
        for (g, x) in g.as_chunks::<LANES>().0.iter().zip(from.as_chunks::<LANES>().0) {
            for ((lane, &g), &x) in lanes.iter_mut().zip(g).zip(x) {
                *lane += g * x;
            }
        }
    }
    *sum = lanes;
}

#[inline(always)]
fn multiply_add<T: Real>(sums: &mut [T; LANES], w: T, x: &[T; LANES]) {
    for (sum, &x) in sums.iter_mut().zip(x) {
        *sum += w * x;
    }
}
