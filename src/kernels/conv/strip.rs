//! Tiles of one row of outputs, whose windows lie a known distance apart: for the few products of a first layer's window
//! a table of pointers costs more than the sums.

use std::ops::Range;

use super::super::isa::{Isa, Kind};
use super::super::tile::{Tile, Width, finish, start};
use super::super::vector::{F32x4, Vector};
#[cfg(target_arch = "x86_64")]
use super::super::vector::{F32x8, F32x16};
use super::super::{Job, Map, Output, Part};
use super::pack::Block;
use super::{Conv, Windows};

/// A tile, and where its windows are.
struct Strip {
    /// The first window.
    from: *const f32,
    /// Numbers from a tap to the next.
    tap: usize,
    /// Numbers from a window to the one below; for pooled tiles.
    below: usize,
    /// Numbers from the weights of one number of a run to those of the next.
    weights: usize,
    tile: Tile,
}

/// Computes one strip.
type Kernel = unsafe fn(&Strip);

/// Kernels by their outputs, from `least` on.
struct Kernels {
    least: usize,
    by_outputs: &'static [Kernel],
    /// Vectors of a block that are computed together.
    vectors: usize,
}

impl Conv {
    /// Whether the outputs can be computed by [`strips`](Self::strips): a row's windows lie inside the map, and there are
    /// kernels for their distance.
    pub(super) fn has_strips(&self, map: Map, to: Map) -> bool {
        let Windows {
            kernel,
            stride,
            padding,
            dilation,
        } = self.windows;
        let side = self.side();
        let last = |count: usize, axis: usize| (count * side).saturating_sub(1) * stride[axis];
        kernel[1] == 1
            && padding == [0; 2]
            && last(to.height, 0) + (kernel[0] - 1) * dilation[0] < map.height
            && last(to.width, 1) < map.width
            && self.blocks.iter().all(|block| {
                let kernels = kernels(self.isa, map.stride * stride[1], (block.width, self.pooled));
                kernels.is_some_and(|kernels| tiles(&kernels, to.width).is_some())
            })
    }

    /// Convolves `part` of the rows.
    pub(super) fn strips(&self, source: &Job<'_>, (out, to): (&Output<'_>, Map), part: Part) {
        let step = source.map.stride * self.windows.stride[1];
        let rows = part.range(source.items * to.height);
        for block in &self.blocks {
            let Some(kernels) = kernels(self.isa, step, (block.width, self.pooled)) else {
                return;
            };
            for vector in (0..block.width.vectors).step_by(kernels.vectors) {
                let lanes = vector * self.isa.lanes();
                let mut tile = self.tile(source, (out, to), block);
                tile.weights = tile.weights.wrapping_add(lanes);
                tile.bias = tile.bias.wrapping_add(lanes);
                tile.out = tile.out.wrapping_add(lanes);
                if !tile.residual.is_null() {
                    tile.residual = tile.residual.wrapping_add(lanes);
                }
                self.rows(source, to, (block, &kernels, tile), rows.clone());
            }
        }
    }

    /// The outputs of `rows` of a block.
    fn rows(
        &self,
        source: &Job<'_>,
        to: Map,
        (block, kernels, tile): (&Block, &Kernels, Tile),
        rows: Range<usize>,
    ) {
        let (map, Windows { stride, dilation, .. }) = (source.map, self.windows);
        let side = self.side();
        let tiles = tiles(kernels, to.width).unwrap_or(1);
        let line = map.width * map.stride;
        let start = (tile.out, tile.residual);
        let mut strip = Strip {
            from: std::ptr::null(),
            tap: dilation[0] * line,
            below: stride[0] * line,
            weights: block.width.channels(self.isa),
            tile,
        };
        for row in rows {
            let input =
                (row / to.height * map.height + row % to.height * side * stride[0]) * line + block.from;
            for index in 0..tiles {
                let columns = Part { index, of: tiles }.range(to.width);
                let window = input + columns.start * side * stride[1] * map.stride;
                strip.from = source.values[window..].as_ptr();
                // Within output and residual: `check` has seen their whole reach.
                strip.tile.move_to(start, row * to.width + columns.start);
                // SAFETY: `check` holds the layouts to the lengths, `has_strips` the windows to the map; rows and tiles
                // write disjoint outputs.
                unsafe { kernels.by_outputs[columns.len() - kernels.least](&strip) };
            }
        }
    }
}

/// Tiles of a row of `width` outputs, where kernels can make it.
fn tiles(kernels: &Kernels, width: usize) -> Option<usize> {
    let tiles = width
        .div_ceil(kernels.least + kernels.by_outputs.len() - 1)
        .max(1);
    (width / tiles >= kernels.least).then_some(tiles)
}

