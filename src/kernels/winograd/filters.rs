//! The transform of a Winograd convolution's weights.

use super::super::vector::{Vector, dispatch};
use super::transform::{Four, Points, Two};

/// Lanes of the longest vectors.
const MOST_LANES: usize = 16;

/// Weights of one layer and the matrices they become.
#[derive(Debug)]
pub(super) struct Filters<'a> {
    /// Output × input × nine taps.
    pub(super) weight: &'a [f32],
    pub(super) out: usize,
    pub(super) channels: usize,
    /// Output channels of a matrix: whole vectors.
    pub(super) padded: usize,
    /// Matrix × block of two vectors of output channels × input channel × block, zero at first.
    pub(super) to: &'a mut [f32],
}

/// One number of a filter for each output channel of a vector.
type Lanes = [f64; MOST_LANES];

/// G g Gᵀ of every filter, in `f64` and rounded once: a vector of output channels at a time, which is what lies side by
/// side in the matrices.
#[inline(always)]
fn transform<V: Vector, P: Points<M, A>, const M: usize, const A: usize>(job: &mut Filters<'_>) {
    let Filters {
        weight,
        out,
        channels,
        padded,
        ..
    } = *job;
    for first in (0..out).step_by(V::LANES) {
        let block = first / (2 * V::LANES) * 2 * V::LANES;
        let width = (padded - block).min(2 * V::LANES);
        let filters = &weight[first * channels * 9..weight.len().min((first + V::LANES) * channels * 9)];
        for channel in 0..channels {
            let taps = taps(filters, channels, channel);
            let place = channels * block + channel * width + first - block;
            matrices::<V, P, M, A>(&taps, &mut job.to[place..], channels * padded);
        }
    }
}

/// The taps of one input channel in the filters of a vector's output channels; zeros for those that there are not.
#[inline(always)]
fn taps(filters: &[f32], channels: usize, channel: usize) -> [Lanes; 9] {
    let mut taps = [[0.0; MOST_LANES]; 9];
    for lane in 0..(filters.len() / (channels * 9)).min(MOST_LANES) {
        let filter = &filters[(lane * channels + channel) * 9..][..9];
        for tap in 0..9 {
            taps[tap][lane] = f64::from(filter[tap]);
        }
    }
    taps
}

/// G g Gᵀ, each number to the beginning of its matrix; one lies `matrix` numbers from the next.
#[inline(always)]
fn matrices<V: Vector, P: Points<M, A>, const M: usize, const A: usize>(
    taps: &[Lanes; 9],
    to: &mut [f32],
    matrix: usize,
) {
    for y in 0..A {
        let mut sums = [[0.0; MOST_LANES]; 3];
        for column in 0..3 {
            let taps = [&taps[column], &taps[3 + column], &taps[6 + column]];
            product::<V>(P::FILTER[y], taps, &mut sums[column]);
        }
        for x in 0..A {
            let mut sum = [0.0; MOST_LANES];
            product::<V>(P::FILTER[x], [&sums[0], &sums[1], &sums[2]], &mut sum);
            let to = &mut to[(y * A + x) * matrix..][..V::LANES];
            for lane in 0..V::LANES {
                to[lane] = sum[lane] as f32;
            }
        }
    }
}

#[inline(always)]
fn product<V: Vector>(factors: [f64; 3], terms: [&Lanes; 3], sum: &mut Lanes) {
    for lane in 0..V::LANES {
        sum[lane] = factors[0] * terms[0][lane] + factors[1] * terms[1][lane] + factors[2] * terms[2][lane];
    }
}

#[inline(always)]
unsafe fn two<V: Vector>(job: &mut Filters<'_>) {
    transform::<V, Two, 2, 4>(job);
}

#[inline(always)]
unsafe fn four<V: Vector>(job: &mut Filters<'_>) {
    transform::<V, Four, 4, 6>(job);
}

dispatch! {
    /// Transforms filters for squares of 2×2.
    pub(super) unsafe fn filters_two(job: &mut Filters<'_>) = two
}
dispatch! {
    /// Transforms filters for squares of 4×4.
    pub(super) unsafe fn filters_four(job: &mut Filters<'_>) = four
}
