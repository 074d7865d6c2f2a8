//! Layer norm over the channels of each pixel.

use super::aligned::Aligned;
use super::batch::Batch;
use super::isa::Isa;
use super::map::Map;
use super::vector::{Vector, dispatch};
use super::view::{Source, Target};

/// (x − mean)/√(variance + epsilon) · weight + bias, where mean and variance are those of the pixel's channels
/// (<https://arxiv.org/abs/1607.06450>), packed for one set of instructions.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    isa: Isa,
    channels: usize,
    weight: Aligned,
    bias: Aligned,
    /// Of the last vector: 1 for each channel, 0 for what pads them.
    mask: Aligned,
    epsilon: f32,
}

impl LayerNorm {
    /// From a weight and a bias for each channel.
    ///
    /// # Panics
    /// Where these are not equally many, or none.
    pub fn pack(isa: Isa, weight: &[f32], bias: &[f32], epsilon: f32) -> Self {
        assert!(!weight.is_empty(), "no channels");
        assert_eq!(weight.len(), bias.len(), "as many weights as biases");
        let padded = |values: &[f32]| {
            let mut padded = Aligned::zeros(isa.padded(values.len()));
            padded[..values.len()].copy_from_slice(values);
            padded
        };
        let mut mask = Aligned::zeros(isa.lanes());
        mask[..(weight.len() - 1) % isa.lanes() + 1].fill(1.0);
        Self {
            isa,
            channels: weight.len(),
            weight: padded(weight),
            bias: padded(bias),
            mask,
            epsilon,
        }
    }

    /// Of `source`, into `target`.
    ///
    /// # Panics
    /// Where the maps do not fit the channels, each other or their numbers.
    pub(super) fn run(&self, source: Source<'_>, target: Target<'_>, batch: Batch) {
        source.check(self.isa, batch.items);
        let target = target.checked(self.isa, batch.items);
        let shape = |map: &Map| [map.height, map.width, map.channels];
        assert_eq!(shape(&source.map), shape(&target.map), "maps of one shape");
        assert_eq!(source.map.channels, self.channels, "maps of other channels");
        for (item, rows) in batch.rows(source.map.height) {
            let first = rows.start * source.map.width;
            let pixels = Pixels {
                weight: self.weight.as_ptr(),
                bias: self.bias.as_ptr(),
                mask: self.mask.as_ptr(),
                channels: self.channels,
                epsilon: self.epsilon,
                from: source.pixel(item, first),
                to: target.pixel(item, first),
                strides: [source.map.stride, target.map.stride],
                count: rows.len() * source.map.width,
            };
            // SAFETY: all pixels of both maps lie in their numbers, and have the norm's channels.
            unsafe { normalize(self.isa, &pixels) };
        }
    }
}

/// Pixels one after another, and the norm's numbers.
struct Pixels {
    weight: *const f32,
    bias: *const f32,
    mask: *const f32,
    channels: usize,
    epsilon: f32,
    from: *const f32,
    to: *mut f32,
    /// Numbers from a pixel to the next.
    strides: [usize; 2],
    count: usize,
}

dispatch! {
    unsafe fn normalize(pixels: &Pixels) = normalized
}

#[inline(always)]
unsafe fn normalized<V: Vector>(pixels: &Pixels) {
    for index in 0..pixels.count {
        // SAFETY: the caller's.
        unsafe {
            let from = pixels.from.add(index * pixels.strides[0]);
            pixel::<V>(pixels, from, pixels.to.add(index * pixels.strides[1]));
        }
    }
}

/// Twice over the pixel: the variance of what differs little from its mean is lost in one pass.
#[inline(always)]
unsafe fn pixel<V: Vector>(norm: &Pixels, x: *const f32, y: *mut f32) {
    let last = norm.channels.div_ceil(V::LANES).saturating_sub(1) * V::LANES;
    let count = norm.channels as f32;
    // SAFETY: the caller's; only the last vector has lanes that pad the channels.
    unsafe {
        let mask = V::load(norm.mask);
        let (mut even, mut odd) = (V::load(x.add(last)).mul(mask), V::splat(0.0));
        let mut at = 0;
        while at < last {
            (even, odd) = (odd, even.add(V::load(x.add(at))));
            at += V::LANES;
        }
        let mean = V::splat(total(even.add(odd)) / count);
        let distance = V::load(x.add(last)).sub(mean).mul(mask);
        (even, odd) = (distance.mul(distance), V::splat(0.0));
        at = 0;
        while at < last {
            let distance = V::load(x.add(at)).sub(mean);
            (even, odd) = (odd, distance.fma(distance, even));
            at += V::LANES;
        }
        let variance = total(even.add(odd)) / count;
        let scale = V::splat(1.0 / (variance + norm.epsilon).sqrt());
        store_normed(norm, distance.mul(scale), last, y);
        at = 0;
        while at < last {
            store_normed(norm, V::load(x.add(at)).sub(mean).mul(scale), at, y);
            at += V::LANES;
        }
    }
}

#[inline(always)]
unsafe fn store_normed<V: Vector>(norm: &Pixels, scaled: V, at: usize, y: *mut f32) {
    // SAFETY: the caller's.
    unsafe {
        let (weight, bias) = (norm.weight.add(at), norm.bias.add(at));
        scaled.fma(V::load(weight), V::load(bias)).store(y.add(at));
    }
}

/// The sum of all lanes, by quarters.
#[inline(always)]
fn total<V: Vector>(vector: V) -> f32 {
    let mut lanes = [0.0f32; 16];
    // SAFETY: no vector has more lanes.
    unsafe { vector.store(lanes.as_mut_ptr()) };
    let mut quarter = [0.0f32; 4];
    for (lane, sum) in quarter.iter_mut().enumerate() {
        *sum = lanes[lane];
        for above in (lane + 4..V::LANES).step_by(4) {
            *sum += lanes[above];
        }
    }
    (quarter[0] + quarter[2]) + (quarter[1] + quarter[3])
}

#[cfg(test)]
mod tests;
