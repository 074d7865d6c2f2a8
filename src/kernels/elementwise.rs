//! Arithmetic on each number of a map.

use std::ops::Range;

use super::activation::{Activation, activate_rows, bounds};
use super::aligned::Aligned;
use super::batch::Batch;
use super::isa::Isa;
use super::map::Map;
use super::vector::{Vector, dispatch};
use super::view::{Source, Target};

/// The sum of two maps, then `function`.
///
/// # Panics
/// Where the maps do not fit each other or their numbers.
pub(super) fn add(
    isa: Isa,
    sources: [Source<'_>; 2],
    target: Target<'_>,
    function: Option<Activation>,
    batch: Batch,
) {
    let target = target.checked(isa, batch.items);
    for source in &sources {
        check(isa, source, &target, batch.items);
    }
    let operands = |item, pixel| sources.map(|source| (source.pixel(item, pixel), source.map.stride));
    add_blocks(isa, operands, &target, function, batch);
}

/// Adds a map to `target`, then `function`.
///
/// # Panics
/// Where the maps do not fit each other or their numbers.
pub(super) fn add_in_place(
    isa: Isa,
    source: Source<'_>,
    target: Target<'_>,
    function: Option<Activation>,
    batch: Batch,
) {
    let target = target.checked(isa, batch.items);
    check(isa, &source, &target, batch.items);
    let operands = |item, pixel| {
        let own = (target.pixel(item, pixel).cast_const(), target.map.stride);
        [(source.pixel(item, pixel), source.map.stride), own]
    };
    add_blocks(isa, operands, &target, function, batch);
}

/// Each channel multiplied by a factor that each item has for it; `factors` is items × padded channels.
///
/// # Panics
/// Where the maps or the factors do not fit each other or their numbers.
pub(super) fn multiply(isa: Isa, source: Source<'_>, factors: &[f32], target: Target<'_>, batch: Batch) {
    let target = target.checked(isa, batch.items);
    check(isa, &source, &target, batch.items);
    multiply_blocks(
        isa,
        |item, pixel| (source.pixel(item, pixel), source.map.stride),
        factors,
        &target,
        batch,
    );
}

/// [`multiply`] of `target` itself.
///
/// # Panics
/// As [`multiply`].
pub(super) fn multiply_in_place(isa: Isa, target: Target<'_>, factors: &[f32], batch: Batch) {
    let target = target.checked(isa, batch.items);
    let own = |item, pixel| (target.pixel(item, pixel).cast_const(), target.map.stride);
    multiply_blocks(isa, own, factors, &target, batch);
}

/// x·scale + shift of each channel, then a function: a batch norm that follows no convolution.
#[derive(Clone, Debug)]
pub struct Affine {
    isa: Isa,
    channels: usize,
    scale: Aligned,
    shift: Aligned,
    function: Option<Activation>,
}

impl Affine {
    /// From a scale and a shift for each channel.
    ///
    /// # Panics
    /// Where these are not equally many.
    pub fn pack(isa: Isa, scale: &[f32], shift: &[f32], function: Option<Activation>) -> Self {
        assert_eq!(scale.len(), shift.len(), "as many scales as shifts");
        let padded = |values: &[f32]| {
            let mut padded = Aligned::zeros(isa.padded(values.len()));
            padded[..values.len()].copy_from_slice(values);
            padded
        };
        Self {
            isa,
            channels: scale.len(),
            scale: padded(scale),
            shift: padded(shift),
            function,
        }
    }

    /// What follows the sum.
    pub fn function(&self) -> Option<Activation> {
        self.function
    }

    /// Of `source`, into `target`.
    ///
    /// # Panics
    /// Where the maps do not fit the channels, each other or their numbers.
    pub(super) fn run(&self, source: Source<'_>, target: Target<'_>, batch: Batch) {
        let target = target.checked(self.isa, batch.items);
        check(self.isa, &source, &target, batch.items);
        self.blocks(
            |item, pixel| (source.pixel(item, pixel), source.map.stride),
            &target,
            batch,
        );
    }

    /// Of `target` itself.
    ///
    /// # Panics
    /// Where it does not fit the channels or its numbers.
    pub(super) fn run_in_place(&self, target: Target<'_>, batch: Batch) {
        let target = target.checked(self.isa, batch.items);
        let own = |item, pixel| (target.pixel(item, pixel).cast_const(), target.map.stride);
        self.blocks(own, &target, batch);
    }

    fn blocks(&self, source: impl Fn(usize, usize) -> Operand, target: &Target<'_>, batch: Batch) {
        assert_eq!(target.map.channels, self.channels, "a map of other channels");
        for (item, pixels) in blocks(self.isa, &target.map, batch) {
            let run = Run::new(self.isa, target, item, pixels.clone(), self.function);
            let factors = [self.scale.as_ptr(), self.shift.as_ptr()];
            // SAFETY: all pixels of both maps lie in their numbers; scale and shift are as long as padded channels.
            unsafe {
                affine(self.isa, &run, source(item, pixels.start), factors);
                run.finish(self.isa, self.function);
            }
        }
    }
}

/// A first pixel, and numbers from a pixel to the next.
type Operand = (*const f32, usize);

/// Pixels one after another to write.
struct Run {
    pixels: usize,
    vectors: usize,
    to: *mut f32,
    stride: usize,
    bounds: [f32; 2],
}

impl Run {
    fn new(
        isa: Isa,
        target: &Target<'_>,
        item: usize,
        pixels: Range<usize>,
        function: Option<Activation>,
    ) -> Self {
        Self {
            pixels: pixels.len(),
            vectors: target.map.channels.div_ceil(isa.lanes()),
            to: target.pixel(item, pixels.start),
            stride: target.map.stride,
            bounds: bounds(function).unwrap_or([f32::NEG_INFINITY, f32::INFINITY]),
        }
    }

    /// The function, where it is more than bounds.
    ///
    /// # Safety
    /// The pixels lie in their numbers.
    unsafe fn finish(&self, isa: Isa, function: Option<Activation>) {
        if let (None, Some(function)) = (bounds(function), function) {
            // SAFETY: the caller's.
            unsafe { activate_rows(isa, function, self.to, [self.pixels, self.stride, self.vectors]) }
        }
    }
}

fn check(isa: Isa, source: &Source<'_>, target: &Target<'_>, items: usize) {
    source.check(isa, items);
    let shape = |map: &Map| [map.height, map.width, map.channels];
    assert_eq!(shape(&source.map), shape(&target.map), "maps of one shape");
}

/// This share's pixels of each item, in blocks that stay in the nearest cache until a function has followed.
fn blocks(isa: Isa, map: &Map, batch: Batch) -> impl Iterator<Item = (usize, Range<usize>)> {
    let (width, block) = (map.width, (4096 / isa.padded(map.channels).max(1)).max(1));
    batch.rows(map.height).flat_map(move |(item, rows)| {
        let (start, end) = (rows.start * width, rows.end * width);
        let starts = (start..end).step_by(block);
        starts.map(move |first| (item, first..(first + block).min(end)))
    })
}

fn add_blocks(
    isa: Isa,
    operands: impl Fn(usize, usize) -> [Operand; 2],
    target: &Target<'_>,
    function: Option<Activation>,
    batch: Batch,
) {
    for (item, pixels) in blocks(isa, &target.map, batch) {
        let run = Run::new(isa, target, item, pixels.clone(), function);
        // SAFETY: all pixels of all maps lie in their numbers.
        unsafe {
            sum(isa, &run, operands(item, pixels.start));
            run.finish(isa, function);
        }
    }
}

fn multiply_blocks(
    isa: Isa,
    source: impl Fn(usize, usize) -> Operand,
    factors: &[f32],
    target: &Target<'_>,
    batch: Batch,
) {
    let padded = isa.padded(target.map.channels);
    assert_eq!(
        factors.len(),
        batch.items * padded,
        "a factor for each channel of each item"
    );
    for (item, pixels) in blocks(isa, &target.map, batch) {
        let run = Run::new(isa, target, item, pixels.clone(), None);
        let own = factors[item * padded..].as_ptr();
        // SAFETY: all pixels of both maps lie in their numbers, and the item has a factor for each padded channel.
        unsafe { product(isa, &run, source(item, pixels.start), own) }
    }
}

dispatch! {
    unsafe fn sum(run: &Run, operands: [Operand; 2]) = sum_of
}

dispatch! {
    unsafe fn product(run: &Run, source: Operand, factors: *const f32) = product_of
}

dispatch! {
    unsafe fn affine(run: &Run, source: Operand, factors: [*const f32; 2]) = affine_of
}

#[inline(always)]
unsafe fn sum_of<V: Vector>(run: &Run, [(a, a_stride), (b, b_stride)]: [Operand; 2]) {
    let padded = run.vectors * V::LANES;
    // Pixels side by side are one long one.
    let (pixels, vectors) = if [a_stride, b_stride, run.stride] == [padded; 3] {
        (1, run.pixels * run.vectors)
    } else {
        (run.pixels, run.vectors)
    };
    // SAFETY: the caller's.
    unsafe {
        let [low, high] = [V::splat(run.bounds[0]), V::splat(run.bounds[1])];
        for pixel in 0..pixels {
            let (a, b) = (a.add(pixel * a_stride), b.add(pixel * b_stride));
            let to = run.to.add(pixel * run.stride);
            for at in (0..vectors).map(|vector| vector * V::LANES) {
                let sum = V::load(a.add(at)).add(V::load(b.add(at)));
                sum.at_least(low).at_most(high).store(to.add(at));
            }
        }
    }
}

#[inline(always)]
unsafe fn product_of<V: Vector>(run: &Run, (x, x_stride): Operand, factors: *const f32) {
    for pixel in 0..run.pixels {
        for at in (0..run.vectors).map(|vector| vector * V::LANES) {
            // SAFETY: the caller's.
            unsafe {
                let x = V::load(x.add(pixel * x_stride + at));
                x.mul(V::load(factors.add(at)))
                    .store(run.to.add(pixel * run.stride + at));
            }
        }
    }
}

#[inline(always)]
unsafe fn affine_of<V: Vector>(run: &Run, (x, x_stride): Operand, [scale, shift]: [*const f32; 2]) {
    // SAFETY: the caller's.
    unsafe {
        let [low, high] = [V::splat(run.bounds[0]), V::splat(run.bounds[1])];
        for pixel in 0..run.pixels {
            for at in (0..run.vectors).map(|vector| vector * V::LANES) {
                let x = V::load(x.add(pixel * x_stride + at));
                let value = x.fma(V::load(scale.add(at)), V::load(shift.add(at)));
                value
                    .at_least(low)
                    .at_most(high)
                    .store(run.to.add(pixel * run.stride + at));
            }
        }
    }
}

#[cfg(test)]
mod tests;
