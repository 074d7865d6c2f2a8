//! Loops of the depthwise convolution: several columns of one row and one vector of channels at a time.

use std::ops::Range;

use crate::kernels::activation::{Activation, activate_block};
use crate::kernels::map::Map;
use crate::kernels::vector::Vector;
use crate::kernels::windows::Windows;

/// Rows of one item.
pub(super) struct Job {
    pub(super) windows: Windows,
    /// Vector of channels, tap, lane.
    pub(super) weight: *const f32,
    pub(super) bias: *const f32,
    /// What `function` clamps to; where it does more, it follows each row.
    pub(super) bounds: Option<[f32; 2]>,
    pub(super) function: Option<Activation>,
    pub(super) from: Map,
    pub(super) to: Map,
    pub(super) x: *const f32,
    pub(super) y: *mut f32,
    /// Rows to write.
    pub(super) rows: Range<usize>,
}

/// One row of some vectors of channels.
#[derive(Clone, Copy)]
struct Strip<V> {
    /// Where the first tap's row of the map begins.
    x: *const f32,
    /// Numbers from a pixel to the next.
    pixel: usize,
    /// Numbers from a tap's row to the next tap's.
    line: usize,
    /// Columns of the map.
    width: usize,
    /// Columns of padding.
    padding: usize,
    /// Rows of taps that lie on the map.
    taps: usize,
    /// Their weights.
    weight: *const f32,
    /// Numbers from a vector's filter to the next vector's.
    filter: usize,
    bias: *const f32,
    low: V,
    high: V,
    y: *mut f32,
    /// Numbers from a written pixel to the next.
    y_pixel: usize,
    /// Columns to write.
    columns: usize,
    /// Vectors of channels.
    vectors: usize,
}

/// The job with its loop: filters of common widths have their own.
///
/// # Safety
/// The job's pointers are valid for all that its maps, windows and padded channels say.
#[inline(always)]
pub(super) unsafe fn rows_of<V: Vector>(job: &Job) {
    let Windows {
        kernel,
        stride,
        padding,
        dilation,
    } = job.windows;
    // So that every window begins or ends on the map.
    let common = dilation[1] == 1 && padding[1] < kernel[1];
    // SAFETY: the caller's.
    unsafe {
        match (kernel[1], stride[1], common) {
            (3, 1, true) => rows::<V, 3, 1>(job),
            (3, 2, true) => rows::<V, 3, 2>(job),
            (5, 1, true) => rows::<V, 5, 1>(job),
            (5, 2, true) => rows::<V, 5, 2>(job),
            (7, 1, true) => rows::<V, 7, 1>(job),
            _ => rows::<V, 0, 0>(job),
        }
    }
}

/// Rows that some vectors of channels pass before the next: the rows their windows share stay in the nearest cache.
const ROWS: usize = 8;

/// Numbers of that cache that the vectors' part of the shared rows may fill.
const NEAR: usize = 6144;

/// Blocks of rows, some vectors after the others. `KW` is 0 where the windows' width is known only now.
#[inline(always)]
unsafe fn rows<V: Vector, const KW: usize, const S: usize>(job: &Job) {
    let all = job.to.channels.div_ceil(V::LANES);
    let shared = (job.windows.kernel[0] + 1) * job.from.width * V::LANES;
    // Where but few fit and rows are shared by no more than three windows, whole pixels one after another are faster.
    let some = match NEAR / shared.max(1) {
        0..3 if job.windows.kernel[0] < 5 => all.max(1),
        few => few.max(2),
    };
    let rows = if some < all { ROWS } else { 1 };
    let mut first = job.rows.start;
    // SAFETY: the caller's; the strips are of rows to be written and of vectors of the map.
    unsafe {
        while first < job.rows.end {
            let block = first..(first + rows).min(job.rows.end);
            let mut vector = 0;
            while vector < all {
                let vectors = some.min(all - vector);
                for row in block.clone() {
                    let strip = strip::<V>(job, row, vector..vector + vectors);
                    if KW == 0 {
                        any_columns(&strip, &job.windows);
                    } else {
                        columns::<V, KW, S>(&strip);
                    }
                }
                vector += vectors;
            }
            if let (None, Some(function)) = (job.bounds, job.function) {
                let line = job.to.width * job.to.stride;
                let pixels = block.len() * job.to.width;
                activate_block::<V>(
                    function,
                    job.y.add(block.start * line),
                    pixels,
                    job.to.stride,
                    all,
                );
            }
            first = block.end;
        }
    }
}

