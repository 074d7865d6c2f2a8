//! The transforms around the products of a Winograd convolution.
#![expect(
    clippy::needless_range_loop,
    reason = "loops over registers, by one index of several arrays, which unroll whole"
)]

use super::super::Map;
use super::super::activation::{Activation, activate_block, bounds};
use super::super::vector::{Vector, dispatch};

/// Output squares of a batch of maps, in the order of their items, rows and columns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Squares {
    /// Squares of an item.
    rows: usize,
    columns: usize,
    /// Outputs along a side.
    side: usize,
}

impl Squares {
    pub(super) fn new(to: Map, side: usize) -> Self {
        Self {
            rows: to.height.div_ceil(side),
            columns: to.width.div_ceil(side),
            side,
        }
    }

    /// Squares of an item.
    pub(super) fn count(&self) -> usize {
        self.rows * self.columns
    }

    /// The item of a square, and the row and column of its first output.
    fn place(&self, square: usize) -> [usize; 3] {
        let (row, column) = (square / self.columns, square % self.columns);
        [row / self.rows, row % self.rows * self.side, column * self.side]
    }
}

/// Transforms the windows of squares `first..first + count`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Windows {
    pub(super) values: *const f32,
    pub(super) map: Map,
    pub(super) padding: [usize; 2],
    /// As many zeros as a pixel has numbers.
    pub(super) zeros: *const f32,
    /// Vectors of a pixel.
    pub(super) vectors: usize,
    pub(super) squares: Squares,
    pub(super) first: usize,
    pub(super) count: usize,
    /// Matrices of squares × channels, and how far one lies from the next.
    pub(super) to: *mut f32,
    pub(super) matrix: usize,
}

/// Transforms products back, into outputs of squares `first..first + count`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outputs {
    /// Matrices of squares × channels, and how far one lies from the next.
    pub(super) from: *const f32,
    pub(super) matrix: usize,
    /// Numbers from a square of a matrix to the next.
    pub(super) row: usize,
    /// The first channel and the one after the last; whole vectors.
    pub(super) channels: [usize; 2],
    pub(super) squares: Squares,
    pub(super) first: usize,
    pub(super) count: usize,
    pub(super) bias: *const f32,
    /// Null for none.
    pub(super) residual: *const f32,
    pub(super) residual_stride: usize,
    pub(super) function: Option<Activation>,
    pub(super) to: *mut f32,
    pub(super) map: Map,
}

/// Matrices of Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2015): `M` outputs of three taps from
/// `A` = M + 2 inputs.
pub(super) trait Points<const M: usize, const A: usize> {
    /// G, which takes the taps to `A` numbers.
    const FILTER: [[f64; 3]; A];

    /// Bᵀ times `d`.
    ///
    /// # Safety
    /// The processor has the instructions of `V`.
    unsafe fn input<V: Vector>(d: [V; A]) -> [V; A];

    /// Aᵀ times `m`.
    ///
    /// # Safety
    /// The processor has the instructions of `V`.
    unsafe fn output<V: Vector>(m: [V; A]) -> [V; M];
}

/// F(2, 3): points 0, 1, −1, ∞.
pub(super) struct Two;

/// F(4, 3): points 0, a, −a, b, −b, ∞. With 5/8 and 3/2 the error is a quarter of that with 1 and 2, and every constant
/// of the transforms is exact in `f32`.
pub(super) struct Four;

const A: f32 = 0.625;
const B: f32 = 1.5;

impl Points<2, 4> for Two {
    const FILTER: [[f64; 3]; 4] = [
        [1.0, 0.0, 0.0],
        [0.5, 0.5, 0.5],
        [0.5, -0.5, 0.5],
        [0.0, 0.0, 1.0],
    ];

    #[inline(always)]
    unsafe fn input<V: Vector>(d: [V; 4]) -> [V; 4] {
        [d[0].sub(d[2]), d[1].add(d[2]), d[2].sub(d[1]), d[1].sub(d[3])]
    }

    #[inline(always)]
    unsafe fn output<V: Vector>(m: [V; 4]) -> [V; 2] {
        [m[0].add(m[1]).add(m[2]), m[1].sub(m[2]).sub(m[3])]
    }
}

