//! Convolution by 3×3 windows in squares of outputs (Winograd), which takes 2.25 or 4 times fewer products.

mod filters;
mod transform;

use std::ops::Range;

use self::transform::{Outputs, Squares, Windows};
use super::conv::MAX_STEP;
use super::tile::{self, Tile, Width};
use super::{Aligned, Filters, Isa, Job, Map, Output, Part};

/// Squares transformed together at most: their numbers stay in the cache, and weights are read once for all of them.
const MAX_SQUARES: usize = 3 * MAX_ROWS;
/// Squares multiplied at once at most.
const MAX_ROWS: usize = 14;

/// Outputs that share a transform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Square {
    /// F(2×2, 3×3): 16 matrices. The error is below 1.6·10⁻⁶ of the largest output.
    Two,
    /// F(4×4, 3×3): 36 matrices. The error is below 8·10⁻⁶ of the largest output.
    Four,
}

/// A convolution's transformed weights: 3×3 taps, stride 1, dilation 1, one group.
#[derive(Debug)]
pub struct Winograd {
    isa: Isa,
    square: Square,
    padding: [usize; 2],
    channels: usize,
    out: usize,
    /// Matrix × block of output channels × input channel × block.
    weights: Aligned,
    bias: Aligned,
    /// For pixels outside the map, and for sums without a bias.
    zeros: Aligned,
}

impl Square {
    /// The quickest squares for a map of outputs, or none where a direct convolution is as quick. It depends on nothing
    /// but the layer, so that an item's numbers never depend on its batch.
    ///
    /// Weighs cycles of one item: products, transforms, and the weights, which a batch of one reads from beyond the
    /// second cache. The figures are those of an AVX-512 core with 118 GFLOP/s, where a batch of 1 took (µs):
    ///
    /// | channels, side | direct | squares of 2 | squares of 4 |
    /// |---|---|---|---|
    /// | 64, 56 | 2020 | 1030 | 610 |
    /// | 128, 28 | 1990 | 950 | 560 |
    /// | 256, 14 | 1980 | 920 | 690 |
    /// | 512, 7 | 2020 | 1210 | 1270 |
    /// | 64, 6 | 28 | 13 | 14 |
    /// | 512, 2 | 167 | 216 | 890 |
    ///
    /// and a batch of 8 of the fourth 16 500, 11 000 and 6 900. With weights from beyond all caches a batch of 1 of it took
    /// 2120, 1740 and 2100.
    pub fn choose(channels: usize, to: Map) -> Option<Self> {
        let direct = cost(channels, to, [1, 9, 0]);
        let [two, four] = [[2, 16, 200], [4, 36, 600]].map(|square| cost(channels, to, square));
        let (best, cost) = if two <= four {
            (Self::Two, two)
        } else {
            (Self::Four, four)
        };
        (10 * cost < 9 * direct).then_some(best)
    }

    /// Outputs along a side.
    pub fn side(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four => 4,
        }
    }

    /// Products of a square's transform.
    fn matrices(self) -> usize {
        (self.side() + 2).pow(2)
    }
}

impl Winograd {
    /// Transforms weights, in f64. `padding` is the border before the first row and column.
    ///
    /// # Panics
    /// Where lengths do not meet, there are several groups, or a border is wider than 4096.
    pub fn pack(isa: Isa, filters: Filters<'_>, padding: [usize; 2], square: Square) -> Self {
        let Filters {
            weight,
            out,
            channels,
            groups,
            ..
        } = filters;
        assert_eq!(groups, 1, "groups of a Winograd convolution");
        filters.check(9);
        assert!(
            padding.iter().all(|&border| border <= MAX_STEP),
            "a border of {padding:?}"
        );
        let (lanes, padded) = (isa.lanes(), isa.padded(out));
        let mut weights = Aligned::zeros(square.matrices() * channels * padded);
        let mut job = filters::Filters {
            weight,
            out,
            channels,
            padded,
            to: &mut weights,
        };
        // SAFETY: an Isa is made only where the processor has its instructions.
        unsafe {
            match square {
                Square::Two => filters::filters_two(isa, &mut job),
                Square::Four => filters::filters_four(isa, &mut job),
            }
        }
        Self {
            isa,
            square,
            padding,
            channels,
            out,
            weights,
            bias: filters.padded_bias(isa),
            zeros: Aligned::zeros(isa.padded(channels).max(2 * lanes)),
        }
    }

