//! Loops that do as much as the processor can, for others to time.

use std::hint::black_box;

use super::isa::Isa;
use super::vector::{Vector, dispatch};

/// Multiply-adds in registers alone, independent enough to keep every unit busy; `rounds` times some dozens. Returns
/// the floating-point operations done.
pub fn fma_burst(isa: Isa, rounds: usize) -> u64 {
    let mut sum = 0.0;
    // SAFETY: the sum is one number.
    unsafe { burst(isa, rounds, &mut sum) };
    black_box(sum);
    2 * (rounds * STEPS * CHAINS * isa.lanes()) as u64
}

/// The sum of all numbers, read as fast as memory gives them.
pub fn read_sum(isa: Isa, values: &[f32]) -> f32 {
    let mut sum = 0.0;
    // SAFETY: the slice's own length.
    unsafe { read(isa, values.as_ptr(), values.len(), &mut sum) };
    sum
}

/// Sums that do not wait for each other: as many as fit the registers of every set, more than 4 cycles of 2 each.
const CHAINS: usize = 12;

/// Steps of a round.
const STEPS: usize = 8;

dispatch! {
    unsafe fn burst(rounds: usize, to: &mut f32) = bursts
}

dispatch! {
    unsafe fn read(from: *const f32, len: usize, to: &mut f32) = reads
}

#[inline(always)]
unsafe fn bursts<V: Vector>(rounds: usize, to: &mut f32) {
    // SAFETY: the caller's. The numbers come from outside, so that nothing is calculated in advance; they stay finite.
    unsafe {
        let (factor, term) = (V::splat(black_box(0.5)), V::splat(black_box(1.0)));
        let mut sums = [V::splat(black_box(0.0)); CHAINS];
        for _ in 0..rounds {
            for _ in 0..STEPS {
                for sum in &mut sums {
                    *sum = sum.fma(factor, term);
                }
            }
        }
        *to = total(sums);
    }
}

#[inline(always)]
unsafe fn reads<V: Vector>(from: *const f32, len: usize, to: &mut f32) {
    let step = 8 * V::LANES;
    let whole = len / step * step;
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [V::splat(0.0); 8];
        for at in (0..whole / step).map(|block| block * step) {
            for (lane, sum) in sums.iter_mut().enumerate() {
                *sum = sum.add(V::load(from.add(at + lane * V::LANES)));
            }
        }
        *to = total(sums);
        for at in whole..len {
            *to += *from.add(at);
        }
    }
}

#[inline(always)]
fn total<V: Vector, const N: usize>(sums: [V; N]) -> f32 {
    let mut all = 0.0;
    for sum in &sums {
        let mut lanes = [0.0f32; 16];
        // SAFETY: no vector has more lanes.
        unsafe { sum.store(lanes.as_mut_ptr()) };
        all += lanes.iter().sum::<f32>();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_that_of_all_numbers() {
        let values: Vec<f32> = (0..1000u16).map(f32::from).collect();
        for isa in Isa::available() {
            for (from, len) in [(0, 0), (1, 1), (0, 127), (3, 128), (1, 129), (2, 998)] {
                let expected: f32 = values[from..][..len].iter().sum();
                assert_eq!(read_sum(isa, &values[from..][..len]), expected, "{isa} {len}");
            }
            let mut poisoned = values.clone();
            poisoned[777] = f32::NAN;
            assert!(read_sum(isa, &poisoned).is_nan());
        }
    }

    #[test]
    fn a_burst_counts_what_it_does() {
        for isa in Isa::available() {
            assert_eq!(fma_burst(isa, 0), 0);
            assert_eq!(fma_burst(isa, 5), 2 * 5 * 8 * 12 * isa.lanes() as u64);
        }
    }
}
