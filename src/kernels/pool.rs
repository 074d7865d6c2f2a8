//! Pooling: one number for each window of each channel.

use std::ops::Range;

use super::batch::Batch;
use super::isa::Isa;
use super::map::Map;
use super::vector::{Vector, dispatch};
use super::view::{Source, Target};
use super::windows::Windows;

/// The largest number of each window; NaN where there is one. Padding is −∞. The maps' sizes say how many windows there
/// are: the last of a row or column may reach beyond the padding (torch's `ceil_mode`).
///
/// # Panics
/// Where a window lies beyond the map, or the maps do not fit each other or their numbers.
pub(super) fn max_pool(isa: Isa, windows: Windows, source: Source<'_>, target: Target<'_>, batch: Batch) {
    let target = target.checked(isa, batch.items);
    check(isa, &windows, &source, &target, batch.items);
    for (item, rows) in batch.rows(target.map.height) {
        // SAFETY: all pixels of both maps lie in their numbers.
        unsafe { max_rows(isa, &job(windows, &source, &target, item, rows)) };
    }
}

/// The mean of each window, whose padding counts as zeros; what lies beyond the padding (`ceil_mode`) does not. As
/// torch's `avg_pool2d` with its defaults.
///
/// # Panics
/// As [`max_pool`], and where the windows are dilated.
pub(super) fn avg_pool(isa: Isa, windows: Windows, source: Source<'_>, target: Target<'_>, batch: Batch) {
    let target = target.checked(isa, batch.items);
    check(isa, &windows, &source, &target, batch.items);
    assert_eq!(windows.dilation, [1; 2], "means are of windows without gaps");
    for (item, rows) in batch.rows(target.map.height) {
        // SAFETY: all pixels of both maps lie in their numbers.
        unsafe { avg_rows(isa, &job(windows, &source, &target, item, rows)) };
    }
}

/// The mean of each channel, summed row by row to keep the rounding small. `target` has one pixel.
///
/// # Panics
/// Where it has not, or the maps do not fit each other or their numbers.
pub(super) fn global_avg_pool(isa: Isa, source: Source<'_>, target: Target<'_>, batch: Batch) {
    source.check(isa, batch.items);
    let target = target.checked(isa, batch.items);
    assert_eq!(target.map.channels, source.map.channels, "maps of other channels");
    assert_eq!(target.map.pixels(), 1, "the mean of a channel is one number");
    for (item, vectors) in batch.rows(target.map.channels.div_ceil(isa.lanes())) {
        // SAFETY: all pixels of both maps lie in their numbers, and the vectors are those of their channels.
        unsafe {
            global_means(
                isa,
                source.pixel(item, 0),
                source.map,
                target.pixel(item, 0),
                vectors,
            );
        }
    }
}

struct Job {
    windows: Windows,
    from: Map,
    to: Map,
    x: *const f32,
    y: *mut f32,
    /// Rows to write.
    rows: Range<usize>,
}

fn job(windows: Windows, source: &Source<'_>, target: &Target<'_>, item: usize, rows: Range<usize>) -> Job {
    Job {
        windows,
        from: source.map,
        to: target.map,
        x: source.pixel(item, 0),
        y: target.pixel(item, 0),
        rows,
    }
}

fn check(isa: Isa, windows: &Windows, source: &Source<'_>, target: &Target<'_>, items: usize) {
    windows.check();
    source.check(isa, items);
    let (from, to) = (source.map, target.map);
    assert_eq!(to.channels, from.channels, "maps of other channels");
    for (axis, input, output) in [(0, from.height, to.height), (1, from.width, to.width)] {
        let last = output.saturating_sub(1) * windows.stride[axis];
        assert!(
            windows.padding[axis] < windows.kernel[axis] && last < input + windows.padding[axis],
            "{windows:?} over {from:?} do not give {to:?}"
        );
    }
}

dispatch! {
    unsafe fn max_rows(job: &Job) = rows_of_max
}

dispatch! {
    unsafe fn avg_rows(job: &Job) = rows_of_avg
}

dispatch! {
    unsafe fn global_means(x: *const f32, from: Map, y: *mut f32, vectors: Range<usize>) = means
}

#[inline(always)]
unsafe fn rows_of_max<V: Vector>(job: &Job) {
    // SAFETY: the caller's.
    unsafe { rows::<V, Max>(job) }
}

#[inline(always)]
unsafe fn rows_of_avg<V: Vector>(job: &Job) {
    // SAFETY: the caller's.
    unsafe { rows::<V, Mean>(job) }
}

/// What a window's numbers become.
trait Fold {
    /// Before the first, given a vector of any numbers.
    fn start<V: Vector>(zero: V) -> [V; 2];
    fn step<V: Vector>(state: [V; 2], x: V) -> [V; 2];
    /// After the last of `count`.
    fn end<V: Vector>(state: [V; 2], count: V) -> V;
}

/// The largest, and a sum of what is positive, which is NaN when any number is.
struct Max;

impl Fold for Max {
    #[inline(always)]
    fn start<V: Vector>(zero: V) -> [V; 2] {
        // SAFETY: the vector shows that there are its instructions.
        [unsafe { V::splat(f32::NEG_INFINITY) }, zero]
    }