/// The strip of some vectors of row `row`.
#[inline(always)]
unsafe fn strip<V: Vector>(job: &Job, row: usize, vectors: Range<usize>) -> Strip<V> {
    let vector = vectors.start;
    let (windows, from, to) = (&job.windows, &job.from, &job.to);
    let taps = windows.taps(0, row, from.height);
    let top = if taps.is_empty() {
        0
    } else {
        windows.position(0, row, taps.start)
    };
    let line = from.width * from.stride;
    let filter = windows.kernel[0] * windows.kernel[1] * V::LANES;
    let [low, high] = job.bounds.unwrap_or([f32::NEG_INFINITY, f32::INFINITY]);
    // SAFETY: the caller's: `row` is to be written, and where there are taps, `top` is a row of the map.
    unsafe {
        Strip {
            x: job.x.wrapping_add(top * line + vector * V::LANES),
            pixel: from.stride,
            line: windows.dilation[0] * line,
            width: from.width,
            padding: windows.padding[1],
            taps: taps.len(),
            weight: job
                .weight
                .wrapping_add(vector * filter + taps.start * windows.kernel[1] * V::LANES),
            filter,
            bias: job.bias.add(vector * V::LANES),
            low: V::splat(low),
            high: V::splat(high),
            y: job.y.add(row * to.width * to.stride + vector * V::LANES),
            y_pixel: to.stride,
            columns: to.width,
            vectors: vectors.len(),
        }
    }
}

/// A row in tiles of 7 columns, as maps halved from 224 have multiples of 7, then 3, then 1.
#[inline(always)]
unsafe fn columns<V: Vector, const KW: usize, const S: usize>(strip: &Strip<V>) {
    let mut column = 0;
    // SAFETY: the caller's; every tile ends within the row.
    unsafe {
        while column + 7 <= strip.columns {
            edges::<V, KW, S, 7>(strip, column);
            column += 7;
        }
        while column + 3 <= strip.columns {
            vectors::<V, KW, S, 3, true, true>(strip, column);
            column += 3;
        }
        while column < strip.columns {
            vectors::<V, KW, S, 1, true, true>(strip, column);
            column += 1;
        }
    }
}

/// `P` columns, by whether some windows reach beyond the left or the right edge of the map.
#[inline(always)]
unsafe fn edges<V: Vector, const KW: usize, const S: usize, const P: usize>(strip: &Strip<V>, column: usize) {
    let left = column * S < strip.padding;
    let right = (column + P - 1) * S + KW > strip.width + strip.padding;
    // SAFETY: the caller's.
    unsafe {
        match (left, right) {
            (false, false) => vectors::<V, KW, S, P, false, false>(strip, column),
            (true, false) => vectors::<V, KW, S, P, true, false>(strip, column),
            (false, true) => vectors::<V, KW, S, P, false, true>(strip, column),
            (true, true) => vectors::<V, KW, S, P, true, true>(strip, column),
        }
    }
}

/// All vectors of `P` columns.
#[inline(always)]
unsafe fn vectors<
    V: Vector,
    const KW: usize,
    const S: usize,
    const P: usize,
    const LEFT: bool,
    const RIGHT: bool,
>(
    strip: &Strip<V>,
    column: usize,
) {
    for vector in 0..strip.vectors {
        // SAFETY: the caller's.
        unsafe { tile::<V, KW, S, P, LEFT, RIGHT>(strip, column, vector) }
    }
}