impl Points<4, 6> for Four {
    const FILTER: [[f64; 3]; 6] = {
        let (a, b) = (A as f64, B as f64);
        let (zero, near, far) = (
            1.0 / (a * a * b * b),
            0.5 / (a * a * (a * a - b * b)),
            0.5 / (b * b * (b * b - a * a)),
        );
        [
            [zero, 0.0, 0.0],
            [near, near * a, near * a * a],
            [near, -near * a, near * a * a],
            [far, far * b, far * b * b],
            [far, -far * b, far * b * b],
            [0.0, 0.0, 1.0],
        ]
    };

    #[inline(always)]
    unsafe fn input<V: Vector>(d: [V; 6]) -> [V; 6] {
        // SAFETY: the caller's.
        let splat = |x: f32| unsafe { V::splat(x) };
        let (product, sum) = (splat(A * A * B * B), splat(-(A * A + B * B)));
        let (a_squared, b_squared) = (splat(-A * A), splat(-B * B));
        let (near, near_odd) = (d[2].fma(b_squared, d[4]), d[1].fma(b_squared, d[3]));
        let (far, far_odd) = (d[2].fma(a_squared, d[4]), d[1].fma(a_squared, d[3]));
        [
            d[0].fma(product, d[2].fma(sum, d[4])),
            near_odd.fma(splat(A), near),
            near_odd.fma(splat(-A), near),
            far_odd.fma(splat(B), far),
            far_odd.fma(splat(-B), far),
            d[1].fma(product, d[3].fma(sum, d[5])),
        ]
    }

    #[inline(always)]
    unsafe fn output<V: Vector>(m: [V; 6]) -> [V; 4] {
        // SAFETY: the caller's.
        let splat = |x: f32| unsafe { V::splat(x) };
        let (near, near_odd) = (m[1].add(m[2]), m[1].sub(m[2]));
        let (far, far_odd) = (m[3].add(m[4]), m[3].sub(m[4]));
        [
            m[0].add(near).add(far),
            near_odd.fma(splat(A), far_odd.mul(splat(B))),
            near.fma(splat(A * A), far.mul(splat(B * B))),
            near_odd.fma(splat(A * A * A), far_odd.fma(splat(B * B * B), m[5])),
        ]
    }
}

/// Bᵀ d B of every window and channel.
#[inline(always)]
unsafe fn input<V: Vector, P: Points<M, A>, const M: usize, const A: usize>(job: &Windows) {
    // SAFETY: the caller's: pixels inside the map and `zeros` hold `vectors` vectors, and so do the rows of `to`.
    unsafe {
        for square in 0..job.count {
            let pixels = pixels::<A>(job, job.first + square);
            for at in (0..job.vectors).map(|v| v * V::LANES) {
                let mut columns = [[V::splat(0.0); A]; A];
                for x in 0..A {
                    let mut d = [V::splat(0.0); A];
                    for y in 0..A {
                        d[y] = V::load(pixels[y][x].add(at));
                    }
                    let d = P::input(d);
                    for y in 0..A {
                        columns[y][x] = d[y];
                    }
                }
                let to = job.to.add(square * job.vectors * V::LANES + at);
                for y in 0..A {
                    let d = P::input(columns[y]);
                    for x in 0..A {
                        d[x].store(to.add((y * A + x) * job.matrix));
                    }
                }
            }
        }
    }
}

/// The pixels that a square's window covers; zeros for those outside the map.
#[inline(always)]
unsafe fn pixels<const A: usize>(job: &Windows, square: usize) -> [[*const f32; A]; A] {
    let Map {
        height,
        width,
        stride,
        ..
    } = job.map;
    let [item, row, column] = job.squares.place(square);
    let mut pixels = [[job.zeros; A]; A];
    for (y, pixels) in pixels.iter_mut().enumerate() {
        let y = (row + y).wrapping_sub(job.padding[0]);
        if y >= height {
            continue;
        }
        for (x, pixel) in pixels.iter_mut().enumerate() {
            let x = (column + x).wrapping_sub(job.padding[1]);
            if x < width {
                // SAFETY: the caller's: the map's pixels lie in `values`.
                *pixel = unsafe { job.values.add(((item * height + y) * width + x) * stride) };
            }
        }
    }
    pixels
}