    /// Outputs along a side of a square.
    pub fn side(&self) -> usize {
        self.square.side()
    }

    /// Numbers of scratch that each thread needs, in whole cache lines.
    pub fn scratch_len(&self, items: usize, to: Map) -> usize {
        let count = (items * Squares::new(to, self.square.side()).count()).min(MAX_SQUARES);
        let [inputs, sums] = self.matrix_lens(count);
        (self.square.matrices() * (inputs + sums)).next_multiple_of(16)
    }

    /// Convolves `part` of the outputs. `scratch` is this part's alone and best begins on a cache line.
    ///
    /// # Panics
    /// Where numbers are too few for their layouts, or scratch for [`scratch_len`](Self::scratch_len).
    pub(super) fn run(
        &self,
        source: Job<'_>,
        (out, to): (&Output<'_>, Map),
        scratch: &mut [f32],
        part: Part,
    ) {
        self.check(&source, out, to);
        part.check();
        let needed = self.scratch_len(source.items, to);
        assert!(
            scratch.len() >= needed,
            "scratch of {} numbers, not {needed}",
            scratch.len()
        );
        let squares = Squares::new(to, self.square.side());
        let (mine, channels) = self.share(source.items * squares.count(), part);
        let chunks = mine.len().div_ceil(MAX_SQUARES);
        for index in 0..chunks {
            let chunk = Part { index, of: chunks }.range(mine.len());
            let chunk = mine.start + chunk.start..mine.start + chunk.end;
            let [matrix, _] = self.matrix_lens(chunk.len());
            let (inputs, sums) = scratch.split_at_mut(self.square.matrices() * matrix);
            self.transform(&source, squares, chunk.clone(), inputs);
            self.multiply(chunk.len(), channels.clone(), inputs, sums);
            self.transform_back(&source, (out, to), (squares, chunk, channels.clone()), sums);
        }
    }

    /// A part's squares and output channels. Parts of few squares share them and have channels of their own: reading all
    /// weights would take each as long as reading them takes one.
    fn share(&self, squares: usize, part: Part) -> (Range<usize>, Range<usize>) {
        let (width, block) = (self.isa.padded(self.out), 2 * self.isa.lanes());
        let blocks = width.div_ceil(block);
        if part.of == 1 || part.of * MAX_ROWS <= squares || blocks < part.of {
            return (part.range(squares), 0..width);
        }
        let mine = part.range(blocks);
        (0..squares, mine.start * block..width.min(mine.end * block))
    }

    /// How far the matrices of `count` squares lie apart: transformed inputs, sums. A line more than they hold, so that
    /// the same square of all matrices is not in one set of the cache.
    fn matrix_lens(&self, count: usize) -> [usize; 2] {
        [self.channels, self.out].map(|channels| count * self.isa.padded(channels) + 16)
    }

    fn transform(&self, source: &Job<'_>, squares: Squares, range: Range<usize>, inputs: &mut [f32]) {
        let [matrix, _] = self.matrix_lens(range.len());
        let job = Windows {
            values: source.values.as_ptr(),
            map: source.map,
            padding: self.padding,
            zeros: self.zeros.as_ptr(),
            vectors: self.channels.div_ceil(self.isa.lanes()),
            squares,
            first: range.start,
            count: range.len(),
            to: inputs.as_mut_ptr(),
            matrix,
        };
        // SAFETY: `check` holds the input to its layout; `inputs` holds all matrices of these squares.
        unsafe {
            match self.square {
                Square::Two => transform::windows_two(self.isa, &job),
                Square::Four => transform::windows_four(self.isa, &job),
            }
        }
    }

    /// Multiplies each matrix of `count` squares × input channels by its weights, for some output channels.
    fn multiply(&self, count: usize, channels: Range<usize>, inputs: &[f32], sums: &mut [f32]) {
        let [input_matrix, sum_matrix] = self.matrix_lens(count);
        let (lanes, row, width) = (
            self.isa.lanes(),
            self.isa.padded(self.channels),
            self.isa.padded(self.out),
        );
        let groups = count.div_ceil(tile::kernels(self.isa, block_width(2)).len());
        for matrix in 0..self.square.matrices() {
            for block in channels.clone().step_by(2 * lanes) {
                let vectors = ((channels.end - block) / lanes).min(2);
                for index in 0..groups {
                    let rows = Part { index, of: groups }.range(count);
                    let first = matrix * input_matrix + rows.start * row;
                    let mut pixels = [std::ptr::null(); MAX_ROWS];
                    for (i, pixel) in pixels.iter_mut().enumerate().take(rows.len()) {
                        *pixel = inputs[first + i * row..].as_ptr();
                    }
                    let to = &mut sums[matrix * sum_matrix + rows.start * width + block..];
                    let weights = &self.weights[(matrix * width + block) * self.channels..];
                    let work = self.product(&pixels, weights, to, width);
                    // SAFETY: each pixel is followed by its channels, `weights` by a block of them; the rows of `sums`
                    // are `width` numbers apart, of which a block of `vectors` from `block` on is written.
                    unsafe { tile::kernels(self.isa, block_width(vectors))[rows.len() - 1](&work) };
                }
            }
        }
    }

    fn product(
        &self,
        pixels: &[*const f32; MAX_ROWS],
        weights: &[f32],
        to: &mut [f32],
        out_stride: usize,
    ) -> Tile {
        Tile {
            pixels: pixels.as_ptr(),
            run: self.channels,
            weights: weights.as_ptr(),
            bias: self.zeros.as_ptr(),
            out: to.as_mut_ptr(),
            out_stride,
            finished: false,
            ..Tile::EMPTY
        }
    }

    fn transform_back(
        &self,
        source: &Job<'_>,
        (out, to): (&Output<'_>, Map),
        (squares, chunk, channels): (Squares, Range<usize>, Range<usize>),
        sums: &[f32],
    ) {
        let [_, matrix] = self.matrix_lens(chunk.len());
        let (residual, residual_stride) = source.residual.map_or((std::ptr::null(), 0), |(values, map)| {
            (values.as_ptr(), map.stride)
        });
        let job = Outputs {
            from: sums.as_ptr(),
            matrix,
            row: self.isa.padded(self.out),
            channels: [channels.start, channels.end],
            squares,
            first: chunk.start,
            count: chunk.len(),
            bias: self.bias.as_ptr(),
            residual,
            residual_stride,
            function: source.function,
            to: out.start(),
            map: to,
        };
        // SAFETY: `check` holds output and residual to their layouts; squares are disjoint, and parts have
        // squares or channels of their own.
        unsafe {
            match self.square {
                Square::Two => transform::outputs_two(self.isa, &job),
                Square::Four => transform::outputs_four(self.isa, &job),
            }
        }
    }

    fn check(&self, source: &Job<'_>, out: &Output<'_>, to: Map) {
        let [inputs, outputs] = [self.channels, self.out].map(|channels| self.isa.padded(channels));
        source.check_outputs(out, to, outputs, self.isa);
        let Job {
            values, map, items, ..
        } = source;
        assert!(
            map.stride >= inputs && values.len() >= map.reach(*items, inputs),
            "an input of {} numbers for {map:?}",
            values.len()
        );
    }
}

/// A block of whole vectors.
fn block_width(vectors: usize) -> Width {
    Width {
        vectors,
        narrow: false,
    }
}

/// Cycles that one item takes with squares of `side`, by their products and the cycles of their transforms.
fn cost(channels: usize, to: Map, [side, products, transform]: [usize; 3]) -> usize {
    let squares = Squares::new(to, side).count();
    let products = products * channels * to.channels;
    let bytes_per_cycle = 16;
    let work = squares * (products / 16 + transform * (channels + to.channels) / 32);
    work.max(products * size_of::<f32>() / bytes_per_cycle)
}

#[cfg(test)]
mod tests;