/// The sums of `PIXELS` windows that lie `STEP` numbers apart; where `POOL` is 4, the largest of each square of four.
#[inline(always)]
unsafe fn strip<
    V: Vector,
    const STEP: usize,
    const PIXELS: usize,
    const VECTORS: usize,
    const POOL: usize,
>(
    strip: &Strip,
) {
    // SAFETY: the caller's: every window has `taps` runs of `run` numbers; the rest as in `tile`.
    unsafe {
        let tile = &strip.tile;
        let mut sums = start::<V, PIXELS, VECTORS, POOL>(tile);
        let mut weights = tile.weights;
        for tap in 0..tile.taps {
            let rows = strip.from.add(tap * strip.tap);
            for at in 0..tile.run {
                let rows = [rows.add(at), rows.wrapping_add(strip.below + at)];
                let mut w = [V::splat(0.0); VECTORS];
                for (v, w) in w.iter_mut().enumerate() {
                    *w = V::load(weights.add(v * V::LANES));
                }
                // Four windows in a square, or one.
                for group in 0..PIXELS / POOL {
                    for corner in 0..POOL {
                        let column = group * POOL.div_ceil(2) + corner % 2;
                        let x = V::splat(*rows[corner / 2].add(column * STEP));
                        let sums = &mut sums[group * POOL + corner];
                        for v in 0..VECTORS {
                            sums[v] = x.fma(w[v], sums[v]);
                        }
                    }
                }
                // After the last it may lie beyond the weights: a strip may begin within a block.
                weights = weights.wrapping_add(strip.weights);
            }
        }
        finish::<V, PIXELS, VECTORS, POOL>(tile, sums);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
unsafe fn avx512<const STEP: usize, const PIXELS: usize, const VECTORS: usize, const POOL: usize>(s: &Strip) {
    // SAFETY: the caller's.
    unsafe { strip::<F32x16, STEP, PIXELS, VECTORS, POOL>(s) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const STEP: usize, const PIXELS: usize, const VECTORS: usize, const POOL: usize>(s: &Strip) {
    // SAFETY: the caller's.
    unsafe { strip::<F32x8, STEP, PIXELS, VECTORS, POOL>(s) }
}

unsafe fn portable<const STEP: usize, const PIXELS: usize, const VECTORS: usize, const POOL: usize>(
    s: &Strip,
) {
    // SAFETY: the caller's.
    unsafe { strip::<F32x4, STEP, PIXELS, VECTORS, POOL>(s) }
}

/// The kernels of one set for windows `$step` numbers apart.
macro_rules! steps {
    ($set:ident, $step:expr, $vectors:expr, $pool:literal, $pixels:tt) => {
        match ($step, $vectors) {
            (1, 1) => steps!(@list $set, 1, 1, $pool, $pixels),
            (3, 1) => steps!(@list $set, 3, 1, $pool, $pixels),
            (6, 1) => steps!(@list $set, 6, 1, $pool, $pixels),
            (1, 2) => steps!(@list $set, 1, 2, $pool, $pixels),
            (3, 2) => steps!(@list $set, 3, 2, $pool, $pixels),
            (6, 2) => steps!(@list $set, 6, 2, $pool, $pixels),
            _ => return None,
        }
    };
    (@list $set:ident, $step:literal, $vectors:literal, $pool:literal, [$($pixels:literal)*]) => {
        &[$($set::<$step, $pixels, $vectors, $pool>),*]
    };
}

/// The kernels for windows `step` numbers apart and blocks of 1 or 2 vectors, which pooled tiles take one by one. One
/// number: grey images; three: coloured; six: every second pixel of coloured.
fn kernels(isa: Isa, step: usize, (width, pooled): (Width, bool)) -> Option<Kernels> {
    if width.narrow {
        return None;
    }
    let vectors = if pooled { 1 } else { width.vectors };
    let by_outputs: &[Kernel] = match (isa.0, pooled) {
        #[cfg(target_arch = "x86_64")]
        (Kind::Avx512, true) => steps!(avx512, step, vectors, 4, [4 8 12 16 20 24 28]),
        #[cfg(target_arch = "x86_64")]
        (Kind::Avx512, false) => steps!(avx512, step, vectors, 1, [7 8 9 10 11 12 13 14]),
        #[cfg(target_arch = "x86_64")]
        (Kind::Avx2, true) => steps!(avx2, step, vectors, 4, [4 8 12]),
        #[cfg(target_arch = "x86_64")]
        (Kind::Avx2, false) => steps!(avx2, step, vectors, 1, [3 4 5 6]),
        (Kind::Portable, true) => steps!(portable, step, vectors, 4, [4 8 12]),
        (Kind::Portable, false) => steps!(portable, step, vectors, 1, [3 4 5 6]),
    };
    let least = match (isa.lanes(), pooled) {
        (_, true) => 1,
        (16, false) => 7,
        (_, false) => 3,
    };
    Some(Kernels {
        least,
        by_outputs,
        vectors,
    })
}