/// `P` columns from `column` on of one vector. Each pixel of the map is loaded once for all windows it lies in. Of the
/// pixels under the tile, fewer than `KW` at each end may lie beyond the map, and are 0.
#[inline(always)]
unsafe fn tile<
    V: Vector,
    const KW: usize,
    const S: usize,
    const P: usize,
    const LEFT: bool,
    const RIGHT: bool,
>(
    strip: &Strip<V>,
    column: usize,
    vector: usize,
) {
    // Wraps around at the left edge, to a column beyond any map.
    let left = (column * S).wrapping_sub(strip.padding);
    // SAFETY: the caller's; columns are read where they lie on the map.
    unsafe {
        let mut sums = [V::load(strip.bias.add(vector * V::LANES)); P];
        let mut x = strip.x.wrapping_add(vector * V::LANES);
        let mut weight = strip.weight.wrapping_add(vector * strip.filter);
        for _ in 0..strip.taps {
            // As many as the widest tile has, of which the compiler keeps those in use.
            let mut values = [V::splat(0.0); MOST_PIXELS];
            for (pixel, value) in values.iter_mut().enumerate().take((P - 1) * S + KW) {
                let at = left.wrapping_add(pixel);
                let end = LEFT && pixel < KW - 1 || RIGHT && pixel > (P - 1) * S;
                // An address instead of a branch.
                let on_map = !end || at < strip.width;
                let from = x.wrapping_add(at.wrapping_mul(strip.pixel));
                *value = V::load(if on_map { from } else { ZEROS.0.as_ptr() });
            }
            for tap in 0..KW {
                let taps = V::load(weight.add(tap * V::LANES));
                for (window, sum) in sums.iter_mut().enumerate() {
                    *sum = values[window * S + tap].fma(taps, *sum);
                }
            }
            x = x.wrapping_add(strip.line);
            weight = weight.wrapping_add(KW * V::LANES);
        }
        for (window, sum) in sums.iter().enumerate() {
            let clamped = sum.at_least(strip.low).at_most(strip.high);
            clamped.store(strip.y.add((column + window) * strip.y_pixel + vector * V::LANES));
        }
    }
}

/// 7 windows of 5 taps, two columns apart; 7 windows of 7 taps have fewer.
const MOST_PIXELS: usize = 17;

#[repr(align(64))]
struct Zeros([f32; 16]);
static ZEROS: Zeros = Zeros([0.0; 16]);

/// A row of windows of any width, stride and dilation.
#[inline(always)]
unsafe fn any_columns<V: Vector>(strip: &Strip<V>, windows: &Windows) {
    // SAFETY: the caller's; every tile ends within the row and the vectors.
    unsafe {
        for vector in 0..strip.vectors {
            let mut column = 0;
            while column + 4 <= strip.columns {
                any_tile::<V, 4>(strip, windows, [column, vector]);
                column += 4;
            }
            while column < strip.columns {
                any_tile::<V, 1>(strip, windows, [column, vector]);
                column += 1;
            }
        }
    }
}

#[inline(always)]
unsafe fn any_tile<V: Vector, const P: usize>(
    strip: &Strip<V>,
    windows: &Windows,
    [column, vector]: [usize; 2],
) {
    // SAFETY: the caller's; columns are read where they lie on the map.
    unsafe {
        let mut sums = [V::load(strip.bias.add(vector * V::LANES)); P];
        let x = strip.x.wrapping_add(vector * V::LANES);
        let mut weight = strip.weight.wrapping_add(vector * strip.filter);
        for row in 0..strip.taps {
            for tap in 0..windows.kernel[1] {
                let taps = V::load(weight);
                weight = weight.wrapping_add(V::LANES);
                for (window, sum) in sums.iter_mut().enumerate() {
                    let at = windows.position(1, column + window, tap);
                    if at < strip.width {
                        *sum = V::load(x.add(row * strip.line + at * strip.pixel)).fma(taps, *sum);
                    }
                }
            }
        }
        for (window, sum) in sums.iter().enumerate() {
            let clamped = sum.at_least(strip.low).at_most(strip.high);
            clamped.store(strip.y.add((column + window) * strip.y_pixel + vector * V::LANES));
        }
    }
}