/// Aᵀ m A of every square and channel, with bias, residual and activation.
#[inline(always)]
unsafe fn output<V: Vector, P: Points<M, A>, const M: usize, const A: usize>(job: &Outputs) {
    let Map {
        height,
        width,
        stride,
        ..
    } = job.map;
    let (clamp, [begin, end]) = (bounds(job.function), job.channels);
    // SAFETY: the caller's: every row of the matrices, the bias and every pixel hold the channels.
    unsafe {
        for square in 0..job.count {
            let [item, row, column] = job.squares.place(job.first + square);
            let size = [M.min(height - row), M.min(width - column)];
            let pixel = (item * height + row) * width + column;
            for at in (begin..end).step_by(V::LANES) {
                let from = job.from.add(square * job.row + at);
                let sums = sums::<V, P, M, A>(from, job.matrix);
                write::<V, M>(job, (pixel, at), (size, clamp), sums);
            }
            if let (None, Some(function)) = (clamp, job.function) {
                for y in 0..size[0] {
                    let to = job.to.add((pixel + y * width) * stride + begin);
                    activate_block::<V>(function, to, size[1], stride, (end - begin) / V::LANES);
                }
            }
        }
    }
}

/// Aᵀ m A of one square and vector of channels.
#[inline(always)]
unsafe fn sums<V: Vector, P: Points<M, A>, const M: usize, const A: usize>(
    from: *const f32,
    matrix: usize,
) -> [[V; M]; M] {
    // SAFETY: the caller's.
    unsafe {
        let mut columns = [[V::splat(0.0); A]; M];
        for x in 0..A {
            let mut m = [V::splat(0.0); A];
            for y in 0..A {
                m[y] = V::load(from.add((y * A + x) * matrix));
            }
            let m = P::output(m);
            for y in 0..M {
                columns[y][x] = m[y];
            }
        }
        let mut sums = [[V::splat(0.0); M]; M];
        for y in 0..M {
            sums[y] = P::output(columns[y]);
        }
        sums
    }
}

/// Writes the sums that lie in the map, from channel `at` of `pixel` on.
#[inline(always)]
unsafe fn write<V: Vector, const M: usize>(
    job: &Outputs,
    (pixel, at): (usize, usize),
    ([rows, columns], clamp): ([usize; 2], Option<[f32; 2]>),
    mut sums: [[V; M]; M],
) {
    // Loops of a fixed count unroll, so that the sums stay in registers.
    // SAFETY: the caller's.
    unsafe {
        let [low, high] = clamp.unwrap_or([f32::NEG_INFINITY, f32::INFINITY]);
        let (low, high) = (V::splat(low), V::splat(high));
        let bias = V::load(job.bias.add(at));
        if !job.residual.is_null() {
            let residual = job.residual.add(pixel * job.residual_stride + at);
            for y in 0..M {
                for x in 0..M {
                    if y < rows && x < columns {
                        let more = V::load(residual.add((y * job.map.width + x) * job.residual_stride));
                        sums[y][x] = sums[y][x].add(more);
                    }
                }
            }
        }
        let to = job.to.add(pixel * job.map.stride + at);
        for y in 0..M {
            for x in 0..M {
                if y < rows && x < columns {
                    let sum = sums[y][x].add(bias).at_least(low).at_most(high);
                    sum.store(to.add((y * job.map.width + x) * job.map.stride));
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn input_two<V: Vector>(job: &Windows) {
    // SAFETY: the caller's.
    unsafe { input::<V, Two, 2, 4>(job) }
}

#[inline(always)]
unsafe fn input_four<V: Vector>(job: &Windows) {
    // SAFETY: the caller's.
    unsafe { input::<V, Four, 4, 6>(job) }
}

#[inline(always)]
unsafe fn output_two<V: Vector>(job: &Outputs) {
    // SAFETY: the caller's.
    unsafe { output::<V, Two, 2, 4>(job) }
}

#[inline(always)]
unsafe fn output_four<V: Vector>(job: &Outputs) {
    // SAFETY: the caller's.
    unsafe { output::<V, Four, 4, 6>(job) }
}

dispatch! {
    /// Transforms windows of squares of 2×2.
    pub(super) unsafe fn windows_two(job: &Windows) = input_two
}
dispatch! {
    /// Transforms windows of squares of 4×4.
    pub(super) unsafe fn windows_four(job: &Windows) = input_four
}
dispatch! {
    /// Transforms products into squares of 2×2.
    pub(super) unsafe fn outputs_two(job: &Outputs) = output_two
}
dispatch! {
    /// Transforms products into squares of 4×4.
    pub(super) unsafe fn outputs_four(job: &Outputs) = output_four
}