    #[inline(always)]
    fn step<V: Vector>([largest, poison]: [V; 2], x: V) -> [V; 2] {
        // SAFETY: as above.
        let zero = unsafe { V::splat(0.0) };
        [x.at_least(largest), poison.add(x.at_least(zero))]
    }

    #[inline(always)]
    fn end<V: Vector>([largest, poison]: [V; 2], _: V) -> V {
        // SAFETY: as above.
        let zero = unsafe { V::splat(0.0) };
        largest.add(poison.at_most(zero))
    }
}

/// The sum, divided.
struct Mean;

impl Fold for Mean {
    #[inline(always)]
    fn start<V: Vector>(zero: V) -> [V; 2] {
        [zero, zero]
    }

    #[inline(always)]
    fn step<V: Vector>([sum, unused]: [V; 2], x: V) -> [V; 2] {
        [sum.add(x), unused]
    }

    #[inline(always)]
    fn end<V: Vector>([sum, _]: [V; 2], count: V) -> V {
        sum.div(count)
    }
}

/// Pixel by pixel, four vectors of channels at a time.
#[inline(always)]
unsafe fn rows<V: Vector, F: Fold>(job: &Job) {
    let Job {
        windows, from, to, ..
    } = job;
    let vectors = to.channels.div_ceil(V::LANES);
    let count = |axis: usize, at: usize, size: usize| {
        let room = (size + 2 * windows.padding[axis]).saturating_sub(at * windows.stride[axis]);
        room.min(windows.kernel[axis]).max(1)
    };
    for row in job.rows.clone() {
        let tap_rows = windows.taps(0, row, from.height);
        for column in 0..to.width {
            let tap_columns = windows.taps(1, column, from.width);
            let first = if tap_rows.is_empty() || tap_columns.is_empty() {
                0
            } else {
                windows.position(0, row, tap_rows.start) * from.width
                    + windows.position(1, column, tap_columns.start)
            };
            let size = count(0, row, from.height) * count(1, column, from.width);
            let window = Window {
                x: job.x.wrapping_add(first * from.stride),
                taps: [tap_rows.len(), tap_columns.len()],
                steps: [
                    windows.dilation[0] * from.width * from.stride,
                    windows.dilation[1] * from.stride,
                ],
                size: size as f32,
            };
            let y = job.y.wrapping_add((row * to.width + column) * to.stride);
            let mut vector = 0;
            // SAFETY: the caller's; every fold ends within the pixel's vectors.
            unsafe {
                while vector + 4 <= vectors {
                    fold::<V, F, 4>(&window, y, vector * V::LANES);
                    vector += 4;
                }
                while vector < vectors {
                    fold::<V, F, 1>(&window, y, vector * V::LANES);
                    vector += 1;
                }
            }
        }
    }
}

/// The taps of one window that lie on the map.
struct Window {
    /// The first.
    x: *const f32,
    /// Rows and columns of them.
    taps: [usize; 2],
    /// Numbers from one's row to the next, from one's column to the next.
    steps: [usize; 2],
    /// Numbers that count in the mean.
    size: f32,
}

#[inline(always)]
unsafe fn fold<V: Vector, F: Fold, const G: usize>(window: &Window, y: *mut f32, channel: usize) {
    // SAFETY: the caller's.
    unsafe {
        let mut states = [F::start(V::splat(0.0)); G];
        for row in 0..window.taps[0] {
            let line = window.x.add(row * window.steps[0] + channel);
            for column in 0..window.taps[1] {
                let pixel = line.add(column * window.steps[1]);
                for (group, state) in states.iter_mut().enumerate() {
                    *state = F::step(*state, V::load(pixel.add(group * V::LANES)));
                }
            }
        }
        for (group, state) in states.iter().enumerate() {
            let value = F::end(*state, V::splat(window.size));
            value.store(y.add(channel + group * V::LANES));
        }
    }
}

#[inline(always)]
unsafe fn means<V: Vector>(x: *const f32, from: Map, y: *mut f32, vectors: Range<usize>) {
    let mut vector = vectors.start;
    // SAFETY: the caller's; every mean ends within the vectors.
    unsafe {
        while vector + 4 <= vectors.end {
            mean::<V, 4>(x, &from, y, vector * V::LANES);
            vector += 4;
        }
        while vector < vectors.end {
            mean::<V, 1>(x, &from, y, vector * V::LANES);
            vector += 1;
        }
    }
}

#[inline(always)]
unsafe fn mean<V: Vector, const G: usize>(x: *const f32, from: &Map, y: *mut f32, channel: usize) {
    // SAFETY: the caller's.
    unsafe {
        let zero = V::splat(0.0);
        let mut sums = [zero; G];
        for row in 0..from.height {
            let mut row_sums = [zero; G];
            for column in 0..from.width {
                let pixel = x.add((row * from.width + column) * from.stride + channel);
                for (group, sum) in row_sums.iter_mut().enumerate() {
                    *sum = sum.add(V::load(pixel.add(group * V::LANES)));
                }
            }
            for (group, sum) in sums.iter_mut().enumerate() {
                *sum = sum.add(row_sums[group]);
            }
        }
        let count = V::splat(from.pixels() as f32);
        for (group, sum) in sums.iter().enumerate() {
            sum.div(count).store(y.add(channel + group * V::LANES));
        }
    }
}

#[cfg(test)]
mod tests;
